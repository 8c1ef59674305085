"""Sweeps and lattices for the tests of what is searched in them, and worlds in which every training has its curve."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from itertools import combinations
from math import inf
from statistics import fmean
from types import MappingProxyType
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from orchestrator.lattice import Entry, Lattice, Path
from orchestrator.settings import Setting
from orchestrator.sweep import Sweep, sweep
from tests.orchestrator.test_strategies import students as some_students
from trainers.call import Call, Invalid, Term
from trainers.spec import Data, Model, Recipe, Stage

WEIGHT = "LD.weight"
EPOCHS = 6
KNOBS: tuple[dict[str, Any], ...] = (
    {WEIGHT: [1.0, 2.0, 3.0]},
    {WEIGHT: [1.0, 2.0], "recipe.lr": [0.1, 0.2]},
    {"distill": [[{"LD": {}}], [{"LD": {}}, {"KD": {}}]], "KD.weight": [1.0, 2.0, 3.0]},
    {WEIGHT: {"uniform": [0, 1]}, "samples": 7, "sampler": "random"},
    {WEIGHT: {"uniform": [0, 1]}, "recipe.lr": {"loguniform": [0.001, 1]}, "samples": 5, "sampler": "sobol"},
    {WEIGHT: {"uniform": [0, 1]}, "recipe.lr": [0.1, 0.2], "samples": 9, "sampler": "tpe"},
    {WEIGHT: [5.0]},
    {WEIGHT: [1.0, 2.0], "recipe.epochs": [2, 5]},
)
STOPS: tuple[dict[str, Any], ...] = (
    {},
    {"stop": {"halving": {"grace": 1, "factor": 2}}},
    {"stop": {"halving": {"grace": 2, "factor": 3}}},
    {"stop": {"asha": {"grace": 1, "factor": 2}}},
)


def lattice(
    names: Iterable[str],
    edges: Iterable[tuple[str, str]] | None = None,
    *,
    epochs: int = EPOCHS,
    backbones: Mapping[str, str] = MappingProxyType({}),
    seeds: tuple[int, ...] = (0,),
    students: Iterable[str] = (),
) -> Lattice:
    models = {n: Model(detector=Call(name="GFL"), backbone=Call(name=backbones.get(n, n))) for n in names}
    entries = {name: Entry(model, Recipe(epochs=epochs)) for name, model in models.items()}
    terms = [Term(name="LD", args={"weight": 1.0})]
    return Lattice(
        entries, Data(fingerprint="digits", classes=("3",)), terms, edges=edges, seeds=seeds, students=students
    )


@st.composite
def lattices(draw: st.DrawFn, *, seeds: tuple[tuple[int, ...], ...] = ((0,),), several: bool = False) -> Lattice:
    """Any edges from which the student, or several, can be reached, of two models or more; some may be equal."""
    names = [f"m{i}" for i in range(draw(st.integers(2, 4)))]
    edges = draw(st.none() | st.lists(st.sampled_from(list(combinations(names, 2))), unique=True))
    backbones = draw(st.sampled_from([{}, {"m1": "m2", "m3": "m2"}]))
    epochs, seed = draw(st.integers(3, 8)), draw(st.sampled_from(seeds))
    try:
        students = draw(some_students(names)) if several else ()
        return lattice(names, edges, epochs=epochs, backbones=backbones, seeds=seed, students=students)
    except Invalid:
        assume(False)
        raise


@st.composite
def sweeps(draw: st.DrawFn, *, stops: tuple[dict[str, Any], ...] = STOPS) -> Sweep:
    """Any sampler, scope and way to stop."""
    scope = {"scope": draw(st.sampled_from(["edge", "path"]))}
    return sweep({**draw(st.sampled_from(KNOBS)), **scope, **draw(st.sampled_from(stops))})


def weight(value: float) -> Setting:
    """The setting of one knob."""
    return ((WEIGHT, str(value)),)


class Curves:
    """What becomes of every training, the same at every look: the score after each epoch, or that it fails, and when.

    A training that fails does so after some epoch, so that it may have been among the best before.
    """

    def __init__(self, world: int, *, failing: float = 0.0) -> None:
        self.world, self.failing = world, failing

    def fails(self, stage: Stage) -> int | None:
        """The epoch in which the training fails, from 1 on; None: it does not."""
        dice = random.Random(f"fate {self.world} {stage.key}")
        return dice.randint(1, stage.recipe.epochs) if dice.random() < self.failing else None

    def score(self, stage: Stage, epoch: int) -> float:
        dice = random.Random(f"curve {self.world} {stage.key}")
        reached, noise = dice.random(), [dice.uniform(-0.2, 0.2) for _ in range(epoch)]
        return reached * (1 - 0.5**epoch) + noise[-1]

    def known(self, lattice: Lattice, trial: Path) -> float:
        """The score of a trial where it ends, a mean over its seeds; -inf if one fails before, or a teacher does."""
        return fmean(self._of(lattice, trial, seed) for seed in trial.seeds or lattice.seeds)

    def _of(self, lattice: Lattice, trial: Path, seed: int) -> float:
        stage = lattice.stage(trial, seed)
        end = trial.until or stage.recipe.epochs
        above = list(stage.lineage)[:-1]
        failed = self.fails(stage)
        if any(self.fails(one) for one in above) or (failed is not None and failed <= end):
            return -inf
        return self.score(stage, end)
