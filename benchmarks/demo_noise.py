"""Whether the demo has signal above noise: each of its models trained alone with five seeds.

Goals: teacher AP >= .45, the student alone at least .10 lower, a standard deviation <= .02 for each model.
Runs on as many processes as there are cores, a thread each.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from table import show

SEEDS = range(5)
DEMO = Path(__file__).parent.parent / "search_spaces" / "demo.yaml"


def train(job: tuple[str, int, str]) -> tuple[str, float, float]:
    """Train a model of the demo with nobody's help; -> name, score, seconds."""
    import torch

    from orchestrator.study import load
    from trainers import build
    from trainers.order import Order
    from trainers.spec import Stage
    from trainers.worker import work

    name, seed, store = job
    torch.set_num_threads(1)
    study = load(DEMO, sys.argv[1:])
    entry = study.models[name]
    stage = Stage(model=entry.model, data=build.contents(study.data), recipe=entry.recipe, seed=seed)
    order = Order(stage=stage, data=study.data, store=store, evaluate_every=entry.recipe.epochs)
    result = work(order, device=torch.device("cpu"))
    return name, result.score, result.seconds


def main() -> None:
    from orchestrator.study import load

    names = list(load(DEMO, sys.argv[1:]).models)
    with tempfile.TemporaryDirectory() as store:
        jobs = [(name, seed, store) for name in names for seed in SEEDS]
        with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
            done = pool.map(train, jobs, chunksize=1)
    rows: list[dict[str, Any]] = []
    for name in names:
        scores = [score for model, score, _ in done if model == name]
        rows.append(
            {
                "model": name,
                "AP": statistics.fmean(scores),
                "standard deviation": statistics.stdev(scores),
                "seeds": " ".join(f"{score:.3f}" for score in scores),
                "seconds": statistics.fmean(seconds for model, _, seconds in done if model == name),
            }
        )
    gap = rows[0]["AP"] - rows[-1]["AP"]
    show("demo_noise", rows, f"teacher - student: {gap:.3f}. Goals: teacher >= .45, gap >= .10, deviation <= .02")


if __name__ == "__main__":
    main()
