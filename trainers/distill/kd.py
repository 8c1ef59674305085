"""KD: learn which class the teacher sees, and which others it nearly sees, at the positives or in shared regions.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", NIPS Deep Learning Workshop 2014
https://arxiv.org/abs/1503.02531
As the head of LD uses it: Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022
https://arxiv.org/abs/2102.12252
"""

from __future__ import annotations

from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor, nn

from trainers.call import Fraction, Invalid, NonNegative
from trainers.distill.means import nothing, sum_of_means
from trainers.distill.pair import agree, can_be_valuable, dense, same_anchors, same_strides, valuable
from trainers.distill.soft import Temperature, bernoulli_kl, soft_kl
from trainers.distill.two_stage import both_judge, drawn, has_two_stages
from trainers.outputs import Detector, Outputs, Overlap, Targets, Truth

Proposer = Literal["teacher", "student"]


class KD(nn.Module):
    """weight * the mean over locations of the divergence between class logits.

    The defaults are those of the code released with LD.

    `form` says what the K logits of a location are taken for:

    - `softmax`: one distribution over the K classes (`soft_kl`), as in the released code, although sigmoids
      train the heads. It only sees differences between classes: with one class it is always zero.
    - `binary`: K yes-or-no questions (`bernoulli_kl`), what the sigmoids really mean.

    `over_classes` says what becomes of a location's terms, one for each class:

    - `mean`, as in the released code, and where `kl_div` of torch is asked for its `mean`.
    - `sum`: the divergence of the textbook and of Hinton's paper, torch's `batchmean`. It is as many times as large
      as there are logits: 80 times for the classes of COCO.

    `normaliser` says what the mean over locations is. Both count the positives of the whole batch of all workers:

    - `per_level`: the mean over the positives of each level, summed over the levels, as in the released
      code: a level with one positive weighs as much as a level with a hundred.
    - `all`: the mean over all positives.

    `vlr_weight`: of the same in LD's valuable region, which `vlr_gamma` and `vlr_overlap` bound: see `LD`. The paper
    tried it and did without, its code multiplies it by 0.

    **Two stages on both sides**, as of Faster R-CNN: then it is the K + 1 logits of the second stage, background first,
    that are compared, which a softmax trains, so one class will do. Both judge the same regions, each by its own
    features: `proposer` says whose proposals they are drawn from, and by whose rule. The teacher's are those it would
    learn from itself; the student's are drawn apart from those of its detection losses. The mean is over the regions of
    all workers, and `normaliser` is not read. Regions beside the objects are in it.

    A part of weight 0 is not computed.
    """

    def __init__(
        self,
        student: Detector,
        teacher: Detector,
        *,
        weight: NonNegative = 10.0,
        temperature: Temperature = 2.0,
        form: Literal["softmax", "binary"] = "softmax",
        over_classes: Literal["mean", "sum"] = "mean",
        normaliser: Literal["per_level", "all"] = "per_level",
        vlr_weight: NonNegative = 0.0,
        vlr_gamma: Fraction = 0.25,
        vlr_overlap: Overlap = "diou",
        proposer: Proposer = "teacher",
    ) -> None:
        super().__init__()
        self.two_stage = has_two_stages(student) and has_two_stages(teacher)
        if self.two_stage:
            check_two_stage(form, vlr_weight)
        else:
            dense(student, teacher, "KD", instead="detectors of two stages, such as FasterRCNN, on both sides")
            same_strides(student, teacher)
            same_anchors(student, teacher)
            can_be_valuable(student, vlr_weight)
        agree("number of classes", student.num_classes, teacher.num_classes)
        if form == "softmax" and student.num_classes == 1 and not self.two_stage:
            raise Invalid(
                "KD with form softmax compares classes with one another and is always zero with one class: "
                "use form binary, or leave KD out",
                ("form",),
            )
        self.weight, self.vlr_weight = weight, vlr_weight
        self.temperature = temperature
        self.kl = soft_kl if form == "softmax" else bernoulli_kl
        self.over_classes = over_classes
        self.normaliser = normaliser
        self.gamma, self.overlap = vlr_gamma, vlr_overlap
        self.proposer = proposer

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """-> (), already weighted; an exact zero, with a zero gradient, where there is nothing to learn."""
        if self.two_stage:
            return self.of_regions(student, teacher, targets.truth)
        mine, taught = student.class_rows(), teacher.class_rows()
        total = nothing(mine)
        if self.weight:
            losses = self.divergence(*(every.index_select(0, targets.row) for every in (mine, taught)))  # (P,)
            total = total + self.weight * self.mean(losses, targets.level, targets.levels)
        if self.vlr_weight:
            row = valuable(student, targets, gamma=self.gamma, overlap=self.overlap).row
            losses = self.divergence(*(every.index_select(0, row) for every in (mine, taught)))  # (V,)
            total = total + self.vlr_weight * self.mean(losses, level_of(student, row), targets.levels)
        return total

    def foresee(self, student: Outputs, targets: Targets) -> None:
        """Look for the valuable region, by shapes alone."""
        if self.vlr_weight and not self.two_stage:
            valuable(student, targets, gamma=self.gamma, overlap=self.overlap)

    def of_regions(self, student: Outputs, teacher: Outputs, truth: Truth) -> Tensor:
        """The loss of the second stages."""
        if not self.weight:
            return nothing(student.features[0])
        drawer = teacher if self.proposer == "teacher" else student
        boxes = drawn(drawer, truth, proposers=(drawer,)).boxes
        (logits, _), (taught, _) = both_judge(student, teacher, boxes, truth)
        losses = self.divergence(logits, taught)  # (R,)
        return self.weight * sum_of_means(losses, losses.new_zeros(len(losses), dtype=torch.long), groups=1)

    def divergence(self, logits: Tensor, taught: Tensor) -> Tensor:
        """Of each row. Logits (R, n) twice -> (R,)."""
        losses = self.kl(logits, taught, temperature=self.temperature)
        return losses * logits.shape[1] if self.over_classes == "sum" else losses

    def mean(self, losses: Tensor, level: Tensor, levels: int) -> Tensor:
        """The mean over rows (R,) on these levels (R,) that `normaliser` means. -> ()."""
        if self.normaliser == "per_level":
            return sum_of_means(losses, level, groups=levels)
        return sum_of_means(losses, torch.zeros_like(level), groups=1)


def check_two_stage(form: str, vlr_weight: float) -> None:
    """Raise `Invalid` for what only dense heads can do."""
    if form != "softmax":
        raise Invalid("the classes of a second stage are learnt by a softmax: KD needs form softmax there", ("form",))
    if vlr_weight:
        raise Invalid("a second stage has no valuable region: vlr_weight must be 0", ("vlr_weight",))


def level_of(outputs: Outputs, row: Tensor) -> Tensor:
    """The level of each row. (R,), as `Outputs.class_rows` counts -> (R,) of 0..L-1."""
    *ends, every = accumulate(outputs.anchors * x.shape[2] * x.shape[3] for x in outputs.cls)
    place, level = row % every, torch.zeros_like(row)
    for end in ends:  # compared with numbers of the host: a tensor made of them would be waited for
        level += place >= end
    return level
