"""One thread for all tests of the trainers, a process with another device, and the taught stage that the tests of the
worker begin with."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from tests.trainers import pretend_device
from tests.trainers.works import ROOT, TAUGHT, run
from trainers.data.batches import Batch, Batches
from trainers.loop import Training
from trainers.result import Result


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing by more, and sums keep their order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def elsewhere() -> Iterator[Callable[..., Any]]:
    """Calls a module's function with these arguments in a process that has the device that is not there."""
    here, there = mp.get_context("spawn").Pipe()
    process = mp.get_context("spawn").Process(target=pretend_device.serve, args=(there,), daemon=True)
    process.start()

    def call(function: Callable[..., Any], *args: Any) -> Any:
        here.send((function, args))
        answer = here.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    yield call
    # Not asked to end but ended: a pool waits for its process, which waits for ever if other tests forked beside it.
    process.kill()
    process.join()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """The taught stage, trained in one go, and where."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run(ROOT, folder)
    return run(TAUGHT, folder), folder


@pytest.fixture
def folder(tmp_path: Path, undisturbed: tuple[Result, Path]) -> Path:
    """A store in which the teacher is trained already."""
    whole = undisturbed[1] / ROOT.key
    (tmp_path / ROOT.key).mkdir()
    for file in whole.iterdir():
        (tmp_path / ROOT.key / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.fixture
def epochs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The epochs that were really trained, counted from 0."""
    trained: list[int] = []
    real = Batches.epoch

    def counted(self: Batches, n: int, *, start: int = 0) -> Iterator[Batch]:
        trained.append(n)
        return real(self, n, start=start)

    monkeypatch.setattr(Batches, "epoch", counted)
    yield trained


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that were really made, counted from 0 over all epochs."""
    made: list[int] = []
    real = Training._step

    def counted(self: Training, *given: Any) -> Any:
        made.append(given[-1])
        return real(self, *given)

    monkeypatch.setattr(Training, "_step", counted)
    return made
