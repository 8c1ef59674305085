"""Data sets by name: what this file imports is what a study can ask for.

A data set has `classes`, `fingerprint`, `train` and `val` (each a `Split`), and `metric`, which judges detections.
"""

from trainers.data.caltech import Caltech
from trainers.data.citypersons import CityPersons
from trainers.data.coco import COCO
from trainers.data.digits import Digits
from trainers.data.voc import VOC
