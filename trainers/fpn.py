"""Feature pyramids: from the maps of a backbone to levels of one width.

Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, https://arxiv.org/abs/1612.03144
"""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from trainers.norm import group_norm


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


MAPS = 3  # of the backbone's maps, the coarsest, that a one-stage detector reads: C3 to C5 of strides 8 to 32


def levels(strides: tuple[int, ...], extra: int) -> tuple[int, ...]:
    """The strides of a pyramid on maps of these strides."""
    return (*strides, *(strides[-1] * 2**i for i in range(1, extra + 1)))


Extra = Literal["output", "input", "pool"]


class FPN(nn.Module):
    """A level for each map, and `extra` coarser ones.

    The extra levels are 3x3 convolutions of stride 2, each of the level before; the first is of the coarsest level
    (`output`, as in GFL, ATSS and FCOS) or of the backbone's coarsest map (`input`, as in RetinaNet). `relu` puts one
    before each of them but the first (FCOS, MimicDet and torchvision). Or they only take every other cell of the level
    before (`pool`, Faster R-CNN). There is no norm and no activation elsewhere, unless `norm` is `group` (RepPoints).
    """

    def __init__(
        self,
        channels_in: tuple[int, ...],
        *,
        channels: int = 256,
        extra: int = 2,
        extra_from: Extra = "output",
        relu: bool = False,
        norm: Literal["none", "group"] = "none",
    ) -> None:
        super().__init__()

        def conv(before: int, size: int, stride: int = 1) -> nn.Module:
            if norm == "none":
                return nn.Conv2d(before, channels, size, stride, size // 2)
            bare = nn.Conv2d(before, channels, size, stride, size // 2, bias=False)
            return nn.Sequential(bare, group_norm(channels))

        self.laterals = nn.ModuleList(conv(c, 1) for c in channels_in)
        self.outputs = nn.ModuleList(conv(channels, 3) for _ in channels_in)
        before = channels_in[-1] if extra_from == "input" else channels
        convolved = 0 if extra_from == "pool" else extra
        self.extras = nn.ModuleList(conv(channels if i else before, 3, 2) for i in range(convolved))
        self.extra, self.extra_from, self.relu = extra, extra_from, relu
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: list[Tensor], *, first: int = 0) -> list[Tensor]:
        """Maps of a backbone, finest first -> pyramid, finest first; any size, odd ones too.

        The levels before `first` are not built at all.
        """
        merged = [lateral(x) for lateral, x in zip(self.laterals[first:], maps[first:], strict=True)]
        for i in range(len(merged) - 1, 0, -1):
            size = merged[i - 1].shape[-2:]
            merged[i - 1] = merged[i - 1] + F.interpolate(merged[i], size=size, mode="nearest")
        pyramid = [output(x) for output, x in zip(self.outputs[first:], merged, strict=True)]
        if self.extra_from == "pool":
            for _ in range(self.extra):
                pyramid.append(F.max_pool2d(pyramid[-1], kernel_size=1, stride=2))
        last = maps[-1] if self.extra_from == "input" else pyramid[-1]
        for i, extra in enumerate(self.extras):
            last = extra(F.relu(last) if self.relu and i else last)
            pyramid.append(last)
        return pyramid
