"""The run where no terminal is: a line an event, or nothing but the answer."""

import io
import re
import time

import pytest

from orchestrator import plain_lines
from orchestrator.lattice import Path
from orchestrator.progress import Progress, able
from tests.orchestrator.boards import board, fail, row, start
from tests.orchestrator.terminals import Tty


def lines(stream):
    """The lines without the time at their start."""
    return [line[10:] for line in stream.getvalue().splitlines()]


def speaking(filled, stream, **options):
    return Progress(filled, **{"out": io.StringIO(), "err": stream, **options})


def test_without_a_terminal_every_event_is_one_line(monkeypatch):
    monkeypatch.setattr(plain_lines, "QUIET", 0.0)
    filled, stream = board(), io.StringIO()
    each = row(filled, "r101", "r50")
    done = each.history
    start(each)
    with speaking(filled, stream) as shown:
        shown.changed(each)
        each.history, each.score, each.seconds = [*done[:2], {**done[2], "train/images_per_second": 48.3}], 0.5, 30.0
        shown.changed(each)
        each.history, each.state, each.seconds = done, "done", 120.0
        shown.changed(each)
    assert lines(stream)[:3] == [
        "started  r101 > r50  12 epochs",
        "epoch    r101 > r50  3/12  score 0.500  48 img/s  1:30 left",
        "done     r101 > r50  score 0.500  in 2:00",
    ]
    assert lines(stream)[3].startswith("end      9 done, best r101 > ")
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize(("speed", "said"), [(0.4, "0.4"), (3.25, "3.2"), (9.96, "10"), (None, None)])
def test_a_slow_stage_has_a_speed_too(monkeypatch, speed, said):
    monkeypatch.setattr(plain_lines, "QUIET", 0.0)
    filled, stream = board(), io.StringIO()
    each = row(filled, "r101", "r50")
    last = {**each.history[2], "train/images_per_second": speed}
    start(each)
    with speaking(filled, stream) as shown:
        shown.changed(each)
        each.history, each.score = [last], 0.5
        shown.changed(each)
    assert re.findall(r"(\S+) img/s", lines(stream)[1]) == ([said] if said else [])


def test_epochs_that_come_fast_are_not_all_told():
    filled, stream = board(), io.StringIO()
    each = row(filled, "r101")
    done = each.history
    start(each)
    with speaking(filled, stream) as shown:
        shown.changed(each)
        for epoch in range(1, 12):
            each.history = done[:epoch]
            shown.changed(each)
    assert [line.split()[0] for line in lines(stream)] == ["started", "end"]


def test_reused_stages_are_one_line_together():
    filled, stream = board(), io.StringIO()
    for each in filled.rows.values():
        each.state = "reused"
    with speaking(filled, stream) as shown:
        for each in filled.rows.values():
            shown.changed(each)
    assert lines(stream)[0] == "reused   9 stages trained before" and len(lines(stream)) == 2


def test_a_failure_is_told_with_its_reason_on_one_line_and_what_it_loses_by_name():
    filled, stream = board(), io.StringIO()
    fail(filled, Path(("r101", "r50")), "RuntimeError: CUDA\r\nout of \x1b[31mmemory")
    with speaking(filled, stream) as shown:
        for each in filled.rows.values():
            shown.changed(each)
    said = [line for line in lines(stream) if line.startswith(("failed", "lost"))]
    assert said[0] == "failed   r101 > r50: RuntimeError: CUDA  out of  [31mmemory"
    assert "lost     r101 > r50 > r18  needs r101 > r50, which failed" in said
    assert len(said) == 4


def test_a_stage_that_waits_is_no_event():
    filled, stream = board(), io.StringIO()
    each = row(filled, "r101")
    each.state = "waiting"
    with speaking(filled, stream) as shown:
        shown.changed(each)
    assert len(lines(stream)) == 1


def test_seeds_are_named_where_there_are_several():
    filled, stream = board(seeds=(0, 7)), io.StringIO()
    with speaking(filled, stream) as shown:
        shown.changed(row(filled, "r18", seed=7))
    assert lines(stream)[0].startswith("done     r18 alone (seed 7)  score")


def test_a_heartbeat_names_what_runs(monkeypatch):
    monkeypatch.setattr(plain_lines, "HEARTBEAT", 0.02)
    filled, stream = board(), io.StringIO()
    start(row(filled, "r18"), epochs=2)
    with speaking(filled, stream):
        until = time.monotonic() + 5
        while "running" not in stream.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
    assert re.fullmatch(r"running  r18 alone\. 8 done\. 9\d%, about \d:\d\d left", lines(stream)[0])


def test_what_is_said_is_a_line_like_any_other_with_its_markup():
    stream = io.StringIO()
    filled = board()
    with speaking(filled, stream) as shown:
        shown.say("[red]r50[/] waits: needs 4 GPU")
        shown.warn("MLflow is away")
        shown.tell("retry", row(filled, "r18"), "its process died; it goes on from epoch 3")
    assert lines(stream)[:3] == [
        "note     [red]r50[/] waits: needs 4 GPU",
        "warning  MLflow is away",
        "retry    its process died; it goes on from epoch 3",
    ]


def test_a_stage_that_pauses_and_one_that_is_given_up_are_told():
    filled, stream = board(), io.StringIO()
    each = row(filled, "r101", "r50")
    with speaking(filled, stream) as shown:
        each.state, each.history, each.score, each.seconds = "paused", each.history[:3], 0.25, 30.0
        shown.changed(each)
        each.state, each.reason = "pruned", "given up after 3 of 12 epochs"
        shown.changed(each)
    assert lines(stream)[:2] == [
        "paused   r101 > r50  after 3/12  score 0.250  in 30 s",
        "pruned   r101 > r50  given up after 3 of 12 epochs  score 0.250  in 30 s",
    ]


def test_a_quiet_run_shows_warnings_and_the_answer_alone_and_its_log_has_all():
    filled, out, err, log = board(), io.StringIO(), io.StringIO(), io.StringIO()
    with Progress(filled, out=out, err=err, log=log, manner="quiet") as shown:
        shown.begin("runs/tiny/run.log")
        shown.changed(row(filled, "r18"))
        shown.say("r50 waits")
        shown.warn("MLflow is away\x1b[2J")
    shown.answer(["The best way is r101 > r18."], {}, page="runs/tiny/report.html", code=0)
    assert err.getvalue() == "warning: MLflow is away [2J\n"
    assert out.getvalue() == "The best way is r101 > r18.\nreport: runs/tiny/report.html\n"
    assert [line.split()[0] for line in lines(log)] == ["done", "note", "end"]


def test_where_the_log_lies_is_said_before_anything_else():
    stream = io.StringIO()
    with speaking(board(), stream) as shown:
        shown.begin("runs/tiny/run.log")
    assert stream.getvalue().startswith("log: runs/tiny/run.log\n")


def test_on_a_terminal_the_answer_is_broken_between_words_and_its_figures_are_not():
    sentence = "The best way from large to small is large > small: AP50 0.077, +0.002 over small alone."
    figures = "     0.077   +0.002   -0.582 to +0.485   16 s  large > small directly, and what more there is"
    shown = speaking(board(), io.StringIO())
    shown.answer([sentence, figures], {}, page="runs/report.html", code=0)
    assert shown.out.getvalue().splitlines()[:2] == [sentence, figures]
    with Tty(80, 24) as tty:
        shown = speaking(board(), io.StringIO(), out=tty.stream)
        shown.answer([sentence], {}, page="runs/report.html", code=0)
        first, second, _ = tty.until(lambda lines: "report: runs/report.html" in lines)[:3]
    assert f"{first} {second}" == sentence and second == "alone."


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "term", "expected"),
    [
        (Screen(), "xterm-256color", True),
        (Screen(), "dumb", False),
        (Screen(), "", False),
        (io.StringIO(), "xterm", False),
    ],
)
def test_a_table_is_for_terminals_that_can(stream, term, expected, monkeypatch):
    monkeypatch.setenv("TERM", term)
    assert able(stream) is expected
