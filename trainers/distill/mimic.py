"""Mimic: learn the teacher's features where there may be objects, and what its second stage says there.

Li, Jin, Yan, "Mimicking Very Efficient Network for Object Detection", CVPR 2017
https://openaccess.thecvf.com/content_cvpr_2017/html/Li_Mimicking_Very_Efficient_CVPR_2017_paper.html
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainers.call import Count, Index, Invalid, NonNegative
from trainers.distill import mimic_regions as regions
from trainers.distill.box_masks import home
from trainers.distill.means import mean_count, nothing
from trainers.distill.pair import agree, chosen
from trainers.distill.soft import full_precision
from trainers.distill.two_stage import both_judge
from trainers.outputs import Detector, Outputs, Targets


class Mimic(nn.Module):
    """weight * 1 / (2 N) sum_i (1 / m_i) ||u_i - r(v_i)||^2, over N proposals of the whole batch of all workers.

    u_i are the teacher's features in region i, v_i the student's, m_i is how many values u_i has (`per_value`; else
    1), and r a 1x1 convolution for each map, which learns with the student (`adapter`). Of each image the best
    `proposals` of the `proposer`'s first stage count, at the present step. `balanced`: half of them overlap a real box
    by .5 or more; where there are too few of one kind, the other fills up.

    `source` and `levels` say which maps are compared, 0 the finest. Both networks read the same pixels of maps that
    are paired by number. Several levels are a mean of their losses. None: of a pyramid the one level that fits the
    size of each region, as in Faster R-CNN; of a backbone the last map.

    `pooling` says what u_i is: all cells that the region touches (`crop`), RoIAlign of `size` x `size` (`align`), or
    the largest values in 1, 4 and 16 parts (`pyramid_pool`). For crops the maps must have the same strides.

    `cls_weight` and `box_weight` teach the second stage, with the same proposals and the same 1 / (2 N): the squared
    distances of the K+1 class probabilities, and of the four deltas of the object class that the teacher finds
    likeliest.

    The defaults are the final version of the paper, with its features alone, on the pyramid because here that is what
    both stages read. 512 proposals were published as well. United-Perception's SampleFeature is `{proposals: 1000,
    proposer: teacher, balanced: false, pooling: align, adapter: false}`: all that the teacher proposes. The paper's
    weight is not known.
    """

    def __init__(
        self,
        student: Detector,
        teacher: Detector,
        *,
        weight: NonNegative = 1.0,
        cls_weight: NonNegative = 0.0,
        box_weight: NonNegative = 0.0,
        proposals: Count = 256,
        proposer: Literal["student", "teacher"] = "student",
        balanced: bool = True,
        source: Literal["pyramid", "backbone"] = "pyramid",
        levels: tuple[Index, ...] | None = None,
        pooling: Literal["crop", "align", "pyramid_pool"] = "crop",
        size: Count = 7,
        per_value: bool = True,
        adapter: bool = True,
    ) -> None:
        super().__init__()
        able_to_propose(student, teacher, proposer)
        self.weight, self.cls_weight, self.box_weight = weight, cls_weight, box_weight
        if cls_weight or box_weight:
            able_to_judge(student, teacher, "cls_weight" if cls_weight else "box_weight")
            agree("number of classes", student.num_classes, teacher.num_classes)
        self.proposals, self.proposer, self.balanced = proposals, proposer, balanced
        self.source, self.per_value = source, per_value
        self.by_size = source == "pyramid" and levels is None
        self.pairs = pairs(student, teacher, source, levels)
        self.strides = [(shape(student, source)[0][a], shape(teacher, source)[0][b]) for a, b in self.pairs]
        if pooling == "crop":
            agree_for_crops(self.strides)
        self.read: Any = {
            "crop": None,
            "align": partial(regions.aligned, size=size),
            "pyramid_pool": regions.pyramid_pooled,
        }[pooling]
        self.adapters = nn.ModuleList()
        if weight:
            for mine, taught in self.pairs:
                channels = shape(student, source)[1][mine], shape(teacher, source)[1][taught]
                if not adapter and channels[0] != channels[1]:
                    raise Invalid(
                        f"without an adapter the maps must have the same channels, but the student's have "
                        f"{channels[0]} and the teacher's {channels[1]}: write adapter: true",
                        ("adapter",),
                    )
                self.adapters.append(nn.Conv2d(*channels, 1) if adapter else nn.Identity())

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """-> (), already weighted; an exact zero, with a zero gradient, where nothing is proposed."""
        total = nothing(student.features[0])
        if not (self.weight or self.cls_weight or self.box_weight):
            return total
        boxes = self.choose(student if self.proposer == "student" else teacher, targets)
        if self.weight:
            total = total + self.weight * self.imitation(student, teacher, regions.numbered(boxes))
        if self.cls_weight or self.box_weight:
            total = total + self.supervision(student, teacher, boxes, targets)
        return total / (2 * mean_count(sum(map(len, boxes)), total))

    @torch.no_grad()
    def choose(self, outputs: Outputs, targets: Targets) -> list[Tensor]:
        """The proposals of each image that count. -> B of (N, 4)."""
        proposed = outputs.by.propose(outputs, targets.truth.sizes)
        return [
            regions.chosen(found, real, count=self.proposals, balanced=self.balanced)
            for found, real in zip(proposed, targets.truth.boxes, strict=True)
        ]

    def imitation(self, student: Outputs, teacher: Outputs, where: Tensor) -> Tensor:
        """sum_i (1 / m_i) ||u_i - r(v_i)||^2 over regions (R, 5), a mean over the levels if there are several. -> ()"""
        level = home(where[:, 1:], [mine for mine, _ in self.strides], inclusive=False) if self.by_size else None
        found = []
        with torch.autocast(where.device.type, enabled=False):
            for number, ((mine, taught), adapt) in enumerate(zip(self.pairs, self.adapters, strict=True)):
                here = where if level is None else where[(level == number).nonzero().squeeze(1)]
                x = full_precision(self.maps(student)[mine])
                y = full_precision(self.maps(teacher)[taught].detach())
                found.append(self.distance(x, y, here, self.strides[number], adapt))
        losses = torch.stack(found)
        return losses.sum() if self.by_size else losses.mean()

    def distance(
        self, student: Tensor, teacher: Tensor, here: Tensor, strides: tuple[int, int], adapt: nn.Module
    ) -> Tensor:
        """The sum of `imitation` for one pair of maps, (B, C, H, W) each. -> ()."""
        if self.read is None:
            mine = adapt(student)
            return regions.crop_distance(mine, teacher, here, stride=strides[0], per_value=self.per_value)
        seen, taught = (self.read(x, here, stride=s) for x, s in zip((student, teacher), strides, strict=True))
        mine = adapt(seen.unsqueeze(3)).squeeze(3)
        return regions.region_distance(mine, taught, per_value=self.per_value)

    def supervision(self, student: Outputs, teacher: Outputs, boxes: list[Tensor], targets: Targets) -> Tensor:
        """What the two second stages differ in, weighted and summed over the regions, B of (N, 4). -> ()."""
        said, taught = both_judge(student, teacher, boxes, targets.truth)
        (logits, deltas), (right, moved) = map(full_precision, said), map(full_precision, taught)
        total = nothing(logits)
        if self.cls_weight:
            total = total + self.cls_weight * regions.class_distance(logits, right)
        if self.box_weight:
            total = total + self.box_weight * regions.box_distance(deltas, moved, right)
        return total

    def maps(self, outputs: Outputs) -> list[Tensor]:
        return outputs.features if self.source == "pyramid" else outputs.maps


def able_to_propose(student: Detector, teacher: Detector, proposer: str) -> None:
    """Raise `Invalid` unless that side has a first stage."""
    mine, its = (hasattr(detector, "propose") for detector in (student, teacher))
    if not (mine if proposer == "student" else its):
        other = "teacher" if proposer == "student" else "student"
        turned = f"write proposer: {other}, " if mine or its else ""
        raise Invalid(
            f"Mimic needs proposals, and the {proposer} has none: {turned}use a two-stage detector, such as "
            "FasterRCNN, or a loss for features without proposals, such as PKD",
            ("proposer",) if turned else (),
        )


def able_to_judge(student: Detector, teacher: Detector, knob: str) -> None:
    """Raise `Invalid`, at the knob that asks for it, unless both have a second stage."""
    lacking = [role for role, one in (("student", student), ("teacher", teacher)) if not hasattr(one, "judge")]
    if lacking:
        raise Invalid(
            f"Mimic with {knob} compares second stages, and the {' and the '.join(lacking)} has none: leave {knob} "
            "out, or use two-stage detectors, such as FasterRCNN",
            (knob,),
        )


def shape(detector: Any, source: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Strides and channels of what is compared: a pyramid's levels that have a map, or the maps."""
    if source == "backbone":
        return detector.backbone.strides, detector.backbone.channels
    strides = tuple(stride for stride in detector.strides if stride <= max(detector.backbone.strides))
    return strides, (detector.channels,) * len(strides)


def pairs(student: Any, teacher: Any, source: str, levels: tuple[int, ...] | None) -> list[tuple[int, int]]:
    """The numbers of the student's and the teacher's maps that are compared."""
    mine, taught = (len(shape(detector, source)[0]) for detector in (student, teacher))
    if levels is None and source == "backbone":
        return [(mine - 1, taught - 1)]
    numbers = range(min(mine, taught))
    return [(n, n) for n in chosen("levels", levels, numbers, default=numbers)]


def agree_for_crops(strides: list[tuple[int, int]]) -> None:
    """Raise `Invalid` unless a region has as many cells on the one side as on the other."""
    for mine, taught in strides:
        if mine != taught:
            raise Invalid(
                f"crops have as many cells as their maps, but the student's have a stride of {mine} and the teacher's "
                f"of {taught}: write pooling: align, or pooling: pyramid_pool",
                ("pooling",),
            )
