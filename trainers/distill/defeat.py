"""DeFeat: learn features inside and outside of objects, and classes of regions that show one or none, each by itself.

Guo, Han, Wang, Wu, Chen, Xu, Xu, "Distilling Object Detectors via Decoupled Features", CVPR 2021
https://arxiv.org/abs/2103.14475, released code https://github.com/ggjy/DeFeat.pytorch
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainers.call import Index, Invalid, NonNegative
from trainers.distill.adapters import adapter
from trainers.distill.box_masks import Boxes, every_box, level_masks, stage_masks
from trainers.distill.means import mean_count, nothing, total_of
from trainers.distill.pair import agree, chosen, same_strides, some_part
from trainers.distill.soft import Temperature, soft_kl
from trainers.distill.squared_errors import cell_errors, errors_at, where
from trainers.distill.two_stage import both_judge, drawn, region_weight
from trainers.outputs import Network, Outputs, Targets


class DeFeat(nn.Module):
    """The sum of three parts, each with weights of its own, of which 0 leaves out what it weighs:

    - the pyramid: foreground_weight * F + background_weight * G, `decoupled`, where a level's foreground are the cells
      covered by the boxes that belong to it, one level a box (`box_masks.home`). Adapters without ReLU.
    - the backbone: the same with `backbone_foreground_weight` and `backbone_background_weight` on the maps of `stages`,
      0 the finest, where the foreground of each are the cells of all boxes (`box_masks.stage_masks`). Adapters with
      ReLU. And `backbone_weight` * half the mean squared difference of whole maps, whatever they show: with 1, and
      the other two 0, a re-implementation's variant, https://github.com/ModelTC/United-Perception
    - classes of regions, for two-stage detectors: `decoupled_kl` of the teacher's own samples of its own proposals.

    The defaults are those of the paper's best figure, on COCO: 4 and 16 on pyramid and backbone, there of the two
    coarsest stages (`stages` None), and 2 and 2 for classes, as the released code has them. On VOC it takes 3 and 12
    on the pyramid. Its author got 0.1 to 0.2 points from the classes; and adapters of a large teacher's coarsest
    stages have more parameters than most students.

    `cls_positive_weight` and `cls_negative_weight` None: 2 for a pair of two-stage detectors, and 0 for others, which
    have no regions. `levels` None: all. Channels may differ, strides not.

    All cells count as foreground or background once, those in the padding too. Counts are those of the whole batch of
    all workers. What the teacher samples is drawn at random, by each worker for its own images.

    The released code takes for which regions show an object the labels of the *student's* samples: of other regions,
    drawn apart, so that a row of the one list has nothing to do with that row of the other. Its author calls it a
    mistake (issue 20 there). It is no option here: with the student's labels the rows fall into two groups at random.
    """

    def __init__(
        self,
        student: Network,
        teacher: Network,
        *,
        foreground_weight: NonNegative = 4.0,
        background_weight: NonNegative = 16.0,
        levels: tuple[Index, ...] | None = None,
        backbone_foreground_weight: NonNegative = 4.0,
        backbone_background_weight: NonNegative = 16.0,
        backbone_weight: NonNegative = 0.0,
        stages: tuple[Index, ...] | None = None,
        cls_positive_weight: NonNegative | None = None,
        cls_negative_weight: NonNegative | None = None,
        cls_positive_temperature: Temperature = 1.0,
        cls_negative_temperature: Temperature = 1.0,
    ) -> None:
        super().__init__()
        self.neck_weights = (foreground_weight, background_weight)
        self.masked_weights = (backbone_foreground_weight, backbone_background_weight)
        self.whole_weight = backbone_weight
        self.cls_weights = tuple(
            region_weight(knob, weight, student, teacher, default=2.0, loss="DeFeat")
            for knob, weight in (
                ("cls_positive_weight", cls_positive_weight),
                ("cls_negative_weight", cls_negative_weight),
            )
        )
        if None in (cls_positive_weight, cls_negative_weight):
            some_part((*self.neck_weights, *self.masked_weights, backbone_weight, *self.cls_weights), "DeFeat")
        self.temperatures = (cls_positive_temperature, cls_negative_temperature)
        self.neck, self.backbone = nn.ModuleList(), nn.ModuleList()
        self.features_only = not any(self.cls_weights)
        self.apart = "the regions drawn of" if any(self.cls_weights) else ""  # see `build.apart`
        if any(self.neck_weights):
            same_strides(student, teacher)
            self.strides = tuple(student.strides)
            numbers = range(len(self.strides))
            self.levels = chosen("levels", levels, numbers, default=numbers)
            self.neck.extend(adapter(student.channels, teacher.channels, relu=False) for _ in self.levels)
        if any((*self.masked_weights, self.whole_weight)):
            self.stages, self.finest = alike(student, teacher, stages)
            widths = list(zip(student.backbone.channels, teacher.backbone.channels, strict=True))
            self.backbone.extend(adapter(*widths[stage], relu=True) for stage in self.stages)
        if any(self.cls_weights):
            agree("number of classes", student.num_classes, teacher.num_classes)

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """-> (), already weighted."""
        boxes = every_box(targets.truth)
        parts = []
        if any(self.neck_weights):
            mine = [adapt(student.features[level]) for adapt, level in zip(self.neck, self.levels, strict=True)]
            taught = [teacher.features[level] for level in self.levels]
            masks = level_masks(boxes, self.strides, self.levels, mine)
            parts.append(decoupled(mine, taught, masks, *self.neck_weights))
        if len(self.backbone):
            parts.append(self.of_backbone(student, teacher, boxes))
        if any(self.cls_weights):
            parts.append(self.of_regions(student, teacher, targets))
        return total_of(parts, student)

    def of_backbone(self, student: Outputs, teacher: Outputs, boxes: Boxes) -> Tensor:
        """The part on the backbone's maps, already weighted. -> ()."""
        mine = [adapt(student.maps[stage]) for adapt, stage in zip(self.backbone, self.stages, strict=True)]
        taught = [teacher.maps[stage] for stage in self.stages]
        if any(self.masked_weights):
            masks = stage_masks(boxes, self.finest, student.maps[0], mine)
        else:
            masks = [torch.ones_like(x[:, 0], dtype=torch.bool) for x in mine]
        return decoupled(mine, taught, masks, *self.masked_weights, self.whole_weight)

    def of_regions(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """The part on classes of regions, already weighted. -> ()."""
        truth = targets.truth
        found = drawn(teacher, truth, proposers=(teacher,))
        (logits, _), (taught, _) = both_judge(student, teacher, found.boxes, truth)
        return decoupled_kl(
            logits, taught, torch.cat(found.labels) > 0, weights=self.cls_weights, temperatures=self.temperatures
        )


def alike(student: Network, teacher: Network, stages: tuple[int, ...] | None) -> tuple[tuple[int, ...], int]:
    """Which stages of both backbones are compared, the two coarsest if none are named, and their finest stride."""
    mine, its = tuple(student.backbone.strides), tuple(teacher.backbone.strides)
    if mine != its:
        raise Invalid(
            f"DeFeat compares the maps of the backbones, but the strides of the student's are {mine} and those of the "
            f"teacher's {its}: set backbone_foreground_weight, backbone_background_weight and backbone_weight to 0"
        )
    numbers = range(len(mine))
    return chosen("stages", stages, numbers, default=numbers[-2:]), mine[0]


def decoupled(
    student: list[Tensor],
    teacher: list[Tensor],
    masks: list[Tensor],
    inner: float,
    outer: float,
    whole: float = 0.0,
) -> Tensor:
    """inner * half the mean squared difference over cells and channels in the masks, outer * that outside, whole * all.

    L of (B, C, H, W) twice and of (B, H, W) bool -> (): the mean over the levels. A level without such cells adds
    nothing.
    """
    counts = torch.stack([torch.stack([mask.sum(), (~mask).sum()]) for mask in masks])
    counts = mean_count(torch.cat([counts, counts.sum(1, keepdim=True)], dim=1), student[0])  # (L, 3)
    parts = []
    for mine, taught, mask, count in zip(student, teacher, masks, counts, strict=True):
        fg, bg, every = (w / (2 * mine.shape[1] * n) for w, n in zip((inner, outer, whole), count, strict=True))
        if whole or (inner and outer):
            parts.append((cell_errors(mine, taught) * (torch.where(mask, fg, bg) + every)).sum())
        else:
            strength, cell = (fg, where(mask)) if inner else (bg, where(~mask))
            parts.append(strength * errors_at(mine, taught, cell).sum())
    return torch.stack(parts).mean()


def decoupled_kl(
    student: Tensor,
    teacher: Tensor,
    positive: Tensor,
    *,
    weights: tuple[float, ...],
    temperatures: tuple[float, ...],
) -> Tensor:
    """weight * T^2 * the mean over regions of KL(q || p), over those that show an object, and over the others.

    Class logits (R, K+1) twice and (R,) bool -> (). q = softmax(teacher / T) and p are distributions over all
    classes and the background, and the KL is the textbook's, a sum. `weights` and `temperatures`: of those that do,
    and of the others.
    """
    total = nothing(student)
    for mask, weight, temperature in zip((positive, ~positive), weights, temperatures, strict=True):
        if weight:
            row = where(mask)
            number = mean_count(len(row), student)
            losses = soft_kl(student[row], teacher[row], temperature=temperature) * student.shape[1]
            total = total + weight * losses.sum() / number
    return total
