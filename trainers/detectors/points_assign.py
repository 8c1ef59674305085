"""Which cells answer for a box in the two stages of RepPoints: the nearest one, then those whose first guess overlaps.

Yang et al., "RepPoints: Point Set Representation for Object Detection", ICCV 2019, https://arxiv.org/abs/1904.11490;
the details are those of mmdetection's PointAssigner and MaxIoUAssigner.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainers.detectors.anchors import Anchors, paired_iou

SCALE = 4  # a box of this many strides belongs to a level
POSITIVE, NEGATIVE = 0.5, 0.4  # IoU; between them a cell is neither
BACKGROUND, IGNORED = -1, -2


def nearest_cells(
    grid: Anchors, strides: tuple[int, ...], valid: Tensor, boxes: Tensor, image: Tensor
) -> tuple[Tensor, Tensor]:
    """For each box the cell nearest to its centre, in widths and heights of the box, on the level of its size.

    valid (B, A); boxes (N, 4) of all images, each with the number (N,) of its image. -> rows (P,) as
    `Outputs.class_rows` counts them, rising, and the number (P,) of the box that each row answers for. A row that
    several boxes want goes to the nearest one, the first of equals; the others get none.
    """
    centre, side = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6)
    level = (side / SCALE).log2().mean(1).floor() - math.log2(strides[0])
    level = level.clamp(0, len(strides) - 1).long()
    far = ((grid.centre - centre[:, None]) / side[:, None]).square().sum(-1)  # (N, A)
    far, cell = far.masked_fill(~valid[image] | (grid.level != level[:, None]), torch.inf).min(dim=1)

    row = image * valid.shape[1] + cell
    least = far.new_full((valid.numel(),), torch.inf).scatter_reduce(0, row, far, "amin")
    box = torch.arange(len(boxes), device=boxes.device).masked_fill(far > least[row], len(boxes))
    owner = box.new_full((valid.numel(),), len(boxes)).scatter_reduce(0, row, box, "amin")
    row = (owner < len(boxes)).nonzero().squeeze(1)
    return row, owner[row]


def by_overlap(guesses: Tensor, valid: Tensor, boxes: Tensor) -> Tensor:
    """Which of one image's boxes each cell answers for, given the box that it guesses. (A, 4), (A,), (N, 4) -> (A,).

    The one that it overlaps most, if by an IoU of 0.5; below 0.4 it is BACKGROUND, between them IGNORED. But the cells
    that overlap a box most of all, if at all, answer for that box, or for the last of several such boxes.
    """
    owner = torch.full_like(valid, BACKGROUND, dtype=torch.long)
    if not len(boxes):
        return owner
    overlap = paired_iou(boxes[:, None], guesses).masked_fill(~valid, 0)  # (N, A)
    iou, number = overlap.max(dim=0)
    owner[iou >= NEGATIVE] = IGNORED
    owner = torch.where(iou >= POSITIVE, number, owner)

    most = overlap.amax(1, keepdim=True)
    best = (overlap == most) & (most > 0)
    number = torch.arange(len(boxes), device=boxes.device)[:, None].expand_as(best)
    return torch.where(best.any(0), number.masked_fill(~best, 0).amax(0), owner)
