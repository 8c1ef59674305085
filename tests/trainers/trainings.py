"""Trainings of the small stages without a worker around them, and whether two of them are the same to the bit."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tests.trainers.stages import CPU, DIGITS, model, stage
from trainers import build
from trainers.data.batches import Batches
from trainers.loop import Training
from trainers.outputs import Outputs
from trainers.spec import Recipe, Stage
from trainers.task import Lesson, Task
from trainers.teaching import Lessons, no_lesson

BOTH = ({"LD": {"weight": 2}}, {"KD": {"weight": 1}})


def guide() -> Any:
    """A teacher of other weights than any student."""
    torch.manual_seed(99)
    return build.network(model(width=16, norm="batch"), 2).eval().requires_grad_(False)


def batches(recipe: Recipe, *, seed: int = 0) -> Batches:
    train = build.dataset(DIGITS).train
    return Batches(train, batch=recipe.batch, seed=seed, flip=recipe.flip, divisor=16)


def training(of: Stage, losses: dict[str, nn.Module] | None = None) -> Training:
    """As a fresh process would set it up."""
    torch.manual_seed(of.seed)
    student = build.detector(of)
    if losses is None:
        losses = build.losses(of.distill, student, [guide()]).modules if of.distill else {}
    return Training(Task(student, losses), of.recipe, batches(of.recipe, seed=of.seed), device=CPU)


def taught(*losses: str | dict[str, Any], **changes: Any) -> Stage:
    return stage(*losses, teacher=stage(seed=7), **changes)


def lessons(of: Stage) -> Lessons:
    return lessons_of(guide()) if of.distill else no_lesson


def lessons_of(guide: Any) -> Lessons:
    """What one teacher says, in full at every step."""

    @torch.no_grad()
    def lesson(images: Tensor, step: int) -> Lesson:
        return Lesson([guide(images)])

    return lesson


def empty_lesson(images: Tensor, step: int) -> Lesson:
    """For losses that do not listen."""
    return Lesson([Outputs([])])


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Tensors and plain values of a state, each with its place."""
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in pairs:
            yield from leaves(part, f"{name}/{key}")
    else:
        yield name, value


def identical(left: Any, right: Any) -> bool:
    """The same to the bit, and of the same types."""
    ours, theirs = dict(leaves(left)), dict(leaves(right))
    assert ours.keys() == theirs.keys()
    return all(
        torch.equal(one, theirs[name]) and one.dtype == theirs[name].dtype
        if isinstance(one, Tensor)
        else one == theirs[name]
        for name, one in ours.items()
    )
