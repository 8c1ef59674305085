"""Pascal VOC's average precision, as mmdetection measures it and as the development kit does.

Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010,
https://doi.org/10.1007/s11263-009-0275-4. mmdetection's conventions are those of LD's tables, whose AP is the mean over
overlaps of .5, .55, ... .95: Zheng et al., CVPR 2022, https://arxiv.org/abs/2102.12252.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

import numpy as np

from trainers.data.split import Split
from trainers.metrics.columns import Found, Objects, by_label, found_in, objects_of
from trainers.metrics.curves import area, at_eleven, envelope
from trainers.metrics.greedy import FALSE, HIT, IGNORED
from trainers.metrics.overlaps import pairs
from trainers.outputs import Detections

THRESHOLDS = np.linspace(0.5, 0.95, 10)
NAMES = [f"AP{round(100 * threshold)}" for threshold in THRESHOLDS]
SUMS = {"11": at_eleven, "area": area}
MORE_THAN_HALF = np.nextafter(0.5, 1)
Ones = Literal["AP50", "AP55", "AP60", "AP65", "AP70", "AP75", "AP80", "AP85", "AP90", "AP95"]
Score = Literal["AP", Ones, "AP50_11", "AP50_area", "AP50_devkit"]
Boxes = TypeVar("Boxes", Found, Objects)
Curve = tuple[np.ndarray, int]  # the highest precision from each hit on, and how many objects there are


class VocAP:
    """VOC's AP: AP50 to AP95 at one overlap each, and `AP`, their mean.

    points: how the curve of precision is summed: "11", at eleven recalls, as in 2007, or "area", as since 2010.
    AP50_11 and AP50_area are both. AP50_devkit is the development kit's: the right and the lower edge name the last
    pixel, so that a box is wider by one, and the overlap must be more than .5. score: what is to be maximised.
    """

    def __init__(self, *, score: Score = "AP", points: Literal["11", "area"] = "11") -> None:
        self.score, self.points = score, points

    def __call__(self, split: Split, found: Mapping[int, Detections], *, per_class: bool = False) -> dict[str, float]:
        """Means over the classes that have objects; all 0..1.

        found: detections by image id, boxes in pixels of the original images; an image without an entry has none.
        What is to be ignored, as VOC's difficult objects are, and crowds are neither to be found nor a mistake. With
        per_class also AP/person and AP50/person, by the names of the classes.
        """
        if not self.figures(split):
            return {}
        summed = SUMS[self.points]
        columns, objects = found_in(split, found), objects_of(split)
        curves = curves_of(columns, objects, classes=len(split.classes), thresholds=THRESHOLDS)
        kit = curves_of(
            wider(columns), wider(objects), classes=len(split.classes), thresholds=np.array([MORE_THAN_HALF])
        )
        own = {label: [summed(*curve) for curve in each] for label, each in curves.items()}
        ones = {name: mean(figures[t] for figures in own.values()) for t, name in enumerate(NAMES)}
        figures = {"AP": mean(ones.values()), **ones}
        for name, how in SUMS.items():
            figures[f"AP50_{name}"] = mean(how(*each[0]) for each in curves.values())
        figures["AP50_devkit"] = mean(summed(*each[0]) for each in kit.values())
        if per_class:
            figures |= {f"AP/{split.classes[label]}": mean(each) for label, each in own.items()}
            figures |= {f"AP50/{split.classes[label]}": each[0] for label, each in own.items()}
        return figures

    def figures(self, split: Split) -> list[str]:
        """What it can say of a split."""
        nothing = (split.rows.crowd | split.rows.ignore).all()
        return [] if nothing else ["AP", *NAMES, "AP50_11", "AP50_area", "AP50_devkit"]


def curves_of(columns: Found, objects: Objects, *, classes: int, thresholds: np.ndarray) -> dict[int, list[Curve]]:
    """The curve of each threshold, by label; of the classes that have objects."""
    outcome = first_come(columns, objects, thresholds)
    totals = np.bincount(objects.label[~objects.ignored], minlength=classes)
    order = by_label(columns, classes)
    return {
        int(label): [(envelope(one[order[label]]), int(totals[label])) for one in outcome]
        for label in np.flatnonzero(totals)
    }


def first_come(columns: Found, objects: Objects, thresholds: np.ndarray) -> np.ndarray:
    """What becomes of each detection. -> (T, N) uint8: FALSE, HIT or IGNORED.

    Each asks for the object that it overlaps most, found or not, by at least the threshold (T,); the best that asks
    for an object finds it. Of objects that it overlaps alike it asks for one that is not ignored, the first of them.
    """
    region = np.zeros(len(objects.group), dtype=bool)
    near = pairs(columns.group, columns.box, objects.group, objects.box, least=float(thresholds.min()), region=region)
    order = np.lexsort((-near.object, ~objects.ignored[near.object], near.overlap, near.found))
    last = np.flatnonzero(np.diff(near.found, append=-1))  # of each detection, once they are in this order
    asks, wanted, overlap = (column[order][last] for column in near)
    outcome = np.full((len(thresholds), len(columns.group)), FALSE, dtype=np.uint8)
    for one, threshold in zip(outcome, thresholds, strict=True):
        enough = overlap >= threshold
        one[asks[enough & objects.ignored[wanted]]] = IGNORED
        found = np.flatnonzero(enough & ~objects.ignored[wanted])
        one[asks[found[np.unique(wanted[found], return_index=True)[1]]]] = HIT
    return outcome


def wider(boxes: Boxes) -> Boxes:
    """The same with each box wider and higher by a pixel."""
    return boxes._replace(box=boxes.box + np.array([0.0, 0.0, 1.0, 1.0]))


def mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
