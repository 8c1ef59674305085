"""One square anchor for each cell of a pyramid, and which cells lie in an image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from trainers.detectors.handed import handed

SIDE = 8  # an anchor's side in strides


@dataclass(frozen=True)
class Anchors:
    """The cells of all levels, in the order of one image's rows in `Outputs.class_rows`."""

    cells: tuple[int, ...]  # how many cells each level has
    centre: Tensor  # (A, 2): x, y in pixels; cell (i, j) is centred at (j * stride, i * stride)
    stride: Tensor  # (A,)
    level: Tensor  # (A,) long
    box: Tensor  # (A, 4)


def anchors(levels: list[Tensor], strides: tuple[int, ...]) -> Anchors:
    """The anchors of maps L of (B, C, H, W), on their device."""
    shapes = tuple((level.shape[2], level.shape[3]) for level in levels)
    return _anchors(shapes, strides, levels[0].device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is made while evaluating must serve in training
def _anchors(shapes: tuple[tuple[int, int], ...], strides: tuple[int, ...], device: torch.device) -> Anchors:
    centres, sizes, ids = [], [], []
    for number, ((height, width), stride) in enumerate(zip(shapes, strides, strict=True)):
        y = torch.arange(height, device=device, dtype=torch.float32) * stride
        x = torch.arange(width, device=device, dtype=torch.float32) * stride
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        centres.append(torch.stack([grid_x, grid_y], dim=-1).flatten(0, 1))
        sizes.append(torch.full((height * width,), float(stride), device=device))
        ids.append(torch.full((height * width,), number, device=device))
    centre, size = torch.cat(centres), torch.cat(sizes)
    half = size[:, None] * (SIDE / 2)
    box = torch.cat([centre - half, centre + half], dim=1)
    return Anchors(tuple(h * w for h, w in shapes), centre, size, torch.cat(ids), box)


def inside(anchors: Anchors, sizes: list[tuple[int, int]]) -> Tensor:
    """Which cells lie in the images and not in their padding. Sizes are (height, width). -> (B, A) bool.

    j * stride < width says the same as j < ceil(width / stride).
    """
    limit = handed([(width, height) for height, width in sizes], anchors.centre.device)
    return (anchors.centre < limit[:, None]).all(dim=2)


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """The IoU of each box of a with its own box of b. (..., 4) twice, with broadcasting -> (...)."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - overlap
    return overlap / union.clamp(min=1e-6)
