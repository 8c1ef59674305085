"""A student and the losses that teach it, in one module, so that data-parallel training sees one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from trainers.foresight import Foresight
from trainers.outputs import Network, Outputs, Targets, Truth

Look = Callable[[Tensor], Outputs]  # (B, 3, H, W) -> what a network says of it


class Lesson(NamedTuple):
    """What is taught about a batch."""

    said: Sequence[Outputs | None]  # by each guide, the teacher first; None: it is not heard this time
    # What each loss is multiplied by, from 0; None, or one that is not named: it counts in full.
    strength: Mapping[str, float] | None = None
    detection: float = 1.0  # what the detector's own losses count
    looked_at: frozenset[str] = frozenset()  # losses that are computed where they would count, but do not yet
    unchecked: frozenset[str] = frozenset()  # losses of which nobody knows yet whether they reach the student

    def heard(self, name: str, guide: int) -> float:
        """How much a loss counts that listens to this guide."""
        if self.said[guide] is None:
            return 0.0
        return (self.strength or {}).get(name, 1.0)


class Looks(NamedTuple):
    """What is only looked at in a batch, each with its graph."""

    losses: dict[str, Tensor]  # by name, each () and as if it counted in full
    detection: Tensor  # (): the sum of the detector's own losses, as they count
    features: list[Tensor]  # what the student's head read, and what its backbone said: see `Outputs`
    maps: list[Tensor]


class Losses(NamedTuple):
    """The losses of a batch by name, each () and already weighted, and how many locations answered for a box."""

    by_name: dict[str, Tensor]
    positives: Tensor
    counting: frozenset[str] = frozenset()  # the distillation losses that were computed
    looks: Looks | None = None

    @property
    def total(self) -> Tensor:
        return total(self.by_name)

    def computed(self, name: str) -> Tensor:
        """A distillation loss, whether it counts or is only looked at. -> ()"""
        return self.looks.losses[name] if self.looks and name in self.looks.losses else self.by_name[name]


class Fast(Protocol):
    """What looks in the student's place and says the same."""

    def way(self, images: Tensor) -> Look:
        """How it looks at such images now; it may find a better way with time."""


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
        self.fast: Fast | None = None
        self.guides = dict.fromkeys(losses, 0) | dict(guides or {})
        self.foresight = Foresight(student)

    def forward(self, images: Tensor, truth: Truth, lesson: Lesson | None) -> Losses:
        """(B, 3, H, W), what is in the images, and what is taught about them -> the losses."""
        heard = [loss for name, loss in self.distill.items() if self.heard(name, lesson)]
        targets = self.foresight.targets(images, truth, heard)
        outputs = self.way(images, measured=self.measured(lesson))(images)
        self.foresight.note(images, outputs)
        return self.judge(outputs, truth, lesson, targets)

    def measured(self, lesson: Lesson | None) -> bool:
        """Whether a loss that is heard has its gradient looked at before all losses have theirs."""
        if lesson is None:
            return False
        return any(self.heard(name, lesson) for name in lesson.looked_at | lesson.unchecked)

    def heard(self, name: str, lesson: Lesson | None) -> float:
        """How much a loss counts in a lesson."""
        return lesson.heard(name, self.guides[name]) if lesson is not None else 0.0

    def way(self, images: Tensor, *, measured: bool) -> Look:
        """How the student looks at images of this size now.

        Never by what is compiled where a loss is `measured`. That says everything at once, so that no gradient leads
        from what the head says back to the features that it read; and it keeps what it needs for one way back alone.
        """
        if measured or self.fast is None:
            return self.student
        return self.fast.way(images)

    def judge(self, outputs: Outputs, truth: Truth, lesson: Lesson | None, targets: Targets | None = None) -> Losses:
        """The losses of what the student said of a batch. `targets`: if they are known already."""
        targets = self.student.assign(outputs, truth) if targets is None else targets
        by_name = self.student.losses(outputs, targets)
        if lesson is not None and lesson.detection != 1:
            by_name = {name: lesson.detection * loss for name, loss in by_name.items()}
        detection = dict(by_name)
        looked: dict[str, Tensor] = {}
        counting = set()
        for name, loss in self.distill.items():
            assert name not in by_name, f"two losses are called {name}"
            strength = self.heard(name, lesson)
            if not strength:
                by_name[name] = nothing(loss, outputs.features[0])
                continue
            assert lesson is not None
            value = loss(outputs, lesson.said[self.guides[name]], targets)
            counting.add(name)
            if name in lesson.looked_at:
                looked[name] = value
                by_name[name] = nothing(loss, outputs.features[0])
                continue
            by_name[name] = value if strength == 1 else strength * value
        looks = Looks(looked, total(detection), outputs.features, outputs.maps) if looked else None
        return Losses(by_name, torch.tensor(len(targets.row)), frozenset(counting), looks)


def total(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def nothing(loss: nn.Module, like: Tensor) -> Tensor:
    """0, with a zero gradient for what a loss learns itself: data-parallel training waits for each of them. -> ()"""
    return sum((0 * p.sum() for p in loss.parameters()), like.new_zeros((), dtype=torch.float32))
