"""A strategy that searches paths, made into one that searches settings too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
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
    first: Known  # the scores at the first rung, or of whole trainings where none is given up
    settled: bool  # whether nothing can change it but more settings
    whole: dict[Path, float]  # scores of those that were trained to the end


@dataclass
class Edge:
    """The sweep of a path's last edge."""

    above: tuple[Setting, ...]  # settings of the edges before it, where each edge has its own
    asked: list[Setting] = field(default_factory=list)


class Sweeping:
    """(lattice, scores of trials) -> trials wanted: those of each path that a strategy wants.

    To the strategy a path has the score of its best setting, once its sweep is over. Like a strategy this is a pure
    function of its arguments; what it remembers only saves it from working the same out again. `reached` says which
    trials were trained before this began: with asha, whoever went on then does so again. `first` are the settings that
    the sweep of a path begins with, the same at every call.
    """

    def __init__(
        self,
        strategy: Callable[[Lattice, Scores], Iterable[Path]],
        sweep: Sweep,
        lattice: Lattice,
        *,
        reached: Callable[[Path], bool] = lambda trial: False,
        first: Callable[[Path], Sequence[Setting]] = lambda path: (),
    ) -> None:
        self.strategy, self.sweep, self.lattice = strategy, sweep, lattice
        self._first = first
        self._reached = lru_cache(maxsize=None)(reached)
        self._forget()

    def _forget(self) -> None:
        self._scores: Scores = {}
        self._seen = 0  # scores that were looked at
        self._edges: dict[Path, Edge] = {}
        self._winners: dict[Path, Path | None] = {}  # None: all its trials failed
        self._wanted: dict[Path, list[Path]] = {}  # trials of an edge; kept up to date by `_news`
        self._relist({})

    def _relist(self, asked: dict[Path, None]) -> None:
        """Begin a new answer."""
        self._asked: dict[Path, None] = {}  # by the strategy
        self._listed: set[Path] = set()  # these and the paths to their teachers
        self._waiting: dict[Path, list[Path]] = defaultdict(list)  # those whose teacher's sweep is not over, by it
        self._answer: list[Path] = []
        self._list(asked)

    def __call__(self, lattice: Lattice, scores: Scores) -> list[Path]:
        """The same list as before if nothing was taken out of it; there may be more in it."""
        changed: dict[Path, list[Path]] = {}
        if scores is not self._scores or len(scores) < self._seen:
            self._forget()
            self._scores = scores
        else:
            changed = self._news()
            if not changed:
                return self._answer
        self._seen = len(scores)
        asked = dict.fromkeys(path.plain for path in self.strategy(lattice, Won(self)))
        dropped = not self._asked.keys() <= asked.keys()
        if dropped or any(set(before) - set(self._wanted[path]) for path, before in changed.items()):
            self._relist(asked)
            return self._answer
        for path, before in changed.items():
            self._answer += [trial for trial in self._wanted[path] if trial not in before]
            for student in self._waiting.pop(path, ()) if path in self._winners else ():
                self._admit(student)
        self._list(asked)
        return self._answer

    def winner(self, path: Path) -> Path | None:
        """The trial of a path that won its sweep; None: it is not over, or all have failed."""
        if path not in self._winners and path not in self._wanted:
            self._decide(path)
        return self._winners.get(path)

    def over(self, path: Path) -> bool:
        """Whether the sweep of a path is over, won or not."""
        return self.winner(path) is not None or path in self._winners

    def _news(self) -> dict[Path, list[Path]]:
        """What was wanted before of the edges of which that changes with the scores that came since the last time."""
        changed = {}
        for path in {trial.plain for trial in islice(self._scores, self._seen, None)} & self._wanted.keys():
            before, over = self._wanted[path], path in self._winners
            if not over:
                self._decide(path)
            if path in self._listed and (over != (path in self._winners) or before != self._wanted[path]):
                changed[path] = before
        self._seen = len(self._scores)
        return changed

    def _list(self, asked: dict[Path, None]) -> None:
        """Take paths into the answer."""
        self._asked = asked
        for path in asked:
            self._take(path)

    def _take(self, path: Path) -> None:
        """Take a path; where each edge has its own sweep, first that to its teacher."""
        if path in self._listed:
            return
        if self.sweep.scope == "edge" and path.teacher:
            self._take(path.teacher)
        self._listed.add(path)
        self._admit(path)

    def _admit(self, path: Path) -> None:
        """Ask for the trials of a path, if it is known who teaches; otherwise once it is."""
        if self.sweep.scope == "edge" and path.teacher and not self.over(path.teacher):
            self._waiting[path.teacher].append(path)
            return
        if path not in self._wanted:
            self._decide(path)
        self._answer += self._wanted[path]
        if path in self._winners:
            for student in self._waiting.pop(path, ()):
                self._admit(student)

    def _decide(self, path: Path) -> None:
        """Note what is wanted of a path now, and its winner if it has one."""
        scores = self._scores
        if len(path.models) == 1:
            self._wanted[path] = [path]
            if path in scores:
                self._winners[path] = path if scores[path] > -inf else None
            return
        edge = self._edge(path)
        if edge is None:
            return
        standing = self._standing(path, edge)
        while len(standing.first) == len(edge.asked):
            more = self._more(path, edge, standing.first)
            if len(more) == len(edge.asked):
                break
            edge.asked = more
            standing = self._standing(path, edge)
        self._wanted[path] = standing.wanted
        if standing.settled:
            # Of equals the first that was asked for.
            best = max(standing.whole, key=standing.whole.__getitem__, default=None)
            self._winners[path] = best if best and standing.whole[best] > -inf else None

    def _more(self, path: Path, edge: Edge, known: Known) -> list[Setting]:
        # On a path all edges have one setting, and prefixes are shared if all paths have the same settings.
        seed = str(path) if self.sweep.scope == "edge" else ""
        return self.sweep.more(edge.asked, known, self.lattice.distill, seed=seed, first=self._first(path))

    def _edge(self, path: Path) -> Edge | None:
        """The sweep of a path's last edge; None until it is known who teaches, or if nobody can."""
        if path not in self._edges:
            above: tuple[Setting, ...] = ()
            if self.sweep.scope == "edge":
                assert path.teacher is not None
                teacher = self.winner(path.teacher)
                if teacher is None:
                    if path.teacher in self._winners:
                        self._winners[path], self._wanted[path] = None, []
                    return None
                above = teacher.settings
            self._edges[path] = Edge(above)
        return self._edges[path]

    def _trial(self, path: Path, edge: Edge, one: Setting, until: int | None = None) -> Path:
        whole = (*edge.above, one) if self.sweep.scope == "edge" else (one,) * (len(path.models) - 1)
        return Path(path.models, path.budget, whole, until=until)

    def _standing(self, path: Path, edge: Edge) -> Standing:
        """What is wanted of the settings asked for so far, rung by rung, and what is known of them."""
        scores = self._scores
        trials = {one: self._trial(path, edge, one) for one in edge.asked}
        if self.sweep.stop is None:
            known = {one: scores[trial] for one, trial in trials.items() if trial in scores}
            whole = {trial: scores[trial] for trial in trials.values() if trial in scores}
            return Standing(list(trials.values()), known, len(known) == len(trials), whole)
        rungs = {one: self._rungs(trial) for one, trial in trials.items()}
        first: Known = {}
        wanted: list[Path] = []
        settled, members = True, list(trials)
        for level in range(max(map(len, rungs.values()), default=0) + 1):
            if not members:
                break
            ends = {one: rungs[one][level] if level < len(rungs[one]) else None for one in members}
            at = {one: self._trial(path, edge, one, until=end) for one, end in ends.items()}
            wanted += at.values()
            there = {one: scores[trial] for one, trial in at.items() if trial in scores}
            first = first if level else there
            settled &= len(there) == len(members)
            members = self._promoted(path, edge, rungs, there, level=level, all_there=len(there) == len(members))
        whole = {trial: scores[trial] for trial in trials.values() if trial in scores}
        return Standing(wanted, first, settled, whole)

    def _promoted(
        self,
        path: Path,
        edge: Edge,
        rungs: Mapping[Setting, list[int]],
        there: Mapping[Setting, float],
        *,
        level: int,
        all_there: bool,
    ) -> list[Setting]:
        """Those that go on after a rung, given the scores of those that are there."""
        stop = self.sweep.stop
        assert stop is not None
        going = [one for one, score in there.items() if level < len(rungs[one]) and score > -inf]

        def failed(one: Setting) -> bool:
            later = (*rungs[one][level + 1 :], None)
            return any(self._scores.get(self._trial(path, edge, one, until=end)) == -inf for end in later)

        def went_on(one: Setting) -> bool:
            until = rungs[one][level + 1] if level + 1 < len(rungs[one]) else None
            trial = self._trial(path, edge, one, until=until)
            return trial in self._scores or (stop.how == "asha" and self._reached(trial))

        ranked = sorted(going, key=there.__getitem__, reverse=True)
        count = len(there) // stop.factor if all_there or stop.how == "asha" else 0
        count = max(count, 1) if all_there else count
        # Whoever has gone on stays, though better ones may have come.
        chosen = [one for one in going if one in ranked[:count] or went_on(one)]
        if all_there and all(map(failed, chosen)):  # then the best of those that were given up goes in their place
            chosen += [one for one in ranked if one not in chosen][:1]
        return chosen

    def _rungs(self, trial: Path) -> list[int]:
        assert self.sweep.stop is not None
        return self.sweep.stop.rungs(self.lattice.epochs(trial))


class Won(Mapping[Path, float]):
    """The scores that a strategy sees: of each path whose sweep is over, that of its winner."""

    def __init__(self, sweeping: Sweeping) -> None:
        self.sweeping = sweeping

    def __getitem__(self, path: Path) -> float:
        trial = self.sweeping.winner(path)
        if trial is not None:
            return self.sweeping._scores[trial]
        if self.sweeping.over(path):
            return -inf
        raise KeyError(path)

    def __iter__(self) -> Iterator[Path]:
        return iter(list(self.sweeping._winners))

    def __len__(self) -> int:
        return len(self.sweeping._winners)
