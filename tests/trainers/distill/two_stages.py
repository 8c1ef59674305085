"""Two-stage detectors that are only figures and say simple things of regions, and what they say of real boxes.

Images are of 64 x 64 pixels, padded from 56 x 64; two levels of strides 8 and 16; backbones of strides 4, 8 and 16.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_iou

from tests.trainers.distill.figures import Figures
from trainers.outputs import Outputs, Regions, Targets, Truth

SIDE, STRIDES, STAGES = 64, (8, 16), (4, 8, 16)
# Of three images; the second has none. By `home` those of a side below 224 belong to level 0, the others to level 1.
BOXES = ([[3.0, 5, 33, 40], [20.0, 8, 61, 56]], [], [[2.0, 9, 30, 30]])
PROPOSED = ([[2.0, 4, 35, 41], [40.0, 40, 60, 56]], [[8.0, 8, 20, 30]], [[30.0, 30, 50, 50], [4.0, 9, 31, 28]])


class Backbone(NamedTuple):
    channels: tuple[int, ...] = (2, 3, 4)
    strides: tuple[int, ...] = STAGES


@dataclass(frozen=True)
class OneStage(Figures):
    """What a loss may read of a detector with a backbone."""

    backbone: Backbone = field(default_factory=Backbone)


@dataclass(frozen=True)
class TwoStage(OneStage):
    """A first stage whose proposals are given, a sampler that takes them all, and a second stage that multiplies."""

    anchors: int = 0
    scale: float = 1.0

    def propose(self, outputs: Outputs, sizes: list[tuple[int, int]]) -> list[Tensor]:
        return list(outputs.own["proposed"])

    def sample(self, proposed: list[Tensor], truth: Truth) -> Regions:
        """A proposal shows the box that it overlaps by half or more, if there is one."""
        labels, matched, deltas = [], [], []
        for boxes, real, classes in zip(proposed, truth.boxes, truth.labels, strict=True):
            if not len(real):
                matched.append(torch.zeros(len(boxes), dtype=torch.long))
                labels.append(torch.zeros(len(boxes), dtype=torch.long))
                deltas.append(torch.zeros_like(boxes))
                continue
            overlap, number = box_iou(boxes, real).max(1)
            matched.append(number)
            labels.append(torch.where(overlap >= 0.5, classes[number] + 1, 0))
            deltas.append((real[number] - boxes) / 10)
        return Regions(proposed, matched, labels, deltas)

    def judge(
        self, features: list[Tensor], proposed: list[Tensor], sizes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        image = torch.cat([torch.full((len(box),), n) for n, box in enumerate(proposed)])
        mean = features[0].mean((2, 3))[image]  # (R, C)
        boxes = torch.cat(proposed) / SIDE
        logits = self.scale * (mean[:, :1] + boxes) * mean[:, 1:2]  # as many as classes and background: four
        return logits, mean[:, 2:3] * boxes.repeat(1, 4)


def said(seed: int, images: Sequence[int] = (0, 1, 2), *, channels: int = 4, by: object = None) -> Outputs:
    """Leaves in float64 that want a gradient: of three images in all, these."""
    generator = torch.Generator().manual_seed(seed)

    def draw(channels: int, stride: int) -> Tensor:
        every = torch.randn(3, channels, SIDE // stride, SIDE // stride, generator=generator, dtype=torch.float64)
        return every[list(images)].requires_grad_()

    return Outputs(
        features=[draw(channels, stride) for stride in STRIDES],
        maps=[draw(c, stride) for c, stride in zip(Backbone().channels, STAGES, strict=True)],
        own={"proposed": [torch.tensor(PROPOSED[n]) + seed for n in images]},
        by=by,
    )


def real(images: Sequence[int] = (0, 1, 2), *, boxes: Sequence[Sequence[Sequence[float]]] = BOXES) -> Targets:
    """What is in these images, and no more: the losses of this kind read nothing else."""
    every = [torch.tensor(boxes[n]).view(-1, 4) for n in images]
    labels = [torch.arange(len(box)) for box in every]
    truth = Truth(every, labels, [(56, SIDE)] * len(images), list(images), [(1.0, 1.0)] * len(images))
    none = torch.zeros(0, dtype=torch.long)
    return Targets(none, none, none, torch.zeros(0, 4), torch.ones(0, dtype=torch.bool), len(STRIDES), truth)
