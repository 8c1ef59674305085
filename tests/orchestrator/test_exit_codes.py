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

from orchestrator import datacheck, doctor, exit_codes, reproduce, submit, underway
from orchestrator.commands import housekeeping, student
from orchestrator.exit_codes import NOT_WELL

PAGE = (File(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
TABLE = [row.strip("| ").split(" | ") for row in re.findall(r"^\| \d.*", PAGE, flags=re.MULTILINE)]
CODES = {code.partition(",")[0] for code, *_ in TABLE}
ALSO: dict[str, ModuleType] = {  # beside `tapath run`, with 3; where each has it from
    "tapath data check": datacheck,
    "tapath doctor": doctor,
    "tapath reproduce": reproduce,
    "tapath predict": student,
    "tapath gc": housekeeping,
}


def told(number: int, what: str) -> list[str]:
    """What the rows of a code say of it, of those in which something is named."""
    return [said for code, said, *_ in TABLE if code.partition(",")[0] == str(number) and what in said]


def test_the_table_has_the_codes_of_the_code_and_those_of_signals() -> None:
    ours = {value for name, value in vars(exit_codes).items() if name.isupper()}
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
    assert ended(JobStatus.FAILED, NOT_WELL) == NOT_WELL


@pytest.mark.parametrize("command", ALSO)
def test_who_else_ends_with_3_is_named_below_the_table(command: str) -> None:
    (also,) = re.findall(r"^With (\d) also end (.*?)\n\n", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert int(also[0]) == NOT_WELL and hasattr(ALSO[command], "NOT_WELL") and f"`{command}`" in also[1]
    assert set(re.findall(r"`([^`]+)`", also[1])) == set(ALSO)
