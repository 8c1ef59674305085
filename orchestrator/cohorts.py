"""Stages that one process trains together, as they have their teacher and their batches in common.

Which may, for how many it pays, and what becomes of the place that they share.
"""

from __future__ import annotations

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
    """Those that are under way, by the keys of their stages. The place of one is taken under its first stage's key."""

    def __init__(self, most: int | None, divisor: Divisor) -> None:
        """`most`: stages in one of them; None: as many as pay."""
        self.most, self._divisor = MOST if most is None else most, divisor
        self._places: dict[str, str] = {}  # by the key of each member that has not ended
        self._sizes: dict[str, int] = {}  # of places, by what had room in memory
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

    def form(self, stages: Sequence[Stage]) -> None:
        """They are handed out together."""
        if len(stages) > 1:
            self._places |= dict.fromkeys((stage.key for stage in stages), stages[0].key)
            self._sizes[stages[0].key] = len(stages)

    def has(self, key: str) -> bool:
        """Whether a stage was handed out with others, and has not ended."""
        return key in self._places

    def place(self, key: str) -> str:
        """Equal for stages that are trained together; empty: it is alone."""
        return self._places.get(key, "")

    def crowded(self, stage: Stage) -> None:
        """There was no memory for a stage beside the others."""
        place = self._places[stage.key]
        self._sizes[place] = self._fitted[kin(stage, self._divisor)] = max(1, self._sizes[place] - 1)

    def part(self, key: str) -> None:
        """The process of a stage died while others were with it; nobody knows for which of them."""
        self._parted.add(key)

    def leave(self, key: str) -> str | None:
        """A stage has ended. -> the key under which the place was taken that is free now, if it is."""
        place = self._places.pop(key, None)
        if place is None:
            return key
        if place in self._places.values():
            return None
        del self._sizes[place]
        return place
