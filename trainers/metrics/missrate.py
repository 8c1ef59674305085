"""The log-average miss rate of pedestrian benchmarks: Caltech's, with all its settings, and CityPersons'.

Dollar et al., "Pedestrian Detection: An Evaluation of the State of the Art", PAMI 2012,
https://doi.org/10.1109/TPAMI.2011.155, and its code, https://github.com/pdollar/toolbox. Zhang et al., "CityPersons: A
Diverse Dataset for Pedestrian Detection", CVPR 2017, https://arxiv.org/abs/1702.05693. The settings are in
`trainers.metrics.pedestrians`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from trainers.call import Invalid, alternatives
from trainers.data.split import Split
from trainers.metrics.columns import Found, Objects, by_label, found_in, objects_of, ranks
from trainers.metrics.curves import log_average_miss_rate
from trainers.metrics.greedy import greedy
from trainers.metrics.overlaps import pairs
from trainers.metrics.pedestrians import FAMILIES, Family, Setting
from trainers.outputs import Detections


class MissRate:
    """How many are missed, on average over false alarms: `MR` in the reasonable setting, `MR_all`, `MR_heavy`, ...

    They are 0..1 and the lower the better; -MR, -MR_all, ... are the same negated, so that more is better. family:
    "caltech" or "citypersons", whose settings and conventions differ. score: which negated one is to be maximised.
    """

    def __init__(self, *, score: str = "-MR", family: Literal["caltech", "citypersons"] = "caltech") -> None:
        self.score, self.family = score, family
        known = [f"-{name}" for name in FAMILIES[family].settings]
        if score not in known:
            raise Invalid(alternatives(score, known), ("score",))

    def __call__(self, split: Split, found: Mapping[int, Detections], *, per_class: bool = False) -> dict[str, float]:
        """Means over the classes that have objects.

        found: detections by image id, boxes in pixels of the original images, counted from 0 as the split's are; an
        image without an entry has none. With per_class also MR/person, MR_all/person, ..., by the names of the classes.
        A setting of no object is left out.
        """
        family = FAMILIES[self.family]
        columns, objects = found_in(split, found), objects_of(split)
        columns = columns.take(ranks(columns.group) < family.most)
        figures: dict[str, float] = {}
        own: dict[str, float] = {}
        for name, setting in family.settings.items():
            rates = miss_rates(split, columns, objects, family, setting)
            if rates:
                figures[name] = float(np.mean(list(rates.values())))
                own |= {f"{name}/{split.classes[label]}": rate for label, rate in rates.items()}
        negated = {f"-{name}": 0.0 - rate for name, rate in figures.items()}
        return figures | negated | (own if per_class else {})

    def figures(self, split: Split) -> list[str]:
        """What it can say of a split."""
        family, objects = FAMILIES[self.family], objects_of(split)
        there = [n for n, one in family.settings.items() if not family.ignored(split, objects, one).all()]
        return there + [f"-{name}" for name in there]


def miss_rates(split: Split, columns: Found, objects: Objects, family: Family, setting: Setting) -> dict[int, float]:
    """The log-average miss rate in one setting, by label; of the classes that have objects in it."""
    ignored = family.ignored(split, objects, setting)
    totals = np.bincount(objects.label[~ignored], minlength=len(split.classes))
    if not totals.any():
        return {}
    height = columns.box[:, 3]
    low, high = setting.height[0] / setting.expand, setting.height[1] * setting.expand
    columns = columns.take((low <= height) & (height < high))
    found_box, object_box = columns.box, objects.box
    if family.aspect is not None:
        found_box = slimmed(found_box, family.aspect)
        object_box = np.where(ignored[:, None], object_box, slimmed(object_box, family.aspect))
    near = pairs(columns.group, found_box, objects.group, object_box, least=setting.overlap, region=ignored)
    thresholds = np.array([setting.overlap])
    (outcome,) = greedy(near, columns.group, thresholds=thresholds, ignored=ignored[None], again=ignored)[0]
    order = by_label(columns, len(split.classes))
    return {
        int(label): log_average_miss_rate(outcome[order[label]], int(totals[label]), len(split))
        for label in np.flatnonzero(totals)
    }


def slimmed(box: np.ndarray, aspect: float) -> np.ndarray:
    """The same height and middle, and so many times as wide as high. (N, 4) of x, y, width, height -> the same."""
    x, y, width, height = box.T
    return np.stack([x + (width - aspect * height) / 2, y, aspect * height, height], axis=1)
