"""What stands in images, small networks that look at them, and what a network may say: for the tests of detectors."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainers.backbones import TinyResNet
from trainers.outputs import Truth

STRIDES = (4, 8, 16)  # of a detector on `TinyResNet` that adds no level


def truth(
    *boxes: list[list[float]], size: tuple[int, int] = (64, 64), sizes: list[tuple[int, int]] | None = None
) -> Truth:
    """Images, all of one size or of these, with boxes of class 0, 1, 2, 0, ... each."""
    return Truth(
        boxes=[torch.tensor(b).view(-1, 4) for b in boxes],
        labels=[torch.arange(len(b)) % 3 for b in boxes],
        sizes=sizes or [size] * len(boxes),
        ids=list(range(len(boxes))),
        scales=[(1.0, 1.0)] * len(boxes),
    )


# Of 64 x 64 pixels: two boxes, none, three.
THREE = truth([[3.0, 5, 33, 40], [4.0, 3, 61, 62]], [], [[10.0, 8, 22, 21], [30.0, 20, 61, 60], [2.0, 40, 20, 63]])


def noise(
    *sizes: tuple[int, int], padded: tuple[int, int] | None = None, num_classes: int = 3, boxes: int = 2
) -> tuple[Tensor, Truth]:
    """Images of noise, the first as large as all of them if nothing is said, with boxes in them and masks."""
    generator = torch.Generator().manual_seed(0)
    padded = padded or sizes[0]
    every = []
    for height, width in sizes:
        side = torch.tensor([width, height])
        low = torch.rand(boxes, 2, generator=generator) * side * 0.4
        every.append(torch.cat([low, low + side * (0.3 + 0.2 * torch.rand(boxes, 2, generator=generator))], 1))
    labels = [torch.randint(0, num_classes, (boxes,), generator=generator) for _ in sizes]
    return torch.rand(len(sizes), 3, *padded, generator=generator), masked(every, labels, list(sizes), padded)


def masked(boxes: list[Tensor], labels: list[Tensor], sizes: list[tuple[int, int]], padded: tuple[int, int]) -> Truth:
    """Objects that fill their boxes."""
    y, x = torch.arange(padded[0])[:, None] + 0.5, torch.arange(padded[1]) + 0.5
    masks = []
    for box in boxes:
        x1, y1, x2, y2 = box[:, :, None, None].unbind(1)
        masks.append((x > x1) & (x < x2) & (y > y1) & (y < y2))
    return Truth(boxes, labels, sizes, list(range(len(sizes))), [(1.0, 1.0)] * len(sizes), masks)


def small(kind: Callable[..., Any], num_classes: int = 3, *, width: int = 8, **knobs: Any) -> Any:
    """A detector of this kind on a tiny backbone, the same each time."""
    torch.manual_seed(0)
    return kind(TinyResNet(width=width), num_classes, **knobs)


def drawer(
    images: int, *, size: tuple[int, int] = (64, 64), strides: tuple[int, ...] = STRIDES
) -> Callable[..., list[Tensor]]:
    """Draws maps of chance for images of this (height, width): `draw(channels, deviation)` -> L of (B, channels, H, W).

    They are leaves that want a gradient.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(channels: int, deviation: float = 1.0, *, strides: tuple[int, ...] = strides) -> list[Tensor]:
        shapes = [(images, channels, *(math.ceil(side / s) for side in size)) for s in strides]
        return [(torch.randn(shape, generator=generator) * deviation).requires_grad_() for shape in shapes]

    return draw
