"""How long Tune's searcher takes to note a result and say what is next: 1,024 stages, by every strategy, and each edge
with a sweep of 16 settings or with none.

Eleven models of which any may teach any weaker one; searched exhaustively and swept these are 16,369 trainings. Timed
is the driver's CPU time for the news of a training and `next` after it (`next` is all that Tune's `suggest` waits for),
as in run.py: with what it holds frozen whenever stages were added, so that no garbage collection walks through it.
Goal: under 10 ms at the median, 50 ms at worst.
"""

from __future__ import annotations

import gc
import random
import time
from statistics import median
from typing import Any

from table import show

from orchestrator.lattice import Entry, Lattice
from orchestrator.searching import frontier
from orchestrator.sweep import sweep
from trainers.call import Call, Term
from trainers.spec import Data, Model, Recipe, Stage

MODELS = 11
GRID = {"LD.weight": [0.1, 0.2, 0.3, 0.4], "LD.temperature": [1, 2, 4, 8]}
SWEEPS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "grid of 16": GRID,
    "16 at random": {"LD.temperature": {"loguniform": [1, 20]}, "sampler": "random", "samples": 16},
}
SEARCHES: dict[str, tuple[dict[str, Any], int]] = {  # with how many seeds
    "exhaustive": ({}, 1),
    "best_predecessor": ({}, 1),
    "greedy": ({}, 1),
    "successive_halving": ({}, 1),
    "probe": ({}, 1),
    "promising": ({}, 1),
    "racing": ({}, 3),
    "budget": ({"stages": 1000}, 1),
}


def lattice(seeds: int) -> Lattice:
    entries = {
        f"m{i}": Entry(Model(detector=Call(name="GFL"), backbone=Call(name=f"m{i}")), Recipe()) for i in range(MODELS)
    }
    losses = [Term(name="LD", args={"weight": 0.25, "temperature": 10.0})]
    return Lattice(entries, Data(fingerprint="none", classes=("3",)), losses, seeds=range(seeds))


def seconds(search: str, knobs: dict[str, Any] | None) -> tuple[list[float], list[float]]:
    """CPU time of each answer with the news before it, and of each answer alone."""
    args, seeds = SEARCHES[search]
    parts: dict[tuple[str, int], float] = {}

    def paused(stage: Stage, epoch: int) -> float | None:
        return parts.get((stage.key, epoch))

    ours = frontier(
        Call(name=search, args=args),
        lattice(seeds),
        sweep(knobs) if knobs else None,
        names=(),
        compute=lambda stage: 1.0,
        cost=lambda stage: 1.0,
        done=lambda stage: None,
        paused=paused,
    )
    dice = random.Random(0)
    taken, alone = [], []
    stages = 0
    stage = ours.next()
    while stage is not None:
        if len(ours.wanted()) > stages:
            stages = len(ours.wanted())
            gc.freeze()
        score, goal = dice.random(), ours.goal(stage.key)
        if goal is not None:
            parts[stage.key, goal] = score
        start = time.process_time()
        if goal is None:
            ours.finish(stage.key, score)
        else:
            ours.pause(stage.key)
        told = time.process_time()
        stage = ours.next()
        end = time.process_time()
        taken.append(end - start)
        alone.append(end - told)
    return taken, alone


def main() -> None:
    rows = []
    for search in SEARCHES:
        for name, knobs in SWEEPS.items():
            taken, alone = map(sorted, seconds(search, knobs))
            rows.append(
                {
                    "search": search,
                    "sweep": name,
                    "answers": len(taken),
                    "median": 1000 * median(taken),
                    "999 in 1,000 below": 1000 * taken[int(0.999 * len(taken))],
                    "worst": 1000 * taken[-1],
                    "next alone, worst": 1000 * alone[-1],
                }
            )
    show(
        "suggest",
        rows,
        "milliseconds of CPU time from a result to the next stage. Goal: under 10 at the median, 50 at worst",
    )


if __name__ == "__main__":
    main()
