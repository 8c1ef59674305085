"""Which objects of an image were found, and how sure a detector must be that most of what it says is right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torchvision.ops import box_iou

from trainers.data.split import Split
from trainers.outputs import Detections

OVERLAP = 0.5  # IoU with an object of the same class at which it is found
LEAST, MOST = 0.05, 50  # detections that are looked at: of at least this score, and at most so many of an image
WRONG, NEITHER = -1, -2  # instead of an object; the latter lies on what is to be ignored
THRESHOLDS = [round(0.05 * step, 2) for step in range(1, 20)]


class Box(NamedTuple):
    """A detection."""

    corners: tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the original image
    score: float  # 0..1
    label: int
    object: int  # that it found, by its place among the image's; or WRONG, or NEITHER


def matched(found: Detections, split: Split, index: int) -> list[Box]:
    """The detections in an image, best first: each takes the object that it overlaps most of those not yet taken.

    So which object one finds does not depend on the detections below it.
    """
    kept = found.scores >= LEAST
    boxes, scores, labels = (part[kept][:MOST] for part in (found.boxes, found.scores, found.labels))
    overlaps, ignored = box_iou(boxes, split.boxes(index)).tolist(), split.ignored(index)
    truth, free = split.labels(index).tolist(), set(range(len(split.labels(index))))
    made = []
    for number, (corners, score, label) in enumerate(
        zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True)
    ):
        near = [one for one in free if truth[one] == label and overlaps[number][one] >= OVERLAP]
        which = max(near, key=overlaps[number].__getitem__, default=WRONG)
        free.discard(which)
        if which == WRONG and any(_within(corners, other) >= OVERLAP for other in ignored.tolist()):
            which = NEITHER
        made.append(Box(tuple(corners), score, label, which))
    return made


def _within(box: Sequence[float], other: Sequence[float]) -> float:
    """How much of a box lies in another, 0..1."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    whole = (box[2] - box[0]) * (box[3] - box[1])
    return max(width, 0.0) * max(height, 0.0) / whole if whole > 0 else 0.0


def quality(boxes: Iterable[Box], threshold: float) -> int:
    """Objects found less wrong detections, of those that score at least so much."""
    sure = [box for box in boxes if box.score >= threshold]
    return sum(box.object >= 0 for box in sure) - sum(box.object == WRONG for box in sure)


def best_threshold(found: Iterable[Iterable[Box]], objects: int) -> float:
    """The score from which on F1 is highest over all these images; of equal ones the lowest. `objects`: in all of them,
    as many times as somebody looked for them."""
    boxes = [box for image in found for box in image if box.object != NEITHER]

    def f1(threshold: float) -> float:
        sure = [box.object >= 0 for box in boxes if box.score >= threshold]
        return 2 * sum(sure) / max(len(sure) + objects, 1)

    return max(THRESHOLDS, key=f1)
