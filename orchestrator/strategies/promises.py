"""Subtrees end early: an assistant without prospects is not trained to its end, nor is what would descend from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from math import inf

from orchestrator.lattice import Lattice, Path, Scores
from orchestrator.strategies.waves import EXHAUSTIVE, WHOLE, inner, waves
from trainers.call import Call, NonNegative, Part


def promising(
    lattice: Lattice,
    scores: Scores,
    *,
    of: Call = EXHAUSTIVE,
    at: Part = 0.5,
    margin: NonNegative = 0.0,
) -> Iterator[Path]:
    """Train what `of` wants, but give an assistant up that has no prospect, and with it all that would descend from it.

    An assistant pauses after the part `at` of its epochs. It is compared with the same model at the end of shorter
    paths, once those are trained: it is taken to gain from there to its end the most that any of them gained, and goes
    on if this and `margin` (in the score's units) bring it up to the best of them. One that no shorter path leads to
    does not pause, neither do students. What the rule supposes is that a model which ends lower does not teach better;
    where that is wrong, a larger margin is right. To `of` a path that was given up has failed.
    """
    strategy = inner(of, outer="promising", among=WHOLE)
    strategy(lattice, {})  # refuses its arguments now, not at the first path
    return waves(strategy, lattice, _Prospects(lattice, scores, at, margin).settle)


class _Prospects:
    """Which paths go on to their end, as far as that is decided."""

    def __init__(self, lattice: Lattice, scores: Scores, at: float, margin: float) -> None:
        self.lattice, self.scores, self.at, self.margin = lattice, scores, at, margin
        self.goes: dict[Path, bool] = {}
        self.met: dict[tuple[str, float], list[Path]] = defaultdict(list)  # by last model and budget

    def settle(self, new: list[Path]) -> tuple[list[Path], dict[Path, float]]:
        """Decide on these and on the paths to their teachers, short ones first."""
        undecided = dict.fromkeys(path for whole in new for path in _upwards(whole) if path not in self.goes)
        ordered = sorted(undecided, key=_length)
        for path in ordered:
            self.met[path.models[-1], path.budget].append(path)
        asked: list[Path] = []
        for path in ordered:
            goes = self._decide(path, asked)
            if goes is not None:
                self.goes[path] = goes
        asked += (path for path in ordered if self.goes.get(path) and path.teacher)
        settled = {}
        for path in new:
            if path in self.goes and (path in self.scores or not self.goes[path]):
                settled[path] = self.scores[path] if self.goes[path] else -inf
        return asked, settled if len(settled) == len(new) else {}

    def _decide(self, path: Path, asked: list[Path]) -> bool | None:
        """Whether a path is trained to its end; None: not known yet. Appends as far as it is to be trained anyhow."""
        if path.teacher is not None and not self.goes.get(path.teacher):
            return self.goes.get(path.teacher)
        brief = self._brief(path)
        if path.teacher is None or path.models[-1] in self.lattice.students or brief == path:
            return True
        asked.append(brief)
        shorter = [p for p in self.met[path.models[-1], path.budget] if _length(p) < _length(path)]
        if any(p not in self.goes or (self.goes[p] and not {p, self._brief(p)} <= self.scores.keys()) for p in shorter):
            return None
        ends = {self._brief(p): self.scores[p] for p in shorter if self.goes[p] and self.scores[p] > -inf}
        if not ends:
            return True
        if brief not in self.scores:
            return None
        gain = max(end - self.scores[there] for there, end in ends.items())
        return reaches(self.scores[brief] + gain + self.margin, max(ends.values()))

    def _brief(self, path: Path) -> Path:
        epochs = self.lattice.epochs(path)
        until = max(1, round(self.at * epochs))
        return replace(path, until=until) if until < epochs else path


def reaches(expected: float, needed: float) -> bool:
    """Whether one is as high as the other, but for rounding."""
    return expected >= needed - 1e-9


def _upwards(path: Path) -> Iterator[Path]:
    """A path and those to its teachers."""
    above: Path | None = path
    while above is not None:
        yield above
        above = above.teacher


def _length(path: Path) -> int:
    return len(path.models)
