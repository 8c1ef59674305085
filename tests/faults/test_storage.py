"""What goes wrong with the store: it is found, said once, and costs what it must and no more."""

from __future__ import annotations

import io
import os
import re
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from orchestrator.prepared import prepare
from orchestrator.study import load
from orchestrator.underway import Run
from tests.orchestrator import stored as finished
from tests.orchestrator import studies
from tests.orchestrator.studies import Underway, command_line, tapath, underway, without, write
from tests.trainers.kept import OTHER, STAGE, epoch_of, kept_state, names, put, state, weights_file
from tests.trainers.stages import stage
from tests.trainers.works import Crash, raising_at, run
from trainers import course, states
from trainers.call import Invalid
from trainers.full import Full, fitting, needed
from trainers.lease import Lease
from trainers.result import FORMAT, Result
from trainers.store import Store


@contextmanager
def no_file_larger_than(size: int, pid: int = 0) -> Iterator[None]:
    """The kernel itself refuses to write more into one file."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def kept(folder: Path) -> list[Path]:
    """The states of a stage, that of the last epoch last."""
    return sorted(folder.glob("state-*.pt"))


# A full disk

TENSORS = {"a": torch.zeros(1_000_000), "b": {"c": [torch.zeros(10, dtype=torch.int64)], "d": "text"}}


def to_a_full_disk(path: Path) -> None:
    with open("/dev/full", "wb") as handle:
        torch.save(TENSORS, handle)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (to_a_full_disk, "No space left on device"),
        (lambda path: save_file({"a": TENSORS["a"]}, path), "File too large"),
        (lambda path: path.write_bytes(bytes(5_000_000)), "File too large"),
    ],
    ids=["torch", "safetensors", "bytes"],
)
def test_whoever_writes_a_lack_of_room_is_said_with_path_bytes_and_what_helps(
    tmp_path: Path, write: Any, said: str
) -> None:
    file = tmp_path / "weights"
    with pytest.raises(Full) as caught, no_file_larger_than(100_000), fitting(file, TENSORS, folder=tmp_path):
        write(file)
    free = r"[\d,]+ are free there"
    expected = rf"no room for {file}: it takes about 4,000,080 bytes, {free} \({said}\); make room and run the same"
    assert re.match(expected, str(caught.value)) and isinstance(caught.value, OSError)


def test_other_errors_are_no_lack_of_room(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), fitting(tmp_path, {}, folder=tmp_path):
        (tmp_path / "missing" / "file").write_text("text")
    with pytest.raises(RuntimeError, match="share memory"), fitting(tmp_path, {}, folder=tmp_path):
        save_file({"a": TENSORS["a"], "b": TENSORS["a"]}, tmp_path / "file")
    assert needed(state(1)) == 400


def test_a_stage_whose_state_has_no_room_fails_naming_it_and_goes_on_from_its_last_epoch(tmp_path: Path) -> None:
    whole = run(stage(epochs=3), tmp_path / "whole")
    one, folder = stage(epochs=3), tmp_path / "full"

    def report(entry: dict[str, float]) -> None:
        if entry["epoch"] == 2:
            limits.enter_context(no_file_larger_than(5_000))

    with ExitStack() as limits, pytest.raises(Full, match=rf"no room for {folder}/{one.key}/state-000003.pt: it takes"):
        run(one, folder, report=report)
    kept = sorted(file.name.split("-")[1] for file in (folder / one.key).glob("state-*"))
    assert kept == ["000001", "000002"] and not list((folder / one.key).glob(".*")), "nothing half written is left"
    trained: list[float] = []
    again = run(one, folder, report=lambda entry: trained.append(entry["seconds"]))
    assert again.sha256 == whole.sha256 and len(trained) == 3


def test_where_two_states_have_no_room_one_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in (1, 2):
        store.save_state(STAGE.key, n, state(n))
    real, folder = torch.save, store.root / STAGE.key

    def save(content: Any, handle: Any) -> None:
        """There is room for two files."""
        if len(list(folder.glob("state-*"))) > 1:
            raise OSError(28, "No space left on device")
        real(content, handle)

    monkeypatch.setattr(torch, "save", save)
    store.save_state(STAGE.key, 3, state(3))
    assert [states.epoch_of(file.name) for file in kept(folder)] == [2, 3]


# Damage in a whole run, with a full disk before


def trials(command: Underway) -> list[int]:
    return [process[0] for process in command.look() if command_line(process).startswith(("ray::Resource", "ray::Tr"))]


def stage_at_epoch(folder: Path, epoch: int) -> list[Path]:
    return list((folder / "store").glob(f"*/state-{epoch:06d}-*.pt"))


@pytest.mark.ray
@pytest.mark.slow
def test_after_a_full_disk_and_damage_the_same_command_says_what_was_damaged_once_and_ends_well(
    tmp_path: Path,
) -> None:
    """The disk fills in the second stage. Then a bit of its last state is flipped, and its teacher's file is cut."""
    write(tmp_path, without("mid", "low"))
    one_by_one = ("--set", "resources.stages_at_once=1", "--set", "resources.cohort=1")
    words = ("run", "tiny.yaml", "--set", "recipe.epochs=8", *one_by_one)
    with underway(tmp_path, *words) as command:
        command.until(lambda: studies.stored(tmp_path) and stage_at_epoch(tmp_path, 2))
        (trial,) = trials(command)
        resource.prlimit(trial, resource.RLIMIT_FSIZE, (5_000, 5_000))
        assert command.end() == 3, command.text
        first = command.text
    before = studies.stored(tmp_path)
    ((big, (_, digest)),) = before.items()
    *_, last = sorted((tmp_path / "store").glob("*/state-*.pt"), key=lambda file: states.epoch_of(file.name))
    key, epoch = last.parent.name, states.epoch_of(last.name)
    assert re.search(
        rf"failed   .*: Full: no room for \S+{key}/state-{epoch + 1:06d}.pt: it takes about [\d,]+ b", first
    )
    left = torch.load(last, weights_only=True)["history"]
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(bytes(content))
    weights = tmp_path / "store" / big / "weights.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)

    again = tapath(tmp_path, *words)
    assert again.code == 0, again.err
    assert again.err.count(f"the result {big} is not whole, see {weights.relative_to(tmp_path)}.corrupt") == 1
    damaged = f"what was kept after epoch {epoch} is damaged; it is set aside as {last}.corrupt"
    assert again.err.count(f"{damaged}; it goes on from epoch {epoch - 1}") == 1
    assert weights.with_name("weights.safetensors.corrupt").exists() and Path(f"{last}.corrupt").exists()
    assert studies.stored(tmp_path)[big][1] == digest, "trained anew to the same bits"
    history = Store(tmp_path / "store").root / key / "result.json"
    seconds = [entry["seconds"] for entry in Result.model_validate_json(history.read_bytes()).history]
    assert seconds[: epoch - 1] == [entry["seconds"] for entry in left[: epoch - 1]], "and not from its beginning"
    assert len(studies.stored(tmp_path)) == 3 and not list((tmp_path / "store").glob("*/state-*.pt"))
    assert all(a < b for a, b in pairwise(seconds))


def test_new_weights_are_not_judged_by_the_record_of_damaged_ones(store: Store) -> None:
    """Another run may look while a stage is trained anew, on a device that gives other bits."""
    result = put(store)
    weights = weights_file(store, STAGE.key)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    assert not store.check(STAGE)

    def looked_at(again: Result) -> None:
        assert not Store(store.root).check(STAGE) and weights.exists()

    other = {"a": torch.ones(50), "b.c": torch.arange(6).view(2, 3)}
    again = store.put(STAGE, other, check=looked_at, score=0.5, metrics={}, history=[], seconds=1.0, device="cpu")
    assert again.size == result.size and again.sha256 != result.sha256 and store.check(STAGE)


# A store that takes nothing


@pytest.mark.parametrize("place", ["/proc/store", "/dev/full", "/dev/full/store"])
def test_a_store_that_the_kernel_lets_nobody_write_is_refused(place: str) -> None:
    with pytest.raises(Invalid, match=rf"the store {place} cannot be written: "):
        Store(place).writable()


# Another place, another time, another version


def test_of_a_store_that_was_moved_everything_is_found(tmp_path: Path) -> None:
    study = load(write(tmp_path), (f"resources.store={tmp_path / 'store'}",))
    finished.store(study, *studies.STAGES)
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    there = Run(prepare(load(tmp_path / "tiny.yaml", (f"resources.store={tmp_path / 'elsewhere'}",))))
    here = Run(prepare(load(tmp_path / "tiny.yaml", (f"resources.store={tmp_path / 'store'}",))))
    assert there.over and not here.over
    for one in (there, here):
        one.refresh()
    assert {row.state for row in there.board.rows.values()} == {"reused"}


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_that_is_hours_off_or_jumps_makes_no_difference_to_who_may_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Another machine holds the stage, and renews it; then it is heard of no more."""
    mine, theirs = Lease(tmp_path, expiry=0.6), Lease(tmp_path, expiry=0.6)
    theirs.me = theirs.me.model_copy(update={"machine": "another"})
    assert theirs.take()
    off = 3600.0 * hours
    real = time.time
    for file in tmp_path.iterdir():
        os.utime(file, (real() + off, real() + off))
    monkeypatch.setattr(time, "time", lambda: real() - off)
    late = time.monotonic() + 1.5
    while time.monotonic() < late:
        assert not mine.take(), "it is renewed"
        theirs.check()
        time.sleep(0.05)
    theirs._over.set()  # it dies
    started = time.monotonic()
    while not mine.take():
        assert time.monotonic() - started < 120
        time.sleep(0.02)
    assert time.monotonic() - started > 0.3
    mine.release()


def test_a_store_of_a_newer_version_is_named_at_the_start_and_nothing_of_it_is_written_over(tmp_path: Path) -> None:
    study = load(write(tmp_path), (f"resources.store={tmp_path / 'store'}",))
    finished.store(study, ("big",))
    (file,) = (tmp_path / "store").glob("*/result.json")
    file.write_text(file.read_text().replace(f'"format": {FORMAT}', f'"format": {FORMAT + 1}'))
    before = {one: one.read_bytes() for one in (tmp_path / "store").rglob("*") if one.is_file()}
    with pytest.raises(Invalid, match=rf"{file} was written by a newer tapath \(format {FORMAT + 1}, this one reads"):
        Run(prepare(study))
    assert {one: one.read_bytes() for one in (tmp_path / "store").rglob("*") if one.is_file()} == before


def test_a_result_of_an_older_version_is_read_without_what_it_did_not_have(store: Store) -> None:
    put(store)
    file = store.result_file(STAGE.key)
    text = file.read_text()
    for name in ("alphas", "selected", "usage", "footprint"):
        text = re.sub(rf'\n "{name}": [^\n]*,', "", text)
    file.write_text(text.replace(f'"format": {FORMAT}', '"format": 1'))
    assert "alphas" not in file.read_text()
    found = store.get(STAGE)
    assert found is not None and (found.format, found.alphas, found.footprint) == (1, {}, None) and store.check(STAGE)


def test_a_state_of_another_version_is_named_and_stays(tmp_path: Path) -> None:
    one = stage(epochs=2)
    with pytest.raises(Crash):
        run(one, tmp_path, report=raising_at(1, Crash()))
    store = Store(tmp_path)
    (file,) = kept(tmp_path / one.key)
    state = torch.load(file, weights_only=True)
    file.unlink()
    store.save_state(one.key, 1, {**state, "format": course.FORMAT + 1, "training": "all different"})
    before = names(tmp_path / one.key)
    with pytest.raises(
        Invalid, match=rf"{tmp_path / one.key} was begun by another version of tapath .*format 2, this o"
    ):
        run(one, tmp_path)
    assert names(tmp_path / one.key) == before
    shutil.rmtree(tmp_path / one.key)
    assert run(one, tmp_path).history[0]["epoch"] == 1


def test_what_states_cost_is_one_more_than_the_last(store: Store) -> None:
    for n in range(1, 6):
        store.save_state(OTHER.key, n, state(n))
    sizes = [file.stat().st_size for file in (store.root / OTHER.key).iterdir()]
    one = io.BytesIO()
    torch.save(state(5), one)
    assert len(sizes) == 2 and sum(sizes) <= 2.1 * len(one.getvalue())
    assert epoch_of(kept_state(store, OTHER.key)) == 5
