"""KD: learn which class the teacher sees, and which others it nearly sees, at the positive locations.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", NIPS Deep Learning Workshop 2014
https://arxiv.org/abs/1503.02531
As the head of LD uses it: Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022
https://arxiv.org/abs/2102.12252
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from trainers import workers
from trainers.distill.pair import agree, dense
from trainers.distill.soft import Temperature, bernoulli_kl, soft_kl
from trainers.outputs import Detector, Outputs, Targets
from trainers.spec import Invalid, NonNegative


class KD(nn.Module):
    """weight * the mean over positive locations of the divergence between class logits.

    The defaults are those of the code released with LD.

    `form` says what the K logits of a location are taken for:

    - `softmax`: one distribution over the K classes (`soft_kl`), as in the released code, although sigmoids
      train the heads. It only sees differences between classes: with one class it is always zero.
    - `binary`: K yes-or-no questions (`bernoulli_kl`), what the sigmoids really mean.

    `normaliser` says what a mean is. Both count the positives of the whole batch of all workers:

    - `per_level`: the mean over the positives of each level, summed over the levels, as in the released
      code: a level with one positive weighs as much as a level with a hundred.
    - `all`: the mean over all positives.
    """

    def __init__(
        self,
        student: Detector,
        teacher: Detector,
        *,
        weight: NonNegative = 10.0,
        temperature: Temperature = 2.0,
        form: Literal["softmax", "binary"] = "softmax",
        normaliser: Literal["per_level", "all"] = "per_level",
    ) -> None:
        super().__init__()
        dense(student, teacher, "KD")
        agree("strides", student.strides, teacher.strides)
        agree("number of classes", student.num_classes, teacher.num_classes)
        if form == "softmax" and student.num_classes == 1:
            raise Invalid(
                "KD with form softmax compares classes with one another and is always zero with one class: "
                "use form binary, or leave KD out",
                ("form",),
            )
        self.weight = weight
        self.temperature = temperature
        self.divergence = soft_kl if form == "softmax" else bernoulli_kl
        self.normaliser = normaliser

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """-> (), already weighted; an exact zero, with a zero gradient, without positives."""
        logits, taught = student.class_rows()[targets.row], teacher.class_rows()[targets.row]  # (P, K)
        losses = self.divergence(logits, taught, temperature=self.temperature)  # (P,)
        if self.normaliser == "per_level":
            return self.weight * sum_of_means(losses, targets.level, groups=targets.levels)
        return self.weight * sum_of_means(losses, torch.zeros_like(targets.level), groups=1)


def sum_of_means(losses: Tensor, group: Tensor, *, groups: int) -> Tensor:
    """The mean of each group over all workers, summed over the groups. (P,), (P,) of 0..groups-1 -> ().

    A group is divided by its size on the average worker: averaged by DDP that is a mean over all of them.
    Rows are divided before they are summed, so that an empty group is no 0 / 0.
    """
    sizes = workers.mean(losses.new_zeros(groups).index_add(0, group, torch.ones_like(losses)))
    return (losses / sizes[group]).sum()
