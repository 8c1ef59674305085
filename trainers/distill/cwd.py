"""CWD: learn where in the image each channel of the teacher looks.

Shu, Liu, Gao, Yan, Shen, "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021
https://arxiv.org/abs/2011.13256
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.call import Index, NonNegative
from trainers.distill.adapters import Adapters
from trainers.distill.means import mean_count
from trainers.distill.pair import EVERY, agree, dense, shared_levels
from trainers.distill.soft import Temperature, full_precision
from trainers.outputs import Detector, Outputs, Targets


class CWD(nn.Module):
    """weight * the sum over levels of the divergence between the maps of the channels, each taken for a distribution.

    `source` says which maps: those of the `pyramid`, as the released recipes for detectors have it, or the class
    logits, `cls`, whose channels are classes: the paper's logits, and what the published figure of GFL distils. The
    algorithm is the same. `weight` and `temperature`, the paper's alpha and T, are those of the released recipes for
    detectors, which compare all levels; that for GFL's class logits has a weight of 5.

    Where the pyramids differ in width, a 1x1 convolution a level makes the student's as wide as the teacher's, as in
    the paper. Of class logits there must be as many. Cells of the padding count as any other.
    """

    def __init__(
        self,
        student: Detector,
        teacher: Detector,
        *,
        weight: NonNegative = 10.0,
        temperature: Temperature = 1.0,
        source: Literal["pyramid", "cls"] = "pyramid",
        levels: tuple[Index, ...] | None = None,
    ) -> None:
        super().__init__()
        self.levels = shared_levels(student, teacher, levels, default=EVERY)
        mine, theirs = student.channels, teacher.channels
        if source == "cls":
            dense(student, teacher, "CWD with source cls")
            agree("number of classes", student.num_classes, teacher.num_classes)
            mine = theirs = 0
        self.adapt = Adapters(mine, theirs, levels=len(self.levels))
        self.weight = weight
        self.temperature = temperature
        self.source = source
        self.features_only = source != "cls"

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """-> (), already weighted."""
        mine, taught = (o.cls if self.source == "cls" else o.features for o in (student, teacher))
        adapted = self.adapt([mine[level] for level in self.levels])
        losses = [
            channel_divergence(x, taught[level], temperature=self.temperature).sum()
            for x, level in zip(adapted, self.levels, strict=True)
        ]
        total = torch.stack(losses).sum()
        return self.weight * total / mean_count(targets.images, total)


def channel_divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """T^2 / C * sum_c sum_i q_ci (log q_ci - log p_ci), q and p being the softmax of channel / T over the cells i.

    (B, C, H, W) twice -> (B,), in float32 or wider, with no gradient for the teacher. A constant added to a channel
    changes nothing.
    """
    log_p = F.log_softmax(full_precision(student).flatten(2) / temperature, dim=2)
    log_q = F.log_softmax(full_precision(teacher.detach()).flatten(2) / temperature, dim=2)
    return temperature**2 * F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(2).mean(1)
