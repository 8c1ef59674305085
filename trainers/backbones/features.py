"""What makes a backbone of torchvision's `features`, one long sequence of layers: maps on the way, parts, any size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


def maps_at(features: nn.Sequential, ends: Sequence[int], x: Tensor) -> list[Tensor]:
    """What there is after so many layers, for each of `ends`, in rising order."""
    found = []
    for count, layer in enumerate(features, start=1):
        x = layer(x)
        if count in ends:
            found.append(x)
    return found


def between(features: nn.Sequential, ends: Sequence[int]) -> list[nn.Module]:
    """The layers that make each map out of the one before; the first out of the image."""
    return [features[start:end] for start, end in pairwise((0, *ends))]


def padded(images: Tensor, multiple: int) -> Tensor:
    """Zeros at the right and at the bottom, up to the next multiple in height and in width. (B, C, H, W) -> same."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % multiple, 0, -height % multiple))


def cropped(maps: Sequence[Tensor], strides: Sequence[int], images: Tensor) -> list[Tensor]:
    """Of the maps of padded images the ceil(side / stride) cells that the images (B, C, H, W) themselves reach."""
    height, width = images.shape[-2:]
    return [x[..., : -(-height // s), : -(-width // s)] for x, s in zip(maps, strides, strict=True)]
