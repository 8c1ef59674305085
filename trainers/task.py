"""A student and the losses that teach it, in one module, so that data-parallel training sees one forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainers.outputs import Network, Outputs, Truth


class Lesson(NamedTuple):
    """What is taught about a batch."""

    said: Sequence[Outputs | None]  # by each guide, the teacher first; None: it is not heard this time
    strength: Mapping[str, float] | None = None  # how much of each loss counts, 0..1; None: all of them in full
    detection: float = 1.0  # what the detector's own losses count

    def heard(self, name: str, guide: int) -> float:
        """How much a loss counts that listens to this guide."""
        if self.said[guide] is None:
            return 0.0
        return 1.0 if self.strength is None else self.strength[name]


class Losses(NamedTuple):
    """The losses of a batch by name, each () and already weighted, and how many locations answered for a box."""

    by_name: dict[str, Tensor]
    positives: Tensor
    counting: frozenset[str] = frozenset()  # the distillation losses that were computed

    @property
    def total(self) -> Tensor:
        return torch.stack(list(self.by_name.values())).sum()


class Task(nn.Module):
    """Everything that learns. The guides are not part of it: what they said comes in as a lesson.

    `guides` says which guide a loss listens to, the teacher (0) if it does not name it.
    """

    def __init__(
        self, student: Network, losses: Mapping[str, nn.Module], guides: Mapping[str, int] | None = None
    ) -> None:
        super().__init__()
        self.student: Network = student
        self.distill = nn.ModuleDict(losses)
        self.guides = dict.fromkeys(losses, 0) | dict(guides or {})

    def forward(self, images: Tensor, truth: Truth, lesson: Lesson | None) -> Losses:
        """(B, 3, H, W), what is in the images, and what is taught about them -> the losses."""
        outputs = self.student(images)
        targets = self.student.assign(outputs, truth)
        by_name = self.student.losses(outputs, targets)
        if lesson is not None and lesson.detection != 1:
            by_name = {name: lesson.detection * loss for name, loss in by_name.items()}
        counting = set()
        for name, loss in self.distill.items():
            assert name not in by_name, f"two losses are called {name}"
            guide = self.guides[name]
            strength = lesson.heard(name, guide) if lesson is not None else 0.0
            if not strength:
                by_name[name] = nothing(loss, images)
                continue
            assert lesson is not None
            value = loss(outputs, lesson.said[guide], targets)
            by_name[name] = value if strength == 1 else strength * value
            counting.add(name)
        return Losses(by_name, torch.tensor(len(targets.row)), frozenset(counting))


def nothing(loss: nn.Module, like: Tensor) -> Tensor:
    """0, with a zero gradient for what a loss learns itself: data-parallel training waits for each of them. -> ()"""
    return sum((0 * p.sum() for p in loss.parameters()), like.new_zeros((), dtype=torch.float32))
