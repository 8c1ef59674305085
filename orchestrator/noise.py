"""Whether scores that were found again differ from those before by no more than seeds do."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, sqrt
from statistics import fmean
from typing import NamedTuple

from orchestrator.strategies.races import within

LEVEL = 0.05  # how often two equal trainings would be told apart


class Compared(NamedTuple):
    """The means of both, how far they lie apart, and how likely that is, or more, if only the seeds differ."""

    before: float
    after: float
    chance: float

    @property
    def alike(self) -> bool:
        return self.chance >= LEVEL


def enough(before: int, after: int) -> bool:
    """Whether so many scores of each say anything: one of both sides needs a spread."""
    return min(before, after) >= 1 and before + after >= 3


def compared(before: Sequence[float], after: Sequence[float]) -> Compared:
    """Student's t test of two sets of scores, two-sided, with one spread for both: they are of the same training.

    There must be `enough`. Without any spread equal means are alike, and others are not.
    """
    assert enough(len(before), len(after))
    means = fmean(before), fmean(after)
    squares = fsum((one - mean) ** 2 for side, mean in zip((before, after), means, strict=True) for one in side)
    freedom = len(before) + len(after) - 2
    error = sqrt(squares / freedom * (1 / len(before) + 1 / len(after)))
    gap = abs(means[0] - means[1])
    if error == 0:
        return Compared(*means, 1.0 if gap == 0 else 0.0)
    return Compared(*means, 1 - within(gap / error, freedom))
