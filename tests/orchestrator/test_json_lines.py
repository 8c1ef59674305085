"""A run for programs: one JSON object a line, with keys that stay, and nothing else."""

import io
import json
import math
from datetime import datetime

import pytest
from click.testing import CliRunner

from orchestrator import json_lines
from orchestrator.cli import main
from orchestrator.lattice import Path
from orchestrator.progress import Progress
from tests.orchestrator.boards import board, fail, row, start, summary
from tests.orchestrator.studies import write

STAGE = {
    *("time", "event", "path", "key", "seed", "role", "epoch", "epochs", "score", "seconds", "left"),
    *("images_per_second", "reason"),
}


def progress(filled, out, err=None):
    return Progress(filled, out=out, err=err or io.StringIO(), manner="json")


def events(out):
    """Every line is JSON without NaN."""

    def refuse(word):
        raise AssertionError(word)

    return [json.loads(line, parse_constant=refuse) for line in out.getvalue().splitlines()]


def test_from_the_version_to_the_answer_every_event_is_an_object():
    filled, out, err = board(), io.StringIO(), io.StringIO()
    each = row(filled, "r101", "r50")
    history = each.history
    start(each)
    with progress(filled, out, err) as shown:
        shown.begin("runs/voc-gfl/run.log")
        shown.changed(each)
        for epoch in range(1, 4):
            each.history, each.score, each.seconds = history[:epoch], 0.25, 10.0 * epoch
            shown.changed(each)
        each.history, each.state = history, "done"
        shown.changed(each)
        shown.say("r50 waits: needs 4 GPU")
    made = summary(filled)
    shown.answer(["for people"], made, page="runs/voc-gfl/report.html", code=0)
    first, *stages, note, last = events(out)
    assert first["event"] == "start" and first["format"] == 1 and first["version"] and first["study"] == "voc-gfl"
    assert first["log"] == "runs/voc-gfl/run.log"
    assert [one["event"] for one in stages] == ["started", "epoch", "epoch", "epoch", "done"], "of epochs each"
    assert all(set(one) == STAGE for one in stages)
    second = stages[2]
    assert (second["path"], second["key"], second["seed"], second["role"]) == ("r101 > r50", each.key, 0, "assistant")
    assert (second["epoch"], second["epochs"], second["score"], second["seconds"]) == (2, 12, 0.25, 20.0)
    assert second["left"] == pytest.approx(100, abs=1)
    assert stages[0]["score"] is stages[0]["left"] is stages[-1]["left"] is None
    assert (note["event"], note["text"]) == ("note", "r50 waits: needs 4 GPU")
    best = made["answers"][0]["best"]
    assert (last["event"], last["exit"], last["reason"]) == ("end", 0, None)
    assert last["report"] == "runs/voc-gfl/report.html" and last["metric"] == "AP" and last["counts"] == {"done": 9}
    assert last["answers"] == [
        {
            "student": "r18",
            "path": " > ".join(best["path"]),
            "score": best["score"],
            "gain_over_baseline": best["gain_over_baseline"],
            "keys": best["keys"],
        }
    ]
    assert err.getvalue() == ""
    for one in (first, *stages, note, last):
        assert datetime.fromisoformat(one["time"].replace("Z", "+00:00")).tzinfo is not None


def test_a_failure_says_why_what_is_lost_says_which_and_a_retry_says_both():
    filled, out = board(), io.StringIO()
    fail(filled, Path(("r101", "r50")), 'RuntimeError: "CUDA"\nout of memory')
    with progress(filled, out) as shown:
        shown.tell("retry", row(filled, "r18"), "its process died")
        for each in filled.rows.values():
            shown.changed(each)
    found = events(out)
    failed = next(one for one in found if one["event"] == "failed")
    assert failed["reason"] == 'RuntimeError: "CUDA"\nout of memory', "whole"
    assert {one["reason"] for one in found if one["event"] == "lost"} == {failed["key"]}
    assert (found[0]["event"], found[0]["path"], found[0]["reason"]) == ("retry", "r18", "its process died")
    assert set(found[0]) == STAGE


@pytest.mark.parametrize("state", ["reused", "paused", "done", "pruned", "failed", "lost"])
def test_each_state_is_an_event_told_once(state):
    filled, out = board(), io.StringIO()
    each = row(filled, "r18")
    each.state = state
    with progress(filled, out) as shown:
        shown.changed(each)
        shown.changed(each)
    assert [one["event"] for one in events(out)] == [state]


def test_a_stage_that_waits_is_no_event_and_starts_again_after_it():
    filled, out = board(), io.StringIO()
    each = row(filled, "r18")
    with progress(filled, out) as shown:
        for state in ("waiting", "running", "waiting", "running"):
            each.state = state
            shown.changed(each)
    assert [one["event"] for one in events(out)] == ["started", "started"]


def test_no_figure_is_one_that_json_has_not():
    filled, out = board(), io.StringIO()
    each = row(filled, "r18")
    each.score, each.seconds = math.nan, math.inf
    with progress(filled, out) as shown:
        shown.changed(each)
    (one,) = events(out)
    assert one["score"] is one["seconds"] is None


def test_a_sign_of_life_says_how_far_all_is(monkeypatch):
    monkeypatch.setattr(json_lines, "HEARTBEAT", 0.02)
    filled, out = board(), io.StringIO()
    start(row(filled, "r18"), epochs=6)
    with progress(filled, out) as shown:
        shown.json.heart.join(0.5)
    one = events(out)[0]
    assert one["event"] == "progress" and 0.9 < one["part"] < 1 and one["left"] > 0
    assert one["counts"] == {"done": 8, "running": 1}


def test_a_warning_is_an_event_and_is_seen_by_people_too():
    out, err = io.StringIO(), io.StringIO()
    with progress(board(), out, err) as shown:
        shown.warn("MLflow is away")
    assert [(one["event"], one["text"]) for one in events(out)] == [("warning", "MLflow is away")]
    assert err.getvalue() == "warning: MLflow is away\n"


def test_a_run_that_was_broken_off_ends_with_its_exit_code_and_why():
    out = io.StringIO()
    with progress(board(), out) as shown:
        shown.begin("run.log")
    shown.broken(130, "interrupted")
    last = events(out)[-1]
    assert (last["event"], last["exit"], last["reason"], last["answers"]) == ("end", 130, "interrupted", [])


def test_a_run_that_was_refused_has_no_line():
    out = io.StringIO()
    progress(board(), out).broken(2, "there is no room")
    assert out.getvalue() == ""


def test_every_key_is_written_down():
    """The docstring, to which the README refers, names what a program may count on."""
    said = json_lines.__doc__
    for key in STAGE | {"format", "version", "study", "run", "log", "part", "counts", "text", "exit", "answers"}:
        assert f"`{key}`" in said, key


def test_of_a_job_that_is_followed_stdout_has_the_json_alone(tmp_path, monkeypatch):
    handed = []

    def submitted(study, *, address, follow, words, say):
        handed.extend(words)
        for line in ("started", '{"event": "end"}', "warning: x"):
            say(line)
        return 0

    monkeypatch.setattr("orchestrator.submit.submit", submitted)
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    ended = CliRunner().invoke(main, ("submit", "tiny.yaml", "--follow", "--json-lines"))
    assert ended.exit_code == 0 and handed == ["--json-lines"]
    assert ended.stdout == '{"event": "end"}\n' and ended.stderr == "started\nwarning: x\n"
