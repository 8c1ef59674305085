"""Which cells answer for a box in the first stage of RepPoints: the nearest one.

Yang et al., "RepPoints: Point Set Representation for Object Detection", ICCV 2019, https://arxiv.org/abs/1904.11490;
the details are those of mmdetection's PointAssigner.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainers.detectors.anchors import Anchors

SCALE = 4  # a box of this many strides belongs to a level


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
