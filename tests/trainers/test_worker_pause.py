"""A stage that pauses and goes on is one that never paused, and what it had is read without its weights."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from tests.trainers.stages import stage
from tests.trainers.two_workers import together
from tests.trainers.works import TAUGHT, names, run, untimed
from trainers.loop import Paused, Stopped
from trainers.result import Result
from trainers.store import Store

SHORT = stage(seed=7)  # two epochs
FOLDER = "TAPATH_TEST_FOLDER"  # tells the workers, which inherit it, where the stores are


def pause(folder: Path, until: int, **facts: Any) -> None:
    with pytest.raises(Paused):
        run(TAUGHT, folder, until=until, **facts)


def note(folder: Path) -> Path:
    return folder / TAUGHT.key / "paused.json"


@pytest.mark.parametrize("pauses", [[1], [2], [1, 2], [1, 1, 2, 2]])
def test_pausing_and_going_on_ends_in_the_same_weights_to_the_bit(
    undisturbed: tuple[Result, Path], folder: Path, epochs: list[int], pauses: list[int]
) -> None:
    for until in pauses:
        pause(folder, until)
        assert Store(folder).get(TAUGHT) is None and Store(folder).begun(TAUGHT.key) == until
    result = run(TAUGHT, folder)
    assert epochs == [0, 1, 2], "every epoch once"
    assert result.sha256 == undisturbed[0].sha256 and untimed(result.history) == untimed(undisturbed[0].history)
    assert names(folder, TAUGHT) == ["measured.json", "result.json", "weights.safetensors"]


def test_what_a_pause_says_is_what_the_whole_training_had_in_those_epochs(
    undisturbed: tuple[Result, Path], folder: Path
) -> None:
    pause(folder, 2)
    assert untimed(list(Store(folder).paused(TAUGHT.key))) == untimed(undisturbed[0].history[:2])


def test_a_pause_is_measured_though_it_is_not_the_time_for_it(folder: Path) -> None:
    pause(folder, 2, evaluate_every=3)
    first, second = Store(folder).paused(TAUGHT.key)
    assert "val/AP" not in first and "val/AP" in second
    assert run(TAUGHT, folder, evaluate_every=3).history[1]["val/AP"] == second["val/AP"]


def test_who_was_begun_without_being_measured_trains_an_epoch_more_and_then_pauses_with_a_score(folder: Path) -> None:
    def stopping(entry: dict[str, float]) -> None:
        if entry["epoch"] == 1:
            raise Stopped

    with pytest.raises(Stopped):
        run(TAUGHT, folder, evaluate_every=9, report=stopping)
    assert Store(folder).begun(TAUGHT.key) == 1
    pause(folder, 1, evaluate_every=9)
    first, second = Store(folder).paused(TAUGHT.key)
    assert "val/AP" not in first and "val/AP" in second
    pause(folder, 1, evaluate_every=9)
    assert Store(folder).begun(TAUGHT.key) == 2, "measured once, it pauses where it is"


def test_the_note_grows_with_the_pauses(folder: Path) -> None:
    assert Store(folder).paused(TAUGHT.key) == ()
    pause(folder, 1)
    assert [entry["epoch"] for entry in Store(folder).paused(TAUGHT.key)] == [1]
    pause(folder, 2)
    assert [entry["epoch"] for entry in Store(folder).paused(TAUGHT.key)] == [1, 2]


def test_whoever_is_as_far_already_pauses_at_once_and_says_its_epochs(folder: Path, epochs: list[int]) -> None:
    pause(folder, 2)
    told: list[float] = []
    pause(folder, 1, report=lambda entry: told.append(entry["epoch"]))
    assert epochs == [0, 1] and told == [1, 2]
    assert len(Store(folder).paused(TAUGHT.key)) == 2, "what was reached is not forgotten"


@pytest.mark.parametrize("until", [3, 4])
def test_a_pause_after_the_last_epoch_is_none(undisturbed: tuple[Result, Path], folder: Path, until: int) -> None:
    assert run(TAUGHT, folder, until=until).sha256 == undisturbed[0].sha256
    assert not note(folder).exists()


def test_a_finished_stage_does_not_pause(undisturbed: tuple[Result, Path], folder: Path, epochs: list[int]) -> None:
    whole = run(TAUGHT, folder)
    assert run(TAUGHT, folder, until=1) == whole and epochs == [0, 1, 2]
    assert Store(folder).paused(TAUGHT.key) == ()


def test_the_note_is_read_without_loading_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pause(folder, 1)

    def loaded(*_: Any, **__: Any) -> Any:
        raise AssertionError("weights were read")

    monkeypatch.setattr(torch, "load", loaded)
    monkeypatch.setattr("trainers.store.load_file", loaded)
    monkeypatch.setattr("trainers.store.digest", loaded)
    assert len(Store(folder).paused(TAUGHT.key)) == 1


@pytest.mark.parametrize("damage", ["", "{", '{"history": 5}', '{"history": [{"epoch": "x"}]}', "null"])
def test_a_damaged_note_is_as_good_as_none_and_is_written_anew_without_training(
    folder: Path, epochs: list[int], damage: str
) -> None:
    pause(folder, 1)
    note(folder).write_text(damage)
    assert Store(folder).paused(TAUGHT.key) == ()
    pause(folder, 1)
    assert epochs == [0] and len(Store(folder).paused(TAUGHT.key)) == 1


def test_a_note_whose_state_is_gone_is_not_believed(folder: Path) -> None:
    pause(folder, 2)
    for state in (folder / TAUGHT.key).glob("state-*.pt"):
        state.unlink()
    assert Store(folder).paused(TAUGHT.key) == ()


def test_a_damaged_state_is_found_when_it_goes_on_and_costs_its_epochs(
    undisturbed: tuple[Result, Path], folder: Path, epochs: list[int]
) -> None:
    pause(folder, 2)
    (state,) = (folder / TAUGHT.key).glob("state-*.pt")
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 8
    state.write_bytes(bytes(content))
    assert run(TAUGHT, folder).sha256 == undisturbed[0].sha256 and epochs == [0, 1, 0, 1, 2]


def pausing(rank: int) -> dict[str, Any]:
    """A worker's part of a training of two epochs that pauses after the first and goes on, and of one that does not."""
    folder = Path(os.environ[FOLDER])
    paused = False
    try:
        run(SHORT, folder / "paused", until=1, wrap=DistributedDataParallel)
    except Paused:
        paused = True
    torch.distributed.barrier()
    noted = untimed(list(Store(folder / "paused").paused(SHORT.key)))
    went_on = run(SHORT, folder / "paused", wrap=DistributedDataParallel)
    whole = run(SHORT, folder / "whole", wrap=DistributedDataParallel)
    return {
        "paused": paused,
        "noted": noted,
        "bytes": [went_on.sha256, whole.sha256],
        "history": untimed(whole.history),
    }


def test_two_workers_pause_together_and_go_on_to_the_weights_of_two_that_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    for one in together(pausing, tmp_path):
        assert one["paused"]
        assert one["noted"] == one["history"][:1] and "val/AP" in one["noted"][0]
        assert one["bytes"][0] == one["bytes"][1]
