"""A student and the losses that teach it, in one module, so that data-parallel training sees one forward pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainers.outputs import Network, Outputs, Truth


class Losses(NamedTuple):
    """The losses of a batch by name, each () and already weighted, and how many locations answered for a box."""

    by_name: dict[str, Tensor]
    positives: Tensor

    @property
    def total(self) -> Tensor:
        return torch.stack(list(self.by_name.values())).sum()


class Task(nn.Module):
    """Everything that learns. The teacher is not part of it: what it said comes in as `lesson`."""

    def __init__(self, student: Network, losses: dict[str, nn.Module]) -> None:
        super().__init__()
        self.student: Network = student
        self.distill = nn.ModuleDict(losses)

    def forward(self, images: Tensor, truth: Truth, lesson: Outputs | None) -> Losses:
        """(B, 3, H, W), what is in the images, and what the teacher said of them -> the losses."""
        outputs = self.student(images)
        targets = self.student.assign(outputs, truth)
        by_name = self.student.losses(outputs, targets)
        for name, loss in self.distill.items():
            assert name not in by_name, f"two losses are called {name}"
            by_name[name] = loss(outputs, lesson, targets)
        return Losses(by_name, torch.tensor(len(targets.row)))
