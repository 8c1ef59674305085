"""A strategy that searches paths, made into one that searches settings too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from typing import NamedTuple

from orchestrator.lattice import Lattice, Path, Scores
from orchestrator.samplers import Known
from orchestrator.settings import Setting
from orchestrator.sweep import Sweep


class Standing(NamedTuple):
    """How the settings of one edge do."""

    wanted: list[Path]  # trials, and how far each is to be trained
    settled: bool  # whether nothing can change it but more settings
    known: Known


@dataclass
class Edge:
    """The sweep of a path's last edge."""

    above: tuple[Setting, ...]  # settings of the edges before it, where each edge has its own
    asked: list[Setting] = field(default_factory=list)


class Sweeping:
    """(lattice, scores of trials) -> trials wanted: those of each path that a strategy wants.

    To the strategy a path has the score of its best setting, once its sweep is over. Like a strategy this is a pure
    function of its arguments; what it remembers only saves it from working the same out again.
    """

    def __init__(self, strategy: Callable[[Lattice, Scores], Iterable[Path]], sweep: Sweep, lattice: Lattice) -> None:
        self.strategy, self.sweep, self.lattice = strategy, sweep, lattice
        self._forget()

    def _forget(self) -> None:
        self._scores: Scores = {}
        self._seen = 0
        self._edges: dict[Path, Edge] = {}
        self._winners: dict[Path, Path | None] = {}  # None: all its trials failed
        self._wanted: dict[Path, tuple[list[Path], bool]] = {}  # trials of an edge, and whether it is settled
        self._answer: tuple[Path, ...] = ()

    def __call__(self, lattice: Lattice, scores: Scores) -> tuple[Path, ...]:
        """The same object as before, if the answer is the same."""
        if scores is not self._scores or len(scores) < self._seen:
            self._forget()
            self._scores = scores
        elif not self._news(scores):
            return self._answer
        self._seen = len(scores)
        found: dict[Path, None] = {}
        visited: set[Path] = set()
        for path in self.strategy(lattice, Won(self, scores)):
            found.update(dict.fromkeys(self._trials(path.plain, scores, visited)))
        self._answer = tuple(found)
        return self._answer

    def winner(self, path: Path, scores: Scores) -> Path | None:
        """The trial of a path that won its sweep; None: it is not over, or all have failed."""
        if path not in self._winners:
            self._decide(path, scores)
        return self._winners.get(path)

    def _news(self, scores: Scores) -> bool:
        """Whether the scores that came since the last time change what is wanted of an edge."""
        news = {trial.plain for trial in islice(scores, self._seen, None)} & self._wanted.keys()
        changed = False
        self._seen = len(scores)
        for path in news:
            before = self._wanted[path]
            if path not in self._winners:
                self._decide(path, scores)
            changed |= path in self._winners or before != self._wanted[path]
        return changed

    def _trials(self, path: Path, scores: Scores, visited: set[Path]) -> Iterator[Path]:
        """The trials of a path; where each edge has its own sweep, first those of the path to its teacher."""
        if path in visited:
            return
        visited.add(path)
        if self.sweep.scope == "edge" and path.teacher:
            yield from self._trials(path.teacher, scores, visited)
        self.winner(path, scores)
        yield from self._wanted.get(path, ([], False))[0]

    def _decide(self, path: Path, scores: Scores) -> None:
        """Note what is wanted of a path now, and its winner if it has one."""
        if len(path.models) == 1:
            self._wanted[path] = [path], path in scores
            if path in scores:
                self._winners[path] = path if scores[path] > -inf else None
            return
        edge = self._edge(path, scores)
        if edge is None:
            return
        standing = self._standing(path, edge, scores)
        more = self._more(path, edge, standing.known) if standing.settled else edge.asked
        if len(more) > len(edge.asked) or not edge.asked:
            edge.asked = more
            standing = self._standing(path, edge, scores)
        over = standing.settled and len(self._more(path, edge, standing.known)) == len(edge.asked)
        self._wanted[path] = standing.wanted, over
        if over:
            whole = [self._trial(path, edge, one) for one, (_, epoch) in standing.known.items() if epoch is None]
            # Of equals the first that was asked for.
            best = max(whole, key=scores.__getitem__, default=None)
            self._winners[path] = best if best and scores[best] > -inf else None

    def _more(self, path: Path, edge: Edge, known: Known) -> list[Setting]:
        # On a path all edges have one setting, and prefixes are shared if all paths have the same settings.
        seed = str(path) if self.sweep.scope == "edge" else ""
        return self.sweep.more(edge.asked, known, self.lattice.distill, seed=seed)

    def _edge(self, path: Path, scores: Scores) -> Edge | None:
        """The sweep of a path's last edge; None until it is known who teaches, or if nobody can."""
        if path not in self._edges:
            above: tuple[Setting, ...] = ()
            if self.sweep.scope == "edge":
                assert path.teacher is not None
                teacher = self.winner(path.teacher, scores)
                if teacher is None:
                    if path.teacher in self._winners:
                        self._winners[path], self._wanted[path] = None, ([], True)
                    return None
                above = teacher.settings
            self._edges[path] = Edge(above)
        return self._edges[path]

    def _trial(self, path: Path, edge: Edge, one: Setting, until: int | None = None) -> Path:
        whole = (*edge.above, one) if self.sweep.scope == "edge" else (one,) * (len(path.models) - 1)
        return Path(path.models, path.budget, whole, until=until)

    def _standing(self, path: Path, edge: Edge, scores: Scores) -> Standing:
        """What is wanted of the settings asked for so far, rung by rung, and what is known of them."""
        trials = {one: self._trial(path, edge, one) for one in edge.asked}
        if self.sweep.stop is None:
            over: Known = {one: (scores[trial], None) for one, trial in trials.items() if trial in scores}
            return Standing(list(trials.values()), len(over) == len(trials), over)
        rungs = {one: self._rungs(trial) for one, trial in trials.items()}
        known: dict[Setting, tuple[float, int | None]] = {}
        wanted: list[Path] = []
        settled, members = True, list(trials)
        for level in range(max(map(len, rungs.values()), default=0) + 1):
            if not members:
                break
            ends = {one: rungs[one][level] if level < len(rungs[one]) else None for one in members}
            at = {one: self._trial(path, edge, one, until=end) for one, end in ends.items()}
            wanted += at.values()
            there = {one: scores[trial] for one, trial in at.items() if trial in scores}
            known |= {one: (score, ends[one]) for one, score in there.items()}
            settled &= len(there) == len(members)
            members = self._promoted(
                path, edge, rungs, there, scores, level=level, all_there=len(there) == len(members)
            )
        return Standing(wanted, settled, {one: known[one] for one in edge.asked if one in known})

    def _promoted(
        self,
        path: Path,
        edge: Edge,
        rungs: Mapping[Setting, list[int]],
        there: Mapping[Setting, float],
        scores: Scores,
        *,
        level: int,
        all_there: bool,
    ) -> list[Setting]:
        """Those that go on after a rung, given the scores of those that are there."""
        stop = self.sweep.stop
        assert stop is not None
        going = [one for one, score in there.items() if level < len(rungs[one]) and score > -inf]
        ranked = sorted(going, key=there.__getitem__, reverse=True)
        count = len(there) // stop.factor if all_there or stop.how == "asha" else 0
        chosen = set(ranked[: max(count, 1) if all_there else count])
        # Whoever has gone on stays, though better ones may have come.
        return [one for one in going if one in chosen or self._went_on(path, edge, rungs[one], one, scores, level)]

    def _went_on(self, path: Path, edge: Edge, rungs: list[int], one: Setting, scores: Scores, level: int) -> bool:
        until = rungs[level + 1] if level + 1 < len(rungs) else None
        return self._trial(path, edge, one, until=until) in scores

    def _rungs(self, trial: Path) -> list[int]:
        assert self.sweep.stop is not None
        return self.sweep.stop.rungs(self.lattice.epochs(trial))


class Won(Mapping[Path, float]):
    """The scores that a strategy sees: of each path whose sweep is over, that of its winner."""

    def __init__(self, sweeping: Sweeping, scores: Scores) -> None:
        self.sweeping, self.scores = sweeping, scores

    def __getitem__(self, path: Path) -> float:
        trial = self.sweeping.winner(path, self.scores)
        if trial is not None:
            return self.scores[trial]
        if path in self.sweeping._winners:
            return -inf
        raise KeyError(path)

    def __iter__(self) -> Iterator[Path]:
        return iter(list(self.sweeping._winners))

    def __len__(self) -> int:
        return len(self.sweeping._winners)
