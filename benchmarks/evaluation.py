"""How long it takes to judge detections at the size of COCO's validation set, against pycocotools.

5,000 images, 80 classes, 35,000 objects and 100 detections an image: near the objects, doubled, and noise. That both
say the same is checked as well. Needs neither Ray nor MLflow nor a network.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # where the package is not installed

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from table import lay_out, show

from trainers.data.split import Split, classes_of
from trainers.metrics import CocoAP, MissRate, VocAP
from trainers.metrics.coco import to_coco
from trainers.outputs import Detections

QUICK = "--quick" in sys.argv
IMAGES, CLASSES, OBJECTS, FOUND = (50 if QUICK else 5000), 80, 7, 100
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def scene() -> Split:
    """Objects of all sizes; some classes are far more frequent than others, as in COCO."""
    rng = np.random.default_rng(0)
    often = 1 / np.arange(2, CLASSES + 2)
    rows: list[dict[str, Any]] = []
    for image in range(IMAGES):
        for category in rng.choice(CLASSES, rng.poisson(OBJECTS), p=often / often.sum()):
            w, h = np.exp(rng.uniform(np.log(8), np.log(400), 2))
            x, y = rng.uniform(0, 640 - w), rng.uniform(0, max(480 - h, 1))
            row = {"id": len(rows) + 1, "image_id": image + 1, "category_id": int(category) + 1}
            crowd = int(rng.random() < 0.01)
            rows.append({**row, "bbox": [x, y, w, h], "area": w * h * rng.uniform(0.4, 1), "iscrowd": crowd})
    coco = {
        "images": [{"id": i + 1, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in range(IMAGES)],
        "categories": [{"id": k + 1, "name": f"class {k}"} for k in range(CLASSES)],
        "annotations": rows,
    }
    return Split(coco, classes_of(coco), lambda index: torch.zeros(3, 480, 640, dtype=torch.uint8))


def guesses(split: Split) -> dict[int, Detections]:
    """What a middling detector says."""
    rng, found = torch.Generator().manual_seed(0), {}
    for index, identity in enumerate(split.ids):
        boxes, labels = split.boxes(index).repeat(3, 1)[:FOUND], split.labels(index).repeat(3)[:FOUND]
        near = boxes + torch.randn(boxes.shape, generator=rng) * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2) * 0.08
        rest = FOUND - len(near)
        corner = torch.rand(rest, 2, generator=rng) * 400
        noise = torch.cat([corner, corner + 5 + torch.rand(rest, 2, generator=rng) * 200], dim=1)
        scores = torch.cat([torch.rand(len(near), generator=rng), torch.rand(rest, generator=rng) * 0.6])
        classes = torch.cat([labels, torch.randint(0, CLASSES, (rest,), generator=rng)])
        order = scores.argsort(descending=True)
        found[identity] = Detections(torch.cat([near, noise])[order], scores[order], classes[order])
    return found


def of_pycocotools(split: Split, found: dict[int, Detections]) -> dict[str, float]:
    """As its manual says, without the files."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = split.coco
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(to_coco(split, found)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(NAMES, map(float, evaluation.stats), strict=False))


def timed(judge: Callable[[], dict[str, float]], *, rounds: int) -> tuple[float, dict[str, float]]:
    """The shortest of some runs in seconds of the processor's time, and what was said."""
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        figures = judge()
        best = min(best, time.process_time() - started)
    return best, figures


def main() -> None:
    torch.set_num_threads(1)
    split = scene()
    found = guesses(split)
    _ = split.rows, split.boxes(0)  # read once, as in a training
    slow, judged = timed(lambda: of_pycocotools(split, found), rounds=1)
    rows = [{"metric": "pycocotools", "seconds": slow, "AP": judged["AP"], "AP50": judged["AP50"]}]
    for metric in (CocoAP(), VocAP(), MissRate(), MissRate(family="citypersons", score="-MR")):
        seconds, figures = timed(partial(metric, split, found), rounds=3)
        name = f"{type(metric).__name__} {getattr(metric, 'family', '')}".strip()
        rows.append({"metric": name, "seconds": seconds, "AP": figures.get("AP", ""), "AP50": figures.get("AP50", "")})
        if isinstance(metric, CocoAP):
            furthest = max(abs(figures[name] - judged[name]) for name in NAMES)
    assert furthest < 1e-9, f"CocoAP and pycocotools differ by {furthest}"
    size = f"{IMAGES} images, {CLASSES} classes, {len(split.rows.area)} objects, {IMAGES * FOUND} detections"
    note = f"{size}; seconds of one core, the best of 3; pycocotools once"
    notes = (note, f"CocoAP and pycocotools agree within {furthest:.1g} in all six figures")
    (lay_out if QUICK else show)("evaluation", rows, *notes)


if __name__ == "__main__":
    main()
