"""What searches find that sweep every edge, and for how much: 200 simulated lattices of 4 to 6 models, three seeds.

As in strategies.py, and beside that how well a student learns depends on a knob of the loss, of which five values are
tried: on every edge another one between 0 and 1 is right, and of what could be learnt as much is lacking as the knob is
away from that. The regret is what the true score of the chosen path with its settings lacks to that of the best path
with the best of these settings.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from functools import lru_cache, partial
from statistics import fmean
from typing import Any

from simulated import EPOCHS, NOISE, Search, World
from table import show

from orchestrator import strategies
from orchestrator.lattice import Path, Strategy, best
from orchestrator.searching import searching
from orchestrator.settings import Setting, values
from orchestrator.sweep import sweep
from trainers.call import Call
from trainers.spec import Stage

SEEDS = (0, 1, 2)
WEIGHTS = [0.0, 0.25, 0.5, 0.75, 1.0]
KNOBS: dict[str, Any] = {"LD.weight": WEIGHTS}
HALVED = KNOBS | {"stop": {"halving": {"grace": 2, "factor": 3}}}


class Turned(World):
    """A world in which every edge has a weight of the loss that is right."""

    def __init__(self, number: int) -> None:
        super().__init__(number, SEEDS, models=(4, 6))
        self.top = lru_cache(maxsize=None)(self._top)

    def part(self, teacher: str, name: str, weight: float) -> float:
        """Of what could be learnt along an edge."""
        right = random.Random(f"{self.number} {teacher} {name} right").random()
        return 1 - abs(weight - right)

    def _end(self, stage: Stage) -> float:
        if stage.teacher is None:
            return super()._end(stage)
        name, teacher = stage.model.backbone.name, stage.teacher.model.backbone.name
        part = self.part(teacher, name, stage.distill[0].args.get("weight", 0.5))
        return self._taught(name, teacher, self.end(stage.teacher), part=part) + self._draw(stage.key, NOISE)

    def turned(self, models: tuple[str, ...], settings: tuple[Setting, ...]) -> float:
        """What a path would come to with these settings if no training had noise."""
        if len(models) == 1:
            return self.truth(models)
        *_, teacher, name = models
        weight = values(settings[-1]).get("LD.weight", 0.5) if settings else 0.5
        score = self.turned(models[:-1], settings[:-1])
        return self._taught(name, teacher, score, part=self.part(teacher, name, weight))

    def _top(self, models: tuple[str, ...]) -> float:
        """The same with the best settings: a better teacher never makes a worse student here."""
        if len(models) == 1:
            return self.truth(models)
        *above, name = models
        score = self.top(tuple(above))
        return max(self._taught(name, above[-1], score, part=self.part(above[-1], name, weight)) for weight in WEIGHTS)

    @property
    def everything(self) -> int:
        """The trainings of an exhaustive search that sweeps every edge."""
        return len(SEEDS) * (1 + len(WEIGHTS) * (2 ** (len(self.lattice.names) - 1) - 1))


def direct(world: Turned) -> Strategy:
    """Only direct distillation, swept."""
    edge = Call(name="budget", args={"stages": len(SEEDS) * (1 + len(WEIGHTS))})
    return searching(edge.complete(strategies), world.lattice, sweep(KNOBS))


def named(name: str, args: dict[str, Any], knobs: dict[str, Any] | None, world: Turned) -> Strategy:
    """What a study would call by this name, with such a sweep; `part`: the limit, as a part of everything."""
    args = dict(args)
    if "part" in args:
        args["stages"] = args.pop("part") * world.everything
    return searching(Call(name=name, args=args).complete(strategies), world.lattice, sweep(knobs) if knobs else None)


SEARCHES: dict[str, Callable[[Turned], Strategy]] = {
    "direct distillation alone, swept": direct,
    "exhaustive, all weights in the middle": partial(named, "exhaustive", {}, None),
    "exhaustive": partial(named, "exhaustive", {}, KNOBS),
    "exhaustive, stop: halving": partial(named, "exhaustive", {}, HALVED),
    "best_predecessor": partial(named, "best_predecessor", {}, KNOBS),
    "successive_halving": partial(named, "successive_halving", {}, KNOBS),
    "racing": partial(named, "racing", {}, KNOBS),
    "promising": partial(named, "promising", {}, KNOBS),
    "probe": partial(named, "probe", {}, KNOBS),
    "budget, half": partial(named, "budget", {"part": 0.5}, KNOBS),
    "budget, a quarter": partial(named, "budget", {"part": 0.25}, KNOBS),
    "budget of racing, a quarter": partial(named, "budget", {"of": "racing", "part": 0.25}, KNOBS),
    "budget of best_predecessor, a quarter": partial(named, "budget", {"of": "best_predecessor", "part": 0.25}, KNOBS),
}


def measure(search: str, worlds: int) -> dict[str, Any]:
    """A search on all lattices: means over them."""
    regrets, trainings, epochs = [], [], []
    for number in range(worlds):
        world = Turned(number)
        done = Search(world, SEARCHES[search](world))
        chosen: Path | None = best(done.frontier.scores, world.lattice, world.lattice.students[0])
        assert chosen is not None, "every search ends with an answer"
        top = max(world.top(path.models) for path in world.lattice.paths())
        regrets.append(top - world.turned(chosen.models, chosen.settings))
        trainings.append(len(done.reached) / world.everything)
        epochs.append(sum(done.reached.values()) / world.everything / EPOCHS)
    ordered = sorted(regrets)
    return {
        "search": search,
        "regret": fmean(regrets),
        "9 in 10 below": ordered[int(0.9 * len(ordered))],
        "trainings": fmean(trainings),
        "epochs": fmean(epochs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lattices", type=int, default=200)
    worlds = parser.parse_args().lattices
    rows = [measure(search, worlds) for search in SEARCHES]
    notes = [
        f"{worlds} lattices; {len(WEIGHTS)} settings an edge. Trainings (begun) and epochs: parts of what exhaustive "
        f"search trains that sweeps every edge with {len(SEEDS)} seeds. The student alone is not counted.",
    ]
    show("sweeps", rows, *notes)


if __name__ == "__main__":
    main()
