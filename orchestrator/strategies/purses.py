"""What a limit buys: trainings, counted as whole ones or in GPU hours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from heapq import heapify, heappop, heappush

from orchestrator.lattice import Lattice, Path
from trainers.call import Invalid
from trainers.spec import Stage

ROUNDING = 1e-9

Cost = Callable[[Stage, str], float]  # of a whole training of the model with this name
Needs = dict[str, tuple[float, float]]  # by the keys of a path's stages: which part it needs, and what the whole costs


def in_trainings(lattice: Lattice) -> Cost:
    """1 for as many epochs as the model's recipe has."""

    def cost(stage: Stage, name: str) -> float:
        return 0.0 if stage.published else stage.recipe.epochs / lattice.models[name].recipe.epochs

    return cost


def in_hours(lattice: Lattice) -> Cost:
    """What the lattice says, if that is hours."""
    return lambda stage, name: lattice.cost(stage)


def purse(lattice: Lattice, *, stages: float | None, gpu_hours: float | None) -> Purse:
    """One with so much in it. Raises `Invalid` at ("budget",) unless it is the one or the other."""
    if (stages is None) == (gpu_hours is None):
        raise Invalid("say how much: either stages or gpu_hours, as in {of: exhaustive, stages: 30}", ("budget",))
    if stages is not None:
        return Purse(lattice, stages, in_trainings(lattice))
    assert gpu_hours is not None
    return Purse(lattice, gpu_hours, in_hours(lattice))


def check(filled: Purse, least: list[Path], *, stages: float | None) -> None:
    """Raise `Invalid` at ("budget", "stages" or "gpu_hours") where there is not enough for the least that it must buy.

    Hours that nobody knows yet are not compared.
    """
    if (stages is not None or filled.lattice.in_hours) and not filled.affords(*least):
        names, needed = " and ".join(str(path.plain) for path in least), f"{filled.missing(*least):.4g}"
        which = f"paths, {names}, which need {needed}" if least[1:] else f"path, {names}, which needs {needed}"
        message = f"{filled.left:g} is not enough for the shortest {which}"
        raise Invalid(message, ("budget", "gpu_hours" if stages is None else "stages"))


class Purse:
    """What is left of a limit, and how far each stage is paid for."""

    def __init__(self, lattice: Lattice, limit: float, cost: Cost) -> None:
        self.lattice, self.left, self.cost = lattice, limit, cost
        self.paid: dict[str, float] = defaultdict(float)  # the part of a training, by key
        self._needed: dict[Path, Needs] = {}
        self._chains: dict[tuple[Path, int], Needs] = {}

    def copy(self) -> Purse:
        """Another with the same in it."""
        other = Purse(self.lattice, self.left, self.cost)
        other.paid |= self.paid
        other._needed, other._chains = self._needed, self._chains
        return other

    def affords(self, *paths: Path) -> bool:
        """Whether there is enough left for all of these."""
        return self.missing(*paths) <= self.left + ROUNDING

    def buy(
        self,
        paths: list[Path],
        *,
        leading: Callable[[Path], list[Path]] = lambda path: [],
        chance: Callable[[Path], float] = lambda path: 0.0,
    ) -> list[Path]:
        """Those that are affordable, each time that with the highest chance, of equals the cheapest; in the order in
        which they were bought. One is bought only if there is enough for the paths that it is `leading` to, too."""
        through: dict[str, list[int]] = defaultdict(list)  # paths by the keys of their stages
        needs = [self._needs(path) for path in paths]
        for i, own in enumerate(needs):
            for key in own:
                through[key].append(i)
        chances = [-chance(path) for path in paths]
        prices = [self.missing(path) for path in paths]
        heap = [(chances[i], _rounded(price), i) for i, price in enumerate(prices)]
        heapify(heap)
        bought: list[Path] = []
        over: set[int] = set()
        while heap:
            _, price, i = heappop(heap)
            if i in over or price != _rounded(prices[i]):
                continue  # it has become cheaper since
            if price > self.left + ROUNDING or not self.affords(paths[i], *leading(paths[i])):
                continue
            over.add(i)
            bought.append(paths[i])
            self.left -= self.missing(paths[i])
            cheaper: dict[int, None] = {}
            for key, (part, _) in needs[i].items():
                if part > self.paid[key]:
                    # Of each path through it only this summand has changed: there may be thousands.
                    for j in through[key]:
                        wanted, cost = needs[j][key]
                        prices[j] -= (max(0.0, wanted - self.paid[key]) - max(0.0, wanted - part)) * cost
                        cheaper[j] = None
                    self.paid[key] = part
            for j in cheaper.keys() - over:
                heappush(heap, (chances[j], _rounded(prices[j]), j))
        return bought

    def missing(self, *paths: Path) -> float:
        """What paths cost together beside what is paid for."""
        needs = self._needs(paths[0]) if len(paths) == 1 else {}
        for path in paths if len(paths) > 1 else ():
            for key, need in self._needs(path).items():
                needs[key] = max(need, needs.get(key, need))
        return sum(max(0.0, part - self.paid.get(key, 0.0)) * cost for key, (part, cost) in needs.items())

    def _needs(self, path: Path) -> Needs:
        if path not in self._needed:
            self._needed[path] = self._look_up(path)
        return self._needed[path]

    def _look_up(self, path: Path) -> Needs:
        seeds = self.lattice.seeds if path.seeds is None else path.seeds
        if len(seeds) == 1:
            return self._chain(path, seeds[0])
        found: Needs = {}
        for seed in seeds:
            for key, need in self._chain(path, seed).items():
                found[key] = max(need, found.get(key, need))
        return found

    def _chain(self, path: Path, seed: int) -> Needs:
        """Of a path with one seed; kept for those who descend from it."""
        if (path, seed) not in self._chains:
            stage = self.lattice.stage(path, seed)
            part = 1.0 if path.until is None else min(1.0, path.until / stage.recipe.epochs)
            found = dict(self._chain(path.teacher, seed)) if path.teacher else {}
            need = (part, self.cost(stage, path.models[-1]))
            found[stage.key] = max(need, found.get(stage.key, need))
            self._chains[path, seed] = found
        return self._chains[path, seed]


def _rounded(price: float) -> float:
    """So that equal prices are equal, however they were worked out."""
    return round(price, 9)
