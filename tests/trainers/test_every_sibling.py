"""Every detector and every loss learns beside siblings what it learns alone: to the bit, after every epoch."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.trainers.kept import kept_state
from tests.trainers.stages import CPU, recipe
from tests.trainers.test_cohort import assert_same
from tests.trainers.test_every_detector import CASES, ONCE, SMALL
from tests.trainers.test_every_pair import LOSSES, teaches
from tests.trainers.trainings import identical
from trainers import backbones, build, data, detectors, distill, worker
from trainers.call import Call, Term, offers
from trainers.cohort import train_together
from trainers.order import Order
from trainers.result import Result
from trainers.spec import Model, Recipe, Stage
from trainers.store import Store
from trainers.workplace import Entry, Workplace

FEW = Call(name="Digits", args={"classes": 2, "train": 8, "val": 4, "size": 32}).complete(data)
STEPS = 2  # of an epoch
EPOCHS = 2
PLAIN = recipe(epochs=EPOCHS, batch=4)
OTHER = recipe(epochs=EPOCHS, batch=4, optimizer="AdamW", lr=0.003, ema=0.5)
DRAWN = {"sampled": 8}  # of more regions, so that it is left to chance which
# Both pad their images to 32 pixels; the first leaves blocks out at random.
SWIN = Call(name="Swin", args={"size": "micro", "drop_path": 0.5})
MOBILE = Call(name="MobileNetV3", args={"size": "small", "width": 0.25})

States = dict[str, list[Any]]  # what a training goes on from after each epoch, by the keys of the stages


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """How fast a model is, nobody asks here, and it takes longer than to train it."""
    monkeypatch.setattr(worker, "takes", lambda *_, **__: None)


def model(name: str, own: dict[str, Any], *, width: int = 4, on: Call | None = None) -> Model:
    known = Call(name=name).knobs(detectors)
    small = {knob: value for knob, value in (SMALL | DRAWN).items() if knob in known}
    return Model(
        detector=Call(name=name, args={**small, **own}).complete(detectors),
        backbone=(on or Call(name="TinyResNet", args={"width": width})).complete(backbones),
    )


def stage(of: Model, how: Recipe, losses: Sequence[str] = (), *, teacher: Stage | None = None, seed: int = 0) -> Stage:
    masks = build.masks(build.dataset(FEW)) if build.learns_masks(of.detector) else ""
    return Stage(
        model=of,
        data=build.contents(FEW).model_copy(update={"masks": masks}),
        recipe=how,
        distill=tuple(Term(name=loss).complete(distill) for loss in losses),
        seed=seed,
        teacher=teacher,
    )


def train(stages: Sequence[Stage], folder: Path) -> States:
    """Together, with what each has to go on from after every epoch; all of them must end well."""
    states: States = {one.key: [] for one in stages}
    store = Store(folder)

    def place(key: str) -> Workplace:
        def report(entry: Entry) -> None:
            left = kept_state(store, key)
            assert left is not None and left["training"]["epoch"] == entry["epoch"]
            states[key].append(left["training"])

        return Workplace(CPU, report=report)

    def ended(key: str, how: Result | BaseException) -> None:
        if isinstance(how, BaseException):
            raise how

    train_together([Order(stage=one, data=FEW, store=str(folder)) for one in stages], list(map(place, states)), ended)
    return states


def check_same(stages: Sequence[Stage], root: Stage | None, folder: Path) -> None:
    """Each alone and all together, beginning with the same store."""
    if root is not None:
        train([root], folder / "together")
        shutil.copytree(folder / "together", folder / "alone")
    alone: States = {}
    for one in stages:
        alone |= train([one], folder / "alone")
    together = train(stages, folder / "together")
    for one in stages:
        assert len(alone[one.key]) == EPOCHS
        for mine, theirs in zip(alone[one.key], together[one.key], strict=True):
            assert identical(mine, theirs), "weights, moments, and all else that a training goes on from"
    assert_same(folder / "alone", folder / "together", stages)


@ONCE
def test_a_detector_that_every_loss_teaches_learns_beside_its_like_what_it_learns_alone(
    name: str, own: dict[str, Any], tmp_path: Path
) -> None:
    """The losses are shared out between two siblings, who draw and ask differently in each step."""
    losses = [loss for loss in LOSSES if teaches(loss, name, own)]
    root = stage(model(name, own, width=8), recipe(epochs=1, batch=4), seed=7)
    student = model(name, own)
    siblings = [
        stage(student, PLAIN, losses[::2], teacher=root),
        stage(student, OTHER, losses[1::2], teacher=root),
    ]
    check_same(siblings, root, tmp_path)


# Models of which a batch is padded alike, and that read the same of it.
BASELINES = {
    "detectors": [model(*case) for case in CASES if case[0] in ("GFL", "FasterRCNN", "RepPoints")],
    "backbones": [model("GFL", {"reg_max": 4}, on=on) for on in (SWIN, MOBILE)],
}


@pytest.mark.parametrize("models", BASELINES.values(), ids=list(BASELINES))
def test_baselines_of_different_models_share_their_batches_and_learn_what_they_learn_alone(
    models: list[Model], tmp_path: Path, epochs: list[int]
) -> None:
    baselines = [stage(one, how) for one, how in zip(models, (PLAIN, OTHER, PLAIN), strict=False)]
    check_same(baselines, None, tmp_path)
    assert epochs == list(range(EPOCHS)) * (len(baselines) + 1), "of each alone, and once of all"


def test_every_detector_and_every_loss_is_among_them() -> None:
    assert {name for name, _ in CASES} == set(offers(detectors))
    assert all(any(teaches(loss, *case) for case in CASES) for loss in offers(distill))
