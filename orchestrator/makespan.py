"""How long a study takes on so many slots: its stages played through, as the frontier would hand them out.

Graham, "Bounds on Multiprocessing Timing Anomalies", SIAM J. Appl. Math. 1969, https://doi.org/10.1137/0117039: a list
schedule takes less than twice its lower bound, and it may take longer with a slot more, or with a cheaper stage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import NamedTuple, Protocol

from trainers.spec import Stage


class Handing(Protocol):
    """A frontier, as far as it is played with."""

    def next(self) -> Stage | None: ...
    def goal(self, key: str) -> int | None: ...
    def finish(self, key: str, score: float) -> None: ...
    def pause(self, key: str) -> None: ...


class Listed:
    """A frontier of stages that are all known, by key, a teacher before its students: longest remaining chain first,
    then in their order, as the real one has it."""

    def __init__(self, stages: Mapping[str, Stage], cost: Callable[[Stage], float]) -> None:
        self.stages = dict(stages)
        self.students = defaultdict[str, list[str]](list)
        self.turns: dict[str, tuple[float, int, str]] = {}  # smallest first
        longest = defaultdict[str, float](float)  # the costliest chain below a key
        for order, (key, stage) in reversed(list(enumerate(self.stages.items()))):  # students before teachers
            chain = cost(stage) + longest[key]
            self.turns[key] = (-chain, order, key)
            if stage.teacher and stage.teacher.key in self.stages:
                longest[stage.teacher.key] = max(longest[stage.teacher.key], chain)
                self.students[stage.teacher.key].append(key)
        taught = {key for students in self.students.values() for key in students}
        self.ready = sorted(turn for key, turn in self.turns.items() if key not in taught)

    def next(self) -> Stage | None:
        return self.stages[heappop(self.ready)[-1]] if self.ready else None

    def goal(self, key: str) -> int | None:
        """None: none of them pauses."""
        return None

    def pause(self, key: str) -> None:
        raise AssertionError("none of them pauses")

    def finish(self, key: str, score: float) -> None:
        for student in self.students[key]:
            heappush(self.ready, self.turns[student])


class Pretended:
    """How far stages are that are only played through, for a frontier that asks what those had that paused."""

    def __init__(self, known: Callable[[Stage, int], float | None] = lambda stage, epoch: None) -> None:
        self.known = known  # of those that really are so far
        self.epochs: dict[str, float] = {}

    def paused(self, stage: Stage, epoch: int) -> float | None:
        """The score after an epoch: as if all scored alike; None: it is not so far."""
        return 0.0 if self.epochs.get(stage.key, 0) >= epoch else self.known(stage, epoch)

    def reached(self, key: str, goal: int | None) -> None:
        """A stage is played to its goal, or to its end."""
        self.epochs[key] = inf if goal is None else goal


class Slot(NamedTuple):
    """When a stage runs."""

    stage: Stage
    start: float
    end: float


@dataclass(frozen=True)
class Schedule:
    """Which stage runs when, in the order of their starts."""

    num_slots: int
    stages: tuple[Slot, ...]

    @property
    def makespan(self) -> float:
        """From the start of the first stage to the end of the last."""
        return max((one.end for one in self.stages), default=0.0)

    @property
    def total(self) -> float:
        """Of all stages, one after another."""
        return sum(one.end - one.start for one in self.stages)

    @property
    def longest_chain(self) -> float:
        """The most that a stage and those above it, that are trained here, take together."""
        chains: dict[str, float] = {}
        for one in self.stages:  # a teacher before its students, and a stage that paused once more
            above = chains.get(one.stage.teacher.key, 0.0) if one.stage.teacher else 0.0
            chains[one.stage.key] = chains.get(one.stage.key, above) + one.end - one.start
        return max(chains.values(), default=0.0)

    @property
    def lower_bound(self) -> float:
        """No order takes less: every chain is trained one by one, and every slot trains one stage at a time."""
        return max(self.longest_chain, self.total / self.num_slots)


def play(
    frontier: Handing,
    cost: Callable[[Stage], float],
    *,
    num_slots: int,
    score: float = 0.0,
    reached: Callable[[str, int | None], None] = lambda key, goal: None,
) -> Schedule:
    """Train nothing, but take the frontier through to its end, as if every stage scored alike and took its cost.

    A free slot takes what the frontier hands out at once; stages that would end together end in the order of their
    starts. A stage that is to pause takes its part of the cost, and the rest when it goes on; `reached` is told how far
    it is by then, as `Pretended` has it. `frontier` is used up.
    """
    now, played, part = 0.0, list[Slot](), dict[str, float]()
    running: list[tuple[float, int, str, int | None]] = []  # a heap: when a stage ends, its number, its key, its goal
    while True:
        while len(running) < num_slots and (stage := frontier.next()) is not None:
            goal, before = frontier.goal(stage.key), part.get(stage.key, 0.0)
            part[stage.key] = 1.0 if goal is None else max(before, goal / stage.recipe.epochs)
            end = now + cost(stage) * (part[stage.key] - before)
            heappush(running, (end, len(played), stage.key, goal))
            played.append(Slot(stage, now, end))
        if not running:
            return Schedule(num_slots, tuple(played))
        now, _, key, goal = heappop(running)
        reached(key, goal)
        if goal is None:
            frontier.finish(key, score)
        else:
            frontier.pause(key)
