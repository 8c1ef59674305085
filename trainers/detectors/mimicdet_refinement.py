"""The refinement module of MimicDet: one square anchor for each cell, its score and its correction, without classes.

Lu et al., "MimicDet: Bridging the Gap Between One-Stage and Two-Stage Object Detection", ECCV 2020,
https://arxiv.org/abs/2009.11528, section 3.2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers.detectors.anchors import Anchors
from trainers.detectors.handed import handed

SIDE = 4  # an anchor's side in strides: 32 to 512 pixels on P3 to P7
SHRINK = 0.3  # the part of a box's width and height in whose middle cells are positive
PRIOR = 0.01  # the score of every anchor before training


class Refinement(nn.Module):
    """A 3x3 convolution, then a 1x1 for the score and one for the deltas: the same weights at every level."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1)
        self.score = nn.Conv2d(channels, 1, 1)
        self.delta = nn.Conv2d(channels, 4, 1)
        nn.init.kaiming_uniform_(self.conv.weight, a=1)
        nn.init.zeros_(self.conv.get_parameter("bias"))
        for conv in (self.score, self.delta):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.get_parameter("bias"))
        nn.init.constant_(self.score.get_parameter("bias"), math.log(PRIOR / (1 - PRIOR)))

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """L of (B, C, H, W) -> logits of scores, L of (B, 1, H, W), and deltas, L of (B, 4, H, W)."""
        hidden = [F.relu(self.conv(x)) for x in features]
        return [self.score(x) for x in hidden], [self.delta(x) for x in hidden]


def squares(grid: Anchors) -> Tensor:
    """The anchors' boxes. -> (A, 4)."""
    half = grid.stride[:, None] * (SIDE / 2)
    return torch.cat([grid.centre - half, grid.centre + half], dim=1)


def levels_of(boxes: Tensor, strides: tuple[int, ...]) -> Tensor:
    """The level that each box belongs to, by its scale sqrt(w * h). (N, 4) -> (N,).

    A level takes the scales from its anchors' side up to twice that side, without the latter; the finest takes all
    that are smaller, the coarsest all that are larger.
    """
    scale = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
    bounds = handed([SIDE * stride for stride in strides[1:]], boxes.device, dtype=boxes.dtype)
    return torch.bucketize(scale, bounds, right=True)


def owners(grid: Anchors, valid: Tensor, boxes: Tensor, strides: tuple[int, ...]) -> Tensor:
    """The box of an image that each anchor is to find. valid (A,), boxes (N, 4) -> (A,), 0..N-1, or -1 for none.

    A cell is positive for the boxes of its level whose shrunk middle its centre lies in. A box without such a cell
    takes the nearest one of its level, and of several boxes the smallest takes a cell.
    """
    if not len(boxes):
        return torch.full_like(grid.level, -1)
    middle, side = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    away = (grid.centre - middle[:, None]).abs()  # (N, A, 2)
    own = valid & (grid.level == levels_of(boxes, strides)[:, None])
    within = own & (away <= side[:, None] * (SHRINK / 2)).all(-1)
    nearest = away.square().sum(-1).masked_fill(~own, torch.inf).argmin(1)
    lonely = ~within.any(1, keepdim=True) & torch.zeros_like(within).scatter(1, nearest[:, None], True)
    area, owner = side.prod(1)[:, None].where(within | lonely, torch.inf).min(0)
    return owner.masked_fill(area.isinf(), -1)
