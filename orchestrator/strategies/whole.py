"""Strategies that want paths whole: with all seeds, each training to its end."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import chain, pairwise
from math import inf

from orchestrator.lattice import Lattice, Path, Scores
from orchestrator.strategies.known import known
from trainers.call import Fraction, Invalid


def exhaustive(lattice: Lattice, scores: Scores) -> Iterator[Path]:
    """Every path. With n models of which any may teach any weaker one, the last a student: 2^(n-2) paths, 2^(n-1)
    stages."""
    yield from lattice.paths()


def best_predecessor(lattice: Lattice, scores: Scores) -> Iterator[Path]:
    """Dynamic programming: a model teaches only as the end of the best path to it. 1 + n(n-1)/2 stages.

    As good as `exhaustive` where a better teacher never makes a worse student.
    """
    # None: every path to that model failed. A model is missing while a path to it is unknown or may still
    # appear: choosing earlier would extend a path that a later result beats.
    settled: dict[str, Path | None] = {lattice.root: Path((lattice.root,))}
    for model in lattice.names[1:]:
        teachers = lattice.teachers(model)
        paths = [path + model for path in map(settled.get, teachers) if path]
        yield from paths
        if settled.keys() >= set(teachers) and known(paths, scores):
            settled[model] = _best([path for path in paths if scores[path] > -inf], scores)


def greedy(lattice: Lattice, scores: Scores) -> Iterator[Path]:
    """From the shortest path to a student on, insert the assistant that helps it most, until none helps."""
    for student in lattice.students:
        yield from _climb(lattice, scores, lattice.shortest(student))


def _climb(lattice: Lattice, scores: Scores, path: Path) -> Iterator[Path]:
    yield path
    while True:
        longer = _insertions(lattice, path)
        yield from longer
        rivals = [path, *longer]
        if not known(rivals, scores):
            return
        winner = _best(rivals, scores)
        if winner is None or winner == path:
            return
        path = winner


def successive_halving(
    lattice: Lattice,
    scores: Scores,
    *,
    budgets: tuple[Fraction, ...] = (0.25, 1.0),
    keep: Fraction = 0.5,
) -> Iterator[Path]:
    """Train every path for a part of its epochs, keep the best of them, train those longer; for each student.

    Jamieson & Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS
    2016, https://arxiv.org/abs/1502.07943. `budgets`: the parts, rising to 1. `keep`: the part of the paths
    that goes on, at least one path (half of them in the paper).
    """
    if not budgets or budgets[0] <= 0 or any(a >= b for a, b in pairwise(budgets)) or budgets[-1] != 1:
        raise Invalid(
            f"budgets must rise from above 0 to exactly 1, as [0.25, 1] does (got {list(budgets)})",
            ("successive_halving", "budgets"),
        )
    return chain.from_iterable(_halve(lattice, scores, student, budgets, keep) for student in lattice.students)


def _halve(lattice: Lattice, scores: Scores, student: str, budgets: Sequence[float], keep: float) -> Iterator[Path]:
    rung = list(lattice.paths(student, budget=budgets[0]))
    yield from rung
    for budget in budgets[1:]:
        if not known(rung, scores):
            return
        ranked = sorted(rung, key=scores.__getitem__, reverse=True)  # stable: of equals the shorter goes on
        kept = ranked[: max(1, round(len(ranked) * keep))]
        rung = [Path(path.models, budget) for path in kept if scores[path] > -inf]
        yield from rung


def _best(paths: Collection[Path], scores: Scores) -> Path | None:
    """The highest score; of equals the shorter path, then the first."""
    return max(paths, key=lambda path: (scores[path], -len(path.models)), default=None)


def _insertions(lattice: Lattice, path: Path) -> list[Path]:
    """The paths that add to this one as few models as the edges allow: one, where any may teach any."""
    models = path.models
    return [
        Path((*models[:i], *between, *models[i:]), path.budget)
        for i, (teacher, student) in enumerate(pairwise(models), start=1)
        for between in _detours(lattice, teacher, student)
    ]


def _detours(lattice: Lattice, start: str, end: str) -> Iterator[tuple[str, ...]]:
    """The models of each way from start to end, one at least, that no edge cuts short."""
    last_steps = lattice.teachers(end)
    for last in last_steps:
        if lattice.rank[last] <= lattice.rank[start]:
            continue
        if start in lattice.teachers(last):
            yield (last,)
        else:
            ways = _detours(lattice, start, last)
            yield from ((*way, last) for way in ways if not set(way) & set(last_steps))
