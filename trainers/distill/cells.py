"""The cells of a pyramid: where they lie in an image, and which of them a box concerns."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from trainers.outputs import Targets


class Cells(NamedTuple):
    """Level after level, row after row: the A cells of one image."""

    centre: Tensor  # (A, 2): x, y in pixels of the padded batch
    stride: Tensor  # (A,)
    level: Tensor  # (A,)


def cells(levels: list[Tensor], strides: tuple[int, ...], *, start: float) -> Cells:
    """Those of maps L of (B, C, H, W), on their device. `start`: where in a cell its centre is, as in `Detector`."""
    shapes = tuple((level.shape[2], level.shape[3]) for level in levels)
    return _cells(shapes, strides, start, levels[0].device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is made while evaluating must serve in training
def _cells(shapes: tuple[tuple[int, int], ...], strides: tuple[int, ...], start: float, device: torch.device) -> Cells:
    centres, sizes, numbers = [], [], []
    for number, ((height, width), stride) in enumerate(zip(shapes, strides, strict=True)):
        y, x = (torch.arange(n, device=device, dtype=torch.float32) + start for n in (height, width))
        centres.append(torch.cartesian_prod(y, x).flip(1).view(-1, 2) * stride)
        sizes.append(torch.full((height * width,), float(stride), device=device))
        numbers.append(torch.full((height * width,), number, device=device))
    return Cells(torch.cat(centres), torch.cat(sizes), torch.cat(numbers))


def inside(grid: Cells, boxes: Tensor) -> Tensor:
    """Which cells have their centre in one of the boxes (N, 4), and not on its edge. -> (A,) bool."""
    x, y = grid.centre.unbind(1)
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
    return ((x > x1) & (x < x2) & (y > y1) & (y < y2)).any(0)


def valid_cells(targets: Targets, count: int) -> Tensor:
    """Which of the `count` cells of each image do not lie in the padding. -> (B, count) bool."""
    return targets.valid.view(targets.images, count, -1).any(2)


def positive_cells(targets: Targets, count: int) -> Tensor:
    """Which of the `count` cells of each image answer for a box with one of their anchors. -> (B, count) bool."""
    found = torch.zeros_like(targets.valid).index_fill(0, targets.row, True)
    return found.view(targets.images, count, -1).any(2)
