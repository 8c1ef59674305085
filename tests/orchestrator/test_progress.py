"""The run in the terminal, with and without one."""

import io
import re
import time

import pytest

from orchestrator import progress
from orchestrator.lattice import Path
from orchestrator.live_table import rows_as_tree
from orchestrator.progress import Progress
from tests.orchestrator.boards import SIZES, board, fail


def row(filled, *path, seed=0):
    return next(r for r in filled.rows.values() if r.path == Path(path) and r.seed == seed)


def lines(stream):
    """The lines without the time at their start."""
    return [line[10:] for line in stream.getvalue().splitlines()]


def screen(stream):
    """What a terminal that only appends would show: all frames, without escapes."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def last_frame(filled, *, width=100, height=30, changed=()):
    stream = io.StringIO()
    shown = Progress(filled, stream=stream, live=True)
    shown.console.size = (width, height)
    for each in changed:
        shown.changed(each)
    with shown.console.capture() as captured:
        shown.console.print(shown.view.render())
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", captured.get()).splitlines()


def start(each, epochs=0):
    each.state, each.history, each.score = "running", each.history[:epochs], None
    each.seconds = 10.0 * epochs


def test_without_a_terminal_every_event_is_one_line(monkeypatch):
    monkeypatch.setattr(progress, "QUIET", 0.0)
    filled, stream = board(), io.StringIO()
    each = row(filled, "r101", "r50")
    done = each.history
    start(each)
    with Progress(filled, stream=stream) as shown:
        shown.changed(each)
        each.history, each.score, each.seconds = done[:3], 0.5, 30.0
        shown.changed(each)
        each.history, each.state, each.seconds = done, "done", 120.0
        shown.changed(each)
    assert lines(stream)[:3] == [
        "started  r101 > r50  12 epochs",
        "epoch    r101 > r50  3/12  score 0.500  1:30 left",
        "done     r101 > r50  score 0.500  in 2:00",
    ]
    assert lines(stream)[3].startswith("end      9 done, best r101 > ")
    assert "\x1b" not in stream.getvalue()


def test_epochs_that_come_fast_are_not_all_told():
    filled, stream = board(), io.StringIO()
    each = row(filled, "r101")
    done = each.history
    start(each)
    with Progress(filled, stream=stream) as shown:
        shown.changed(each)
        for epoch in range(1, 12):
            each.history = done[:epoch]
            shown.changed(each)
    assert [line.split()[0] for line in lines(stream)] == ["started", "end"]


def test_reused_stages_are_one_line_together():
    filled, stream = board(), io.StringIO()
    for each in filled.rows.values():
        each.state = "reused"
    with Progress(filled, stream=stream) as shown:
        for each in filled.rows.values():
            shown.changed(each)
    assert lines(stream)[0] == "reused   9 stages trained before" and len(lines(stream)) == 2


def test_a_failure_is_told_with_its_reason_on_one_line_and_what_it_loses_by_name():
    filled, stream = board(), io.StringIO()
    fail(filled, Path(("r101", "r50")), "RuntimeError: CUDA\r\nout of \x1b[31mmemory")
    with Progress(filled, stream=stream) as shown:
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
    with Progress(filled, stream=stream) as shown:
        shown.changed(each)
    assert len(lines(stream)) == 1


def test_seeds_are_named_where_there_are_several():
    filled, stream = board(seeds=(0, 7)), io.StringIO()
    with Progress(filled, stream=stream) as shown:
        shown.changed(row(filled, "r18", seed=7))
    assert lines(stream)[0].startswith("done     r18 alone (seed 7)  score")


def test_a_heartbeat_names_what_runs(monkeypatch):
    monkeypatch.setattr(progress, "HEARTBEAT", 0.02)
    filled, stream = board(), io.StringIO()
    start(row(filled, "r18"), epochs=2)
    with Progress(filled, stream=stream):
        until = time.monotonic() + 5
        while "running" not in stream.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
    assert lines(stream)[0] == "running  r18 alone. 8 done"


@pytest.mark.parametrize("live", [True, False])
def test_what_is_said_is_printed_as_it_is(live):
    stream = io.StringIO()
    with Progress(board(), stream=stream, live=live) as shown:
        shown.say("[red]r50[/] waits: needs 4 GPU")
    assert "[red]r50[/] waits: needs 4 GPU\n" in screen(stream).replace("\r", "")


def test_the_table_is_a_tree_of_paths_with_what_is_known_of_each():
    filled = board()
    start(row(filled, "r101", "r34"), epochs=6)
    frame = last_frame(filled)
    assert frame[0].startswith("voc-gfl  8 done, 1 running  ")
    assert frame[1].startswith("best so far r101 > ")
    names = [line[: frame[2].index("state")].rstrip() for line in frame[4:]]
    assert names[:6] == ["r101", "  > r18", "  > r50", "    > r18", "    > r34", "      > r18"]
    assert names[6:] == ["  > r34", "    > r18", "r18 alone"]
    assert re.search(r"running +6/12 +1:00 +1:00$", frame[10].rstrip())


def test_names_with_markup_stay_text_in_the_table():
    names = ["[red]a[/]", "[/]", "[link=x]c[/link]"]
    filled = board(names)
    fail(filled, Path(tuple(names[:2])), "[bold]lost[/bold] the \x1b[2Jloss")
    frame = "\n".join(last_frame(filled))
    assert "[red]a[/]" in frame and "> [link=x]c[/link]" in frame and "[bold]lost[/bold] the  [2Jloss" in frame


def test_many_stages_fit_the_screen_running_ones_first_and_the_rest_is_counted():
    names = [f"m{i}" for i in range(9)]
    filled = board(names)
    rows = list(filled.rows.values())
    start(rows[100], epochs=3)
    rows[50].state, rows[50].reason = "failed", "NaN"
    frame = last_frame(filled, height=20, changed=[rows[200], rows[100]])
    assert len(frame) <= 20
    assert str(rows[100].path) in frame[4] and str(rows[50].path) in frame[5] and str(rows[200].path) in frame[6]
    assert any(re.match(r"and \d+ done", line) for line in frame)


def test_a_tree_puts_each_teacher_before_those_it_teaches():
    rows = list(board(seeds=(0, 1)).rows.values())
    tree = rows_as_tree(list(reversed(rows)))
    assert sorted(r.key for r in tree) == sorted(r.key for r in rows)
    place = {each.key: i for i, each in enumerate(tree)}
    assert all(place[r.stage.teacher.key] < place[r.key] for r in tree if r.stage.teacher)


def test_the_live_view_ends_with_the_whole_table_and_gives_the_cursor_back():
    filled, stream = board(), io.StringIO()
    with pytest.raises(KeyboardInterrupt), Progress(filled, stream=stream, live=True):
        raise KeyboardInterrupt
    end = stream.getvalue()
    assert "\x1b[?25h" in end[end.rindex("r18 alone") :]


def test_the_board_may_grow_while_the_table_is_drawn():
    names = list(SIZES)
    filled, whole = board(names), board([*names, "tiny"])
    shown = Progress(filled, stream=io.StringIO(), live=True)
    with shown:
        for each in whole.rows.values():
            filled.rows[each.key] = each
            shown.changed(each)
            shown.view.render()
    assert "tiny" in screen(shown.console.file)
