"""Subtrees end early: an assistant without prospects is not trained to its end, nor is what would descend from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from typing import NamedTuple

from orchestrator.lattice import Lattice, Path, Scores
from orchestrator.strategies.known import known
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


class Bar(NamedTuple):
    """What an assistant has to come up to."""

    end: float  # the best at the end of shorter paths; -inf: there was none
    gain: float  # the most that one of them gained from its pause to there


class _Prospects:
    """Which paths go on to their end, as far as that is decided."""

    def __init__(self, lattice: Lattice, scores: Scores, at: float, margin: float) -> None:
        self.lattice, self.scores, self.at, self.margin = lattice, scores, at, margin
        self.goes: dict[Path, bool] = {}
        self.met: dict[tuple[str, float], list[Path]] = defaultdict(list)  # by last model and budget
        self.bars: dict[tuple[str, float, int], Bar | None] = {}  # and length; of this wave

    def settle(self, new: list[Path]) -> tuple[list[Path], dict[Path, float]]:
        """Decide on these and on the paths to their teachers, short ones first."""
        undecided = dict.fromkeys(path for whole in new for path in _upwards(whole) if path not in self.goes)
        ordered = sorted(undecided, key=_length)
        for path in ordered:
            self.met[path.models[-1], path.budget].append(path)
        self.bars.clear()
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
        goal = (path.models[-1], path.budget, _length(path))
        if goal not in self.bars:
            self.bars[goal] = self._bar(*goal)  # the shorter paths are decided on before, as far as they can be
        bar = self.bars[goal]
        if bar is None:
            return None
        if bar.end == -inf:
            return True
        if brief not in self.scores:
            return None
        return reaches(self.scores[brief] + bar.gain + self.margin, bar.end)

    def _bar(self, name: str, budget: float, length: int) -> Bar | None:
        """What shorter paths to the same model came to; None: not known yet."""
        shorter = [path for path in self.met[name, budget] if _length(path) < length]
        if not all(path in self.goes for path in shorter):
            return None
        went = [path for path in shorter if self.goes[path]]
        if not known([*map(self._brief, went), *went], self.scores):
            return None
        ends = {self._brief(path): self.scores[path] for path in went if self.scores[path] > -inf}
        gains = (end - self.scores[there] for there, end in ends.items())
        return Bar(max(ends.values(), default=-inf), max(gains, default=0.0))

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
