"""Adapters: convolutions that learn to turn a student's features into the teacher's, and are dropped after training.

Those of 3x3 are as in the released code of FGFI, https://github.com/twangnh/Distilling-Object-Detectors, and of DeFeat,
https://github.com/ggjy/DeFeat.pytorch
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SMALL = 1e-4  # the deviation of fresh weights


def adapter(before: int, after: int, *, relu: bool) -> nn.Module:
    """A 3x3 convolution, with or without a ReLU behind it. (B, before, H, W) -> (B, after, H, W).

    Its weights are drawn from N(0, 1), cut to what is left of a division by 2, and made small; its bias is torch's
    own. So it says next to nothing at first: the loss starts at half the teacher's mean square, and the student's
    first gradients are small too. With the ReLU, a channel whose bias is too far below 0 may stay silent.
    """
    convolution = nn.Conv2d(before, after, 3, padding=1)
    with torch.no_grad():
        convolution.weight.normal_().fmod_(2).mul_(SMALL)
    return nn.Sequential(convolution, nn.ReLU()) if relu else convolution


class Adapters(nn.ModuleList):
    """A 1x1 convolution for each level that is compared, where one pyramid is narrower or wider than the other.

    Where both have as many channels it changes nothing and has no weights.
    """

    def __init__(self, mine: int, theirs: int, *, levels: int) -> None:
        super().__init__(nn.Identity() if mine == theirs else nn.Conv2d(mine, theirs, 1) for _ in range(levels))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """L of (B, mine, H, W) -> L of (B, theirs, H, W)."""
        return [adapt(x) for adapt, x in zip(self, features, strict=True)]
