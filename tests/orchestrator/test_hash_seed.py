"""What a search buys is the same in every process, whatever order Python gives its sets there."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path as File

from orchestrator import strategies
from orchestrator.lattice import Entry, Lattice
from orchestrator.searching import frontier
from orchestrator.sweep import sweep
from trainers.call import Call, Term
from trainers.spec import Data, Model, Recipe


def bought() -> list[str]:
    """The keys that a budget buys of a sweep whose settings differ in price, in order."""
    models = {
        name: Entry(Model(detector=Call(name="GFL"), backbone=Call(name=name)), Recipe(epochs=6)) for name in "abcds"
    }
    ours = Lattice(models, Data(fingerprint="d", classes=("3",)), [Term(name="LD", args={"weight": 1.0})])
    search = Call(name="budget", args={"of": {"exhaustive": {}}, "stages": 5.5}).complete(strategies)
    known: dict[str, float] = {}
    wanted = frontier(
        search,
        ours,
        sweep({"recipe.epochs": [2, 5], "LD.weight": [0.5, 1.0]}),
        names=(),
        compute=lambda stage: float(stage.recipe.epochs),
        cost=lambda stage: 1.0,
        done=lambda stage: known.get(stage.key),
        paused=lambda stage, epoch: None,
    )
    while not wanted.over:
        stage = wanted.next()
        assert stage is not None
        known[stage.key] = random.Random(stage.key).random()
        wanted.finish(stage.key, known[stage.key])
    return list(known)


def test_a_budget_buys_the_same_of_a_sweep_in_every_process() -> None:
    asked = (sys.executable, "-c", f"from {__name__} import bought; print(*bought())")
    said = [
        subprocess.run(
            asked,
            cwd=File(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        for seed in range(8)
    ]
    assert len(set(said)) == 1 and said[0].strip()
