"""What may start now: the stages that are wanted, not trained yet, and whose teacher is trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import inf
from statistics import fmean

from orchestrator.lattice import Lattice, Path, Scores
from trainers.spec import Stage


@dataclass(frozen=True)
class Node:
    """One training of a path's last model. Several paths have one stage where their models are equal."""

    path: Path
    seed: int
    stage: Stage


class Frontier:
    """Hands out the stages of the paths that a strategy wants, teachers before students, longest chain first.

    It has no state worth saving: `done` says what the store has (a stage's score, or None), and a frontier
    built afresh goes on where another ended. If it is not over and nothing is running, `next` has a stage.
    """

    def __init__(
        self,
        lattice: Lattice,
        strategy: Callable[[Lattice, Scores], Iterator[Path]],
        *,
        seeds: tuple[int, ...],
        done: Callable[[Stage], float | None],
        controls: Callable[[Lattice, Scores], Iterable[Path]] = lambda lattice, scores: (),
        cost: Callable[[Stage], float] = lambda stage: 1.0,
    ) -> None:
        assert seeds, "the study has checked that there is a seed"
        self.lattice = lattice
        self.seeds = seeds
        self.scores: dict[Path, float] = {}  # mean over the seeds; -inf: one of them failed. Written once
        self.running: dict[str, Stage] = {}
        self.failed: dict[str, str] = {}  # why
        self.lost: dict[str, str] = {}  # the key of the ancestor that failed
        self.reused: set[str] = set()  # in the store when they were first wanted
        self._strategy, self._controls, self._done, self._cost = strategy, controls, done, cost
        self._results: dict[str, float | None] = {}  # by key; None: not trained yet
        self._paths: dict[str, dict[Path, None]] = defaultdict(dict)  # by key; used as an ordered set
        self._asked: tuple[Path, ...] | None = None
        self._nodes: dict[tuple[Path, int], Node] = {}
        self._open: dict[str, Stage] = {}  # wanted and unfinished; a teacher before its students
        self._students: dict[str, list[str]] = {}
        self._turn: dict[str, tuple[float, int]] = {}  # smallest first: longest chain, then order
        self._ready: list[tuple[float, int, str]] = []  # a heap of turns
        self._ask()

    @property
    def over(self) -> bool:
        """Nothing that is wanted is unfinished. What failed, or lost its teacher, counts as finished."""
        return not self._open and not self.running

    @property
    def waiting(self) -> dict[str, Stage]:
        """What is wanted and not yet started, by key, teachers first."""
        return {key: stage for key, stage in self._open.items() if key not in self.running}

    def wanted(self) -> list[Node]:
        """Everything that the strategy and the controls ask for now, with all teachers, finished or not."""
        return list(self._nodes.values())

    def paths_of(self, key: str) -> list[Path]:
        """The paths whose last model this stage trains."""
        return list(self._paths[key]) if key in self._paths else []

    def next(self) -> Stage | None:
        """The stage to start now, if there is one; it counts as running from here on."""
        if not self._ready:
            return None
        *_, key = heappop(self._ready)
        self.running[key] = self._open[key]
        return self.running[key]

    def finish(self, key: str, score: float) -> None:
        """A running stage is trained."""
        del self.running[key]
        self._results[key] = score
        self._open.pop(key, None)  # it may have become unwanted while it ran
        for student in self._students.get(key, ()):
            heappush(self._ready, (*self._turn[student], student))
        known = len(self.scores)
        for path in self._paths[key]:
            self._rate(path)
        if len(self.scores) > known:
            self._ask()

    def fail(self, key: str, reason: str) -> None:
        """A running stage cannot be trained; all that it would have taught is lost."""
        del self.running[key]
        self.failed[key] = reason
        self._plan()
        self._ask()

    def retry(self, key: str) -> None:
        """A running stage stopped without a result, and may start again."""
        del self.running[key]
        if key in self._open:
            heappush(self._ready, (*self._turn[key], key))

    def _ask(self) -> None:
        """Ask the strategy what it wants, again as long as the store answers with new scores."""
        known = -1
        while len(self.scores) > known:
            known = len(self.scores)
            asked = (*self._strategy(self.lattice, self.scores), *self._controls(self.lattice, self.scores))
            if asked != self._asked:
                self._asked = asked
                self._plan()

    def _plan(self) -> None:
        """Work out from what is asked what is open, what it waits for and whose turn it is."""
        assert self._asked is not None
        self._nodes = {}
        for path in self._asked:
            for seed in self.seeds:
                self._visit(path, seed, needed=True)
        self._open = {}
        for node in self._nodes.values():
            if self._is_open(node.stage):
                self._open[node.stage.key] = node.stage
        for path in dict.fromkeys(path for path, _ in self._nodes):
            self._rate(path)
        self._queue()

    def _visit(self, path: Path, seed: int, *, needed: bool) -> None:
        """Take a path and its teachers, topmost first, as nodes.

        A teacher that is not trained, nor needed because its student is trained already, is left out.
        """
        if (path, seed) in self._nodes:
            return
        stage = self.lattice.stage(path, seed)
        untrained = self._result(stage) is None
        if untrained and not needed:
            return
        if path.teacher:
            self._visit(path.teacher, seed, needed=untrained)
        self._nodes[path, seed] = Node(path, seed, stage)
        self._paths[stage.key][path] = None

    def _result(self, stage: Stage) -> float | None:
        if stage.key not in self._results:
            score = self._results[stage.key] = self._done(stage)
            if score is not None:
                self.reused.add(stage.key)
        return self._results[stage.key]

    def _is_open(self, stage: Stage) -> bool:
        """Neither trained nor failed nor, decided here, lost. Teachers must have been asked about before."""
        key = stage.key
        if self._results[key] is not None or key in self.failed:
            return False
        if stage.teacher and stage.teacher.key in self.failed:
            self.lost[key] = stage.teacher.key
        elif stage.teacher and stage.teacher.key in self.lost:
            self.lost[key] = self.lost[stage.teacher.key]
        return key not in self.lost

    def _rate(self, path: Path) -> None:
        """Note a path's score as soon as it is known."""
        if path in self.scores:
            return
        keys = [self.lattice.stage(path, seed).key for seed in self.seeds]
        if any(key in self.failed or key in self.lost for key in keys):
            self.scores[path] = -inf
            return
        results = [score for key in keys if (score := self._results.get(key)) is not None]
        if len(results) == len(keys):
            self.scores[path] = fmean(results)

    def _queue(self) -> None:
        """Who teaches whom among the open stages, how long each chain is, and who can start."""
        longest: dict[str, float] = defaultdict(float)  # the costliest chain below a key
        self._students = defaultdict(list)
        self._turn = {}
        self._ready = []
        for order, (key, stage) in reversed(list(enumerate(self._open.items()))):  # students before teachers
            chain = self._cost(stage) + longest[key]
            self._turn[key] = (-chain, order)
            teacher = stage.teacher.key if stage.teacher else None
            if teacher in self._open:
                longest[teacher] = max(longest[teacher], chain)
                self._students[teacher].append(key)
            elif key not in self.running:
                self._ready.append((*self._turn[key], key))
        heapify(self._ready)
