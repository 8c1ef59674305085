"""What goes wrong with the store: it is found, said once, and costs what it must and no more."""

from __future__ import annotations

import io
import os
import re
import resource
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from orchestrator import reading
from orchestrator.prepared import prepare
from orchestrator.run import Run
from orchestrator.study import load
from tests.orchestrator import stored as finished
from tests.orchestrator import studies
from tests.orchestrator.studies import Underway, command_line, tapath, underway, without, write
from tests.trainers.kept import OTHER, STAGE, epoch_of, names, put, state
from tests.trainers.stages import stage
from tests.trainers.works import ROOT, TAUGHT, Crash, raising_at, run
from trainers import course, states, visible, workers
from trainers.call import Invalid
from trainers.clock import Clock
from trainers.folder import Folder
from trainers.full import Full, fitting, needed
from trainers.lease import Lease
from trainers.store import FORMAT, Result, Store


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
    words = ("run", "tiny.yaml", "--set", "recipe.epochs=8", "--set", "resources.stages_at_once=1")
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
        rf"failed: .*: Full: no room for \S+{key}/state-{epoch + 1:06d}.pt: it takes about [\d,]+ b", first
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
    weights = store.weights_file(STAGE.key)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    assert not store.check(STAGE)

    def looked_at(again: Result) -> None:
        assert not Store(store.root).check(STAGE) and weights.exists()

    other = {"a": torch.ones(50), "b.c": torch.arange(6).view(2, 3)}
    again = store.put(STAGE, other, check=looked_at, score=0.5, metrics={}, history=[], seconds=1.0, device="cpu")
    assert again.size == result.size and again.sha256 != result.sha256 and store.check(STAGE)


# A listing of before


@contextmanager
def seen_later(file: Path, seconds: float) -> Iterator[None]:
    """As if the listing that shows it came from a network's file system."""
    hidden = file.with_name(f"hidden-{file.name}")
    file.rename(hidden)
    timer = threading.Timer(seconds, hidden.rename, (file,))
    timer.start()
    yield
    timer.join()


@pytest.fixture
def taught(tmp_path: Path) -> Path:
    run(ROOT, tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["", "result.json", "weights.safetensors"], ids=["folder", "result", "weights"])
def test_a_teacher_that_is_known_to_be_finished_is_waited_for(taught: Path, name: str) -> None:
    with seen_later(taught / ROOT.key / name, 0.5):
        assert run(stage("KD", teacher=ROOT, epochs=1), taught).stage.teacher == ROOT


def test_a_teacher_that_does_not_appear_in_the_stated_time_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visible, "PATIENCE", 0.3)
    started = time.monotonic()
    with pytest.raises(Exception, match=rf"{ROOT.key} is not in the store .*; run again .*waited for 0.3 s"):
        run(TAUGHT, tmp_path)
    assert time.monotonic() - started > 0.3


@pytest.fixture
def driver(tmp_path: Path) -> Run:
    """A run whose first stage was trained just now."""
    study = load(write(tmp_path), (f"resources.store={tmp_path / 'store'}",))
    made = Run(prepare(study))
    made.refresh()
    one = made.next()
    assert one is not None
    made.started(one.key)
    finished.store(study, ("big",))
    return made


def state_of(driver: Run, name: str = "big") -> str:
    (row,) = (row for row in driver.board.rows.values() if row.path.models == (name,))
    return row.state


def key_of(driver: Run) -> str:
    return next(iter(driver.frontier.running))


def goes_round(driver: Run, condition: Any, *, seconds: float = 10) -> None:
    """Tune asks again and again what to train."""
    late = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < late
        driver.next()
        time.sleep(0.01)


def test_the_driver_looks_again_for_a_result_of_another_node_and_does_not_sleep_meanwhile(
    driver: Run, tmp_path: Path
) -> None:
    with seen_later(tmp_path / "store" / key_of(driver), 0.3):
        started = time.monotonic()
        driver.finished(key_of(driver))
        assert time.monotonic() - started < 0.2 and state_of(driver) == "running"
        goes_round(driver, lambda: state_of(driver) == "done")


def test_a_result_that_does_not_appear_in_the_stated_time_is_missing(
    driver: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visible, "PATIENCE", 0.3)
    with seen_later(tmp_path / "store" / key_of(driver), 1.0):
        driver.finished(key_of(driver))
        goes_round(driver, lambda: state_of(driver) == "failed")
    (reason,) = driver.frontier.failed.values()
    assert reason == f"its result is not in the store {tmp_path / 'store'}"


class Away:
    """A store whose every file is out of reach, while `yes`: the kernel's own words for a server of NFS that is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.yes = True
        for name in ("look", "read", "find"):
            monkeypatch.setattr(Folder, name, self.asked(getattr(Folder, name)))

    def asked(self, real: Any) -> Any:
        def ask(*words: Any) -> Any:
            if self.yes:
                raise OSError(116, "Stale file handle")
            return real(*words)

        return ask


def test_while_the_store_is_away_a_finished_stage_is_asked_for_again_and_nothing_new_is_begun(
    driver: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said: list[str] = []
    driver.say = said.append
    monkeypatch.setattr(reading, "AGAIN", 0.05)
    monkeypatch.setattr(visible, "PATIENCE", 0.2)  # what is out of reach is not held to be missing
    away = Away(monkeypatch)
    driver.finished(key_of(driver))
    late = time.monotonic() + 0.5
    while time.monotonic() < late:
        assert driver.next() is None and state_of(driver) == "running"
    assert said == [f"the store {tmp_path / 'store'} cannot be read: Stale file handle; trying again until it can"]
    away.yes = False
    begun: list[Any] = []
    goes_round(driver, lambda: begun.append(driver.next()) or begun[-1] is not None)
    assert state_of(driver) == "done" and said[1:] == [f"the store {tmp_path / 'store'} answers again"]
    assert not driver.over


def test_a_run_whose_store_stays_away_ends_and_says_how_to_go_on(
    driver: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said: list[str] = []
    driver.say = said.append
    driver.reading.silence = 0.3
    Away(monkeypatch)
    driver.finished(key_of(driver))
    goes_round(driver, lambda: driver.over)
    assert not driver.interrupted and driver.reading.lost and not driver.frontier.failed
    ending = (
        f"the store {tmp_path / 'store'} could not be read for 0.3 s: the run ends; once it can, run the same command"
    )
    assert said[1].startswith(ending) and len(said) == 2


def test_a_store_that_was_away_twice_was_not_away_in_between(driver: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nothing was asked of it meanwhile."""
    monkeypatch.setattr(reading, "AGAIN", 0.05)
    driver.reading.silence = 0.5
    away = Away(monkeypatch)
    for yes in (True, False, True):
        away.yes = yes
        assert not yes or driver._stored(driver.frontier.running[key_of(driver)]) is None
        late = time.monotonic() + 0.3
        while time.monotonic() < late:
            driver.next()
    assert driver.reading.away is not None and not driver.over


def test_a_store_that_cannot_be_read_at_the_start_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(load(write(tmp_path), (f"resources.store={tmp_path / 'store'}",)))
    Away(monkeypatch)
    with pytest.raises(Invalid, match=r"the store .* cannot be read: Stale file handle"):
        Run(prepared)


@pytest.mark.parametrize("found", [2, 0])
def test_every_worker_goes_on_from_where_the_first_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: int
) -> None:
    """Though it sees the state later, or one that the first does not see."""
    with pytest.raises(Crash):
        run(stage(epochs=3), tmp_path, report=raising_at(2, Crash()))
    folder = tmp_path / stage(epochs=3).key
    *_, last = kept(folder)
    monkeypatch.setattr(workers, "rank", lambda: 1)
    name = f"{folder.name}/{last.name}"
    monkeypatch.setattr(workers, "told", lambda word: name if found else "")
    seen: list[int] = []
    training: Any = SimpleNamespace(
        restore=lambda state: seen.append(state["epoch"]), balance=SimpleNamespace(alphas={}), clock=Clock()
    )
    nothing: Any = SimpleNamespace(selects=False, restore=lambda usage: None)
    one: Any = course.Course(stage(epochs=3), training, nothing, nothing)
    with seen_later(last, 0.3):
        one.resume(Store(tmp_path), print)
    assert (seen or [0]) == [found] and len(one.history) == found
    monkeypatch.setattr(visible, "PATIENCE", 0.0)
    monkeypatch.setattr(workers, "told", lambda word: f"{folder.name}/state-000009-{'0' * 64}.pt")
    with pytest.raises(course.Unseen, match=r"state-000009-0*\.pt cannot be seen here"):
        one.resume(Store(tmp_path), print)


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
        assert time.monotonic() - started < 10
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


def test_a_state_of_before_states_had_a_format_is_gone_on_with(tmp_path: Path) -> None:
    one = stage(epochs=2)
    with pytest.raises(Crash):
        run(one, tmp_path, report=raising_at(1, Crash()))
    (file,) = kept(tmp_path / one.key)
    state = torch.load(file, weights_only=True)
    del state["format"], state["training"]["skipped"]
    file.unlink()
    Store(tmp_path).save_state(one.key, 1, state)
    seconds = state["history"][0]["seconds"]
    assert run(one, tmp_path).history[0]["seconds"] == seconds


def test_what_states_cost_is_one_more_than_the_last(store: Store) -> None:
    for n in range(1, 6):
        store.save_state(OTHER.key, n, state(n))
    sizes = [file.stat().st_size for file in (store.root / OTHER.key).iterdir()]
    one = io.BytesIO()
    torch.save(state(5), one)
    assert len(sizes) == 2 and sum(sizes) <= 2.1 * len(one.getvalue())
    assert epoch_of(store.load_state(OTHER.key)) == 5
