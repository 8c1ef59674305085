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

    def copy(self) -> Purse:
        """Another with the same in it."""
        other = Purse(self.lattice, self.left, self.cost)
        other.paid |= self.paid
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
        needs = {path: self._needs(path) for path in paths}
        through: dict[str, list[int]] = defaultdict(list)  # paths by the keys of their stages
        for i, path in enumerate(paths):
            for key in needs[path]:
                through[key].append(i)
        prices = [self._missing(needs[path]) for path in paths]
        heap = [(-chance(path), price, i) for i, (path, price) in enumerate(zip(paths, prices, strict=True))]
        heapify(heap)
        bought: list[Path] = []
        over: set[int] = set()
        while heap:
            _, price, i = heappop(heap)
            if i in over or price != prices[i]:
                continue  # it has become cheaper since
            if price > self.left + ROUNDING or not self.affords(paths[i], *leading(paths[i])):
                continue
            over.add(i)
            bought.append(paths[i])
            self.left -= price
            new = {key: part for key, (part, _) in needs[paths[i]].items() if part > self.paid[key]}
            self.paid |= new
            for j in {j for key in new for j in through[key]} - over:
                prices[j] = self._missing(needs[paths[j]])
                heappush(heap, (-chance(paths[j]), prices[j], j))
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
