"""FGFI: learn features where anchors lie near an object, which says more of it than the middle of its box does.

Wang, Yuan, Zhang, Feng, "Distilling Object Detectors with Fine-grained Feature Imitation", CVPR 2019
https://arxiv.org/abs/1906.03609, released code https://github.com/twangnh/Distilling-Object-Detectors
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from trainers.call import Index, NonNegative
from trainers.distill.adapters import adapter
from trainers.distill.box_masks import Boxes, by_level, every_box, home, size
from trainers.distill.means import mean_count, total_of
from trainers.distill.near import near
from trainers.distill.pair import chosen, same_strides
from trainers.distill.squared_errors import errors_at, where
from trainers.outputs import Detector, Outputs, Targets

# With 1 or more no anchor would be near enough.
Part = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class FGFI(nn.Module):
    """weight / (2 * N) * the sum of squared differences over the N cells near objects, and over their channels.

    A cell is near an object if one of its anchors overlaps the box by more than `phi` times what the best anchor
    does: see `near`. N counts cells and not their channels, so the loss is as many times larger as there are channels
    than one such as DeFeat's: hence the small `weight`. Adapters with a ReLU.

    The defaults are those of the paper, which has no pyramid. On a pyramid:

    - `assigned`: a box is compared with the anchors of its one level only (`box_masks.home`), as the authors
      advise. Otherwise, as on a single map, with those of all `levels`, and the best is the best of them all.
    - `normaliser`: `all` takes the formula by the letter, with the cells of all levels. `per_level` takes it level by
      level and sums: a level with few cells near objects weighs as much as one with many.

    The authors left imitation out of the first 400 steps. Anchors are laid as a first stage lays them, whatever the
    detectors have: three shapes a cell, 8 strides large, also in the padding and over its edge. `inclusive` measures
    boxes as the released code does, with the pixels at both ends: a side is one pixel longer than its corners are
    apart, which matters for small boxes. Counts are those of the whole batch of all workers.
    """

    features_only = True

    def __init__(
        self,
        student: Detector,
        teacher: Detector,
        *,
        weight: NonNegative = 0.01,
        phi: Part = 0.5,
        levels: tuple[Index, ...] | None = None,
        assigned: bool = True,
        normaliser: Literal["all", "per_level"] = "all",
        inclusive: bool = True,
    ) -> None:
        super().__init__()
        same_strides(student, teacher)
        self.weight = weight
        self.phi = phi
        self.assigned, self.normaliser, self.inclusive = assigned, normaliser, inclusive
        self.strides = tuple(student.strides)
        numbers = range(len(self.strides))
        self.levels = chosen("levels", levels, numbers, default=numbers)
        made = self.levels if weight else ()
        self.adapters = nn.ModuleList(adapter(student.channels, teacher.channels, relu=True) for _ in made)

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """-> (), already weighted; an exact zero without boxes."""
        if not self.weight:
            return total_of([], student)
        mine = [adapt(student.features[level]) for adapt, level in zip(self.adapters, self.levels, strict=True)]
        taught = [teacher.features[level] for level in self.levels]
        masks = self.masks(every_box(targets.truth), mine)
        errors = [errors_at(s, t, where(mask)).sum() for s, t, mask in zip(mine, taught, masks, strict=True)]
        counts = torch.stack([mask.sum() for mask in masks])  # (L,)
        if self.normaliser == "all":
            counts = counts.sum().expand_as(counts)
        return self.weight * (torch.stack(errors) / (2 * mean_count(counts, errors[0]))).sum()

    def masks(self, boxes: Boxes, maps: list[Tensor]) -> list[Tensor]:
        """Which cells of these levels are near an object. L of (B, C, H, W) -> L of (B, H, W) bool."""
        grids = [(self.strides[level], size(x)) for level, x in zip(self.levels, maps, strict=True)]
        if not self.assigned:
            return near(boxes, grids, phi=self.phi, inclusive=self.inclusive)
        of_level = by_level(boxes, home(boxes.box, self.strides), len(self.strides))
        masks = []
        for number, grid in zip(self.levels, grids, strict=True):
            masks += near(of_level[number], [grid], phi=self.phi, inclusive=self.inclusive)
        return masks
