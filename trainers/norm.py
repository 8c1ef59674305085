"""Normalisation layers: group norm for any width, and batch norms that keep still."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainers.call import Invalid

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the colours of ImageNet
CAFFE_MEANS = {"caffe": (103.53, 116.28, 123.675), "detectron": (102.9801, 115.9465, 122.7717)}  # blue first, of 0..255

Style = Literal["pytorch", "caffe", "detectron"]


class Colours(nn.Module):
    """Images of 0..1, (B, 3, H, W), to about zero mean and unit variance in each colour.

    Or as Caffe's networks and the first Detectron's read them: blue first, of 0..255 less their mean.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, style: Style = "pytorch") -> None:
        super().__init__()
        self.reverse = style in CAFFE_MEANS
        mean, std = (tuple(x / 255 for x in CAFFE_MEANS[style]), (1 / 255,) * 3) if self.reverse else (MEAN, STD)
        for name, value in (("mean", mean), ("std", std)):
            # Not in the state: they are no weights.
            self.register_buffer(name, torch.tensor(value).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        return ((images.flip(-3) if self.reverse else images) - self.mean) / self.std


class GroupNorm(nn.GroupNorm):
    """torch's, whose maps stay channels last where it is compiled: by statistics of channels, which lie side by side.

    torch's own, compiled or not, turns such maps round before, and whoever reads them turns them back.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> the same; in float32 under autocast."""
        if not torch.compiler.is_dynamo_compiling():  # an exported graph has torch's own
            return super().forward(x)
        wide = x.float() if torch.is_autocast_enabled(x.device.type) else x
        over = tuple(range(2, x.dim()))
        groups = (self.num_groups, -1)
        spread, mean = (each.unflatten(1, groups) for each in torch.var_mean(wide, dim=over, correction=0))  # (B, G, c)
        middle = mean.mean(2, keepdim=True)
        # Of as many numbers each: the mean of their variances, and the variance of their means.
        variance = spread.mean(2, keepdim=True) + (mean - middle).square().mean(2, keepdim=True)
        scale = (variance + self.eps).rsqrt() * self.weight.unflatten(0, groups)
        shift = self.bias.unflatten(0, groups) - middle * scale
        scale, shift = (each.flatten(1).unflatten(1, (-1, *(1 for _ in over))) for each in (scale, shift))
        return wide * scale + shift


def group_norm(channels: int) -> nn.GroupNorm:
    """About eight channels a group and at most 32 groups: 256 channels have the 32 of Wu and He, 2018.

    One channel a group would be instance norm, which forgets how strong a feature is.
    """
    return GroupNorm(math.gcd(channels, 32, max(1, channels // 8)), channels)


def freeze(stages: list[nn.Module], count: int) -> list[nn.Module]:
    """Stop the first `count` stages from learning. -> those stages. Raises `Invalid` if there are fewer."""
    if count > len(stages):
        raise Invalid(f"cannot freeze {count} stages: the backbone has {len(stages)}", ("freeze",))
    for stage in stages[:count]:
        stage.requires_grad_(False)
    return stages[:count]


def still(modules: Iterable[nn.Module]) -> None:
    """Keep the running statistics of the batch norms in these modules; to be called after each `.train()`."""
    for module in modules:
        for norm in module.modules():
            if isinstance(norm, _BatchNorm):
                norm.eval()


def live(module: nn.Module) -> Iterator[_BatchNorm]:
    """The batch norms that take their statistics from the batch, and note them."""
    return (norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.training)


class Statistics:
    """What the live batch norms of a module have noted by now, so that it can be put back."""

    def __init__(self, module: nn.Module) -> None:
        self.buffers = [buffer for norm in live(module) for buffer in norm.buffers()]
        self.kept = [buffer.clone() for buffer in self.buffers]

    def put_back(self) -> None:
        for buffer, value in zip(self.buffers, self.kept, strict=True):
            buffer.copy_(value)
