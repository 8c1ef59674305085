"""Cells near objects: those with an anchor that overlaps an object nearly as much as any anchor does.

Wang, Yuan, Zhang, Feng, "Distilling Object Detectors with Fine-grained Feature Imitation", CVPR 2019
https://arxiv.org/abs/1906.03609
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.distill.box_masks import Boxes

RATIOS = (0.5, 1.0, 2.0)  # height / width of the anchors of a cell
SIDE = 8  # the root of an anchor's area, in strides

Grid = tuple[int, tuple[int, int]]  # the stride and the (height, width) of a level


def near(
    boxes: Boxes,
    grids: list[Grid],
    *,
    phi: float,
    inclusive: bool,
    ratios: tuple[float, ...] = RATIOS,
    start: float = 0.0,
    valid: list[Tensor] | None = None,
) -> list[Tensor]:
    """The cells with an anchor whose IoU with a box is over phi times the highest that any anchor has with that box.

    `valid`: of each level (B, H, W) bool, cells whose anchors count. -> as many (B, H, W) bool. A box that no anchor
    touches has no cell.
    """
    found = [overlaps(boxes.box, *grid, inclusive=inclusive, ratios=ratios, start=start) for grid in grids]
    if valid is not None:
        found = [iou * inner[boxes.image][:, None] for iou, inner in zip(found, valid, strict=True)]
    best = torch.stack([iou.flatten(1).amax(1) for iou in found]).amax(0)[:, None, None, None]  # (N, 1, 1, 1)
    masks = []
    for iou, (_, shape) in zip(found, grids, strict=True):
        over = (iou > phi * best).any(1)  # (N, H, W)
        masks.append(over.new_zeros(boxes.images, *shape, dtype=torch.int).index_add(0, boxes.image, over.int()) > 0)
    return masks


def overlaps(
    box: Tensor,
    stride: int,
    shape: tuple[int, int],
    *,
    inclusive: bool,
    ratios: tuple[float, ...] = RATIOS,
    start: float = 0.0,
) -> Tensor:
    """The IoU of each box with every anchor of a map of this (height, width). (N, 4) -> (N, a, H, W).

    The a anchors of cell (i, j), one of each ratio, are centred at ((j + start) * stride, (i + start) * stride).
    `inclusive`: sides are one pixel longer than their corners are apart.
    """
    more = 1 if inclusive else 0
    low_x, low_y, high_x, high_y = box[:, :, None].unbind(1)  # (N, 1) each
    area = (high_x - low_x + more) * (high_y - low_y + more)
    y, x = ((torch.arange(number, device=box.device, dtype=box.dtype) + start) * stride for number in shape)
    found = []
    for ratio in ratios:
        width, height = SIDE * stride / ratio**0.5, SIDE * stride * ratio**0.5
        # How much of an anchor's sides lies in the box: those of a column have one part in common, so of a row.
        across = (torch.minimum(high_x, x + width / 2) - torch.maximum(low_x, x - width / 2) + more).clamp(min=0)
        along = (torch.minimum(high_y, y + height / 2) - torch.maximum(low_y, y - height / 2) + more).clamp(min=0)
        both = along[:, :, None] * across[:, None, :]  # (N, H, W)
        found.append(both / (area[:, :, None] + (width + more) * (height + more) - both))
    return torch.stack(found, dim=1)
