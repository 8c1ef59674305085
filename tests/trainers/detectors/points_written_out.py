"""RepPoints cell by cell: what its three small networks guess, the boxes around points, and which cells answer."""

import math
import statistics
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from tests.trainers.detectors.scenes import STRIDES, drawer, small, truth
from tests.trainers.detectors.written_out import max_iou
from trainers.detectors import RepPoints
from trainers.outputs import Outputs

PER_IMAGE = 16 * 16 + 8 * 8 + 4 * 4


def make(**knobs: Any) -> Any:
    model = small(RepPoints, **{"channels": 16, "convs": 1, "extra": 0, **knobs})
    with torch.no_grad():
        model.head.moment_transfer.copy_(torch.tensor([0.3, -0.2]))
    return model


def said(images: int) -> Outputs:
    """Outputs that are leaves, with guesses about as large as the boxes of their levels."""
    draw = drawer(images)
    half = torch.tensor([-2.0, -2, 2, 2]).view(1, 4, 1, 1)
    box = [(x.detach() + half).requires_grad_() for x in draw(4)]
    return Outputs(draw(16), draw(3), box, own={"init": draw(18, 2.0), "points": draw(18, 2.0)})


THREE = truth([[3.0, 5, 20, 24], [4.0, 3, 61, 62]], [], [[10.0, 8, 22, 21], [30.0, 20, 61, 60], [2.0, 40, 20, 63]])


def literal_box(points: list[float], transfer: tuple[float, float] = (0.3, -0.2)) -> list[float]:
    y, x = points[0::2], points[1::2]
    right, down = statistics.stdev(x) * math.exp(transfer[0]), statistics.stdev(y) * math.exp(transfer[1])
    middle_x, middle_y = statistics.fmean(x), statistics.fmean(y)
    return [middle_x - right, middle_y - down, middle_x + right, middle_y + down]


def cells_of(side: int = 64) -> list[tuple[int, int, int]]:
    """Level, x and y in pixels of each cell."""
    return [
        (level, j * s, i * s) for level, s in enumerate(STRIDES) for i in range(side // s) for j in range(side // s)
    ]


def literal_nearest(boxes: list[list[float]], size: tuple[int, int]) -> dict[int, int]:
    """Cell -> box, one box after the other, as in mmdetection's PointAssigner."""
    owner: dict[int, int] = {}
    distance: dict[int, float] = {}
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        level = int((math.log2((x2 - x1) / 4) + math.log2((y2 - y1) / 4)) / 2)
        level = min(max(level, 2), 4) - 2
        far = {
            cell: math.hypot((x - (x1 + x2) / 2) / (x2 - x1), (y - (y1 + y2) / 2) / (y2 - y1))
            for cell, (of_level, x, y) in enumerate(cells_of())
            if of_level == level and x < size[1] and y < size[0]
        }
        cell = min(far, key=lambda cell: far[cell])
        if far[cell] < distance.get(cell, math.inf):
            owner[cell], distance[cell] = number, far[cell]
    return owner


def literal_overlap(guesses: list[list[float]], boxes: Tensor) -> list[int]:
    """What each cell answers for."""
    return max_iou(box_iou(torch.tensor(guesses), boxes).tolist(), 0.5, 0.4)


def literal_guesses(outputs: Outputs, image: int) -> list[list[float]]:
    """In pixels."""
    found = []
    for init, stride in zip(outputs.own["init"], STRIDES, strict=True):
        for i in range(init.shape[2]):
            for j in range(init.shape[3]):
                box = literal_box(init[image, :, i, j].tolist())
                found.append([(v + c) * stride for v, c in zip(box, (j, i, j, i), strict=True)])
    return found
