"""A limit to what a strategy may spend."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from math import inf
from statistics import fmean

from orchestrator.lattice import Lattice, Path, Scores
from orchestrator.strategies.waves import EXHAUSTIVE, Strategy, inner, waves
from trainers.call import Call, Invalid, Positive
from trainers.spec import Stage

ROUNDING = 1e-9


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
    """
    if (stages is None) == (gpu_hours is None):
        raise Invalid("say how much: either stages or gpu_hours, as in {of: exhaustive, stages: 30}", ("budget",))
    strategy = inner(of, outer="budget")
    strategy(lattice, {})  # refuses its arguments now, not at the first path
    limit, price = (gpu_hours, "gpu_hours") if stages is None else (stages, "stages")
    assert limit is not None
    purse = Purse(lattice, limit, in_trainings(lattice) if stages is not None else in_hours(lattice))
    known = stages is not None or lattice.in_hours
    first = [lattice.shortest(student) for student in lattice.students]
    if known and len(purse.copy().buy(first)) < len(first):
        names, least = " and ".join(map(str, first)), f"{purse.missing(*first):.4g}"
        need = f"paths, {names}, which need {least}" if first[1:] else f"path, {names}, which needs {least}"
        message = f"{limit:g} is not enough for the shortest {need}"
        raise Invalid(message, ("budget", price))
    return waves(_after_the_shortest(strategy), lattice, _Spending(purse, scores).settle)


def _after_the_shortest(strategy: Strategy) -> Strategy:
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
        if not all(path in self.scores for path in bought):
            return bought, {}
        for path in bought:
            if self._is_part(path):
                self.tried[path.plain].append(self.scores[path])
        return bought, {path: self.scores[path] for path in bought}

    def _is_part(self, path: Path) -> bool:
        """Whether a path is only tried."""
        return path != path.training and path.models[-1] in self.purse.lattice.students

    def _finished(self, paths: list[Path]) -> list[Path]:
        """Buy paths whole, the most promising first."""
        chances = {path: fmean(self.tried[path]) if self.tried[path] else -inf for path in paths}
        ranked = sorted(paths, key=lambda path: (-chances[path], self.purse.missing(path)))
        return [path for path in ranked if self.purse.buy([path])]


Cost = Callable[[Stage, str], float]  # of a whole training of the model with this name


def in_trainings(lattice: Lattice) -> Cost:
    """1 for as many epochs as the model's recipe has."""

    def cost(stage: Stage, name: str) -> float:
        return 0.0 if stage.published else stage.recipe.epochs / lattice.models[name].recipe.epochs

    return cost


def in_hours(lattice: Lattice) -> Cost:
    """What the lattice says, if that is hours."""
    return lambda stage, name: lattice.cost(stage)


class Purse:
    """What is left of a limit, and how far each stage is paid for."""

    def __init__(self, lattice: Lattice, limit: float, cost: Cost) -> None:
        self.lattice, self.left, self.cost = lattice, limit, cost
        self.paid: dict[str, float] = defaultdict(float)  # the part of a training, by key

    def copy(self) -> Purse:
        """Another with the same in it."""
        other = Purse(self.lattice, self.left, self.cost)
        other.paid |= self.paid
        return other

    def affords(self, path: Path) -> bool:
        """Whether there is enough left for a path."""
        return self.missing(path) <= self.left + ROUNDING

    def buy(self, paths: list[Path]) -> list[Path]:
        """Those that are affordable, each time the cheapest; in the order in which they were bought."""
        needs = {path: self._needs(path) for path in paths}
        through: dict[str, list[int]] = defaultdict(list)  # paths by the keys of their stages
        for i, path in enumerate(paths):
            for key in needs[path]:
                through[key].append(i)
        prices = [self._missing(needs[path]) for path in paths]
        heap = [(price, i) for i, price in enumerate(prices)]
        heapify(heap)
        bought: list[Path] = []
        over: set[int] = set()
        while heap:
            price, i = heappop(heap)
            if i in over or price != prices[i]:
                continue  # it has become cheaper since
            if price > self.left + ROUNDING:
                break
            over.add(i)
            bought.append(paths[i])
            self.left -= price
            new = {key: part for key, (part, _) in needs[paths[i]].items() if part > self.paid[key]}
            self.paid |= new
            for j in {j for key in new for j in through[key]} - over:
                prices[j] = self._missing(needs[paths[j]])
                heappush(heap, (prices[j], j))
        return bought

    def missing(self, *paths: Path) -> float:
        """What paths cost together beside what is paid for."""
        needs: dict[str, tuple[float, float]] = {}
        for path in paths:
            for key, need in self._needs(path).items():
                needs[key] = max(need, needs.get(key, need))
        return self._missing(needs)

    def _missing(self, needs: dict[str, tuple[float, float]]) -> float:
        return sum(max(0.0, part - self.paid[key]) * cost for key, (part, cost) in needs.items())

    def _needs(self, path: Path) -> dict[str, tuple[float, float]]:
        """By the keys of a path's stages: which part of them it needs, and what the whole costs."""
        found: dict[str, tuple[float, float]] = {}
        for seed in self.lattice.seeds if path.seeds is None else path.seeds:
            above: Path | None = path
            while above is not None:
                stage = self.lattice.stage(above, seed)
                part = 1.0 if above.until is None else min(1.0, above.until / stage.recipe.epochs)
                part = max(part, found.get(stage.key, (0.0, 0.0))[0])
                found[stage.key] = (part, self.cost(stage, above.models[-1]))
                above = above.teacher
        return found
