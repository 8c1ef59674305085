"""A result is in the store whole or not at all, and a state too, whenever the process dies or the disk is full."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainers.kept import STAGE, epoch_of, kept_state, names, put, same, state, weights
from trainers import store as module
from trainers.full import Full
from trainers.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


class Crash(BaseException):
    """As sudden as a power cut: nothing in our code may catch it."""


def crash_at(monkeypatch: pytest.MonkeyPatch, moment: int, *, after: bool) -> list[str]:
    """Die at the n-th operation that changes the disk, just before or just after it. -> the operations so far."""
    done: list[str] = []

    def mortal(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def act(*args: Any, **kwargs: Any) -> Any:
            done.append(name)
            if len(done) == moment and not after:
                raise Crash
            result = operation(*args, **kwargs)
            if len(done) == moment:
                raise Crash
            return result

        return act

    monkeypatch.setattr(module, "save_file", mortal("weights", module.save_file))
    monkeypatch.setattr(torch, "save", mortal("state", torch.save))
    monkeypatch.setattr(Path, "write_text", mortal("text", Path.write_text))
    monkeypatch.setattr(Path, "rename", mortal("rename", Path.rename))
    monkeypatch.setattr(os, "fsync", mortal("fsync", os.fsync))
    monkeypatch.setattr(Path, "unlink", mortal("unlink", Path.unlink))
    return done


def test_every_file_is_flushed_before_it_gets_its_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        done = crash_at(patch, 0, after=False)
        put(store)
    steps = [name for name in done if name != "unlink"]
    assert steps == ["weights", "fsync", "rename", "text", "fsync", "rename"]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("moment", range(1, 10))
def test_a_crash_at_any_moment_of_putting_leaves_all_or_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, moment: int, after: bool
) -> None:
    with monkeypatch.context() as patch:
        done = crash_at(patch, moment, after=after)
        with pytest.raises(Crash):
            put(store)
        assert len(done) >= moment
    found = store.get(STAGE)
    if found is not None:
        assert done.count("rename") == 2 and store.check(STAGE) and same(store.weights(found), weights())
    again = put(store)
    assert store.get(STAGE) == again and store.check(STAGE)


def test_the_crash_test_above_covers_every_moment(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        assert len(crash_at(patch, 0, after=False)) == 0
        done = crash_at(patch, 0, after=False)
        put(store)
    assert len(done) == 9


def test_a_full_disk_leaves_nothing_half_written_behind(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(content: Any, file: Any) -> None:
        file.write_bytes(b"half") if isinstance(file, Path) else file.write(b"half")
        raise OSError(28, "No space left on device")

    store.save_state(STAGE.key, 1, {"x": 1})
    with monkeypatch.context() as patch:
        patch.setattr(module, "save_file", full)
        patch.setattr(torch, "save", full)
        with pytest.raises(Full, match="No space left"):
            put(store)
        with pytest.raises(Full, match="No space left"):
            store.save_state(STAGE.key, 2, {"x": 2})
    assert len(names(store.root / STAGE.key)) == 1 and kept_state(store, STAGE.key) == {"x": 1}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("moment", range(1, 6))
def test_a_crash_at_any_moment_of_saving_leaves_this_state_or_the_one_before(
    store: Store, monkeypatch: pytest.MonkeyPatch, moment: int, after: bool
) -> None:
    for n in (1, 2):
        store.save_state(STAGE.key, n, state(n))
    with monkeypatch.context() as patch:
        done = crash_at(patch, moment, after=after)
        with pytest.raises(Crash):
            store.save_state(STAGE.key, 3, state(3))
    assert done[:moment] == ["state", "fsync", "rename", "unlink", "unlink"][:moment]
    renamed = (moment, after) >= (3, True)  # saved, flushed, renamed, tidied up, the oldest one dropped
    assert epoch_of(kept_state(store, STAGE.key)) == store.begun(STAGE.key) == (3 if renamed else 2)
    store.save_state(STAGE.key, 4, state(4))
    assert epoch_of(kept_state(store, STAGE.key)) == 4


def test_what_a_killed_writer_left_beside_a_file_is_no_file(store: Store) -> None:
    folder = store.root / STAGE.key
    result = put(store)
    store.save_state(STAGE.key, 1, state(1))
    for file in list(folder.iterdir()):
        file.rename(folder / f".{file.name}.{'0' * 32}")
    assert store.get(STAGE) is None and kept_state(store, STAGE.key) is None and not store.measured(result)
    assert put(store) == store.get(STAGE) and store.check(STAGE)
