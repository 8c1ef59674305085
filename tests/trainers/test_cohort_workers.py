"""Several workers train stages together, each its part of every one: as they would have trained each alone."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

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


def everything(rank: int, folder: Path) -> dict[str, list[str]]:
    """By store, what became of the stages that were trained there together."""
    for one in SIBLINGS:
        train([one], folder / "alone")
    return {
        "together": train(SIBLINGS, folder / "together"),
        "beside": beside_one_that_another_run_has(folder / "beside"),
        "crowded": where_one_worker_has_no_memory_for_another(folder / "crowded"),
    }


def beside_one_that_another_run_has(store: Path) -> list[str]:
    """The other gives no sign of life, and its time is soon over; the first worker alone looks."""
    if workers.rank() == 0:
        other = lease.Holder(name="of another run", machine="elsewhere", pid=1, started="", expiry=3)
        held = store / SIBLINGS[0].key
        held.mkdir(parents=True, exist_ok=True)
        (held / "lease-000001").write_text(other.model_dump_json())
    workers.barrier()
    return train(SIBLINGS, store)


def where_one_worker_has_no_memory_for_another(store: Path) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        for name, bytes_ in (("used", 0), ("most", 1_000), ("free", 999)) if workers.rank() == 1 else ():
            patch.setattr(cohort, name, lambda device, bytes_=bytes_: bytes_)
        return train(SIBLINGS[:2], store)


class Ran(NamedTuple):
    """Where the stores are, and what each worker says of what was trained there."""

    folder: Path
    ended: list[dict[str, list[str]]]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("stores")
    run(ROOT, folder / "alone")
    for name in ("together", "beside", "crowded"):
        shutil.copytree(folder / "alone", folder / name)
    return Ran(folder, together(partial(everything, folder=folder), folder))


def test_siblings_are_as_if_trained_alone(ran: Ran) -> None:
    assert [one["together"] for one in ran.ended] == [["1 Result", "2 Result", "0 Result"]] * 2
    assert_same(ran.folder / "alone", ran.folder / "together", SIBLINGS)


def test_while_one_waits_for_another_run_the_others_train(ran: Ran) -> None:
    assert [one["beside"] for one in ran.ended] == [["1 Result", "2 Result", "0 Result"]] * 2
    assert_same(ran.folder / "alone", ran.folder / "beside", SIBLINGS)


def test_one_worker_without_memory_for_another_stage_is_enough(ran: Ran) -> None:
    assert [one["crowded"] for one in ran.ended] == [["1 Crowded", "0 Result"]] * 2
    assert_same(ran.folder / "alone", ran.folder / "crowded", SIBLINGS[:1])
    assert not list((ran.folder / "crowded").rglob("lease-*"))
