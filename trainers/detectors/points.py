"""Points that stand for a box: nine a cell, each so many strides down (y) and right (x) of the cell's centre.

Yang et al., "RepPoints: Point Set Representation for Object Detection", ICCV 2019, https://arxiv.org/abs/1904.11490
"""

from __future__ import annotations

import torch
from torch import Tensor

SIDE = 3  # a deformable 3x3 convolution reads the features at the points
POINTS = SIDE * SIDE
TRANSFER_GRADIENT = 0.01  # the factor of the gradient of the two learnt numbers that all boxes share


def regular_grid() -> Tensor:
    """Where an ordinary 3x3 convolution reads: y, x of each point, row after row. -> (18,)."""
    steps = torch.arange(SIDE, dtype=torch.float32) - SIDE // 2
    return torch.cartesian_prod(steps, steps).flatten()


def gradient_times(factor: float, x: Tensor) -> Tensor:
    """x itself, but with a gradient so many times as large."""
    return x.detach() + factor * (x - x.detach())


def moment_box(points: Tensor, transfer: Tensor) -> Tensor:
    """The box around the mean of the points, to exp(transfer) standard deviations (n - 1) to each side: section 3.2.

    (R, 18) or (B, 18, H, W), y before x; transfer (2,) of width and height -> (R, 4) or (B, 4, H, W), in strides from
    the centre of the cell: x1, y1, x2, y2.
    """
    y, x = points.unflatten(1, (POINTS, 2)).unbind(2)  # (B, 9, ...)
    width, height = gradient_times(TRANSFER_GRADIENT, transfer).exp().unbind()
    right, down = x.std(1) * width, y.std(1) * height
    x, y = x.mean(1), y.mean(1)
    return torch.stack([x - right, y - down, x + right, y + down], dim=1)
