"""Stages that one process trains together, as they have their teacher and their batches in common.

Which may, for how many it pays, and what becomes of the place that they share.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from trainers.spec import Model, Stage

Divisor = Callable[[Model], int]  # what height and width of a model's batches are padded to a multiple of

MOST = 8  # of a cohort, if nobody says how many: more would gain little, and the first results would come late
SLACK = 1e-9  # lengths are sums


class Length(NamedTuple):
    """How long a stage takes, by what it costs."""

    cost: float  # of the stage
    chain: float  # of the costliest chain that it begins, itself included


def kin(stage: Stage, divisor: Divisor) -> Hashable | None:
    """Stages of a study of which this is equal may be trained together, as what a batch has in it and looks like is the
    same (`trainers.data.batches.Batches.kind`); None: alone, as nothing is trained."""
    if stage.published:
        return None
    recipe = stage.recipe
    batches = recipe.batch, recipe.flip, recipe.resize, recipe.crop, recipe.group, recipe.ignore
    seen = stage.data.masks, divisor(stage.model)  # in one study all else of the data is the same
    return stage.teacher.key if stage.teacher else "", stage.seed, batches, seen


def joined(first: Length, others: Sequence[Length], *, most: int, longest: float, work: float, slots: int) -> list[int]:
    """Which of the others, by number, train together with the first: those for which there is no room, in order.

    A cohort must not become what everybody waits for: whoever waits for one of its members would, even if nothing were
    gained by sharing, be trained no later than all there is to do must be expected to take. That is the `longest` chain
    or, with all `work` on so many `slots`, what handing out one by one promises (Graham 1969): work / slots, and of the
    largest stage all but its share.
    """
    found: list[int] = []
    total, after, largest = first.cost, first.chain - first.cost, first.cost
    for number, one in enumerate(others):
        if len(found) + 1 >= most:
            break
        ends = total + one.cost + max(after, one.chain - one.cost)
        promised = max(longest, work / slots + (1 - 1 / slots) * max(largest, one.cost))
        if ends <= promised * (1 + SLACK):
            found.append(number)
            total, after, largest = total + one.cost, max(after, one.chain - one.cost), max(largest, one.cost)
    return found


class Cohorts:
    """Where the stages are that are under way: each in a place that it has for itself, or shares with others.

    A place is another one each time. A stage that pauses may be handed out again while those are still at work beside
    whom it was before.
    """

    def __init__(self, most: int | None, divisor: Divisor) -> None:
        """`most`: stages in one of them; None: as many as pay."""
        self.most, self._divisor = MOST if most is None else most, divisor
        self.places: dict[str, str] = {}  # by the key of each stage that was handed out and has not ended
        self._numbers = itertools.count(1)
        self._sizes: dict[str, int] = {}  # of places that are shared, by what had room in memory
        self._fitted: dict[Hashable, int] = {}  # by kin, for how many memory was enough
        self._parted: set[str] = set()  # to be trained alone

    def size(self, stage: Stage) -> int:
        """How many may train together with a stage, itself included."""
        like = kin(stage, self._divisor)
        if stage.key in self._parted or like is None:
            return 1
        return min(self.most, self._fitted.get(like, self.most))

    def may_join(self, stage: Stage) -> bool:
        """Whether it may be trained beside others."""
        return stage.key not in self._parted

    def open(self, key: str) -> str:
        """A stage is to be handed out. -> its place, in which nobody has been before."""
        self.places[key] = str(next(self._numbers))
        return self.places[key]

    def join(self, stages: Sequence[Stage]) -> None:
        """They are handed out together, in the place of the first."""
        if len(stages) > 1:
            place = self.places[stages[0].key]
            self.places |= dict.fromkeys((stage.key for stage in stages), place)
            self._sizes[place] = len(stages)

    def has(self, key: str) -> bool:
        """Whether a stage was handed out with others, and has not ended."""
        return self.places.get(key) in self._sizes

    def group(self, key: str) -> str:
        """Equal for stages that are trained together; empty: it is alone."""
        return self.places[key] if self.has(key) else ""

    def crowded(self, stage: Stage) -> None:
        """There was no memory for a stage beside the others."""
        place = self.places[stage.key]
        self._sizes[place] = self._fitted[kin(stage, self._divisor)] = max(1, self._sizes[place] - 1)

    def part(self, key: str) -> None:
        """The process of a stage died while others were with it; nobody knows for which of them."""
        self._parted.add(key)

    def leave(self, key: str) -> str | None:
        """A stage has ended, or is said to once more. -> its place, if nobody is there any more."""
        place = self.places.pop(key, None)
        if place is None or place in self.places.values():
            return None
        self._sizes.pop(place, None)
        return place
