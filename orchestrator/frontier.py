"""What may start now: the stages that are wanted, not trained yet, and whose teacher is trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from math import inf
from statistics import fmean

from orchestrator.asking import Asking
from orchestrator.cohorts import Length, kin
from orchestrator.lattice import Lattice, Path, Strategy
from orchestrator.results import Results
from orchestrator.turns import Turn, Turns
from trainers.spec import Stage


@dataclass(frozen=True)
class Node:
    """One training of a path's last model. Several paths have one stage where their models are equal."""

    path: Path
    seed: int
    stage: Stage


class Frontier:
    """Hands out the stages of the paths that a strategy wants, teachers before students, longest chain first.

    It has no state worth saving: `done` and `paused` say what the store has (see `Results`), and a frontier built
    afresh goes on where another ended. If it is not over and nothing is running, `next` has a stage.

    What a strategy adds to what it wanted is added here, too; only where it takes something back is all worked out
    anew: thousands of settings are swept in one study.
    """

    def __init__(
        self,
        lattice: Lattice,
        strategy: Strategy,
        *,
        seeds: tuple[int, ...],
        done: Callable[[Stage], float | None],
        paused: Callable[[Stage, int], float | None] = lambda stage, epoch: None,
        controls: Strategy = lambda lattice, scores: (),
        cost: Callable[[Stage], float] = lambda stage: 1.0,
    ) -> None:
        assert seeds, "the study has checked that there is a seed"
        self.lattice, self.seeds = lattice, seeds
        self.scores: dict[Path, float] = {}  # mean over the seeds; -inf: one of them failed. Written once
        self.running: dict[str, Stage] = {}
        self.failed: dict[str, str] = {}  # why
        self.lost: dict[str, str] = {}  # the key of the ancestor that failed
        self.work = 0.0  # the costs of all that is open
        self.fresh: list[Node] = []  # what has become wanted, perhaps once more, since somebody emptied this
        self._asking, self._cost = Asking(lattice, strategy, controls), cost
        self._results = Results(done, paused)
        self.reused = self._results.reused  # keys
        self._paths: dict[str, dict[Path, None]] = defaultdict(dict)  # by key; used as an ordered set
        self._nodes: dict[tuple[Path, int], Node] = {}
        self._open: dict[str, Stage] = {}  # wanted and unfinished; a teacher before its students
        self._students: dict[str, dict[str, None]] = defaultdict(dict)
        self._chain: dict[str, float] = {}  # the costliest chain from a key on, itself included
        self._costs: dict[str, float] = {}  # as they were when they were admitted
        self._kin: dict[Hashable, dict[str, None]] = defaultdict(dict)  # open keys, and some that are not any more
        self._order: dict[str, int] = {}
        self._turns = Turns()
        self._ask()

    @property
    def over(self) -> bool:
        """Nothing that is wanted is unfinished. What failed, or lost its teacher, counts as finished."""
        return not self._open and not self.running

    @property
    def waiting(self) -> dict[str, Stage]:
        """What is wanted and not yet started, by key, teachers first."""
        return {key: stage for key, stage in list(self._open.items()) if key not in self.running}

    def wants(self, key: str) -> bool:
        """Whether a stage is to be trained, or trained further."""
        return key in self._open

    def wanted(self) -> list[Node]:
        """Everything that the strategy and the controls ask for now, with all teachers, finished or not."""
        return list(self._nodes.values())

    def paths_of(self, key: str) -> list[Path]:
        """The paths whose last model this stage trains."""
        return list(self._paths[key]) if key in self._paths else []

    def model(self, key: str) -> str:
        """The name of the model that a stage trains; the first of several for equal ones."""
        return next(iter(self._paths[key])).models[-1]

    def goal(self, key: str) -> int | None:
        """The epoch after which an open stage is to pause; None: never."""
        stage = self._open.get(key)
        if stage is None:
            return None
        ends = [path.until for path in self._wanted_as(key) if self._results.value(path, stage) is None]
        return None if None in ends else max(end for end in ends if end is not None)

    def next(self, may: Callable[[str], bool] = lambda model: True) -> Stage | None:
        """The stage to start now, if there is one; it counts as running from here on.

        `may` is asked of models, that of the longest chain first, whether one of their stages may start now.
        """
        key = self._turns.take(lambda turn: self._may_start(turn.key) and -turn.chain == self._chain[turn.key], may)
        if key is None:
            return None
        self.running[key] = self._open[key]
        return self.running[key]

    def beside(self, key: str) -> list[Stage]:
        """What may start now and may be trained together with this stage, longest chain first."""
        like = kin(self.running[key], self.lattice.divisor)
        keys = self._kin[like] = {one: None for one in self._kin[like] if one in self._open}
        ready = sorted(filter(self._may_start, keys), key=lambda one: (-self._chain[one], self._order[one]))
        return [self._open[one] for one in ready]

    def join(self, key: str) -> None:
        """A stage that may start does so, together with another one."""
        self.running[key] = self._open[key]

    def length(self, key: str) -> Length:
        """How long an open stage is, and the longest chain from it on."""
        return Length(self._costs[key], self._chain[key])

    @property
    def longest(self) -> float:
        """The longest chain of what runs. Whatever waits for room is no longer, or it would run."""
        return max((self._chain[key] for key in self.running if key in self._chain), default=0.0)

    def finish(self, key: str, score: float) -> None:
        """A running stage is trained."""
        self._results.finish(key, score)
        self._news(key)

    def pause(self, key: str) -> None:
        """A running stage is trained as far as it was wanted to be; `paused` says what it has reached."""
        self._news(key)

    def fail(self, key: str, reason: str) -> None:
        """A running stage cannot be trained; all that it would have taught is lost."""
        del self.running[key]
        self.failed[key] = reason
        gone = [key]
        for one in gone:
            self._close(one)
            students = [student for student in self._students.pop(one, ()) if student in self._open]
            self.lost |= dict.fromkeys(students, key)
            gone += students  # and theirs
        for one in gone:
            for path in self._paths[one]:
                self._rate(path)
        self._ask()

    def retry(self, key: str) -> None:
        """A running stage stopped without a result, and may start again."""
        del self.running[key]
        self._queue(key)

    def _news(self, key: str) -> None:
        stage = self.running.pop(key)
        for path in self._paths[key]:
            if path.until is not None:
                self._results.forget(key, path.until)
        known = len(self.scores)
        for path in self._paths[key]:
            self._rate(path)
        self._settle(key, stage)
        if len(self.scores) > known:
            self._ask()

    def _ask(self) -> None:
        """Ask the strategy what it wants, again as long as the store answers with new scores."""
        known = -1
        while len(self.scores) > known:
            known = len(self.scores)
            new = self._asking.new(self.scores)
            if new is None:
                self._plan()
            else:
                self._extend(new)

    def _plan(self) -> None:
        """Work out from all that is asked what is open, what it waits for and whose turn it is."""
        self._nodes, self._open, self._chain, self._order, self._turns = {}, {}, {}, {}, Turns()
        self._students, self._kin, self.work = defaultdict(dict), defaultdict(dict), 0.0
        self._extend(list(self._asking.asked))

    def _extend(self, paths: list[Path]) -> None:
        """Take paths with their teachers, and note what of it is open."""
        new: list[Node] = []
        for path in paths:
            for seed in self.seeds if path.seeds is None else path.seeds:
                self._visit(path, seed, new, needed=True)
        self.fresh += new
        for node in new:
            if node.stage.key not in self._open and self._is_open(node.stage):
                self._admit(node.stage)
            elif node.stage.key in self._open:
                self._queue(node.stage.key)
        for path in dict.fromkeys(node.path for node in new):
            self._rate(path)

    def _visit(self, path: Path, seed: int, new: list[Node], *, needed: bool) -> None:
        """Take a path and its teachers, topmost first, as nodes.

        A teacher that is not trained, nor needed because its student is trained already, is left out.
        """
        if (path, seed) in self._nodes:
            return
        stage = self.lattice.stage(path, seed)
        untrained = self._results.value(path, stage) is None
        if untrained and not needed:
            return
        if path.teacher:
            self._visit(path.teacher, seed, new, needed=untrained)
        self._nodes[path, seed] = node = Node(path, seed, stage)
        self._paths[stage.key][path] = None
        new.append(node)

    def _is_open(self, stage: Stage) -> bool:
        """Neither trained as far as wanted, nor failed nor, decided here, lost. Teachers were looked at before."""
        key = stage.key
        if key in self.failed or all(self._results.value(path, stage) is not None for path in self._wanted_as(key)):
            return False
        if stage.teacher and stage.teacher.key in self.failed:
            self.lost[key] = stage.teacher.key
        elif stage.teacher and stage.teacher.key in self.lost:
            self.lost[key] = self.lost[stage.teacher.key]
        return key not in self.lost

    def _wanted_as(self, key: str) -> Iterator[Path]:
        """The paths to a stage that are asked for, or that lead on."""
        return (path for path in self._paths[key] if any((path, seed) in self._nodes for seed in self._seeds(path)))

    def _seeds(self, path: Path) -> tuple[int, ...]:
        return self.seeds if path.seeds is None else path.seeds

    def _admit(self, stage: Stage) -> None:
        """Note an open stage: whom it waits for, how long its chain makes those above it, and whether it may start."""
        key, chain = stage.key, self._cost(stage)
        self._open[key], self._chain[key], self._costs[key] = stage, chain, chain
        self._order[key] = len(self._order)
        self._kin[kin(stage, self.lattice.divisor)][key] = None
        self.work += chain
        while stage.teacher and stage.teacher.key in self._open:
            self._students[stage.teacher.key][stage.key] = None
            stage = stage.teacher
            chain += self._costs[stage.key]
            if chain <= self._chain[stage.key]:
                break
            self._chain[stage.key] = chain
            self._queue(stage.key)
        self._queue(key)

    def _settle(self, key: str, stage: Stage) -> None:
        """After news of a stage: close it, or let it go on; and let those start that waited for it."""
        if key in self._open:
            if any(self._results.value(path, stage) is None for path in self._wanted_as(key)):
                self._queue(key)
            else:
                self._close(key)
        if self._results.trained(key):
            for student in self._students.pop(key, ()):
                self._queue(student)

    def _close(self, key: str) -> None:
        """Nobody is to train it any more."""
        if self._open.pop(key, None):
            self.work -= self._costs[key]

    def _may_start(self, key: str) -> bool:
        if key not in self._open or key in self.running:
            return False
        teacher = self._open[key].teacher
        return teacher is None or self._results.trained(teacher.key)

    def _queue(self, key: str) -> None:
        if self._may_start(key):
            self._turns.put(self.model(key), Turn(-self._chain[key], self._order[key], key))

    def _rate(self, path: Path) -> None:
        """Note a path's score as soon as it is known."""
        if path in self.scores:
            return
        stages = [self.lattice.stage(path, seed) for seed in self._seeds(path)]
        results = [self._results.known(path, stage) for stage in stages]
        scores = [score for score in results if score is not None]
        if len(scores) == len(stages):  # though it may have failed later
            self.scores[path] = fmean(scores)
        elif any(stage.key in self.failed or stage.key in self.lost for stage in stages):
            self.scores[path] = -inf
