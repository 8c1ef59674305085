"""Jobs are done in turn, by one thread, until they succeed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import pytest

from orchestrator.background import Background


@pytest.fixture
def background() -> Iterator[Background]:
    opened = Background("the server", first=0.001, longest=0.01)
    yield opened
    opened.stop()


def test_jobs_are_done_in_the_order_of_their_keys(background: Background) -> None:
    done: list[int] = []
    for number in range(50):
        background.put(str(number), lambda number=number: done.append(number))
    assert background.wait(10) and done == list(range(50)) and not background.left()


def test_the_newest_job_of_a_key_takes_the_place_of_those_that_wait(background: Background) -> None:
    done: list[str] = []
    begun, gate = threading.Event(), threading.Event()
    background.put("first", lambda: (begun.set(), gate.wait(10), done.append("first")))
    assert begun.wait(10)
    for number in range(3):
        background.put("row", lambda number=number: done.append(f"row {number}"))
    assert background.left() == {"first", "row"} and not background.wait(0.01)
    gate.set()
    assert background.wait(10) and done == ["first", "row 2"]


def test_a_job_that_fails_is_done_again_and_the_others_meanwhile(
    background: Background, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[str] = []
    failures = iter(range(5))

    def flaky() -> None:
        if next(failures, None) is not None:
            raise OSError("away")
        done.append("flaky")

    with caplog.at_level(logging.WARNING):
        background.put("flaky", flaky)
        background.put("other", lambda: done.append("other"))
        assert background.wait(10)
    assert sorted(done) == ["flaky", "other"]


def test_an_outage_is_told_once_with_its_end(background: Background, caplog: pytest.LogCaptureFixture) -> None:
    failures = iter(range(5))

    def flaky() -> None:
        if next(failures, None) is not None:
            raise OSError("away")

    with caplog.at_level(logging.WARNING):
        background.put("flaky", flaky)
        assert background.wait(10)
    assert [record.getMessage() for record in caplog.records] == [
        "the server: away; trying again until it works",
        "the server: works again",
    ]


def test_a_newer_job_replaces_one_that_fails(background: Background) -> None:
    done = threading.Event()

    def hopeless() -> None:
        raise OSError("away")

    background.put("row", hopeless)
    assert not background.wait(0.05)
    background.put("row", done.set)
    assert background.wait(10) and done.is_set()


def test_who_waits_for_the_end_need_not_wait_for_the_next_try_of_a_long_outage() -> None:
    background, tries = Background("the server", first=600.0), []
    back = threading.Event()

    def job() -> None:
        tries.append(time.monotonic())
        if not back.is_set():
            raise OSError("away")

    background.put("a", job)
    while not tries:
        time.sleep(0.01)
    back.set()
    assert not background.wait(0.1), "nobody does, so it rests"
    assert background.settle(60, since=time.monotonic()) and len(tries) == 2
    background.stop()


def test_nothing_is_taken_up_after_a_stop(background: Background) -> None:
    background.stop()
    done = threading.Event()
    background.put("late", done.set)
    assert not background.wait(0.1) and not done.is_set() and background.left() == {"late"}


def test_whoever_works_is_waited_for_and_whoever_does_nothing_only_so_long(background: Background) -> None:
    for number in range(10):
        background.put(str(number), lambda: time.sleep(0.1))
    assert background.settle(0.5, since=time.monotonic()), "each takes less, all together twice as much"
    gate = threading.Event()
    background.put("stuck", lambda: gate.wait(10))
    begun = time.monotonic()
    assert not background.settle(0.2, since=begun) and 0.2 <= time.monotonic() - begun < 5
    assert not background.settle(0.2, since=begun - 5), "it was waited for long enough before"
    gate.set()
