"""PKD: learn the pattern of the teacher's features, whatever their magnitude.

Cao, Zhang, Xu, Zhang, Li, Yin, Chen, "PKD: General Distillation Framework for Object Detectors via Pearson
Correlation Coefficient", NeurIPS 2022, https://arxiv.org/abs/2207.02039
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.call import Index, NonNegative
from trainers.distill.pair import agree, chosen
from trainers.distill.soft import full_precision
from trainers.outputs import Detector, Outputs, Targets

EPS = 1e-6  # added to a standard deviation


class PKD(nn.Module):
    """weight * the sum over pyramid levels of half the mean squared difference of standardised features.

    `levels` are numbers of pyramid levels, 0 the finest; they are paired by number, whatever their strides, so that
    P2 of a two-stage teacher teaches P3 of a one-stage student. None: the first four, or as many as both have (P7 of
    a one-stage and the pooled level of a two-stage detector are left out). Where the two maps differ in size, that of
    `resize` is resized. No masks, no adapters; heads are not read, so any detector may teach any other.

    The statistics are those of each worker's own part of the batch, as in the released code: unlike LD and KD, this
    loss depends on how a batch is spread.
    """

    features_only = True
    apart = "the statistics of"  # see `build.apart`

    def __init__(
        self,
        student: Detector,
        teacher: Detector,
        *,
        weight: NonNegative = 10.0,
        levels: tuple[Index, ...] | None = None,
        resize: Literal["student", "teacher"] = "student",
    ) -> None:
        super().__init__()
        agree("channels of the pyramid", student.channels, teacher.channels)
        both = min(len(student.strides), len(teacher.strides))
        self.levels = chosen("levels", levels, range(both), default=range(min(4, both)))
        self.weight = weight
        self.resize = resize

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """-> (), already weighted."""
        losses = []
        for level in self.levels:
            mine, taught = full_precision(student.features[level]), full_precision(teacher.features[level].detach())
            if mine.shape[-2:] != taught.shape[-2:]:
                if self.resize == "student":
                    mine = resized(mine, like=taught)
                else:
                    taught = resized(taught, like=mine)
            losses.append(decorrelation(mine, taught))
        return self.weight * torch.stack(losses).sum()


def decorrelation(student: Tensor, teacher: Tensor) -> Tensor:
    """Half the mean squared difference of features that are standardised channel by channel.

    (B, C, H, W) twice -> (). With m = B * H * W values a channel, this is (m - 1) / m * the mean over channels of
    1 - r, r being Pearson's correlation coefficient: equations 6 and 7 there. 0: the same pattern; about 1: none.
    """
    return (standardised(student) - standardised(teacher)).square().mean() / 2


def standardised(features: Tensor) -> Tensor:
    """Zero mean and unit (unbiased) variance of each channel over the whole batch. (B, C, H, W) -> the same."""
    deviation, mean = moments(features)
    return (features - mean) / (deviation + EPS)


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviation (unbiased) and mean of each channel over the whole batch. (B, C, H, W) -> (1, C, 1, 1) twice.

    A single value has a deviation of 0, and not none.
    """
    several = features[:, 0].numel() > 1
    return torch.std_mean(features, dim=(0, 2, 3), keepdim=True, correction=int(several))


def resized(features: Tensor, *, like: Tensor) -> Tensor:
    """Bilinearly, to the height and width of another map."""
    return F.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=False)
