"""Lattices that cost nothing: a model of what a teacher is worth, of noise, and of how scores rise with the epochs.

A model has a capacity c, 1 for the root, and alone a score of .45 + .4 c. A teacher adds .5 exp(-(gap / .35)^2) of its
lead over that, gap being the difference in capacity, and what is particular about an edge (deviation .004). Each
training adds its own noise (.008), which its students inherit as part of its lead. Scores rise from .3 of the end as
1 - exp(-k x) does, k from 3 to 6 by model and a tenth to and fro by training, with noise that falls to the end (.008).
A training of fewer epochs gets to where a whole one is at the square root of its part.
"""

from __future__ import annotations

import random
from functools import lru_cache
from math import exp, sqrt

from orchestrator.frontier import Frontier
from orchestrator.lattice import Entry, Lattice, Path, Strategy
from trainers.call import Call, Term
from trainers.spec import Data, Model, Recipe, Stage

EPOCHS = 12
NOISE = 0.008  # of a training, and of a score on its way
PARTICULAR = 0.004  # of an edge


class World:
    """A lattice, what its trainings would come to, and the truth that noise hides."""

    def __init__(self, number: int, seeds: tuple[int, ...], *, models: tuple[int, int] = (4, 7)) -> None:
        dice = random.Random(number)
        self.number = number
        names = [f"m{i}" for i in range(dice.randint(*models))]
        inside = sorted((dice.uniform(0.05, 1) for _ in names[1:]), reverse=True)
        self.capacity = dict(zip(names, (1.0, *inside), strict=True))
        self.speed = {name: dice.uniform(3, 6) for name in names}
        entries = {
            name: Entry(Model(detector=Call(name="GFL"), backbone=Call(name=name)), Recipe(epochs=EPOCHS))
            for name in names
        }
        data = Data(fingerprint=f"world {number}", classes=("3",))
        self.lattice = Lattice(entries, data, [Term(name="LD")], seeds=seeds)
        self.truth = lru_cache(maxsize=None)(self._truth)
        self._ends: dict[str, float] = {}  # by key

    def _draw(self, what: str, deviation: float) -> float:
        return random.Random(f"{self.number} {what}").gauss(0, deviation)

    def _taught(self, name: str, teacher: str, score: float, *, part: float = 1.0) -> float:
        """What a model comes to, noise apart, with a teacher of this score, if it learns this part of what it could."""
        alone = 0.45 + 0.4 * self.capacity[name]
        gap = self.capacity[teacher] - self.capacity[name]
        worth = 0.5 * exp(-((gap / 0.35) ** 2))
        return alone + part * worth * max(0.0, score - alone) + self._draw(f"{teacher} {name}", PARTICULAR)

    def _truth(self, models: tuple[str, ...]) -> float:
        """What a path would come to if no training had noise."""
        *above, name = models
        if not above:
            return 0.45 + 0.4 * self.capacity[name]
        return self._taught(name, above[-1], self.truth(tuple(above)))

    def end(self, stage: Stage) -> float:
        """The score of a training that has all its epochs."""
        if stage.key not in self._ends:
            self._ends[stage.key] = self._end(stage)
        return self._ends[stage.key]

    def _end(self, stage: Stage) -> float:
        name = stage.model.backbone.name
        noise = self._draw(stage.key, NOISE)
        if stage.teacher is None:
            return self.truth((name,)) + noise
        return self._taught(name, stage.teacher.model.backbone.name, self.end(stage.teacher)) + noise

    def score(self, stage: Stage, epoch: int) -> float:
        """Of a training after an epoch."""
        part = stage.recipe.epochs / EPOCHS
        x = epoch / stage.recipe.epochs * sqrt(part)
        speed = self.speed[stage.model.backbone.name] * (1 + self._draw(f"{stage.key} speed", 0.1))
        to_come = (exp(-speed * x) - exp(-speed)) / (1 - exp(-speed))
        wobble = self._draw(f"{stage.key} {epoch}", NOISE) * (1 - x)
        return self.end(stage) * (1 - 0.7 * to_come) + wobble


class Search:
    """A strategy that is carried out, one training after another."""

    def __init__(self, world: World, strategy: Strategy) -> None:
        self.world = world
        self.reached: dict[str, int] = {}  # epochs, by key
        self.frontier = Frontier(
            world.lattice,
            strategy,
            seeds=world.lattice.seeds,
            done=lambda stage: None,
            paused=lambda stage, epoch: world.score(stage, epoch) if self.reached.get(stage.key, 0) >= epoch else None,
        )
        while (stage := self.frontier.next()) is not None:
            goal = self.frontier.goal(stage.key)
            self.reached[stage.key] = goal or stage.recipe.epochs
            if goal:
                self.frontier.pause(stage.key)
            else:
                self.frontier.finish(stage.key, world.score(stage, stage.recipe.epochs))
        assert self.frontier.over

    def given_up(self) -> list[Path]:
        """The paths that paused and did not go on in any seed."""
        scores = self.frontier.scores
        return [path for path in scores if path.until is not None and path.training not in scores]
