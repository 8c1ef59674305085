"""A stage comes to the same result however often it is interrupted, and whatever is damaged in between."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.kept import weights_file
from tests.trainers.stages import STEPS, stage
from tests.trainers.works import TAUGHT, Crash, names, raising_at, run, untimed
from trainers import teacher, worker
from trainers.evaluate import measure
from trainers.loop import Stopped
from trainers.result import Result
from trainers.spec import Stage
from trainers.store import Store


@pytest.mark.parametrize("epoch", [1, 2, 3])
@pytest.mark.parametrize(
    "error", [Crash(), RuntimeError("the network is down"), Stopped()], ids=lambda e: type(e).__name__
)
def test_an_interruption_after_an_epoch_costs_nothing(
    undisturbed: tuple[Result, Path], folder: Path, epochs: list[int], epoch: int, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        run(TAUGHT, folder, report=raising_at(epoch, error))
    assert Store(folder).get(TAUGHT) is None and Store(folder).begun(TAUGHT.key) == epoch
    told: list[float] = []
    result = run(TAUGHT, folder, report=lambda entry: told.append(entry["epoch"]))
    assert epochs == [0, 1, 2], "every epoch once"
    assert told == [1, 2, 3], "who comes late hears all of it"
    assert result.sha256 == undisturbed[0].sha256 and untimed(result.history) == untimed(undisturbed[0].history)
    assert names(folder, TAUGHT) == ["measured.json", "result.json", "weights.safetensors"]


@pytest.mark.parametrize("asked_at", [0, 1, STEPS - 1, STEPS + 2, 3 * STEPS - 1])
def test_a_stop_in_the_middle_of_an_epoch_goes_on_from_the_next_step(
    undisturbed: tuple[Result, Path], folder: Path, steps: list[int], asked_at: int
) -> None:
    asked = count(-1)  # once before it begins: whether to wait for the stage
    with pytest.raises(Stopped):
        run(TAUGHT, folder, stop=lambda: next(asked) == asked_at)
    assert Store(folder).begun(TAUGHT.key) == asked_at // STEPS
    result = run(TAUGHT, folder)
    assert steps == list(range(3 * STEPS)), "every step once"
    assert result.sha256 == undisturbed[0].sha256 and untimed(result.history) == untimed(undisturbed[0].history)


class Noisy(nn.Module):
    """A network in which every step draws by chance."""

    def __init__(self, task: nn.Module) -> None:
        super().__init__()
        self.task = task

    def forward(self, images: Tensor, *others: Any) -> Any:
        return self.task(images + 0.1 * torch.rand_like(images), *others)


def test_a_training_that_is_stopped_after_every_step_gets_there_all_the_same(folder: Path, tmp_path: Path) -> None:
    """As on machines that are taken away again and again. What chance draws is the same, too."""
    shutil.copytree(folder, tmp_path / "alone")
    alone = run(TAUGHT, tmp_path / "alone", wrap=Noisy)
    result, stops = None, 0
    while result is None:
        asked = iter([False, False, True])
        with suppress(Stopped):
            result = run(TAUGHT, folder, wrap=Noisy, stop=lambda asked=asked: next(asked))
        stops += result is None
    assert stops == 3 * STEPS - 1
    assert result.sha256 == alone.sha256 and untimed(result.history) == untimed(alone.history)
    assert names(folder, TAUGHT) == ["measured.json", "result.json", "weights.safetensors"]


@pytest.mark.parametrize(
    ("place", "name"), [(Store, "put"), (worker, "_finish"), (teacher, "restore")], ids=["put", "finish", "read back"]
)
def test_a_crash_between_the_last_epoch_and_the_result_trains_nothing_again(
    undisturbed: tuple[Result, Path], folder: Path, epochs: list[int], place: Any, name: str
) -> None:
    Store(folder)
    with monkeypatched(place, name, TAUGHT), pytest.raises(Crash):
        run(TAUGHT, folder)
    assert epochs == [0, 1, 2]
    result = run(TAUGHT, folder)
    assert epochs == [0, 1, 2] and result.sha256 == undisturbed[0].sha256
    assert untimed(result.history) == untimed(undisturbed[0].history)


def monkeypatched(place: Any, name: str, one: Stage) -> Any:
    """Crash when this stage, and not its teacher, gets there."""
    real = getattr(place, name)

    def act(*args: Any, **kwargs: Any) -> Any:
        whose = [getattr(arg, "stage", arg) for arg in args]
        if one in [value for value in whose if isinstance(value, Stage)]:
            raise Crash
        return real(*args, **kwargs)

    patch = pytest.MonkeyPatch()
    patch.setattr(place, name, act)

    class Undo:
        def __enter__(self) -> None: ...

        def __exit__(self, *_: Any) -> None:
            patch.undo()

    return Undo()


def test_a_crash_while_measuring_repeats_that_epoch_only(
    undisturbed: tuple[Result, Path], folder: Path, epochs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def second(*args: Any, **kwargs: Any) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 2:
            raise Crash
        return measure(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(worker, "measure", second)
        with pytest.raises(Crash):
            run(TAUGHT, folder)
    assert run(TAUGHT, folder).sha256 == undisturbed[0].sha256 and epochs == [0, 1, 1, 2]


@pytest.mark.parametrize("writes", [17, 18])
def test_a_process_that_always_dies_after_a_few_writes_still_gets_there(
    undisturbed: tuple[Result, Path], folder: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """Taking the stage takes five operations on the disk, an epoch's state five, a result twelve, the last of all."""
    left = 0

    def mortal(operation: Callable[..., Any]) -> Callable[..., Any]:
        def act(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Crash
            return operation(*args, **kwargs)

        return act

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", mortal(Path.rename))
        patch.setattr(Path, "unlink", mortal(Path.unlink))
        patch.setattr(Path, "write_text", mortal(Path.write_text))
        patch.setattr(os, "fsync", mortal(os.fsync))
        patch.setattr(torch, "save", mortal(torch.save))
        deaths = 0
        for _ in range(12):
            left = writes
            try:
                result = run(TAUGHT, folder)
                break
            except Crash:
                deaths += 1
    assert deaths
    assert result.sha256 == undisturbed[0].sha256 and Store(folder).check(TAUGHT)


@pytest.mark.parametrize(("damaged", "begins"), [(1, 1), (2, 0)], ids=["the last", "both"])
def test_a_damaged_state_costs_its_epoch_and_no_more(
    undisturbed: tuple[Result, Path], folder: Path, epochs: list[int], damaged: int, begins: int
) -> None:
    with pytest.raises(Crash):
        run(TAUGHT, folder, report=raising_at(2, Crash()))
    for state in sorted((folder / TAUGHT.key).glob("state-*.pt"))[-damaged:]:
        content = bytearray(state.read_bytes())
        content[len(content) // 2] ^= 8
        state.write_bytes(bytes(content))
    said: list[str] = []
    assert run(TAUGHT, folder, say=said.append).sha256 == undisturbed[0].sha256
    assert epochs == [0, 1, *range(begins, 3)]
    where = "epoch 1" if begins else "its beginning"
    assert len(said) == damaged and all(text.endswith(f".pt.corrupt; it goes on from {where}") for text in said)


def test_weights_that_were_found_damaged_are_trained_anew_to_the_same_bytes(folder: Path) -> None:
    before = run(stage(epochs=1), folder)
    store = Store(folder)
    file = weights_file(store, before.key)
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.write_bytes(bytes(content))
    assert not store.check(before.stage)
    assert run(before.stage, folder).sha256 == before.sha256 and store.check(before.stage)
