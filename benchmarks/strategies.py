"""What each strategy finds, and for how much: 200 simulated lattices of 4 to 7 models, five seeds, noisy scores.

The regret is what the true score of the chosen path lacks to that of the best one. See simulated.py for the model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from statistics import fmean
from typing import Any

from simulated import EPOCHS, NOISE, Search, World
from table import show

from orchestrator import strategies
from orchestrator.lattice import Path, Scores, Strategy, best
from trainers.call import Call

SEEDS = (0, 1, 2, 3, 4)
HALF = "half"  # of what exhaustive search trains; the lattices are of different sizes


def named(name: str, args: dict[str, Any], world: World) -> Strategy:
    """What a study would call by this name."""
    if args.get("stages") == HALF:
        args = args | {"stages": 2 ** (len(world.lattice.names) - 1) * len(world.lattice.seeds) / 2}
    return partial(Call(name=name, args=args).complete(strategies).of, strategies)


SEARCHES: dict[str, tuple[tuple[int, ...], Callable[[World], Strategy]]] = {
    "direct distillation alone": (SEEDS, lambda world: lambda lattice, scores: [lattice.shortest(lattice.students[0])]),
    "exhaustive": (SEEDS, partial(named, "exhaustive", {})),
    "exhaustive, one seed": (SEEDS[:1], partial(named, "exhaustive", {})),
    "best_predecessor": (SEEDS, partial(named, "best_predecessor", {})),
    "greedy": (SEEDS, partial(named, "greedy", {})),
    "successive_halving": (SEEDS, partial(named, "successive_halving", {})),
    "racing": (SEEDS, partial(named, "racing", {})),
    "racing, level .2": (SEEDS, partial(named, "racing", {"level": 0.2})),
    "racing of best_predecessor": (SEEDS, partial(named, "racing", {"of": "best_predecessor"})),
    "probe": (SEEDS, partial(named, "probe", {})),
    "promising": (SEEDS, partial(named, "promising", {})),
    "promising, margin .01": (SEEDS, partial(named, "promising", {"margin": 0.01})),
    "budget, half the stages": (SEEDS, partial(named, "budget", {"stages": HALF})),
    "budget of racing, half": (SEEDS, partial(named, "budget", {"of": "racing", "stages": HALF})),
    "budget of promising, half": (SEEDS, partial(named, "budget", {"of": "promising", "stages": HALF})),
}


def measure(search: str, worlds: int) -> dict[str, Any]:
    """A strategy on all lattices: means over them."""
    seeds, made = SEARCHES[search]
    regrets, stages, epochs = [], [], []
    for number in range(worlds):
        world = World(number, seeds)
        done = Search(world, made(world))
        chosen = best(done.frontier.scores, world.lattice, world.lattice.students[0])
        assert chosen is not None, "every search ends with an answer"
        top = max(world.truth(path.models) for path in world.lattice.paths())
        every = 2 ** (len(world.lattice.names) - 1) * len(SEEDS)
        regrets.append(top - world.truth(chosen.models))
        stages.append(len(done.reached) / every)
        epochs.append(sum(done.reached.values()) / every / EPOCHS)
    ordered = sorted(regrets)
    return {
        "search": search,
        "regret": fmean(regrets),
        "9 in 10 below": ordered[int(0.9 * len(ordered))],
        "best found": sum(regret == 0 for regret in regrets) / worlds,
        "stages": fmean(stages),
        "epochs": fmean(epochs),
    }


def errors(worlds: int, *, margin: float = 0.0) -> str:
    """How often `promising` gives an assistant up that would have ended as high as it needs to."""
    judged = given_up = wrong = missed = lost = 0
    for number in range(worlds):
        world = World(number, SEEDS)
        done = Search(world, named("promising", {"margin": margin}, world))
        ends = mean_ends(world)
        out = done.given_up()
        for path in {path.training for path in done.frontier.scores if path.until is not None}:
            shorter = [end for other, end in ends.items() if rival(other, path) and other in done.frontier.scores]
            if shorter:
                judged += 1
                hopeful, gone = ends[path] >= max(shorter), path in {one.training for one in out}
                given_up += gone
                wrong += gone and hopeful
                missed += not gone and not hopeful
        top = max(world.lattice.paths(), key=lambda path: world.truth(path.models))
        lost += any(top.models[: len(path.models)] == path.models for path in out)
    return (
        f"promising, margin {margin:g}: of {judged} assistants with shorter paths to the same model {given_up} were "
        f"given up, {wrong / max(given_up, 1):.1%} of them wrongly: they would have ended as high as the best of "
        f"those. {missed / max(judged - given_up, 1):.0%} of those that went on ended below it. On {lost} of "
        f"{worlds} lattices the truly best path was among what was given up"
    )


def rival(other: Path, path: Path) -> bool:
    return other.models[-1] == path.models[-1] and len(other.models) < len(path.models)


def mean_ends(world: World) -> Scores:
    """What every path to an assistant comes to, as the search would see it."""
    prefixes = {Path(path.models[:i]) for path in world.lattice.paths() for i in range(2, len(path.models))}
    seeds = world.lattice.seeds
    return {path: fmean(world.end(world.lattice.stage(path, seed)) for seed in seeds) for path in prefixes}


def dropped(worlds: int, *, level: float) -> str:
    """How often a race drops the path that is truly best."""
    out = 0
    for number in range(worlds):
        world = World(number, SEEDS)
        scores = Search(world, named("racing", {"level": level}, world)).frontier.scores
        out += max(world.lattice.paths(), key=lambda path: world.truth(path.models)) not in scores
    return f"racing, level {level:g}: on {out} of {worlds} lattices the truly best path was dropped"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lattices", type=int, default=200)
    worlds = parser.parse_args().lattices
    rows = [measure(search, worlds) for search in SEARCHES]
    notes = [
        f"{worlds} lattices; a training's noise has a deviation of {NOISE}. Stages (begun) and epochs: parts of what",
        "exhaustive search trains with five seeds. The student alone is not counted.",
        *(errors(worlds, margin=margin) for margin in (0.0, 0.01)),
        *(dropped(worlds, level=level) for level in (0.05, 0.2)),
    ]
    show("strategies", rows, *notes)


if __name__ == "__main__":
    main()
