"""Imitation: learn the teacher's features as they are, everywhere or in a region. The methods that LD is compared with.

Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022, https://arxiv.org/abs/2102.12252, its
table of feature imitation and the released code. Some of these regions are from elsewhere: `all`, Romero et al.,
"FitNets: Hints for Thin Deep Nets", ICLR 2015, https://arxiv.org/abs/1412.6550; `fine`, Wang et al., "Distilling Object
Detectors with Fine-grained Feature Imitation", CVPR 2019, https://arxiv.org/abs/1906.03609.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from trainers.call import NonNegative
from trainers.distill.adapters import Adapters
from trainers.distill.box_masks import Boxes, every_box, size
from trainers.distill.cells import Cells, cells, inside, positive_cells, valid_cells
from trainers.distill.means import sum_of_list_means
from trainers.distill.near import Grid, near
from trainers.distill.pair import same_strides
from trainers.distill.squared_errors import cell_errors, errors_by_level, where
from trainers.outputs import Detector, Outputs, Targets

Where = Literal["all", "inside", "main", "fine"]


class Imitation(nn.Module):
    """weight * the sum over levels of the mean squared difference of the features in a region.

    A level's mean is over its cells of that region in the whole batch of all workers and over all channels, as in the
    released code, where these are always 256; a level without such a cell counts for nothing. `region`:

    - `all`: every cell, those of the padding too ("FitNets").
    - `inside`: cells whose centre lies in a box ("inside GT box"). A cell's centre is where its detector counts
      distances from; in the released code, and in most detectors, that is its upper left corner.
    - `main`: cells that answer for a box; in two stages, by an anchor of the first ("main region").
    - `fine`: cells whose square of 8 strides overlaps a box by more than half as much as the square that overlaps it
      most, on whatever level ("fine-grained"; the paper has the detector's anchors instead of the square).

    The defaults are those of the published recipe of LD with imitation, which has `fine`. Its code leaves out levels
    where nothing answers for a box, whatever the region; here they count. A 1x1 convolution a level makes up for
    pyramids of another width, which there are none of in that table.
    """

    features_only = True

    def __init__(
        self, student: Detector, teacher: Detector, *, weight: NonNegative = 2.0, region: Where = "fine"
    ) -> None:
        super().__init__()
        same_strides(student, teacher)
        self.adapt = Adapters(student.channels, teacher.channels, levels=len(student.strides))
        self.weight = weight
        self.region = region
        self.strides, self.start = student.strides, student.start

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """-> (), already weighted; an exact zero, with a zero gradient, where the region is empty."""
        mine = self.adapt(student.features)
        if self.region == "all":
            errors = [cell_errors(x, y).flatten() for x, y in zip(mine, teacher.features, strict=True)]
        else:
            grid = cells(student.features, self.strides, start=self.start)
            cell = where(self.within(student.features, grid, targets))
            errors = errors_by_level(mine, teacher.features, cell)
        return self.weight * sum_of_list_means(errors) / mine[0].shape[1]  # a mean over the channels too

    def within(self, features: list[Tensor], grid: Cells, targets: Targets) -> Tensor:
        """Which cells of each image are in the region. -> (B, A) bool."""
        count = len(grid.level)
        if self.region == "main":
            return positive_cells(targets, count)
        valid = valid_cells(targets, count)
        if self.region == "inside":
            return torch.stack([inside(grid, boxes) for boxes in targets.truth.boxes]) & valid
        grids = [(stride, size(x)) for stride, x in zip(self.strides, features, strict=True)]
        return fine(every_box(targets.truth), grids, valid, start=self.start)


def fine(boxes: Boxes, grids: list[Grid], valid: Tensor, *, start: float) -> Tensor:
    """Which cells overlap a box by more than half as much as the one that overlaps it most, on whatever level.

    A cell stands for the square of 8 strides around its centre, and `valid` (B, A) says which count. -> (B, A) bool.
    """
    shapes = [shape for _, shape in grids]
    levels = valid.split([height * width for height, width in shapes], dim=1)
    maps = [level.unflatten(1, shape) for level, shape in zip(levels, shapes, strict=True)]
    masks = near(boxes, grids, phi=0.5, inclusive=False, ratios=(1.0,), start=start, valid=maps)
    return torch.cat([mask.flatten(1) for mask in masks], dim=1)
