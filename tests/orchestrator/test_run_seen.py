"""A real run as it is seen: on a terminal, by a program, and when something breaks."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

import pytest

from orchestrator import session
from tests.orchestrator import commands, studies
from tests.orchestrator.studies import Ran, tapath, without, write
from tests.orchestrator.terminals import Tty

pytestmark = pytest.mark.ray

FOREIGN = ("ray", "mlflow", "alembic", "warning", "info ", "(pid", "deprecat")  # what others might have said


@dataclass
class Seen:
    """A run on a terminal of 80 columns and 24 lines."""

    folder: File
    code: int
    screens: list[list[str]]  # in their order, each that differed from the one before
    cursor: bool  # whether it is there in the end


@pytest.fixture(scope="module")
def seen(finished: File, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A study of three stages, of which two are in the store."""
    folder = tmp_path_factory.mktemp("seen")
    shutil.copytree(finished, folder, dirs_exist_ok=True)
    shutil.rmtree(folder / "store" / studies.stages(finished)["big", "wee"]["key"])
    shutil.rmtree(folder / "runs")
    write(folder, without("mid", "low"))
    with Tty(80, 24) as tty:
        command, screens = tty.run(folder, studies.TAPATH, "run", "tiny.yaml"), list[list[str]]()
        while command.poll() is None:
            screens += [now] if (now := tty.lines()) != screens[-1:] else []
        return Seen(folder, command.wait(), [*screens, tty.lines()], tty.cursor_shown())


def test_while_it_runs_a_stage_is_seen_to_run_and_others_to_be_reused(seen: Seen) -> None:
    assert seen.code == 0, "\n".join(seen.screens[-1])
    live = [one for one in seen.screens if any(line.startswith("  > wee ") and "running" in line for line in one)]
    assert live
    for screen in live:
        others = [line.split() for line in screen if line.startswith(("big ", "wee alone "))]
        assert len(others) == 2 and all("reused" in words for words in others)
        (title,) = (line for line in screen if line.startswith("tiny "))
        assert "1 running" in title and "2 reused" in title
        assert any("%" in line and "\u2501" in line for line in screen), "the bar"


def test_in_the_end_the_whole_table_and_the_answer_stand_there_once(seen: Seen) -> None:
    last = "\n".join(seen.screens[-1])
    assert seen.screens[-1][0] == "log: runs/tiny/run.log"
    assert last.count("tiny  1 done") == last.count("100%") == last.count("stage  ") == 1
    assert "report: runs/tiny/report.html" in last and seen.cursor
    assert last.index("100%") < last.index("from big to wee")


def test_nobody_else_says_a_word_and_the_log_has_every_event(seen: Seen) -> None:
    for screen in seen.screens:
        for line in screen:
            assert not any(word in line.lower() for word in FOREIGN), line
    log = (seen.folder / "runs" / "tiny" / "run.log").read_text()
    assert "started  big > wee  2 epochs" in log and "done     big > wee" in log and "reused   2 stages" in log


@pytest.fixture(scope="module")
def told(seen: Seen) -> tuple[Ran, list[dict[str, Any]]]:
    """The same study once more, for a program; and the lines of its stdout."""
    ran = tapath(seen.folder, "run", "tiny.yaml", "--json-lines")
    return ran, [json.loads(line) for line in ran.out.splitlines()]


def test_for_a_program_all_of_stdout_is_json_from_the_version_to_the_exit_code(
    told: tuple[Ran, list[dict[str, Any]]], seen: Seen
) -> None:
    ran, events = told
    assert ran.code == 0 and ran.err == ""
    assert [one["event"] for one in events if one["event"] != "note"] == ["start", *["reused"] * 3, "end"]
    (answer,) = events[-1]["answers"]
    there = studies.stages(seen.folder)["big", "wee"]
    assert (answer["path"], answer["score"], answer["keys"]) == ("big > wee", there["score"], [there["key"]])
    assert events[-1]["exit"] == 0 and events[-1]["counts"] == {"reused": 3}


def test_a_quiet_run_prints_the_answer_alone(seen: Seen) -> None:
    ran = tapath(seen.folder, "run", "tiny.yaml", "--quiet")
    assert ran.code == 0 and ran.err == ""
    assert "from big to wee" in ran.out and ran.out.splitlines()[-1] == "report: runs/tiny/report.html"


def test_where_no_report_could_be_written_a_run_is_refused(
    finished: File, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (tmp_path / "occupied").write_text("a file where the folder should be")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "_train", commands.never)
    ended = commands.run("run", "tiny.yaml", "--set", "resources.runs=occupied")
    assert ended.exit_code == 2 and "resources.runs: occupied cannot be written: " in ended.stderr


@pytest.mark.parametrize("words", [(), ("--json-lines",), ("--quiet",)], ids=["people", "program", "quiet"])
def test_an_error_that_nobody_has_thought_of_names_the_log_which_has_where(
    finished: File, tmp_path: File, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "_train", commands.never)
    ended = commands.run("run", "tiny.yaml", *words)
    assert ended.exit_code == 1 and "Traceback" not in ended.output
    assert "error: AssertionError: training was begun\nThis was not expected; runs/tiny/run.log has" in ended.stderr
    log = (tmp_path / "runs" / "tiny" / "run.log").read_text()
    assert "Traceback" in log and "training was begun" in log
    if words == ("--json-lines",):
        first, last = map(json.loads, ended.stdout.splitlines())
        assert (first["event"], last["event"], last["exit"]) == ("start", "end", 1)
