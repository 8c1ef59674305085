"""Where in its features a detector looks, and how all of a map bears on each of its cells: the parts of FGD.

Yang et al., "Focal and Global Knowledge Distillation for Detectors", CVPR 2022, https://arxiv.org/abs/2111.11837
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Attention(NamedTuple):
    """How much of the mean each cell and each channel gets: both have the mean 1 in each image."""

    spatial: Tensor  # (B, H, W)
    channel: Tensor  # (B, C)


def attention(features: Tensor, *, temperature: float) -> Attention:
    """The softmax of the mean magnitude over channels, and that over cells, each / T, times their number.

    (B, C, H, W) -> (B, H, W) and (B, C).
    """
    magnitude = features.abs()
    spatial = magnitude.mean(1)
    cells = spatial[0].numel()
    channel = (magnitude.mean((2, 3)) / temperature).softmax(1) * magnitude.shape[1]
    return Attention((spatial.flatten(1) / temperature).softmax(1).view(spatial.shape) * cells, channel)


def weighted_difference(student: Tensor, teacher: Tensor, theirs: Attention, mask: Tensor) -> Tensor:
    """The sum of squared differences times the attention (B, H, W), (B, C) and the mask (B, H, W).

    (B, C, H, W) twice -> ().
    """
    difference = torch.einsum("bchw,bc->bhw", (student - teacher).square(), theirs.channel)
    return (difference * theirs.spatial * mask).sum()


def attention_difference(student: Attention, teacher: Attention) -> Tensor:
    """The sum of absolute differences of both. -> ()."""
    spatial = (student.spatial - teacher.spatial).abs().sum()
    return spatial + (student.channel - teacher.channel).abs().sum()


class Context(nn.Module):
    """GCNet's block: adds to every cell one and the same vector, made of a learnt mean of all cells.

    At first that vector is 0. Features (B, C, H, W) -> the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.where = nn.Conv2d(channels, 1, 1)
        hidden = max(1, channels // 2)
        self.what = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.LayerNorm([hidden, 1, 1]),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
        )
        nn.init.kaiming_normal_(self.where.weight, nonlinearity="relu")
        nn.init.zeros_(self.where.get_parameter("bias"))
        for parameter in self.what[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        share = self.where(features).flatten(2).softmax(2)  # (B, 1, H*W)
        mean = features.flatten(2) @ share.transpose(1, 2)  # (B, C, 1)
        return features + self.what(mean[..., None])
