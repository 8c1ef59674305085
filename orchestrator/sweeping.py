"""A strategy that searches paths, made into one that searches settings too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from math import inf

from orchestrator.lattice import Lattice, Path, Scores
from orchestrator.samplers import Known
from orchestrator.settings import Setting
from orchestrator.siblings import Edge
from orchestrator.sweep import Sweep


class Sweeping:
    """(lattice, scores of trials) -> trials wanted: those of each path that a strategy wants.

    To the strategy a path has the score of its best setting, once its sweep is over. A setting is chosen once, and kept
    for whatever else a strategy wants of the same models:

    - With `seeds` only these judge the settings; where a path is wanted with others, or with all, its winner is trained
      with them. None: all seeds judge.
    - A path that is wanted up to an epoch is swept up to there, and scores as the best of its settings does there. If
      it is wanted whole the same settings go on, and whole trainings decide.
    - A path that is wanted with a higher budget takes the setting over that won with the one below, unless it was
      wanted before that.

    Like a strategy this is a pure function of its arguments; what it remembers only saves it from working the same out
    again. The strategy is shown no score before it has asked for the path, so that one who is told all scores at once
    goes the same way as one who saw them come. `reached` says which trials were trained before this began: with asha,
    whoever went on then does so again. `first` are the settings that the sweep of a path begins with, the same at every
    call.
    """

    def __init__(
        self,
        strategy: Callable[[Lattice, Scores], Iterable[Path]],
        sweep: Sweep,
        lattice: Lattice,
        *,
        seeds: tuple[int, ...] | None = None,
        reached: Callable[[Path], bool] = lambda trial: False,
        first: Callable[[Path], Sequence[Setting]] = lambda path: (),
    ) -> None:
        self.strategy, self.sweep, self.lattice, self.seeds = strategy, sweep, lattice, seeds
        self._first = first
        self._reached = lru_cache(maxsize=None)(reached)
        self._begun: dict[Path | None, list[Setting]] = {}  # what is tried first on an edge
        self._forget({})

    def _forget(self, scores: Scores) -> None:
        self._scores, self._won = scores, Won(self)
        self._seen = 0  # scores that were looked at
        self._edges: dict[Path, Edge] = {}
        self._budgets: dict[tuple[str, ...], list[Path]] = defaultdict(list)  # the edges of the same models
        self._asked: dict[Path, None] = {}  # by the strategy
        self._relist()

    def _relist(self) -> None:
        """Begin a new answer."""
        self._answer: list[Path] = []
        self._in: set[Path] = set()  # the answer
        self._listed: set[Path] = set()  # the edges of which it has all that is wanted
        self._derived: dict[Path, list[Path]] = defaultdict(list)  # what else is asked for, by edge
        self._stale = False
        for path in self._asked:
            self._take(path)

    def __call__(self, lattice: Lattice, scores: Scores) -> list[Path]:
        """The same list as before if nothing was taken out of it; there may be more in it."""
        fresh = scores is not self._scores or len(scores) < self._seen
        if fresh:
            self._forget(scores)
        told = self._news() or fresh
        while told:
            told = self._ask(lattice)
        if self._stale:
            self._relist()
        return self._answer

    def winner(self, path: Path) -> Path | None:
        """The trial of a path that won its sweep, with all seeds; None: it is not over, or all have failed."""
        edge = self._edges.get(path)
        trial = edge.winners.get(None) if edge else None
        return trial.training if trial else None

    def first(self, path: Path) -> list[Setting]:
        """The settings that are tried first on a path's last edge."""
        return self._more(path, Edge(path, self.sweep, self.lattice, seeds=self.seeds, reached=self._reached), {})

    def trial(self, path: Path) -> Path | None:
        """What stands for a path that was asked for; None: that is not known yet, or all its settings have failed."""
        edge = self._edges[path.plain]
        goal = path.until if path.until in edge.pauses else None
        trial = edge.winners.get(goal)
        if trial is None or (path.seeds == self.seeds and path.until == goal):
            return trial
        until = trial.until if path.until == goal else path.until
        if until is not None and until >= self.lattice.epochs(trial):
            until = None
        return Path(trial.models, trial.budget, trial.settings, path.seeds, until)

    def known(self, path: Path) -> float | None:
        """The score that the strategy sees; None: it has not asked for the path, or it is not known yet."""
        if len(path.models) == 1:
            return self._scores.get(path)
        if path not in self._asked:
            return None
        edge = self._edges[path.plain]
        trial = self.trial(path)
        if trial is not None:
            return self._scores.get(trial)
        goal = path.until if path.until in edge.pauses else None
        return -inf if goal in edge.winners else None

    def _news(self) -> bool:
        """Take the scores that came since the last time; -> whether the strategy might want to know."""
        new = list(islice(self._scores, self._seen, None))
        self._seen = len(self._scores)
        told = any(trial in self._asked for trial in new)
        for path in dict.fromkeys(trial.plain for trial in new):
            if edge := self._edges.get(path):
                over = edge.over  # then it was a score of something that is derived
                told |= self._update(edge) or over
        return told

    def _ask(self, lattice: Lattice) -> bool:
        """Ask the strategy what it wants; -> whether something of that is new to it and known already."""
        asked = dict.fromkeys(self.strategy(lattice, self._won))
        new = [path for path in asked if path not in self._asked]
        self._stale |= not self._asked.keys() <= asked.keys()
        self._asked = asked
        for path in sorted(new, key=lambda path: path.budget):  # stable
            self._register(path)
        for path in new:
            self._take(path)
        return any(self.known(path) is not None for path in new)

    def _register(self, path: Path) -> None:
        """Note what is to be decided for a path, before anything new is."""
        if len(path.models) == 1:
            return
        edge = self._edge(path.plain)
        if path.until is None or edge.asked:
            edge.whole = True
        elif path.until not in edge.pauses:
            edge.pauses = sorted({*edge.pauses, path.until})

    def _edge(self, path: Path) -> Edge:
        """The edge at the end of a path, with those above it."""
        if path not in self._edges:
            edge = self._edges[path] = Edge(path, self.sweep, self.lattice, seeds=self.seeds, reached=self._reached)
            if path.teacher and self.sweep.scope == "edge":
                self._edge(path.teacher).whole = True
                edge.teacher = path.teacher
            cheaper = [other for other in self._budgets[path.models] if other.budget < path.budget]
            edge.cheaper = max(cheaper, key=lambda other: other.budget, default=None)
            self._budgets[path.models].append(path)
            for above in edge.waits:
                self._edges[above].students.append(path)
        return self._edges[path]

    def _take(self, path: Path) -> None:
        """Have what the strategy asked for in the answer."""
        if len(path.models) == 1:
            self._put([path])
            return
        edge = self._edges[path.plain]
        if path.seeds != self.seeds or path.until not in edge.goals:
            self._derived[path.plain].append(path)
        self._list(edge)

    def _list(self, edge: Edge) -> None:
        """Have all that is wanted of an edge in the answer, and of those that it waits for."""
        if edge.path not in self._listed:
            for path in edge.waits:
                self._list(self._edges[path])
            self._listed.add(edge.path)
        self._show(edge)
        self._update(edge)

    def _update(self, edge: Edge) -> bool:
        """Decide on an edge, if it is known who teaches; -> whether there is a winner where there was none."""
        if edge.over or edge.path not in self._listed:
            return False
        above = [self._edges[path].winners for path in edge.waits]
        if not all(None in winners for winners in above):
            return False
        before, known = edge.wanted, len(edge.winners)
        self._decide(edge)
        self._stale |= not set(edge.wanted).issuperset(before)
        self._show(edge)
        if None in edge.winners:
            for student in edge.students:
                self._update(self._edges[student])
        return len(edge.winners) > known

    def _decide(self, edge: Edge) -> None:
        teacher = self._edges[edge.teacher].winners[None] if edge.teacher else None
        if edge.teacher and teacher is None:
            edge.lose()
            return
        edge.above = teacher.settings if teacher else ()
        cheaper = self._edges[edge.cheaper].winners[None] if edge.cheaper else None
        if cheaper:
            edge.decide(self._scores, lambda known: [cheaper.setting])
        else:
            edge.decide(self._scores, lambda known: self._more(edge.path, edge, known))

    def _more(self, path: Path, edge: Edge, known: Known) -> list[Setting]:
        if edge.asked or known:
            return self._asked_for(path, edge.asked, known)
        which = None if self.sweep.sampler == "grid" else path  # a grid is the same on every edge
        if which not in self._begun:
            self._begun[which] = self._asked_for(path, [], known)
        return self._begun[which]

    def _asked_for(self, path: Path, asked: list[Setting], known: Known) -> list[Setting]:
        # On a path all edges have one setting, and prefixes are shared if all paths have the same settings.
        seed = str(path) if self.sweep.scope == "edge" else ""
        return self.sweep.more(asked, known, self.lattice.distill, seed=seed, first=self._first(path))

    def _show(self, edge: Edge) -> None:
        self._put(edge.wanted)
        self._put(trial for path in self._derived.get(edge.path, ()) if (trial := self.trial(path)))

    def _put(self, trials: Iterable[Path]) -> None:
        for trial in trials:
            if trial not in self._in:
                self._in.add(trial)
                self._answer.append(trial)


class Won(Mapping[Path, float]):
    """The scores that a strategy sees: of each path that it asked for and whose sweep is over, that of its winner."""

    def __init__(self, sweeping: Sweeping) -> None:
        self.sweeping = sweeping
        self._found: dict[Path, float] = {}  # what is known of a path stays

    def __getitem__(self, path: Path) -> float:
        if path not in self:
            raise KeyError(path)
        return self._found[path]

    def __contains__(self, path: object) -> bool:
        if path in self._found:
            return True
        assert isinstance(path, Path)
        score = self.sweeping.known(path)
        if score is not None:
            self._found[path] = score
        return score is not None

    def __iter__(self) -> Iterator[Path]:
        return (path for path in list(self.sweeping._asked) if self.sweeping.known(path) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)
