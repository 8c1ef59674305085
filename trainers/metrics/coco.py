"""COCO's average precision, and COCO's format of results.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, https://arxiv.org/abs/1405.0312. The reference
implementation is pycocotools, https://github.com/ppwwyyxx/cocoapi; the figures here are its figures, see the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trainers.data.split import Split
from trainers.metrics.columns import by_label, found_in, objects_of, ranks
from trainers.metrics.curves import at_recalls, envelope
from trainers.metrics.greedy import FALSE, IGNORED, greedy
from trainers.metrics.overlaps import pairs
from trainers.outputs import Detections

EDGES = (0.0, 32.0**2, 96.0**2, 1e10)  # square pixels at which small, medium and large begin and end
SIZES = {"": (EDGES[0], EDGES[3]), "s": EDGES[0:2], "m": EDGES[1:3], "l": EDGES[2:4]}
MOST = 100  # detections of one class that count in an image
THRESHOLDS = np.linspace(0.5, 0.95, 10)


class CocoAP:
    """COCO's AP: `AP` is to be maximised."""

    score = "AP"

    def __call__(self, split: Split, found: Mapping[int, Detections], *, per_class: bool = False) -> dict[str, float]:
        return coco_ap(split, found, per_class=per_class)

    def figures(self, split: Split) -> list[str]:
        """What it can say of a split."""
        return named(sizes_in(split))


def coco_ap(split: Split, found: Mapping[int, Detections], *, per_class: bool = False) -> dict[str, float]:
    """AP over overlaps of .5 to .95, AP50 and AP75; APs, APm, APl below 32^2 pixels, between, and from 96^2.

    found: detections by image id, boxes in pixels of the original images; an image without an entry has none. Crowds
    and what is to be ignored may be found, or not, any number of times. With per_class also AP/person and AP50/person,
    by the names of the classes. A figure for objects of which there are none is left out.
    """
    sizes = sizes_in(split)
    precision = precisions(split, found, list(sizes.values()))
    figures = {f"AP{name}": precision[index] for index, name in enumerate(sizes)}
    if "AP" in figures:
        figures |= {"AP50": figures["AP"][:, 0], "AP75": figures["AP"][:, 5]}
        if per_class:
            figures |= {f"AP/{name}": figures["AP"][k] for k, name in enumerate(split.classes)}
            figures |= {f"AP50/{name}": figures["AP50"][k] for k, name in enumerate(split.classes)}
    return {name: float(part[part > -1].mean()) for name, part in figures.items() if (part > -1).any()}


def sizes_in(split: Split) -> dict[str, tuple[float, ...]]:
    """The sizes of which there are objects to be found."""
    areas = split.rows.area[~(split.rows.crowd | split.rows.ignore)]
    return {name: ends for name, ends in SIZES.items() if ((ends[0] <= areas) & (areas <= ends[1])).any()}


def named(sizes: Mapping[str, Any]) -> list[str]:
    return [f"AP{name}" for name in sizes] + (["AP50", "AP75"] if "" in sizes else [])


def precisions(split: Split, found: Mapping[int, Detections], sizes: list[tuple[float, ...]]) -> np.ndarray:
    """Of S sizes, K classes and ten overlaps the precision at 101 recalls. -> (S, K, 10, 101), -1 without objects."""
    columns, objects, area = found_in(split, found), objects_of(split), split.rows.area
    columns = columns.take(ranks(columns.group) < MOST)
    near = pairs(
        columns.group,
        columns.box,
        objects.group,
        objects.box,
        least=float(THRESHOLDS[0]),
        region=objects.ignored,
    )
    outside = np.array([(area < low) | (area > high) for low, high in sizes], dtype=bool).reshape(len(sizes), len(area))
    ignored = outside | objects.ignored
    outcome = greedy(near, columns.group, thresholds=THRESHOLDS, ignored=ignored, again=objects.ignored)
    own = columns.box[:, 2] * columns.box[:, 3]
    for setting, (low, high) in enumerate(sizes):
        outcome[setting][(outcome[setting] == FALSE) & ((own < low) | (own > high))] = IGNORED
    made = np.full((len(sizes), len(split.classes), len(THRESHOLDS), 101), -1.0)
    for label, best in enumerate(by_label(columns, len(split.classes))):
        totals = (~ignored[:, objects.label == label]).sum(1)
        for setting, threshold in np.ndindex(made.shape[0], made.shape[2]):
            if total := int(totals[setting]):
                highest = envelope(outcome[setting, threshold, best])
                made[setting, label, threshold] = at_recalls(highest, total)
    return made


def to_coco(split: Split, found: Mapping[int, Detections]) -> list[dict[str, Any]]:
    """COCO's results format with the data set's own ids, in the order of the split's images."""
    rows = []
    for image in split.ids:
        if image in found:
            here = found[image]
            columns = zip(here.boxes.tolist(), here.scores.tolist(), here.labels.tolist(), strict=True)
            for (x1, y1, x2, y2), score, label in columns:
                bbox = [x1, y1, x2 - x1, y2 - y1]
                rows.append({"image_id": image, "category_id": split.categories[label], "bbox": bbox, "score": score})
    return rows
