"""The table of exit codes in docs/troubleshooting.md has every code with which a command can end, and no other."""

from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path as File
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from orchestrator import cli, datacheck, doctor, outcome, reproduce, submit, underway, unneeded
from orchestrator.commands import student

PAGE = (File(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
TABLE = [row.strip("| ").split(" | ") for row in re.findall(r"^\| \d.*", PAGE, flags=re.MULTILINE)]
CODES = {code.partition(",")[0] for code, *_ in TABLE}
ALSO = {  # beside `tapath run`, with 3
    "tapath data check": datacheck.PROBLEMS,
    "tapath doctor": doctor.WRONG,
    "tapath reproduce": reproduce.OTHERWISE,
    "tapath predict": student.BROKEN,
    "tapath gc": unneeded.LEFT,
}


def constants(module: ModuleType) -> set[int]:
    """The exit codes of a module, which has no other whole numbers in capitals."""
    return {value for name, value in vars(module).items() if name.isupper() and isinstance(value, int)}


def told(number: int, what: str) -> list[str]:
    """What the rows of a code say of it, of those in which something is named."""
    return [said for code, said, *_ in TABLE if code.partition(",")[0] == str(number) and what in said]


def test_the_table_has_the_codes_of_the_code_and_those_of_signals() -> None:
    ours = constants(outcome) | constants(cli) | {submit.INTERRUPTED}
    assert {str(code) for code in ours} | {"143", "128 + n"} == CODES


def test_a_second_sigterm_ends_a_run_with_the_code_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    run: Any = SimpleNamespace(stopping=threading.Event(), leave=lambda: None, say=lambda text: None)
    underway.Run._interrupt(run, signal.SIGTERM, None)
    assert ended == [] and told(130, "SIGTERM")
    underway.Run._interrupt(run, signal.SIGTERM, None)
    assert told(ended[0], "SIGTERM twice")


def test_a_job_that_is_followed_ends_with_the_codes_of_the_table() -> None:
    def ended(status: JobStatus, exit_code: int | None) -> int:
        info = SimpleNamespace(status=status, driver_exit_code=exit_code, message="")
        return submit.code(info, lambda text: None)

    assert ended(JobStatus.FAILED, -signal.SIGKILL) == 128 + signal.SIGKILL and "as 137 where it was killed" in PAGE
    assert told(ended(JobStatus.FAILED, None), "never came to run")
    assert told(ended(JobStatus.STOPPED, None), "the job was stopped")
    assert ended(JobStatus.FAILED, outcome.SOME_FAILED) == outcome.SOME_FAILED


@pytest.mark.parametrize("command", ALSO)
def test_who_else_ends_with_3_is_named_below_the_table(command: str) -> None:
    (also,) = re.findall(r"^With (\d) also end (.*?)\n\n", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert int(also[0]) == ALSO[command] == outcome.SOME_FAILED and f"`{command}`" in also[1]
    assert set(re.findall(r"`([^`]+)`", also[1])) == set(ALSO)
