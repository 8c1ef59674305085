"""Small stages that train in a second: a handful of digits, and a detector of a few thousand weights."""

from pathlib import Path
from typing import Any

import torch

from trainers import backbones, build, data, detectors, distill, optim, schedules
from trainers.call import Call, Term
from trainers.order import Order
from trainers.spec import Model, Recipe, Stage

CPU = torch.device("cpu")
DIGITS = Call(name="Digits", args={"classes": 2, "train": 32, "val": 16, "size": 32}).complete(data)
STEPS = 4  # of an epoch, with a batch of 8


def model(width: int = 8, **knobs: Any) -> Model:
    gfl = {"channels": 8, "convs": 1, "extra": 0, "reg_max": 4}
    return Model(
        detector=Call(name="GFL", args=gfl).complete(detectors),
        backbone=Call(name="TinyResNet", args={"width": width, **knobs}).complete(backbones),
    )


def recipe(**changes: Any) -> Recipe:
    """Two epochs; with batch norm, so that a teacher in training mode would show in its buffers."""
    facts = {"epochs": 2, "batch": 8, "lr": 0.02, "warmup": 2, "optimizer": "SGD", "schedule": "Cosine", **changes}
    read = Recipe(**facts)
    return read.model_copy(
        update={"optimizer": read.optimizer.complete(optim), "schedule": read.schedule.complete(schedules)}
    )


def stage(*losses: str | dict[str, Any], teacher: Stage | None = None, seed: int = 0, **changes: Any) -> Stage:
    """A training of the small model; `losses` as a study writes them."""
    return Stage(
        model=model(norm="batch"),
        data=build.contents(DIGITS),
        recipe=recipe(**changes),
        distill=tuple(Term.model_validate(loss).complete(distill) for loss in losses),
        seed=seed,
        teacher=teacher,
    )


def order(stage: Stage, store: Path, **facts: Any) -> Order:
    return Order(stage=stage, data=DIGITS, store=str(store), **facts)
