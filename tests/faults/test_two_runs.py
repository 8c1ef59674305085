"""Two runs on one store: what both want is trained by one of them, and a process that was frozen comes too late."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path as File

import pytest

from tests.orchestrator import studies
from tests.orchestrator.studies import Underway, changed, tapath, underway, without, write

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RUN = ("run", "tiny.yaml")
TWO = without("mid", "low")
OTHER = changed(("name: tiny", "name: other"), ("width: 4", "width: 6"), text=TWO)  # only the teacher is the same
WAITS = "another run of this study, or an earlier one whose process still lives, trains this stage; waiting for it"


def holders(folder: File) -> dict[str, int]:
    """By the key of a stage the process that trains it."""
    found = {}
    for file in (folder / "store").glob("*/lease-*"):
        try:
            found[file.parent.name] = json.loads(file.read_text())["pid"]
        except (OSError, ValueError):
            continue  # released, or renewed, at this moment
    return found


def epochs(folder: File) -> int:
    """Of half-trained stages."""
    return len(list((folder / "store").glob("*/state-*.pt")))


def frozen(command: Underway, folder: File) -> int:
    """Stop the process that trains a stage in its middle; -> its id."""
    command.until(lambda: epochs(folder) and holders(folder))
    (pid,) = set(holders(folder).values())  # of stages that it trains together
    os.kill(pid, signal.SIGSTOP)
    return pid


def elsewhere(folder: File, *words: str, text: str = TWO) -> tuple[File, tuple[str, ...]]:
    """A folder of its own for a second run, and the words that have it use the store of the first."""
    other = folder / "other"
    write(other, text)
    return other, (*RUN, "--store", str(folder / "store"), *words)


def test_a_stage_that_two_studies_share_is_trained_by_one_and_awaited_by_the_other(
    finished: File, tmp_path: File
) -> None:
    write(tmp_path, TWO)
    other, words = elsewhere(tmp_path, text=OTHER)
    with ExitStack() as stack:
        first = stack.enter_context(underway(tmp_path, *RUN))
        pid = frozen(first, tmp_path)  # so that they surely meet; a lease lasts for longer than that
        try:
            second = stack.enter_context(underway(other, *words))
            second.until(lambda: "another run trains this stage; waiting for it" in second.text)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert first.end() == 0, first.text
        assert second.end() == 0, second.text
    made, alone = studies.stored(tmp_path), studies.stored(finished)
    assert len(made.items() & alone.items()) == 3 and len(made) == 5, "the other's own two students"
    assert not holders(tmp_path) and not epochs(tmp_path)
    shared = [studies.stages(tmp_path)["big",], studies.stages(other, "other")["big",]]
    assert {stage["state"] for stage in shared} <= {"done", "reused"}
    assert shared[0]["key"] == shared[1]["key"] and shared[0]["history"] == shared[1]["history"]


def test_a_frozen_process_whose_stage_was_trained_by_another_writes_nothing(tmp_path: File) -> None:
    lease = ("--set", "resources.lease=3", "--set", "recipe.epochs=6")
    write(tmp_path, TWO)
    other, words = elsewhere(tmp_path, *lease)
    with underway(tmp_path, *RUN, *lease) as first:
        pid = frozen(first, tmp_path)
        try:
            second = tapath(other, *words)
            assert second.code == 0, second.err
            before = studies.written(tmp_path)
            assert len(before) == 3, "all of it is trained by now"
        finally:
            os.kill(pid, signal.SIGCONT)
        assert first.end() == 0, first.text
    assert WAITS in second.err
    assert studies.written(tmp_path) == before, "what was there was not written again"
    assert not epochs(tmp_path) and not holders(tmp_path)
    one, two = studies.report(tmp_path), studies.report(other)
    assert {stage["key"]: stage["score"] for stage in one["stages"]} == {s["key"]: s["score"] for s in two["stages"]}


def test_a_run_that_was_killed_leaves_no_lease_that_anybody_waits_for(tmp_path: File) -> None:
    write(tmp_path, TWO)
    with underway(tmp_path, *RUN) as first:
        first.until(lambda: epochs(tmp_path) and holders(tmp_path))
        (pid,) = set(holders(tmp_path).values())
        first.look()
        for one in (pid, first.popen.pid):
            os.kill(one, signal.SIGKILL)
        first.popen.wait()
    again = tapath(tmp_path, *RUN)
    assert again.code == 0, again.err
    assert WAITS not in again.err, "a lease lasts a minute"
