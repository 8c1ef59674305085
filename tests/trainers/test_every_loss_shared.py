"""Two real workers that share a batch learn from every loss what one worker with the whole batch learns."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.trainers.test_every_detector import part_of
from tests.trainers.test_every_loss import CASES, EVERY, OFFERED, WIDER, Kind, Pair, title
from tests.trainers.two_workers import together
from trainers.task import Lesson, Task

SPLIT = ((0,), (1, 2))  # the images of each of two workers
BOXES = (2, 1, 2)  # of each image
ITS_OWN = {  # losses that take something from each worker's own part of a batch, as their docstrings say
    "CrossKD": "statistics",
    "PKD": "statistics",
}


def learn(images: Sequence[int], wrap: Callable[[nn.Module], nn.Module] = lambda task: task) -> dict[str, Any]:
    """Of each loss its value and the gradients that it alone gives, to the student and to its adapters."""
    found = {}
    for name, on in CASES:
        pair = Pair(name, on, channels=24 if WIDER[name] == "adapters" else 16)
        task = wrap(Task(pair.student, {"it": pair.loss}))
        batch, truth = part_of(images, BOXES)
        try:
            with torch.no_grad():
                lesson = Lesson([pair.teacher(batch)], detection=0.0)
            torch.manual_seed(1)
            losses = task(batch, truth, lesson)
            losses.total.backward()
            gradients = {key: p.grad for key, p in task.named_parameters()}
        except Exception as error:
            raise AssertionError(title(name, on)) from error
        assert all(gradient is not None for gradient in gradients.values()), title(name, on)
        found[title(name, on)] = {"loss": losses.by_name["it"].detach(), "gradients": gradients}
    return found


def learn_together(rank: int) -> dict[str, Any]:
    return learn(SPLIT[rank], DistributedDataParallel)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return together(learn_together, tmp_path_factory.mktemp("workers"))


@pytest.fixture(scope="module")
def one() -> dict[str, Any]:
    return learn((0, 1, 2))


@EVERY
def test_two_workers_learn_what_one_learns(one: dict[str, Any], two: list[dict[str, Any]], name: str, on: Kind) -> None:
    left, right = (found[title(name, on)] for found in two)
    whole = one[title(name, on)]
    mean = (left["loss"] + right["loss"]) / 2
    alike = torch.isclose(mean, whole["loss"], rtol=1e-4, atol=1e-7).item()
    if name in ITS_OWN:
        assert not alike, f"{name} does not depend on how a batch is spread: take it off the list"
        assert ITS_OWN[name] in (OFFERED[name].__doc__ or "") and "worker" in (OFFERED[name].__doc__ or "")
        return
    assert alike, (mean, whole["loss"])
    rounding = 1e-7 * max(gradient.abs().max().item() for gradient in whole["gradients"].values())
    for key, gradient in whole["gradients"].items():
        ours = left["gradients"][f"module.{key}"]
        assert torch.equal(ours, right["gradients"][f"module.{key}"]), key
        atol = max(1e-5 * gradient.abs().max().item(), rounding)
        torch.testing.assert_close(ours, gradient, rtol=1e-3, atol=atol, msg=key)
