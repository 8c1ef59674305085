"""What a detector computed, and what it should have: the only things that a distillation loss may read.

Shapes use one legend everywhere: B images, L levels of the pyramid, C channels, H W cells of a level, A locations of
all levels together (level after level, row after row), K classes, N boxes, P positive locations, S = bins of one edge.
Boxes are (x1, y1, x2, y2) in pixels of the padded batch; edges come in the order left, top, right, bottom.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """What a network says about a batch, before any decoding."""

    features: list[Tensor]  # L of (B, C, H, W): the pyramid that the head reads
    cls: list[Tensor] = field(default_factory=list)  # L of (B, K, H, W): class logits
    box: list[Tensor] = field(default_factory=list)  # L of (B, 4*S, H, W): edge distributions, or 4 deltas

    def class_rows(self) -> Tensor:
        """All class logits as rows. -> (B*A, K), image by image, then level, row and column."""
        return rows(self.cls)

    def edge_rows(self, bins: int) -> Tensor:
        """All edge logits as rows. -> (B*A, 4, bins), in the order of `class_rows`."""
        return rows(self.box).unflatten(1, (4, bins))


def rows(levels: list[Tensor]) -> Tensor:
    """L of (B, C, H, W) -> (B*A, C)."""
    return torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1).flatten(0, 1)


@dataclass(frozen=True)
class Truth:
    """What is really in the images of a batch."""

    boxes: list[Tensor]  # B of (N, 4)
    labels: list[Tensor]  # B of (N,), 0..K-1
    sizes: list[tuple[int, int]]  # B of (height, width) without padding
    ids: list[int]  # B image ids, for messages and for the metric
    scales: list[tuple[float, float]]  # B of (x, y): pixels of the batch for one pixel of the original image

    def to(self, device: torch.device) -> Truth:
        """The same on another device."""
        boxes = [b.to(device, non_blocking=True) for b in self.boxes]
        labels = [n.to(device, non_blocking=True) for n in self.labels]
        return Truth(boxes, labels, self.sizes, self.ids, self.scales)


@dataclass(frozen=True)
class Targets:
    """Which locations answer for which box. `row` counts as `Outputs.class_rows` does."""

    row: Tensor  # (P,)
    level: Tensor  # (P,), 0..L-1
    label: Tensor  # (P,), 0..K-1
    box: Tensor  # (P, 4): the box that the location answers for
    valid: Tensor  # (B*A,) bool: locations that do not lie in the padding
    images: int  # B
    levels: int  # L


@dataclass(frozen=True)
class Detections:
    """What is found in one image, best first."""

    boxes: Tensor  # (N, 4)
    scores: Tensor  # (N,), 0..1
    labels: Tensor  # (N,), 0..K-1


Network = Any  # an nn.Module that is a Detector and has a `backbone`; typing cannot say "both"


class Detector(Protocol):
    """What the loop and the losses know of a detector."""

    num_classes: int
    strides: tuple[int, ...]  # pixels a cell, level by level
    channels: int  # C of the pyramid
    bins: int  # S of an edge's distribution; 0 when boxes are predicted as four numbers

    def forward(self, images: Tensor) -> Outputs:
        """(B, 3, height, width) -> Outputs."""

    def assign(self, outputs: Outputs, truth: Truth) -> Targets:
        """Which locations answer for which box; needs no gradient."""

    def losses(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """The detection losses by name, each () and already weighted."""

    def detect(self, outputs: Outputs, sizes: list[tuple[int, int]]) -> list[Detections]:
        """Decode, suppress and clip to the image sizes (height, width)."""
