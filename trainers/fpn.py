"""The feature pyramid of a one-stage detector.

Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, https://arxiv.org/abs/1612.03144
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn
from torch.nn import functional as F


class Backbone(Protocol):
    """What a detector knows of its backbone."""

    channels: tuple[int, ...]  # of each map, finest first
    strides: tuple[int, ...]  # pixels a cell; each twice the one before

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Images of 0..1, (B, 3, H, W) -> the maps."""

    def freeze(self, stages: int) -> None:
        """The stem and this many stages keep weights and statistics."""

    def fix_norm(self) -> None:
        """Batch norms keep their running statistics."""


class FPN(nn.Module):
    """Maps of `channels` each, and `extra` coarser ones, each convolved from the one before.

    No norm and no activation anywhere, not even before the extra levels: so GFL and ATSS have it.
    """

    def __init__(self, channels_in: tuple[int, ...], *, channels: int = 256, extra: int = 2) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in channels_in)
        self.outputs = nn.ModuleList(nn.Conv2d(channels, channels, 3, 1, 1) for _ in channels_in)
        self.extras = nn.ModuleList(nn.Conv2d(channels, channels, 3, 2, 1) for _ in range(extra))
        for name, parameter in self.named_parameters():
            (nn.init.zeros_ if name.endswith("bias") else nn.init.xavier_uniform_)(parameter)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps of a backbone, finest first -> pyramid, finest first; any size, odd ones too."""
        merged = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        for i in range(len(merged) - 1, 0, -1):
            size = merged[i - 1].shape[-2:]
            merged[i - 1] = merged[i - 1] + F.interpolate(merged[i], size=size, mode="nearest")
        pyramid = [output(x) for output, x in zip(self.outputs, merged, strict=True)]
        for extra in self.extras:
            pyramid.append(extra(pyramid[-1]))
        return pyramid
