"""COCO's average precision, by the reference implementation.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, https://arxiv.org/abs/1405.0312
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from pycocotools.cocoeval import COCOeval

from trainers.data.split import Split
from trainers.outputs import Detections

EDGES = (0.0, 32.0**2, 96.0**2, 1e10)  # square pixels at which small, medium and large begin and end
SIZES = {"": (EDGES[0], EDGES[3]), "s": EDGES[0:2], "m": EDGES[1:3], "l": EDGES[2:4]}
MOST = 100  # detections of one class that count in an image


class CocoAP:
    """COCO's AP: `AP` is to be maximised."""

    score = "AP"
    figures = ("AP", *(f"AP{name}" for name in SIZES if name), "AP50", "AP75")  # all that it may say

    def __call__(self, split: Split, found: Mapping[int, Detections]) -> dict[str, float]:
        return coco_ap(split, found)


def coco_ap(split: Split, found: Mapping[int, Detections]) -> dict[str, float]:
    """AP over overlaps of .5 to .95, AP50 and AP75; APs, APm, APl below 32^2 pixels, between, and from 96^2.

    found: detections by image id, boxes in pixels of the original images; an image without an entry has none.
    A figure for objects of which there are none is left out.
    """
    objects, detections = _objects(split), to_coco(split, found)
    for number, row in enumerate(detections, start=1):
        row |= {"id": number, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
    areas = split.rows.area[~(split.rows.crowd | split.rows.ignore)]
    sizes = {name: ends for name, ends in SIZES.items() if ((ends[0] <= areas) & (areas <= ends[1])).any()}
    evaluation = COCOeval(_as_coco(split, objects), _as_coco(split, detections), "bbox")
    # What cannot change a figure is not looked at: empty images, sizes of no object, fewer detections.
    evaluation.params.imgIds = sorted({row["image_id"] for row in (*objects, *detections)})
    evaluation.params.areaRng = list(sizes.values())
    evaluation.params.maxDets = [MOST]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    # (overlaps, recalls, K, sizes), and -1 for a class that has no object of a size
    precision = evaluation.eval["precision"][..., 0]
    figures = {f"AP{name}": precision[..., index] for index, name in enumerate(sizes)}
    if "AP" in figures:
        figures |= {"AP50": figures["AP"][0], "AP75": figures["AP"][5]}
    return {name: float(part[part > -1].mean()) for name, part in figures.items()}


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


def _objects(split: Split) -> list[dict[str, Any]]:
    """What should be found. Numbered from 1: COCOeval takes an annotation 0 for no match.

    What is to be ignored is a crowd to it: found or not, and how often, makes no difference.
    """
    rows = split.rows
    columns = (rows.image, rows.category, rows.bbox, rows.area, rows.crowd | rows.ignore)
    image, category, bbox, area, crowd = (column.tolist() for column in columns)
    return [
        {"id": n, "image_id": split.ids[i], "category_id": c, "bbox": b, "area": a, "iscrowd": int(g)}
        for n, (i, c, b, a, g) in enumerate(zip(image, category, bbox, area, crowd, strict=True), start=1)
    ]


def _as_coco(split: Split, rows: list[dict[str, Any]]) -> SimpleNamespace:
    """What COCOeval asks of pycocotools' COCO object, without a file and without indices never used."""
    return SimpleNamespace(
        getImgIds=lambda: split.ids,
        getCatIds=lambda: split.categories,
        getAnnIds=lambda **_: rows,
        loadAnns=lambda same: same,
    )
