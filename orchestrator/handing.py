"""Which stages are handed out now, on what, and which of them together."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from orchestrator.board import Board
from orchestrator.cohorts import Cohorts, joined
from orchestrator.elastic import Elastic, told
from orchestrator.frontier import Frontier
from orchestrator.resources import Placement
from orchestrator.room import Node, Room
from orchestrator.study import Study
from orchestrator.waiting import Waits
from trainers.spec import Stage

LOOK = 2.0  # seconds after which the cluster is asked again which nodes it has


class Handing:
    """Hands out what the frontier has ready as far as there is room, and what finds no room beside its like."""

    def __init__(self, study: Study, frontier: Frontier, board: Board, say: Callable[[str], None]) -> None:
        self.study, self.frontier, self.board, self.say = study, frontier, board, say
        self.room: Room | None = None  # of the cluster, once there is one
        self.nodes: Callable[[], list[Node]] = list  # of the cluster now
        self.release: Callable[[str], None] = lambda post: None
        self.waits, self.elastic = Waits(), Elastic()
        cohort = study.resources.cohort
        self.cohorts = Cohorts(None if cohort == "auto" else cohort, frontier.lattice.divisor)
        self.goals: dict[str, int | None] = {}  # the epochs after which stages that were handed out pause
        self._looked = 0.0  # when the nodes were last asked for
        self._next: deque[list[Stage]] = deque()  # they have room and goals, and are handed out next

    def next(self) -> list[Stage]:
        """The stages that one process is to train now; none if there is nothing to do, or no room for it."""
        if self.room and time.monotonic() - self._looked > LOOK:
            self.room.change(self.nodes())
            self._looked = time.monotonic()
            self._take_back()
        if any(self.placement(self.board.rows[key].stage).apart for key in self.waits.handed):
            return []  # until Ray has placed them all: it would give single workers what they are to have
        if self.elastic.released:
            return [self._hand(self.board.rows[self.elastic.released.pop()].stage)]
        if self._next or self._fill():
            return [self._hand(stage) for stage in self._next.popleft()]
        if self.room:
            places, starting = self.cohorts.places, self.waits.handed
            self.elastic.grow(self.room, self.board.rows, places=places, starting=starting, ask=self.release)
        return []

    def _fill(self) -> bool:
        """Take from the frontier what there is room for, and beside it what there is none for. -> whether there was
        anything."""
        room, firsts = self.room, list[Stage]()
        while (stage := self.frontier.next(room.chooser()) if room else self.frontier.next()) is not None:
            firsts.append(stage)
            place = self.cohorts.open(stage.key)
            if room is None:
                break
            room.take(place, self.frontier.model(stage.key), batch=stage.shared)
        for first in firsts:
            stages = [first, *self._beside(first)]
            self.cohorts.join(stages)
            self.goals |= {stage.key: self.frontier.goal(stage.key) for stage in stages}
            self._next.append(stages)
        return bool(firsts)

    def _take_back(self) -> None:
        """What was to be handed out next to a node that is gone waits again."""
        for stages in list(self._next):
            if self.room and not self.room.stands(self.cohorts.places[stages[0].key]):
                self._next.remove(stages)
                for stage in stages:
                    self.retry(stage.key)

    def _beside(self, first: Stage) -> list[Stage]:
        """Stages that start together with one that has a place, as they have none of their own."""
        most, where = self.cohorts.size(first), self.whole(first)
        if most == 1 or self.room is None:
            return []
        able = [stage for stage in self.frontier.beside(first.key) if self._may_join(stage, where)]
        length = self.frontier.length
        numbers = joined(
            length(first.key),
            [length(stage.key) for stage in able],
            most=most,
            longest=self.frontier.longest,
            work=self.frontier.work,
            slots=len(self.room.taken),
        )
        for number in numbers:
            self.frontier.join(able[number].key)
        return [able[number] for number in numbers]

    def _may_join(self, stage: Stage, where: Placement) -> bool:
        """Whether a stage may be trained where another is."""
        own = self.whole(stage)
        # A model with a limit of its own to how many are trained at once may not slip past it.
        unlimited = own.stages_at_once == self.study.resources.stages_at_once
        return unlimited and own.shares(where) and self.cohorts.may_join(stage)

    def _hand(self, stage: Stage) -> Stage:
        self.waits.hand(stage.key)
        if self.room and self.whole(stage).min_workers is not None:
            row, count = self.board.rows[stage.key], self.room.workers(self.cohorts.places[stage.key])
            if text := told(row, count, self.whole(stage)):
                self.say(text)
        return stage

    def left(self, key: str, why: str = "") -> None:
        """A stage occupies nothing any more."""
        self.waits.withdrawn(key, why)
        place = self.cohorts.leave(key)
        if self.room and place is not None:
            self.room.give(place)

    def retry(self, key: str, why: str = "") -> None:
        """A stage that has ended without a result waits like any other."""
        self.left(key, why)
        self.frontier.retry(key)
        self._looked = 0.0  # a node may be gone

    def stands(self, key: str) -> bool:
        """Whether a stage whose process is gone still has its place, and has it for itself."""
        if self.room is None or self.cohorts.has(key):
            return False
        self.room.change(self.nodes())
        return self.room.stands(self.cohorts.places[key])

    def placement(self, stage: Stage) -> Placement:
        """What a stage runs on, with as many workers as it has now."""
        whole, place = self.whole(stage), self.cohorts.places.get(stage.key)
        if whole.min_workers is None or self.room is None or place is None:
            return whole
        return whole.model_copy(update={"workers": self.room.workers(place)})

    def whole(self, stage: Stage) -> Placement:
        """What a stage runs on if there is room for all of it."""
        return self.study.models[self.frontier.model(stage.key)].resources

    def post(self, stages: Sequence[Stage]) -> str | None:
        """The name under which a stage that may have more workers is to be found."""
        return self.elastic.named(stages[0].key) if self.whole(stages[0]).min_workers is not None else None
