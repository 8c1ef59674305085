"""What of the store cannot be seen for a while, or not at all: it is waited for, and what does not come is named."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator import reading
from orchestrator.prepared import prepare
from orchestrator.study import load
from orchestrator.underway import Run
from tests.orchestrator import stored as finished
from tests.orchestrator.studies import write
from tests.trainers.stages import stage
from tests.trainers.works import ROOT, TAUGHT, Crash, raising_at, run
from trainers import course, visible, workers
from trainers.call import Invalid
from trainers.clock import Clock
from trainers.folder import Folder
from trainers.store import Store

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
    (one,) = made.next()
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
        driver.look()
        driver.next()
        time.sleep(0.01)


def test_the_driver_looks_again_for_a_result_of_another_node_and_does_not_sleep_meanwhile(
    driver: Run, tmp_path: Path
) -> None:
    with seen_later(tmp_path / "store" / key_of(driver), 2.0):
        started = time.monotonic()
        driver.finished(key_of(driver))
        assert time.monotonic() - started < 1.5 and state_of(driver) == "running"
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


# A store that does not answer


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
        driver.look()
        assert driver.next() == [] and state_of(driver) == "running"
    assert said == [f"the store {tmp_path / 'store'} cannot be read: Stale file handle; trying again until it can"]
    away.yes = False
    begun: list[Any] = []
    goes_round(driver, lambda: begun.append(driver.next()) or begun[-1] != [])
    assert state_of(driver) == "done" and said[1:] == [f"the store {tmp_path / 'store'} answers again"]
    assert not driver.over


def test_a_stage_whose_process_dies_while_the_store_is_away_is_not_handed_out_before_it_answers(
    driver: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it answers it is handed on at once, and is said to wait if nobody takes it."""
    key, room = key_of(driver), {"change": lambda nodes: None, "stands": lambda key: True, "give": lambda key: None}
    stand_in: Any = SimpleNamespace(**room)
    driver.handing.room = stand_in
    assert not driver.again(key, "died") and key in driver.handing.waits.since and key in driver.frontier.running
    Away(monkeypatch)
    assert driver._stored(driver.frontier.running[key]) is None
    assert driver.again(key, "died") and key not in driver.handing.waits.since and key not in driver.frontier.running
    assert driver.next() == []


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
            driver.look()
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
    *_, last = sorted(folder.glob("state-*.pt"))
    monkeypatch.setattr(workers, "rank", lambda: 1)
    name = f"{folder.name}/{last.name}"
    monkeypatch.setattr(workers, "told", lambda word: name if found else "")
    seen: list[int] = []
    training: Any = SimpleNamespace(
        restore=lambda state: seen.append(state["epoch"]), balance=SimpleNamespace(alphas={}), clock=Clock()
    )
    nothing: Any = SimpleNamespace(selects=False, restore=lambda usage: None)
    one: Any = course.Course(stage(epochs=3), training, nothing, nothing, {})
    with seen_later(last, 0.3):
        one.resume(Store(tmp_path), print)
    assert (seen or [0]) == [found] and len(one.history) == found
    monkeypatch.setattr(visible, "PATIENCE", 0.0)
    monkeypatch.setattr(workers, "told", lambda word: f"{folder.name}/state-000009-{'0' * 64}.pt")
    with pytest.raises(course.Unseen, match=r"state-000009-0*\.pt cannot be seen here"):
        one.resume(Store(tmp_path), print)
