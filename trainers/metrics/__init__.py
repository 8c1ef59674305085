"""Metrics by name. Each judges what was found in a split; `score` names the figure to maximise.

metric(split, found, per_class=False) -> figures by name, all that it can say; metric.figures(split) names them before
anything is found. Knobs that change a figure are part of a stage's identity, `score` is not.
"""

from trainers.metrics.coco import CocoAP
from trainers.metrics.missrate import MissRate
from trainers.metrics.voc import VocAP
