"""GI: learn the teacher's features where student and teacher disagree most, whatever really is there.

Dai, Jiang, Wu, Bao, Wang, Liu, Zhou, "General Instance Distillation for Object Detection", CVPR 2021
https://arxiv.org/abs/2103.02340
Its instances as LD is compared with them: Zheng et al., CVPR 2022, https://arxiv.org/abs/2102.12252
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from trainers.call import Count, Fraction, Invalid, NonNegative
from trainers.distill.adapters import Adapters
from trainers.distill.cells import cells
from trainers.distill.instances import chosen, instances, pooled, relations
from trainers.distill.means import mean_count, nothing, sum_of_list_means
from trainers.distill.pair import agree, dense, same_strides
from trainers.distill.soft import full_precision
from trainers.distill.squared_errors import cell_errors, errors_by_level
from trainers.outputs import Dense, Outputs, Targets


class GI(nn.Module):
    """The instances of an image are boxes of the student or the teacher, whichever is surer, where they disagree.

    A location scores by how much the two differ in the class in which they differ most, and its box is that of the
    side that sees more of this class. After a suppression of overlapping boxes (`iou`) the `count` with the highest
    scores are the general instances. What is learnt of them:

    - `cells_weight`: the mean squared difference of the features at the cells that said them, over cells and channels.
      This is what the table of LD calls GI imitation; the weight is that of its published recipe with imitation.
    - `regions_weight`: the squared difference of the features in their boxes, 10 x 10 points of RoIAlign on the level
      that fits a box's size, a mean over points and instances and a sum over channels. The authors' code has 0.005.
    - `relation_weight`: the smooth L1 difference of the distances between each two instances, in these features,
      divided by the mean distance. The authors' code has 40. The pairs are those of a worker's own part of the batch,
      across images, as there: this part depends on how a batch is spread. Less than three instances have no relation.

    `per` says which instances compete: those of an `image` on all levels, as in the paper, or of a `batch`, where the
    code of LD chooses `count` on each level from all images of a worker, whose boxes suppress one another; then the
    means of the levels are summed, and the result depends on how a batch is spread.

    Choices: locations in the padding are none; only the 3000 locations that score highest in an image, or level, are
    looked at, as in the authors' code; with several anchors a cell the cell counts once for each that is chosen; levels
    without a positive count too, which the code of LD leaves out. The paper's third term, the predictions of the
    anchors that overlap an instance, is not here: KD and LD compare predictions. Both pyramids have one width there;
    here a 1x1 convolution a level makes up for others.
    """

    def __init__(
        self,
        student: Dense,
        teacher: Dense,
        *,
        cells_weight: NonNegative = 2.0,
        regions_weight: NonNegative = 0.0,
        relation_weight: NonNegative = 0.0,
        count: Count = 10,
        iou: Fraction = 0.3,
        per: Literal["image", "batch"] = "image",
    ) -> None:
        super().__init__()
        dense(student, teacher, "GI")
        for role, detector in (("student", student), ("teacher", teacher)):
            if not hasattr(detector, "boxes"):
                raise Invalid(
                    f"GI needs the boxes of all locations, which the {role} does not say: use detectors such as GFL, "
                    "or a loss that reads features alone, such as PKD"
                )
        same_strides(student, teacher)
        agree("number of classes", student.num_classes, teacher.num_classes)
        self.adapt = Adapters(student.channels, teacher.channels, levels=len(student.strides))
        self.cells_weight, self.regions_weight, self.relation_weight = cells_weight, regions_weight, relation_weight
        self.strides, self.anchors = student.strides, student.anchors
        self.count, self.iou, self.per = count, iou, per
        related = "the relations of" if relation_weight else ""
        self.apart = "the instances of" if per == "batch" else related  # see `build.apart`

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """-> (), already weighted."""
        features = self.adapt(student.features)
        with torch.autocast(features[0].device.type, enabled=False):
            level = cells(features, self.strides, start=0.0).level
            row, box = self.find(student, teacher, targets, level)
            parts = []
            if self.cells_weight:
                parts.append(self.cells_weight * self.of_cells(features, teacher.features, row))
            if self.regions_weight or self.relation_weight:
                image = row // (len(targets.valid) // targets.images)
                mine, taught = (
                    pooled([full_precision(x) for x in levels], box, image, self.strides)
                    for levels in (features, [x.detach() for x in teacher.features])
                )
                if self.regions_weight:
                    apart = cell_errors(mine, taught).mean((1, 2))  # (R,)
                    parts.append(self.regions_weight * apart.sum() / mean_count(len(apart), apart))
                if self.relation_weight:
                    parts.append(self.relation_weight * relations(mine.flatten(1), taught.flatten(1)))
            return torch.stack(parts).sum() if parts else nothing(features[0])

    @torch.no_grad()
    def find(self, student: Outputs, teacher: Outputs, targets: Targets, level: Tensor) -> tuple[Tensor, Tensor]:
        """The general instances. -> their rows (R,), as `Outputs.class_rows` counts, and their boxes (R, 4)."""
        score, box = instances(
            full_precision(student.class_rows()),
            full_precision(teacher.class_rows()),
            student.by.boxes(student),
            teacher.by.boxes(teacher),
        )
        every = torch.arange(len(score), device=score.device).view(targets.images, -1)
        if self.per == "image":
            groups = list(every)
        else:
            of_anchors = level.repeat_interleave(self.anchors)
            groups = [every[:, of_anchors == number].flatten() for number in range(len(self.strides))]
        inner = (group[targets.valid[group]] for group in groups)
        found = [chosen(score, box, group, count=self.count, iou=self.iou) for group in inner]
        row = torch.cat(found)
        return row, box[row]

    def of_cells(self, features: list[Tensor], taught: list[Tensor], row: Tensor) -> Tensor:
        """The mean squared difference at the cells of these rows (R,), or the sum of those of the levels. -> ()."""
        errors = errors_by_level(features, taught, row // self.anchors)
        if self.per == "image":
            errors = [torch.cat(errors)]
        return sum_of_list_means(errors) / features[0].shape[1]  # a mean over the channels too
