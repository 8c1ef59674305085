"""One worker, two and four, each with its part of a batch in one piece or in pieces, train the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.trainers.stages import CPU, model, recipe
from tests.trainers.trainings import guide, lessons_of, taught, training
from tests.trainers.two_workers import together
from trainers import build, data, speed
from trainers.balance import Balance
from trainers.call import Call
from trainers.data.batches import Batches
from trainers.evaluate import measure
from trainers.loop import Training
from trainers.speed import Compiled
from trainers.sync_norm import SharedBatchNorm, share_statistics
from trainers.task import Task
from trainers.teaching import no_lesson

pytestmark = pytest.mark.slow

WORLDS = (1, 2, 4)
DIGITS = Call(name="Digits", args={"classes": 2, "train": 64, "val": 32, "size": 32}).complete(data)
Wrap = Callable[[nn.Module], nn.Module]
# By name: how a training differs, and how many images of its part of a batch, 8, 4 or 2, a worker looks at once. The
# batch norms are fixed, or live and share their statistics. Compiled is: traced as for any compiler.
CASES: dict[str, tuple[dict[str, Any], int | None]] = {
    "fixed": ({"fixed_norm": True}, None),
    "fixed, in pieces": ({"fixed_norm": True}, 1),
    "fixed, compiled": ({"fixed_norm": True}, None),
    "fixed, compiled, in pieces": ({"fixed_norm": True}, 1),
    "shared": ({}, None),
    "shared, clipped": ({"clip": 0.5}, None),
}
# The norms, and how many images each of several workers looks at once; one alone looks at all.
SCORED: dict[str, tuple[Literal["group", "batch"], int | None]] = {
    "group, in pieces": ("group", 1),
    "shared": ("batch", None),
}


def steps(case: str, rank: int, world: int, wrap: Wrap) -> dict[str, Any]:
    """Of an epoch: losses, weights, and what was found of an alpha."""
    changes, size = CASES[case]
    of = taught("LD", epochs=1, batch=8, **changes)
    plain = training(of)
    share_statistics(plain.task.student)
    balance = Balance({"ld": 0.5}, {"ld": 2})
    one = Training(plain.task, of.recipe, plain.batches, device=CPU, balance=balance, micro_batch=size)
    one.batches.rank, one.batches.world = rank, world
    if "compiled" in case:
        one.task.fast = Compiled(one.task.student, backend="aot_eager")
    one.wrapped = wrap(one.task)
    # In an epoch of so few steps a batch in one piece has its graph at once.
    with mock.patch.object(speed, "OFTEN", speed.OFTEN if size else 1):
        (epoch,) = one.epochs(lessons_of(guide()))
    losses = {name: value for name, value in epoch.metrics.items() if "loss" in name}
    graphs = getattr(one.task.fast, "graphs", None)
    found = {"losses": losses, "alphas": one.balance.alphas, "gone": one.unchecked, "graphs": graphs}
    return {"state": one.task.state_dict(), **found}


def score(case: str, rank: int, world: int, wrap: Wrap) -> dict[str, Any]:
    """Of ten epochs."""
    norm, size = SCORED[case]
    found = build.dataset(DIGITS)
    torch.manual_seed(0)
    student = build.network(model(width=16, norm=norm), 2)
    share_statistics(student)
    of = recipe(epochs=10, lr=0.003, optimizer="AdamW")
    fed = Batches(found.train, batch=8, seed=0, divisor=16, rank=rank, world=world)
    one = Training(Task(student, {}), of, fed, device=CPU, micro_batch=size if world > 1 else None)
    one.wrapped = wrap(one.task)
    for _ in one.epochs(no_lesson):
        pass
    return {"AP": measure(student, found, of, device=CPU)["AP"]}


def everything(rank: int, world: int, wrap: Wrap) -> dict[str, Any]:
    stepped = {case: steps(case, rank, world, wrap) for case in CASES}
    return {"steps": stepped, "scores": {case: score(case, rank, world, wrap) for case in SCORED}}


def in_buckets(task: nn.Module) -> nn.Module:
    """Its gradients are averaged in several lots, and there Dynamo cuts what it compiles."""
    return DistributedDataParallel(task, bucket_cap_mb=0.005)


def of_two(rank: int) -> dict[str, Any]:
    with mock.patch.object(torch.distributed, "_DEFAULT_FIRST_BUCKET_BYTES", 4096):
        return everything(rank, 2, in_buckets)


def of_four(rank: int) -> dict[str, Any]:
    return everything(rank, 4, DistributedDataParallel)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """What each worker has, by how many there are."""
    folder = tmp_path_factory.mktemp("workers")
    (folder / "2").mkdir()
    (folder / "4").mkdir()
    return {
        1: [everything(0, 1, lambda task: task)],
        2: together(of_two, folder / "2", world=2),
        4: together(of_four, folder / "4", world=4),
    }


Ran = dict[int, list[dict[str, Any]]]


def like(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_an_epoch_is_that_of_one_worker(ran: Ran, case: str, world: int) -> None:
    (whole,), parts = ([worker["steps"][case] for worker in ran[n]] for n in (1, world))
    for part in parts:
        like(whole["state"], part["state"])
        assert part["losses"] == pytest.approx(whole["losses"], rel=1e-3)
        assert part["alphas"] == pytest.approx(whole["alphas"], rel=1e-3) and part["alphas"]
        assert part["gone"] == {}
    first, *others = parts
    for name, value in first["state"].items():
        assert all(torch.equal(other["state"][name], value) for other in others), name


@pytest.mark.parametrize("world", WORLDS)
def test_pieces_change_nothing_where_batch_norms_are_fixed_nor_does_compiling(ran: Ran, world: int) -> None:
    steps = ran[world][0]["steps"]
    like(steps["fixed"]["state"], steps["fixed, in pieces"]["state"])
    for case in ("fixed, compiled", "fixed, compiled, in pieces"):
        like(steps["fixed"]["state"], steps[case]["state"])
        assert len(steps[case]["graphs"]) == 1, "a piece has one image"


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("case", SCORED)
def test_the_score_is_that_of_one_worker_without_pieces(ran: Ran, case: str, world: int) -> None:
    whole, part = (ran[n][0]["scores"][case]["AP"] for n in (1, world))
    # Sums in another order: over so few images one box more or less is half a point, other processors round otherwise.
    assert whole > 0.05 and part == pytest.approx(whole, abs=0.008)


def test_live_batch_norms_that_do_not_share_their_statistics_depend_on_the_workers(tmp_path: Path) -> None:
    """What sharing is there for."""
    left, right = together(apart, tmp_path)
    alone = torch.arange(8.0).view(4, 2, 1, 1)
    whole = nn.BatchNorm2d(2)(alone)
    torch.testing.assert_close(left["shared"], whole[:2])
    torch.testing.assert_close(right["shared"], whole[2:])
    assert not torch.allclose(left["plain"], whole[:2])


def apart(rank: int) -> dict[str, Tensor]:
    mine = torch.arange(8.0).view(4, 2, 1, 1)[2 * rank : 2 * rank + 2]
    return {"plain": nn.BatchNorm2d(2)(mine).detach(), "shared": SharedBatchNorm(2)(mine).detach()}
