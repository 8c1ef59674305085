"""Whatever goes wrong ends with one message, an exit code and no traceback; --debug shows it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path as File
from typing import Any

import pytest
from click.testing import CliRunner, Result
from mlflow.exceptions import MlflowException
from ray.exceptions import RayError

from orchestrator import cli, plan
from orchestrator.chatter import Unexpected
from tests.orchestrator import studies
from tests.orchestrator.commands import folder
from tests.orchestrator.studies import changed, write

__all__ = ["folder"]  # a fixture

ERRORS = {
    "a library's": (MlflowException("the server is\n  ill"), "error: MlflowException: the server is ill"),
    "Ray's": (RayError("the raylet died"), "error: RayError: the raylet died"),
    "a machine's": (
        OSError(28, "No space left on device", "/store/a"),
        "error: OSError: No space left on device: /store/a",
    ),
    "a database's": (sqlite3.OperationalError("disk I/O error"), "error: OperationalError: disk I/O error"),
    "ours": (AssertionError(), "error: AssertionError: it says no more"),
    "one with a password": (ValueError("no postgresql://me:secret@host/db"), "ValueError: no postgresql://host/db"),
    "one that plays tricks": (ValueError("a\x1b[2Jb"), r"ValueError: a\x1b[2Jb"),
}


def broken(monkeypatch: pytest.MonkeyPatch, error: Exception, *words: str) -> Result:
    """`tapath plan` while an error comes that nobody has thought of."""

    def fail(*args: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(plan, "plan", fail)
    return CliRunner().invoke(cli.main, words or ("plan", "tiny.yaml"))


@pytest.mark.parametrize(("error", "said"), ERRORS.values(), ids=ERRORS)
def test_an_error_that_nobody_has_thought_of_is_one_message_with_what_to_do(
    folder: File, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    write(folder)
    ended = broken(monkeypatch, error)
    assert ended.exit_code == 1 and ended.stdout == ""
    first, hint = ended.stderr.splitlines()
    assert said in first
    assert hint == "This was not expected; with --debug the same command shows where."


def test_of_a_run_it_names_the_log_and_that_nothing_is_lost(folder: File, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder)
    error = Unexpected("runs/tiny/run.log")
    error.__cause__ = RayError("the raylet died")
    first, hint = broken(monkeypatch, error).stderr.splitlines()
    assert first == "error: RayError: the raylet died"
    assert "runs/tiny/run.log has where" in hint and "the same command goes on" in hint


@pytest.mark.parametrize("words", [("--debug", "plan", "tiny.yaml"), ("plan", "--debug", "tiny.yaml")])
def test_debug_shows_where_before_and_behind_the_name_of_a_command(
    folder: File, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    write(folder)
    ended = broken(monkeypatch, ZeroDivisionError("by zero"), *words)
    assert ended.exit_code == 1
    assert ended.stderr.startswith("Traceback") and 'test_cli_errors.py", line' in ended.stderr
    assert ended.stderr.splitlines()[-2] == "error: ZeroDivisionError: by zero"


@pytest.mark.parametrize("words", [("--debug", "plan", "tiny.yaml"), ("plan", "tiny.yaml", "--debug")])
def test_debug_shows_where_a_mistake_was_found_and_keeps_the_exit_code(folder: File, words: tuple[str, ...]) -> None:
    write(folder, changed(("{LD:", "{LDD:")))
    ended = CliRunner().invoke(cli.main, words)
    assert ended.exit_code == 2
    assert "Traceback" in ended.stderr and "error: tiny.yaml:9" in ended.stderr


def every_command(group: Any = cli.main, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        found += every_command(command, (*above, name)) if hasattr(command, "commands") else [(*above, name)]
    return found


@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_every_command_takes_debug(command: tuple[str, ...]) -> None:
    ended = CliRunner().invoke(cli.main, [*command, "--debug", "--help"])
    assert ended.exit_code == 0 and ended.stdout.count("--debug") == 1


def test_quiet_and_json_lines_are_refused_together(folder: File) -> None:
    write(folder)
    for command in ("run", "submit"):
        ended = CliRunner().invoke(cli.main, (command, "tiny.yaml", "--quiet", "--json-lines"))
        assert ended.exit_code == 2 and "choose one" in ended.stderr and ended.stdout == ""


def test_ctrl_c_is_no_error(folder: File, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder)

    def interrupted(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(plan, "plan", interrupted)
    ended = CliRunner().invoke(cli.main, ("plan", "tiny.yaml"))
    assert (ended.exit_code, ended.stderr) == (130, "interrupted\n")


def test_who_stops_reading_ends_a_command_without_a_word(folder: File) -> None:
    """As in `tapath plan STUDY --json | head -c 1`."""
    write(folder)
    command = subprocess.Popen(
        [studies.TAPATH, "plan", "tiny.yaml", "--json"],
        cwd=folder,
        env=studies.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert command.stdout and command.stderr
    command.stdout.close()
    assert command.stderr.read() == b"" and command.wait(60) == 1
    command.stderr.close()


ON_WINDOWS = """
import platform, sys
sys.modules["fcntl"] = sys.modules["resource"] = None
platform.system = lambda: "Windows"
from orchestrator.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("words", [("doctor",), ("plan", "tiny.yaml")], ids=lambda words: words[0])
def test_a_system_without_what_python_has_on_linux_is_told_where_it_runs(folder: File, words: tuple[str, ...]) -> None:
    """Nothing that is loaded before needs it."""
    write(folder)
    command = [sys.executable, "-c", ON_WINDOWS, *words]
    ended = subprocess.run(command, cwd=folder, env=studies.environment(), capture_output=True, text=True, timeout=300)
    assert ended.returncode == 2, ended.stderr
    said = "error: Python has no fcntl and no resource on Windows: tapath runs on Linux, and on Windows in WSL2; "
    assert ended.stderr.startswith(said) and len(ended.stderr.splitlines()) == 1
