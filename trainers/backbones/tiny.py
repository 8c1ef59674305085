"""A small residual network for images of 64 to 128 pixels: feature maps of strides 4, 8 and 16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers.backbones.staged import Staged
from trainers.call import Count
from trainers.norm import Colours, group_norm

Layer = Callable[[int], nn.Module]  # a norm for so many channels


class TinyResNet(Staged):
    """A stem of stride 2, then three stages of `blocks` blocks, of 1, 2 and 4 times `width` channels.

    Group norm does not care how a batch is spread over workers; batch norm is no faster.
    """

    strides = (4, 8, 16)

    def __init__(self, *, width: Count = 16, blocks: Count = 1, norm: Literal["group", "batch"] = "group") -> None:
        super().__init__()
        layer: Layer = group_norm if norm == "group" else nn.BatchNorm2d
        self.channels = (width, 2 * width, 4 * width)
        self.colours = Colours()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), layer(width), nn.ReLU(inplace=True))
        self.stages = nn.ModuleList()
        before = width
        for channels in self.channels:
            rest = [Block(channels, channels, 1, layer) for _ in range(blocks - 1)]
            self.stages.append(nn.Sequential(Block(before, channels, 2, layer), *rest))
            before = channels

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images of 0..1, (B, 3, H, W) -> three maps of ceil(H / stride) by ceil(W / stride) cells."""
        x = self.colours(images).contiguous(memory_format=torch.channels_last)  # a CPU is fastest with it
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def parts(self) -> list[nn.Module]:
        first, *rest = self.stages
        return [nn.ModuleList((self.stem, first)), *rest]


class Block(nn.Module):
    """Two 3x3 convolutions, and the input going around them: averaged and convolved where the shape changes.

    Averaging before the 1x1 convolution is the ResNet-D of He et al., 2019. And it is safe: a 1x1 convolution with
    a stride on channels-last input corrupts the heap in its backward pass (torch 2.12.1 on a CPU with AVX-512).
    """

    def __init__(self, before: int, channels: int, stride: int, layer: Layer) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.norm1 = layer(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = layer(channels)
        # The size of the convolutions' output, ceil(H / 2), for odd sizes too.
        half = nn.Identity() if stride == 1 else nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)
        wider = nn.Identity() if before == channels else nn.Conv2d(before, channels, 1)
        self.skip = nn.Sequential(half, wider)

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) -> (B, channels, ceil(H / stride), ceil(W / stride))."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(y)) + self.skip(x), inplace=True)
