"""How long a study takes on so many slots: its stages played through, as the frontier would hand them out.

Graham, "Bounds on Multiprocessing Timing Anomalies", SIAM J. Appl. Math. 1969, https://doi.org/10.1137/0117039: a list
schedule takes less than twice its lower bound, and it may take longer with a slot more, or with a cheaper stage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import NamedTuple, Protocol

from orchestrator.turns import Turn, Turns
from trainers.spec import Stage


class Played(Protocol):
    """A frontier, as far as it is played with."""

    def next(self, may: Callable[[str], bool]) -> Stage | None: ...
    def model(self, key: str) -> str: ...
    def goal(self, key: str) -> int | None: ...
    def finish(self, key: str, score: float) -> None: ...
    def pause(self, key: str) -> None: ...


class Places(Protocol):
    """What stages run on, as `Room` has it."""

    def chooser(self) -> Callable[[str], bool]: ...
    def take(self, key: str, model: str, *, batch: int = 0) -> float: ...
    def give(self, key: str) -> None: ...
    def least(self, costs: Iterable[tuple[str, float]]) -> float: ...


class Slots:
    """So many stages at once, whatever they are."""

    def __init__(self, number: int) -> None:
        self.number, self.taken = number, set[str]()

    def chooser(self) -> Callable[[str], bool]:
        return lambda model: len(self.taken) < self.number

    def take(self, key: str, model: str, *, batch: int = 0) -> float:
        self.taken.add(key)
        return 1.0

    def give(self, key: str) -> None:
        self.taken.discard(key)

    def least(self, costs: Iterable[tuple[str, float]]) -> float:
        """How long stages that cost so much occupy all slots."""
        return sum(cost for _, cost in costs) / self.number


class Planned:
    """A frontier of stages that are all known, by key, a teacher before its students: longest remaining chain first,
    then in their order, as the real one has it. `model`: what a stage trains, by its key."""

    def __init__(
        self,
        stages: Mapping[str, Stage],
        cost: Callable[[Stage], float],
        model: Callable[[str], str] = lambda key: "",
    ) -> None:
        self.stages, self.model = dict(stages), model
        self.students = defaultdict[str, list[str]](list)
        self.turns: dict[str, Turn] = {}
        longest = defaultdict[str, float](float)  # the costliest chain below a key
        for order, (key, stage) in reversed(list(enumerate(self.stages.items()))):  # students before teachers
            chain = cost(stage) + longest[key]
            self.turns[key] = Turn(-chain, order, key)
            if stage.teacher and stage.teacher.key in self.stages:
                longest[stage.teacher.key] = max(longest[stage.teacher.key], chain)
                self.students[stage.teacher.key].append(key)
        taught = {key for students in self.students.values() for key in students}
        self.ready = Turns()
        for key, turn in self.turns.items():
            if key not in taught:
                self.ready.put(model(key), turn)

    def next(self, may: Callable[[str], bool]) -> Stage | None:
        key = self.ready.take(lambda turn: True, may)
        return None if key is None else self.stages[key]

    def goal(self, key: str) -> int | None:
        """None: none of them pauses."""
        return None

    def pause(self, key: str) -> None:
        raise AssertionError("none of them pauses")

    def finish(self, key: str, score: float) -> None:
        for student in self.students[key]:
            self.ready.put(self.model(student), self.turns[student])


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
    work: float  # how long it would with all workers that it may have; what it has is at most that many


@dataclass(frozen=True)
class Schedule:
    """Which stage runs when, in the order of their starts."""

    stages: tuple[Slot, ...]
    least: float  # how long all of them occupy what they run on, at least

    @property
    def makespan(self) -> float:
        """From the start of the first stage to the end of the last."""
        return max((one.end for one in self.stages), default=0.0)

    @property
    def total(self) -> float:
        """Of all stages, one after another."""
        return sum(one.work for one in self.stages)

    @property
    def longest_chain(self) -> float:
        """The most that a stage and those above it, that are trained here, take together."""
        chains: dict[str, float] = {}
        for one in self.stages:  # a teacher before its students, and a stage that paused once more
            above = chains.get(one.stage.teacher.key, 0.0) if one.stage.teacher else 0.0
            chains[one.stage.key] = chains.get(one.stage.key, above) + one.work
        return max(chains.values(), default=0.0)

    @property
    def lower_bound(self) -> float:
        """No order takes less: every chain is trained one by one, and nothing serves two stages at a time."""
        return max(self.longest_chain, self.least)


def play(
    frontier: Played,
    cost: Callable[[Stage], float],
    *,
    on: Places,
    reached: Callable[[str, int | None], None] = lambda key, goal: None,
) -> Schedule:
    """Train nothing, but take the frontier through to its end, as if every stage scored alike and took its cost.

    What there is room for is taken as soon as the frontier hands it out; stages that would end together end in the
    order of their starts. With half of the workers that it could have a stage takes twice as long, and it keeps those
    that it starts with. A stage that is to pause takes its part of the cost, and the rest when it goes on; `reached` is
    told how far it is by then, as `Pretended` has it. `frontier` is used up.
    """
    now, played, part = 0.0, list[Slot](), dict[str, float]()
    costs: list[tuple[str, float]] = []
    running: list[tuple[float, int, str, int | None]] = []  # a heap: when a stage ends, its number, its key, its goal
    while True:
        while (stage := frontier.next(on.chooser())) is not None:
            share = on.take(stage.key, frontier.model(stage.key), batch=stage.shared)
            goal, before = frontier.goal(stage.key), part.get(stage.key, 0.0)
            part[stage.key] = 1.0 if goal is None else max(before, goal / stage.recipe.epochs)
            work = cost(stage) * (part[stage.key] - before)
            end = now + work / share
            heappush(running, (end, len(played), stage.key, goal))
            played.append(Slot(stage, now, end, work))
            costs.append((frontier.model(stage.key), work))
        if not running:
            return Schedule(tuple(played), on.least(costs))
        now, _, key, goal = heappop(running)
        on.give(key)
        reached(key, goal)
        if goal is None:
            frontier.finish(key, 0.0)
        else:
            frontier.pause(key)
