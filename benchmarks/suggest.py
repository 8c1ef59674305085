"""How long Tune's searcher takes to note a result and say what is next: 1,024 stages, each with a sweep of 16 settings.

Eleven models of which any may teach any weaker one, searched exhaustively: 16,369 trainings. Timed is the driver's CPU
time for `finish` and `next` after each, as in run.py: with what it holds frozen whenever stages were added, so that no
garbage collection walks through it. Goal: under 10 ms at the median, 50 ms at worst.
"""

from __future__ import annotations

import gc
import random
import time
from statistics import median

from table import show

from orchestrator.frontier import Frontier
from orchestrator.lattice import Entry, Lattice
from orchestrator.strategies import exhaustive
from orchestrator.sweep import sweep
from orchestrator.sweeping import Sweeping
from trainers.call import Call, Term
from trainers.spec import Data, Model, Recipe

MODELS = 11
SWEEPS = {
    "grid": {"LD.weight": [0.1, 0.2, 0.3, 0.4], "LD.temperature": [1, 2, 4, 8]},
    "random": {"LD.temperature": {"loguniform": [1, 20]}, "sampler": "random", "samples": 16},
}


def lattice() -> Lattice:
    entries = {
        f"m{i}": Entry(Model(detector=Call(name="GFL"), backbone=Call(name=f"m{i}")), Recipe()) for i in range(MODELS)
    }
    losses = [Term(name="LD", args={"weight": 0.25, "temperature": 10.0})]
    return Lattice(entries, Data(fingerprint="none", classes=("3",)), losses)


def seconds(knobs: dict[str, object]) -> list[float]:
    """CPU time of each answer."""
    ours = lattice()
    frontier = Frontier(ours, Sweeping(exhaustive, sweep(knobs), ours), seeds=(0,), done=lambda stage: None)
    dice = random.Random(0)
    taken = []
    stages = 0
    stage = frontier.next()
    while stage is not None:
        if len(frontier.wanted()) > stages:
            stages = len(frontier.wanted())
            gc.freeze()
        score = dice.random()
        start = time.process_time()
        frontier.finish(stage.key, score)
        stage = frontier.next()
        taken.append(time.process_time() - start)
    return taken


def main() -> None:
    rows = []
    for sampler, knobs in SWEEPS.items():
        taken = sorted(seconds(knobs))
        rows.append(
            {
                "sampler": sampler,
                "trainings": len(taken),
                "median": 1000 * median(taken),
                "999 in 1,000 below": 1000 * taken[int(0.999 * len(taken))],
                "worst": 1000 * taken[-1],
            }
        )
    show("suggest", rows, "milliseconds of CPU time. Goal: under 10 at the median, 50 at worst")


if __name__ == "__main__":
    main()
