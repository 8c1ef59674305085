"""The two heads of MimicDet: a light one at every cell (S), and a heavy one for a few regions that teaches it (T).

Lu et al., "MimicDet: Bridging the Gap Between One-Stage and Two-Stage Object Detection", ECCV 2020,
https://arxiv.org/abs/2009.11528, section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers.detectors.handed import handed

POOL = 7  # cells of a region, each way
MICRO = (64, 128)  # channels of the network that finds the offsets


class Said(NamedTuple):
    """What the T-head says of regions."""

    cls: Tensor  # (T, K+1), background last
    box: Tensor  # (T, 4) deltas from the refined anchors
    cls_features: Tensor  # (T, hidden)
    box_features: Tensor  # (T, hidden)


class THead(nn.Module):
    """Two fully connected layers for classes; convolutions and one such layer for boxes."""

    def __init__(self, channels: int, num_classes: int, *, hidden: int, convs: int) -> None:
        super().__init__()
        flat = channels * POOL**2
        self.cls_tower = nn.Sequential(
            nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, hidden), nn.ReLU()
        )
        layers: list[nn.Module] = []
        for _ in range(convs):
            layers += [nn.Conv2d(channels, channels, 3, 1, 1), nn.ReLU(inplace=True)]
        self.box_tower = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU())
        self.cls = nn.Linear(hidden, num_classes + 1)
        self.box = nn.Linear(hidden, 4)
        initialise(self)

    def forward(self, regions: Tensor) -> Said:
        """(T, C, 7, 7)."""
        cls, box = self.cls_tower(regions), self.box_tower(regions)
        return Said(self.cls(cls), self.box(box), cls, box)


class SHead(nn.Module):
    """A deformable convolution whose offsets come from the anchors' deltas; then 1x1 convolutions alone.

    It is a 3x3 on the finest level and a 5x5 on the others; the 1x1 have the same weights at every level.
    """

    def __init__(self, channels: int, num_classes: int, *, hidden: int, levels: int) -> None:
        super().__init__()
        self.finest = Guided(channels, 3)
        self.coarser = Guided(channels, 5) if levels > 1 else None
        self.cls_tower = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU())
        self.box_tower = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU())
        self.cls = nn.Conv2d(hidden, num_classes + 1, 1)
        self.box = nn.Conv2d(hidden, 4, 1)
        initialise(self)

    def forward(self, features: list[Tensor], deltas: list[Tensor]) -> dict[str, list[Tensor]]:
        """L of (B, C, H, W), L of (B, 4, H, W) -> the fields of `Said`, each L of (B, ., H, W)."""
        found: dict[str, list[Tensor]] = {name: [] for name in Said._fields}
        for number, (x, delta) in enumerate(zip(features, deltas, strict=True)):
            guided = self.coarser if number and self.coarser is not None else self.finest
            x = guided(x, delta)
            cls, box = self.cls_tower(x), self.box_tower(x)
            for name, said in zip(Said._fields, (self.cls(cls), self.box(box), cls, box), strict=True):
                found[name].append(said)
        return found


class Guided(nn.Module):
    """A deformable convolution that looks where the refined anchor is, and a ReLU."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        first, second = MICRO
        self.offsets = nn.Sequential(
            nn.Conv2d(4, first, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(first, second, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(second, 2 * size**2, 1),
        )
        self.conv = nn.Conv2d(channels, channels, size, 1, size // 2)

    def forward(self, x: Tensor, delta: Tensor) -> Tensor:
        """(B, C, H, W), (B, 4, H, W) -> (B, C, H, W)."""
        from torchvision.ops import deform_conv2d  # seconds to import

        # In float32 even under autocast, which does not touch this operation: there is no kernel for bfloat16.
        weight, bias = self.conv.weight.float(), self.conv.get_parameter("bias").float()
        y: Tensor = deform_conv2d(x.float(), self.offsets(delta).float(), weight, bias, padding=self.conv.padding)
        return F.relu(y.to(x.dtype))


def initialise(head: THead | SHead) -> None:
    """Classes equally likely, boxes where the refined anchors are, and cells looked at on their grid: nearly so."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=1)
            nn.init.zeros_(module.get_parameter("bias"))
    last = [guided.offsets[-1] for guided in head.modules() if isinstance(guided, Guided)]
    for layer, deviation in ((head.cls, 0.01), (head.box, 0.001), *((offsets, 0.01) for offsets in last)):
        nn.init.normal_(layer.get_parameter("weight"), std=deviation)


def regions(pyramid: list[Tensor], strides: tuple[int, ...], level: Tensor, image: Tensor, boxes: Tensor) -> Tensor:
    """RoIAlign of boxes (T, 4), each from its own level (T,) of a pyramid, L of (B, C, H, W). -> (T, C, 7, 7)."""
    from torchvision.ops import roi_align  # seconds to import

    numbered = torch.cat([image[:, None].to(boxes), boxes], dim=1)

    def pooled(number: int, where: Tensor) -> Tensor:
        scale = 1 / strides[number]
        x: Tensor = roi_align(pyramid[number].float(), numbered[where], POOL, scale, aligned=True)
        return x

    with torch.autocast(boxes.device.type, enabled=False):
        return by_level(level, len(pyramid), pooled)


def pixels(levels: list[Tensor], row: Tensor) -> Tensor:
    """What maps, L of (B, C, H, W), say at these rows (R,) of `Outputs.class_rows`. -> (R, C).

    Without a copy of the maps as rows: they may be a thousand channels wide.
    """
    counts = handed([x.shape[2] * x.shape[3] for x in levels], row.device)
    ends = counts.cumsum(0)
    image, cell = row // ends[-1], row % ends[-1]
    level = torch.bucketize(cell, ends, right=True)
    cell = cell - (ends - counts)[level]

    def read(number: int, where: Tensor) -> Tensor:
        width = levels[number].shape[3]
        return levels[number][image[where], :, cell[where] // width, cell[where] % width]

    return by_level(level, len(levels), read)


def by_level(level: Tensor, count: int, read: Callable[[int, Tensor], Tensor]) -> Tensor:
    """`read(number, where)` of the boxes that each level has, in the order of `level` (R,). -> (R, ...)."""
    where = [(level == number).nonzero().squeeze(1) for number in range(count)]
    found = torch.cat([read(number, here) for number, here in enumerate(where)])
    return found[torch.cat(where).argsort()]
