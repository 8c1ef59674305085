"""Learning-rate schedules: pure functions of how far the training is, so that resuming needs no state."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from trainers.call import Fraction

__all__ = ["Constant", "Cosine", "OneCycle", "Step"]  # what a study may name


class Constant:
    """The same rate all the way."""

    def __call__(self, epoch: float, epochs: int) -> float:
        """The factor on the base rate after `epoch` (a fraction counts the steps) of `epochs`."""
        return 1.0


class Step:
    """The rate falls by `factor` at each of the points `at`, given as parts of the training.

    The defaults are the detection field's "1x" and "2x": epochs 8 and 11 of 12, 16 and 22 of 24.
    """

    def __init__(
        self,
        *,
        at: tuple[Fraction, ...] = (2 / 3, 11 / 12),
        factor: Annotated[float, Field(gt=0, lt=1)] = 0.1,
    ) -> None:
        self.at = at
        self.factor = factor

    def __call__(self, epoch: float, epochs: int) -> float:
        return float(self.factor ** sum(epoch >= round(part * epochs) for part in self.at))


class Cosine:
    """Half a cosine from the full rate to `floor` of it (Loshchilov and Hutter 2017, no restarts)."""

    def __init__(self, *, floor: Fraction = 0.0) -> None:
        self.floor = floor

    def __call__(self, epoch: float, epochs: int) -> float:
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * epoch / epochs)) / 2


class OneCycle:
    """Up from `start` to the full rate during the part `rise`, then down to `end`, both as half cosines.

    Smith and Topin 2018; it needs no other warm-up, so set `warmup: 0` with it.
    """

    def __init__(self, *, rise: Fraction = 0.3, start: Fraction = 0.04, end: Fraction = 0.0) -> None:
        self.rise = rise
        self.start = start
        self.end = end

    def __call__(self, epoch: float, epochs: int) -> float:
        done = epoch / epochs
        if done < self.rise:
            return blend(self.start, 1.0, done / self.rise)
        return blend(1.0, self.end, (done - self.rise) / max(1 - self.rise, 1e-12))


def blend(start: float, end: float, part: float) -> float:
    """From start (part 0) to end (part 1) along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
