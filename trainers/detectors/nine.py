"""Nine anchors for each cell of a pyramid: three sides in three shapes, laid as mmdetection or torchvision lays them.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, https://arxiv.org/abs/1708.02002
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from trainers.detectors.anchors import Anchors

NINE = 9
SIDE = 4  # the smallest side in strides; the others are 2^(1/3) and 2^(2/3) times as long
RATIOS = (0.5, 1.0, 2.0)  # height / width

Conventions = Literal["mmdetection", "torchvision"]


def nine_anchors(levels: list[Tensor], strides: tuple[int, ...], conventions: Conventions) -> Anchors:
    """The anchors of maps L of (B, C, H, W), on their device: cell after cell, and of a cell shape after shape.

    mmdetection takes the sides as they are, and cell (i, j) is centred at (j * stride, i * stride). torchvision
    rounds the boxes to whole pixels and measures the strides: pixels of the padded image by cells, rounded down,
    so that a coarse level's anchors end before the image does. The padded image is as large as the finest level
    says, which is exact where it is padded to multiples of that level's stride.
    """
    return _nine(tuple((x.shape[2], x.shape[3]) for x in levels), strides, conventions, levels[0].device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is made while evaluating must serve in training
def _nine(
    cells: tuple[tuple[int, int], ...], strides: tuple[int, ...], conventions: Conventions, device: torch.device
) -> Anchors:
    measured = conventions == "torchvision"
    padded_height, padded_width = cells[0][0] * strides[0], cells[0][1] * strides[0]
    centres, boxes, sizes, ids = [], [], [], []
    for number, ((height, width), stride) in enumerate(zip(cells, strides, strict=True)):
        down, right = (padded_height // height, padded_width // width) if measured else (stride, stride)
        y = torch.arange(height, device=device, dtype=torch.float32) * down
        x = torch.arange(width, device=device, dtype=torch.float32) * right
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        centre = torch.stack([grid_x, grid_y], dim=-1).view(-1, 1, 2).expand(-1, NINE, -1)  # (H*W, 9, 2)
        shape = rounded(stride) if measured else unrounded(stride)
        centres.append(centre.flatten(0, 1))
        boxes.append((torch.cat([centre, centre], dim=2) + shape.to(device)).flatten(0, 1))
        sizes.append(torch.full((len(boxes[-1]),), float(stride), device=device))
        ids.append(torch.full((len(boxes[-1]),), number, device=device))
    counts = tuple(len(box) for box in boxes)
    return Anchors(counts, torch.cat(centres), torch.cat(sizes), torch.cat(ids), torch.cat(boxes))


def unrounded(stride: int) -> Tensor:
    """The nine boxes around the origin. -> (9, 4), shape after shape, of each shape the smallest first."""
    sides = [SIDE * stride * 2 ** (i / 3) for i in range(3)]
    corner = torch.tensor([(side / math.sqrt(r) / 2, side * math.sqrt(r) / 2) for r in RATIOS for side in sides])
    return torch.cat([-corner, corner], dim=1)


def rounded(stride: int) -> Tensor:
    """The same by torchvision, from sides of whole pixels and to corners of whole pixels. -> (9, 4)."""
    from torchvision.models.detection.anchor_utils import AnchorGenerator  # seconds to import

    sides = tuple(int(SIDE * stride * 2 ** (i / 3)) for i in range(3))
    shape: Tensor = AnchorGenerator((sides,), (RATIOS,)).cell_anchors[0]
    return shape
