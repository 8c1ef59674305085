"""Boxes on the cells of a pyramid: the one level that a box belongs to, and the cells that boxes cover.

The cells are as in the released code of DeFeat: Guo et al., "Distilling Object Detectors via Decoupled Features", CVPR
2021, https://arxiv.org/abs/2103.14475. The level is that of Lin et al., "Feature Pyramid Networks for Object
Detection", CVPR 2017, equation 1, https://arxiv.org/abs/1612.03144
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.outputs import Truth

SIDE = 14  # strides: a box of this side up to twice of it belongs to a level; 56 pixels where a cell has 4


class Boxes(NamedTuple):
    """The real boxes of a batch, image by image."""

    box: Tensor  # (N, 4)
    image: Tensor  # (N,)
    images: int  # B

    def at(self, index: Tensor) -> Boxes:
        """These of them. (M,) -> M boxes."""
        return Boxes(self.box[index], self.image[index], self.images)


def every_box(truth: Truth) -> Boxes:
    """All boxes of all images."""
    image = [torch.full_like(box[:, 0], number, dtype=torch.long) for number, box in enumerate(truth.boxes)]
    return Boxes(torch.cat(truth.boxes), torch.cat(image), len(truth.boxes))


def by_level(boxes: Boxes, level: Tensor, levels: int) -> list[Boxes]:
    """Those of each level, given the level (N,) of each. How many they are is waited for, once."""
    counts = (level[:, None] == torch.arange(levels, device=level.device)).sum(0).tolist()
    return [boxes.at(index) for index in level.argsort(stable=True).split(counts)]


def home(box: Tensor, strides: Sequence[int], *, inclusive: bool = True) -> Tensor:
    """The level that each box belongs to. (N, 4) -> (N,) of 0..L-1.

    floor(log2(side / (14 * finest stride))), clamped. The side is the root of the area in pixels. `inclusive`: a box
    has the pixels at both its ends, as in DeFeat: one more each way than its corners are apart. With strides 4 to 64,
    as of two-stage detectors, sides below 112 belong to the finest level, those below 224 to the next, and so on. With
    strides 8 to 128, as of one-stage detectors, the number is one lower, but never below 0: so it is a level of the
    same stride. The released code has a part for these that does not run; it would keep the number.
    """
    side = (box[:, 2:] - box[:, :2] + (1 if inclusive else 0)).clamp(min=0).prod(1).sqrt()
    # A side of exactly twice as many strides must not be rounded down.
    level = ((side / (SIDE * strides[0])).log2() + 1e-6).floor()
    return level.clamp(0, len(strides) - 1).long()


def cells(box: Tensor, stride: int, shape: tuple[int, int]) -> Tensor:
    """The rectangle of cells that each box covers, on a map of this (height, width). (N, 4) -> (N, 4) long.

    x1, y1, x2, y2, the latter two exclusive: corners are rounded towards 0. A box that would have no cell gets the
    one that holds its upper left corner.
    """
    height, width = shape
    x1, y1, x2, y2 = (box / stride).long().clamp(min=0).unbind(1)
    x2, y2 = x2.clamp(max=width), y2.clamp(max=height)
    empty = (x2 <= x1) | (y2 <= y1)
    x1, y1 = x1.clamp(max=width - 1), y1.clamp(max=height - 1)
    return torch.stack([x1, y1, torch.where(empty, x1 + 1, x2), torch.where(empty, y1 + 1, y2)], dim=1)


def covered(boxes: Boxes, stride: int, shape: tuple[int, int], *, counted: Tensor | None = None) -> Tensor:
    """Which cells of a map are covered by a box. -> (B, H, W) bool.

    `counted` (N,) bool: the others are left out.
    """
    height, width = shape
    x1, y1, x2, y2 = cells(boxes.box, stride, shape).unbind(1)
    number = torch.ones_like(x1) if counted is None else counted.long()
    # A box adds one from its first row and column on, and takes it away behind its last: sums along both axes then
    # count the boxes over each cell, without a map for each box.
    change = number.new_zeros(boxes.images * (height + 1) * (width + 1))
    for x, y, sign in ((x1, y1, 1), (x2, y1, -1), (x1, y2, -1), (x2, y2, 1)):
        change.index_add_(0, (boxes.image * (height + 1) + y) * (width + 1) + x, sign * number)
    sums = change.view(boxes.images, height + 1, width + 1).cumsum(1).cumsum(2)
    return sums[:, :height, :width] > 0


def level_masks(boxes: Boxes, strides: tuple[int, ...], levels: tuple[int, ...], maps: list[Tensor]) -> list[Tensor]:
    """Of these levels, the cells covered by the boxes that belong to the level.

    `strides` are of the whole pyramid; maps (B, C, H, W), one of each of these levels -> as many (B, H, W) bool.
    """
    level = home(boxes.box, strides)
    return [
        covered(boxes, strides[number], size(x), counted=level == number)
        for number, x in zip(levels, maps, strict=True)
    ]


def stage_masks(boxes: Boxes, stride: int, finest: Tensor, maps: list[Tensor]) -> list[Tensor]:
    """The cells covered by any box: found on the finest map, which has this stride, then resized to the others.

    Maps (B, C, H, W) -> as many (B, H, W) bool; each cell takes what the nearest finest cell to its upper left says.
    """
    fine = covered(boxes, stride, size(finest))[:, None].float()
    return [F.interpolate(fine, size=size(x), mode="nearest").squeeze(1) > 0 for x in maps]


def size(features: Tensor) -> tuple[int, int]:
    """(B, C, H, W) -> (H, W)."""
    return features.shape[-2], features.shape[-1]
