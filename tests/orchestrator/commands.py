"""Commands that run in the test's own process and train nothing."""

from __future__ import annotations

from pathlib import Path as File
from typing import Any

import pytest
from click.testing import CliRunner, Result

from orchestrator import session
from orchestrator.cli import main
from tests.orchestrator.studies import write

DIGITS = "{Digits: {classes: 3, train: 32, val: 16}}"


@pytest.fixture(autouse=True)
def folder(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> File:
    """The folder in which the commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(session, "_train", never)
    return tmp_path


def never(*args: Any, **options: Any) -> Any:
    raise AssertionError("training was begun")


def run(*words: str) -> Result:
    """A command, in this process: it has torch loaded already."""
    ended = CliRunner().invoke(main, words)
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended


def refused(folder: File, text: str, *parts: str, words: tuple[str, ...] = ()) -> None:
    """`tapath run` ends with 2 and a message with these parts, and has written nothing; `plan` says the same."""
    write(folder, text)
    before = sorted(folder.iterdir())
    ended = run("run", "tiny.yaml", *words)
    assert ended.exit_code == 2, ended.output
    for part in parts:
        assert part in ended.stderr, f"{part!r} is missing in: {ended.stderr}"
    assert "Traceback" not in ended.output
    assert sorted(folder.iterdir()) == before, "nothing is written"
    planned = run("plan", "tiny.yaml", *words)
    assert (planned.exit_code, planned.stderr) == (2, ended.stderr)
