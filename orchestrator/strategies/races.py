"""Racing: seeds are added one at a time, and a path that is shown to be worse than the best is dropped.

After Birattari et al., "A Racing Algorithm for Configuring Metaheuristics", GECCO 2002,
https://dl.acm.org/doi/10.5555/2955491.2955494, with a paired t test in the place of Friedman's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import atan, cos, fsum, inf, pi, sin, sqrt
from statistics import fmean

from orchestrator.lattice import Lattice, Path, Scores
from orchestrator.strategies.known import known
from orchestrator.strategies.waves import EXHAUSTIVE, WHOLE, inner, waves
from trainers.call import Call, Invalid, Part


def racing(lattice: Lattice, scores: Scores, *, of: Call = EXHAUSTIVE, level: Part = 0.05) -> Iterator[Path]:
    """Train the paths that `of` wants with one more seed at a time, and drop those that are worse than the best.

    Paths to the same model race each other. From the second seed on the leader is that with the highest mean over the
    seeds so far; another is dropped if a one-sided paired t test over these seeds says at `level` that it is worse.
    There is one test for each path and seed, and no correction for their number. To `of`, which is asked for more when
    the race is over, a path that was dropped has failed. With two seeds all would be over before anything is dropped.
    """
    if len(lattice.seeds) < 2:
        raise Invalid("paths race over seeds; list several, as in seeds: [0, 1, 2, 3, 4]", ("racing",))
    strategy = inner(of, outer="racing", among=WHOLE)
    strategy(lattice, {})  # refuses its arguments now, not at the first path
    return waves(strategy, lattice, _Races(lattice, scores, level).settle)


class _Races:
    """The races so far, by the model in which they end."""

    def __init__(self, lattice: Lattice, scores: Scores, level: float) -> None:
        self.seeds, self.scores, self.level = lattice.seeds, scores, level
        self.survivors: dict[tuple[str, float], list[Path]] = defaultdict(list)

    def settle(self, new: list[Path]) -> tuple[list[Path], dict[Path, float]]:
        """Race these, and those that survived before them."""
        races: dict[tuple[str, float], list[Path]] = defaultdict(list)
        for path in new:
            races[path.models[-1], path.budget].append(path)
        asked: list[Path] = []
        settled: dict[Path, float] = {}
        for goal, paths in races.items():
            left = self._race(paths, self.survivors[goal], asked)
            asked += left or ()
            if left is not None and known(left, self.scores):
                self.survivors[goal] += (path for path in left if self.scores[path] > -inf)
                settled |= {path: -inf for path in paths} | {path: self.scores[path] for path in left}
        return asked, settled if len(settled) == len(new) else {}

    def _race(self, paths: list[Path], before: list[Path], asked: list[Path]) -> list[Path] | None:
        """Those that get to the end; None: it is not over."""
        alone = len(paths) + len(before) == 1
        for i, seed in enumerate(self.seeds, start=1):
            last = i == len(self.seeds)
            with_it = [path.by(seed) for path in paths]
            asked += with_it
            if alone and not last:
                continue  # nobody to race
            if not known(with_it, self.scores):
                return None
            paths = [path for path, one in zip(paths, with_it, strict=True) if self.scores[one] > -inf]
            if i > 1 and not last:
                paths = self._not_worse(paths, before, self.seeds[:i])
        return paths

    def _not_worse(self, paths: list[Path], before: list[Path], seeds: Sequence[int]) -> list[Path]:
        rows = {path: [self.scores[path.by(seed)] for seed in seeds] for path in (*before, *paths)}
        best = max(rows.values(), key=fmean, default=[])
        gaps = {path: [a - b for a, b in zip(best, rows[path], strict=True)] for path in paths}
        return [path for path in paths if chance(gaps[path]) >= self.level]


def chance(gaps: Sequence[float]) -> float:
    """How likely a mean as high as that of these two or more is, or a higher one, if the true mean is 0: p of the
    one-sided t test. Equal gaps are taken at their word: 0 if they are above 0, otherwise 1."""
    mean, count = fmean(gaps), len(gaps)
    deviation = sqrt(fsum((gap - mean) ** 2 for gap in gaps) / (count - 1))
    if min(gaps) == max(gaps) or deviation == 0:
        return 0.0 if mean > 0 else 1.0
    t = mean / deviation * sqrt(count)
    return (1 - within(t, count - 1)) / 2


def within(t: float, freedom: int) -> float:
    """The chance of Student's t between -t and t, negative for a negative t, with whole degrees of freedom.

    Abramowitz & Stegun, "Handbook of Mathematical Functions", 1964, 26.7.3 and 26.7.4.
    """
    angle = atan(t / sqrt(freedom))
    odd = freedom % 2
    term = total = cos(angle) if odd else 1.0
    for n in range(2 + odd, freedom, 2):
        term *= cos(angle) ** 2 * (n - 1) / n
        total += term
    if not odd:
        return sin(angle) * total
    return 2 / pi * (angle + (sin(angle) * total if freedom > 1 else 0.0))
