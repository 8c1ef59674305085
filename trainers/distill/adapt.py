"""Adapters: where a student's pyramid is narrower or wider than its teacher's, a 1x1 convolution makes up for it."""

from __future__ import annotations

from torch import Tensor, nn

from trainers.distill.pair import agree, chosen
from trainers.outputs import Detector

EVERY = 100  # more levels than any pyramid has


class Adapters(nn.ModuleList):
    """One for each level that is compared; where both have as many channels it changes nothing and has no weights.

    They learn with the student and are dropped afterwards.
    """

    def __init__(self, mine: int, theirs: int, *, levels: int) -> None:
        super().__init__(nn.Identity() if mine == theirs else nn.Conv2d(mine, theirs, 1) for _ in range(levels))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """L of (B, mine, H, W) -> L of (B, theirs, H, W)."""
        return [adapt(x) for adapt, x in zip(self, features, strict=True)]


def shared_levels(
    student: Detector, teacher: Detector, wanted: tuple[int, ...] | None, *, default: int
) -> tuple[int, ...]:
    """The numbers of the levels to compare, 0 the finest: those wanted, or the first `default` that both have.

    Raises `Invalid` for a level that one has not, that is named twice, or whose cells differ in size.
    """
    both = min(len(student.strides), len(teacher.strides))
    levels = chosen("levels", wanted, range(both), default=range(min(default, both)))
    agree(
        "strides of the levels that are compared",
        tuple(student.strides[level] for level in levels),
        tuple(teacher.strides[level] for level in levels),
        instead="they follow from the backbone and the detector's extra, and levels are paired by number; give both "
        "the same, or take PKD, which takes any",
    )
    return levels
