"""Several workers train stages together, each its part of every one: as they would have trained each alone."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from torch import nn

from tests.trainers.stages import CPU, model, order, stage
from tests.trainers.test_cohort import assert_same
from tests.trainers.two_workers import together
from tests.trainers.works import ROOT, run
from trainers import cohort, lease, workers
from trainers.cohort import train_together
from trainers.spec import Stage
from trainers.workplace import Workplace

pytestmark = pytest.mark.slow

WIDE = {"model": model(width=16)}
SIBLINGS = [
    stage({"LD": {"weight": 2}}, "KD", teacher=ROOT, epochs=3, optimizer="AdamW", lr=0.003, ema=0.5, fixed_norm=True),
    stage("PKD", teacher=ROOT, epochs=2).model_copy(update=WIDE),
    stage({"LD": {"temperature": 3}}, teacher=ROOT, epochs=2, clip=1.0, fixed_norm=True),
]


def data_parallel(task: nn.Module) -> nn.Module:
    return nn.parallel.DistributedDataParallel(task)


def train(stages: Sequence[Stage], folder: Path) -> list[str]:
    """What became of the stages in the order in which they ended: the class of it."""
    ended: list[str] = []

    def end(key: str, how: object) -> None:
        number = [one.key for one in stages].index(key)
        ended.append(f"{number} {type(how).__name__}")

    train_together([order(one, folder) for one in stages], [Workplace(CPU, wrap=data_parallel) for _ in stages], end)
    return ended


def each_alone_and_all_together(rank: int, folder: Path) -> list[str]:
    for one in SIBLINGS:
        train([one], folder / "alone")
    return train(SIBLINGS, folder / "shared")


def beside_one_that_another_run_has(rank: int, folder: Path) -> list[str]:
    """The other gives no sign of life, and its time is soon over; the first worker alone looks."""
    if workers.rank() == 0:
        other = lease.Holder(name="of another run", machine="elsewhere", pid=1, started="", expiry=3)
        held = folder / "shared" / SIBLINGS[0].key
        held.mkdir(parents=True, exist_ok=True)
        (held / "lease-000001").write_text(other.model_dump_json())
    workers.barrier()
    return train(SIBLINGS, folder / "shared")


def where_one_worker_has_no_memory_for_another(rank: int, folder: Path) -> list[str]:
    if rank == 1:
        cohort.used = lambda device: 0
        cohort.most = lambda device: 1_000
        cohort.free = lambda device: 999
    return train(SIBLINGS[:2], folder / "shared")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a store in which each was trained alone, and one in which all were trained together."""
    folder = tmp_path_factory.mktemp("stores")
    run(ROOT, folder / "alone")
    shutil.copytree(folder / "alone", folder / "shared")
    shutil.copytree(folder / "alone", folder / "root")
    ended = together(partial(each_alone_and_all_together, folder=folder), folder)
    assert ended == [["1 Result", "2 Result", "0 Result"]] * 2
    return folder


@pytest.fixture
def again(folder: Path, tmp_path: Path) -> Path:
    """A folder with a store of the root alone."""
    shutil.copytree(folder / "root", tmp_path / "shared")
    return tmp_path


def test_siblings_are_as_if_trained_alone(folder: Path) -> None:
    assert_same(folder / "alone", folder / "shared", SIBLINGS)


def test_while_one_waits_for_another_run_the_others_train(folder: Path, again: Path) -> None:
    ended = together(partial(beside_one_that_another_run_has, folder=again), again)
    assert ended == [["1 Result", "2 Result", "0 Result"]] * 2
    assert_same(folder / "alone", again / "shared", SIBLINGS)


def test_one_worker_without_memory_for_another_stage_is_enough(folder: Path, again: Path) -> None:
    ended = together(partial(where_one_worker_has_no_memory_for_another, folder=again), again)
    assert ended == [["1 Crowded", "0 Result"]] * 2
    assert_same(folder / "alone", again / "shared", SIBLINGS[:1])
    assert not list(again.rglob("lease-*"))
