"""Data sets by name: what this file imports is what a study can ask for.

A data set has `classes`, `fingerprint`, `train`, `val` and `test` (each a `Split`; `test`, on which nothing is
selected, may be None), and `metric`, which judges detections. Its static `names` says for the same arguments what
`classes` will be, and reads no file. One that is read from files has them under its argument `root`, and its static
`files` names for the same arguments those that it reads, from root on.
"""

from trainers.data.caltech import Caltech
from trainers.data.citypersons import CityPersons
from trainers.data.coco import COCO
from trainers.data.digits import Digits
from trainers.data.voc import VOC
