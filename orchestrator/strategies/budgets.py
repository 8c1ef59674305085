"""A limit to what a strategy may spend."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import inf
from statistics import fmean

from orchestrator.lattice import Lattice, Path, Scores, Strategy
from orchestrator.strategies.known import known
from orchestrator.strategies.purses import Purse, check, purse
from orchestrator.strategies.waves import EXHAUSTIVE, inner, waves
from trainers.call import Call, Positive


def budget(
    lattice: Lattice,
    scores: Scores,
    *,
    of: Call = EXHAUSTIVE,
    stages: Positive | None = None,
    gpu_hours: Positive | None = None,
) -> Iterator[Path]:
    """What another strategy wants, as far as a limit goes: so many trainings or GPU hours, over all seeds.

    It buys the shortest path to each student first, so that there is an answer from then on. Then, of what `of` wants,
    always the path that costs least beside what is bought already, so that the most paths are compared, and of equals
    the first. `of` is asked for more when all that was bought is trained. Of paths that are tried in some seeds, or for
    some epochs, all are bought or none, and only if the rest suffices to finish any one of them; in the end the rest
    finishes those that look best.

    All that the search consists of counts, whoever trained it and when, so that one that was interrupted ends the same.
    Of `stages`, a training that pauses or has fewer epochs counts by its part, and one that is only measured not at
    all. Trainings that are no part of the search, as the student alone, come on top.

    This is for paths that are not swept; of a sweep orchestrator/buying.py buys the settings.
    """
    filled = purse(lattice, stages=stages, gpu_hours=gpu_hours)
    strategy = inner(of, outer="budget")
    strategy(lattice, {})  # refuses its arguments now, not at the first path
    check(filled, [lattice.shortest(student) for student in lattice.students], stages=stages)
    return waves(after_the_shortest(strategy), lattice, _Spending(filled, scores).settle)


def after_the_shortest(strategy: Strategy) -> Strategy:
    """A strategy that wants the shortest path to each student before anything else."""

    def both(lattice: Lattice, known: Scores) -> Iterator[Path]:
        first = [lattice.shortest(student) for student in lattice.students]
        yield from first
        if all(path in known for path in first):
            yield from strategy(lattice, known)

    return both


class _Spending:
    """What was bought so far."""

    def __init__(self, purse: Purse, scores: Scores) -> None:
        self.purse, self.scores = purse, scores
        self.tried: dict[Path, list[float]] = defaultdict(list)  # scores of a path's parts

    def settle(self, new: list[Path]) -> tuple[list[Path], dict[Path, float]]:
        parts = [path for path in new if self._is_part(path)]
        after = self.purse.copy()
        bought = after.buy(new)
        if len(bought) == len(new) and all(after.affords(path.plain) for path in parts):
            self.purse = after
        elif parts:
            bought = self.purse.buy([path for path in new if not self._is_part(path)])
            bought += self._finished(list(dict.fromkeys(path.plain for path in parts)))
        else:
            self.purse = after
        if not known(bought, self.scores):
            return bought, {}
        for path in bought:
            if self._is_part(path):
                self.tried[path.plain].append(self.scores[path])
        return bought, {path: self.scores[path] for path in bought}

    def _is_part(self, path: Path) -> bool:
        """Whether a path is only tried."""
        return path != path.training and path.models[-1] in self.purse.lattice.students

    def _finished(self, paths: list[Path]) -> list[Path]:
        """Buy paths whole, the most promising to each student first."""
        chances = {path: fmean(self.tried[path]) if self.tried[path] else -inf for path in paths}
        best: dict[str, float] = defaultdict(lambda: -inf)  # by student: they do not compare with each other
        for path in paths:
            best[path.models[-1]] = max(best[path.models[-1]], chances[path])
        lacks = {path: best[path.models[-1]] - chances[path] if chances[path] > -inf else inf for path in paths}
        ranked = sorted(paths, key=lambda path: (lacks[path], self.purse.missing(path)))
        return [path for path in ranked if self.purse.buy([path])]
