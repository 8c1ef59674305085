"""The run as a table in a terminal: what is on the screen, at any size and whatever the names."""

import io
import re
from types import SimpleNamespace

import pytest

from orchestrator.lattice import Path
from orchestrator.live_table import LiveTable, rows_as_tree
from orchestrator.outcome import answered
from orchestrator.outlook import Outlook
from orchestrator.progress import Progress
from tests.orchestrator.boards import SIZES, board, fail, row, start, summary
from tests.orchestrator.terminals import Tty

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def split(shown):
    """The lines above the table, its headings, and those below."""
    at = next(i for i, line in enumerate(shown) if line.startswith("stage "))
    return shown[:at], shown[at], shown[at + 2 :]


def table_of(filled, stream=None, *, size=None):
    made = LiveTable(filled, stream or io.StringIO(), Outlook(filled))
    if size:
        made.console.size = size
    return made


def frame(filled, *, width=100, height=30, changed=()):
    """The lines of one frame, without colours."""
    made = table_of(filled, size=(width, height))
    for each in changed:
        made.outlook.changed(each)
        made.changed(each)
    with made.console.capture() as captured:
        made.console.print(made.render())
    return ESCAPES.sub("", captured.get()).splitlines()


def test_the_table_is_a_tree_of_paths_with_what_is_known_of_each():
    filled = board()
    each = row(filled, "r101", "r34")
    start(each, epochs=6)
    each.history = [*each.history[:5], {**each.history[5], "train/images_per_second": 93.4}]
    shown = frame(filled)
    assert shown[0].split() == ["voc-gfl", "1", "running", "8", "done"]
    assert re.search(r"^\S* +9\d%  .*  about \d:\d\d left$", shown[1].rstrip())
    assert shown[2].startswith("best so far r101 > ")
    _, headings, rows = split(shown)
    assert headings.split() == ["stage", "state", "epoch", "img/s", "score", "time", "left"]
    names = [line[: headings.index("state")].rstrip() for line in rows]
    assert names[:6] == ["r101", "  > r18", "  > r50", "    > r18", "    > r34", "      > r18"]
    assert names[6:] == ["  > r34", "    > r18", "r18 alone"]
    assert rows[6].split() == [">", "r34", "running", "6/12", "93", "1:00", "1:00"]


@pytest.mark.parametrize("state", ["waiting", "running", "paused", "done", "reused", "pruned", "failed", "lost"])
def test_every_state_is_shown_as_a_word_in_the_table_and_counted_above_it(state):
    filled = board()
    each = row(filled, "r101", "r50")
    each.state, each.reason = state, "a reason"
    shown = frame(filled)
    assert f"1 {state}" in shown[0] or state == "done"
    (line,) = (line for line in shown if line.startswith("  > r50 "))
    assert line.split()[2] == state


@pytest.mark.parametrize("names", [list(SIZES), [f"m{i}" for i in range(7)]], ids=["nine stages", "sixty-five stages"])
@pytest.mark.parametrize("failing", [0, 1, 9])
@pytest.mark.parametrize("width", [40, 80, 120, 200])
@pytest.mark.parametrize("height", [10, 11, 16, 24, 60])
def test_a_frame_fits_any_screen_and_keeps_what_runs(width, height, failing, names):
    filled = board(names)
    rows = list(filled.rows.values())
    for each in rows[1 : failing + 1]:
        each.state, each.reason = "failed", "RuntimeError: something long " * 20
    start(rows[-1], epochs=3)
    shown = frame(filled, width=width, height=height)
    assert len(shown) < height, "a line is spare, so nothing scrolls"
    assert max(map(len, shown)) <= width
    _, headings, below = split(shown)
    assert headings.split()[-1] == "left"
    (line,) = (line for line in below if " running " in line)
    assert line.split()[-1] == "1:30"


def test_a_narrow_screen_leaves_the_speed_out_first_and_then_the_time():
    headings = {width: split(frame(board(), width=width))[1].split() for width in (80, 60, 40)}
    assert headings[80] == ["stage", "state", "epoch", "img/s", "score", "time", "left"]
    assert headings[60] == ["stage", "state", "epoch", "score", "time", "left"]
    assert headings[40] == ["stage", "state", "epoch", "score", "left"]


def test_of_a_long_path_the_last_models_are_kept_and_its_figures_too():
    names = [f"detector-{i}-of-many" for i in range(6)]
    filled = board(names)
    rows = list(filled.rows.values())
    deepest = max(rows, key=lambda each: len(each.path.models))
    start(deepest, epochs=4)
    (line,) = (line for line in frame(filled, width=80, height=12) if " running " in line and "4/12" in line)
    assert line.startswith("... > detector-5-of-many") and line.split()[-1] == "1:20"


def test_stages_that_one_process_trains_are_named_so_and_share_the_time():
    filled = board()
    some = [row(filled, "r101", name) for name in ("r50", "r34")]
    for each in some:
        start(each, epochs=6)
        each.group = some[0].key
    shown = frame(filled)
    lines = [line.split() for line in shown if "(2 together)" in line]
    assert [line[1] for line in lines] == ["r50", "r34"]
    assert [line[-1] for line in lines] == ["2:00", "2:00"], "each needs a minute, and waits for the other as long"


@pytest.mark.parametrize("name", ["[red]a[/]", "[/]", "[link=x]c[/link]", "\x1b[2Jd", "e\u202eevil", ":bomb:", "f\nf"])
def test_a_hostile_name_stays_text(name):
    filled = board([name, "r50", "r18"], name=f"study {name}")
    fail(filled, Path((name, "r50")), f"lost the {name}")
    made = table_of(filled, size=(120, 30))
    with made.console.capture() as captured:
        made.console.print(made.render())
    text = "".join(c if c.isprintable() else " " for c in name)
    shown = ESCAPES.sub("", captured.get()).splitlines()
    assert shown[0].startswith(f"study {text}") and any(line.startswith(text) for line in split(shown)[2])
    assert any(f"lost the {text}" in line for line in shown)
    assert "\x1b[2J" not in captured.get() and "\u202e" not in captured.get()


def test_wide_letters_keep_the_columns_in_line():
    filled = board(["\u6559\u5e2b\u6559\u5e2b", "r50", "r18"])
    _, headings, rows = split(frame(filled, width=80))
    places = {line.index("done") + (4 if line.startswith("\u6559") else 0) for line in rows}
    assert places == {headings.index("state")}


def test_many_stages_fit_the_screen_running_ones_first_and_the_rest_is_counted():
    filled = board([f"m{i}" for i in range(9)])
    rows = list(filled.rows.values())
    start(rows[100], epochs=3)
    rows[50].state, rows[50].reason = "failed", "NaN"
    shown = frame(filled, width=120, height=20, changed=[rows[200], rows[100]])
    assert len(shown) < 20
    _, _, below = split(shown)
    assert [str(rows[i].path) in line for i, line in zip((100, 50, 200), below[:3], strict=True)] == [True] * 3
    assert any(re.match(r"and \d+ done", line) for line in shown)


def test_a_tree_puts_each_teacher_before_those_it_teaches():
    rows = list(board(seeds=(0, 1)).rows.values())
    tree = rows_as_tree(list(reversed(rows)))
    assert sorted(r.key for r in tree) == sorted(r.key for r in rows)
    place = {each.key: i for i, each in enumerate(tree)}
    assert all(place[r.stage.teacher.key] < place[r.key] for r in tree if r.stage.teacher)


def test_the_live_view_ends_with_the_whole_table_and_gives_the_cursor_back():
    filled, stream = board(), io.StringIO()
    with (
        pytest.raises(KeyboardInterrupt),
        Progress(filled, out=io.StringIO(), err=stream, live=True),
    ):
        raise KeyboardInterrupt
    end = stream.getvalue()
    assert "\x1b[?25h" in end[end.rindex("r18 alone") :]


def test_a_process_that_ends_at_once_gives_the_cursor_back():
    stream = io.StringIO()
    shown = Progress(board(), out=io.StringIO(), err=stream, live=True)
    shown.leave()
    assert stream.getvalue().endswith("\x1b[?25h")


def test_the_board_may_grow_while_the_table_is_drawn():
    filled, whole, stream = board(list(SIZES)), board([*SIZES, "tiny"]), io.StringIO()
    with Progress(filled, out=io.StringIO(), err=stream, live=True) as shown:
        for each in whole.rows.values():
            filled.rows[each.key] = each
            shown.changed(each)
            assert shown.table
            shown.table.render()
    assert "tiny" in stream.getvalue()


def test_no_color_leaves_no_colour_and_says_all_in_words(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    filled = board()
    start(row(filled, "r101", "r34"), epochs=6)
    made = table_of(filled, size=(80, 24))
    with made.console.capture() as captured:
        made.console.print(made.render())
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", captured.get())
    assert " running " in captured.get() and "%" in captured.get()


# On a terminal.


@pytest.fixture
def tty():
    with Tty(80, 24) as made:
        yield made


def test_what_is_said_stands_above_the_table_which_is_there_once(tty):
    filled = board()
    each = row(filled, "r101", "r34")
    start(each, epochs=6)
    with Progress(filled, out=io.StringIO(), err=tty.stream, live=True) as shown:
        shown.say("[red]r50[/] waits: needs 4 GPU")
        shown.warn("MLflow is away")
        tty.until(lambda lines: lines[1] == "warning: MLflow is away" and lines[2].startswith("voc-gfl"))
        each.state = "done"
        shown.changed(each)
    lines = tty.lines()
    assert lines[:2] == ["[red]r50[/] waits: needs 4 GPU", "warning: MLflow is away"]
    assert [line for line in lines if line.startswith("voc-gfl")] == ["voc-gfl  9 done"]
    assert sum(line.startswith("stage ") for line in lines) == 1
    assert tty.cursor_shown()


@pytest.mark.parametrize("size", [(60, 12), (200, 50), (80, 10)])
def test_after_a_change_of_size_the_table_is_there_once_and_as_wide_as_the_screen(tty, size, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")  # as some shells export them, whatever size the terminal has by now
    monkeypatch.setenv("LINES", "24")
    filled = board([f"model-{i}" for i in range(5)])
    start(row(filled, "model-0", "model-4"), epochs=6)
    with Progress(filled, out=io.StringIO(), err=tty.stream, live=True) as shown:
        shown.say("r50 waits")
        tty.until(lambda lines: any(line.startswith("stage ") for line in lines))
        tty.resize(*size)
        tty.until(lambda lines: lines[0] == "r50 waits")
        lines = tty.lines()
    assert len(lines) == size[1]
    assert sum(line.startswith("stage ") for line in lines) == sum(line.startswith("voc-gfl") for line in lines) == 1
    assert sum(" running " in line for line in lines) >= 1


def test_a_failure_is_cut_below_the_table_and_in_the_end_told_whole_once_with_what_to_do():
    filled, path = board(), Path(("r101", "r50"))
    reason = f"Full: no room for the state: {'it takes about 300 bytes, ' * 8}and 12 are free"
    fail(filled, path, reason)
    key = row(filled, *path.models).key
    study = SimpleNamespace(name="voc-gfl", resources=SimpleNamespace(runs="runs"))
    run = SimpleNamespace(
        prepared=SimpleNamespace(study=study),
        frontier=SimpleNamespace(failed={key: reason}),
        board=filled,
        tracebacks={key: "Traceback ..."},
    )
    with Tty(80, 50) as tty:
        with Progress(filled, out=tty.stream, err=tty.stream, live=True) as shown:
            for each in filled.rows.values():
                shown.changed(each)
            live = tty.until(lambda lines: any(line.startswith("r101 > r50: Full: no room") for line in lines))
        shown.answer(answered(run, summary(filled), told=shown.told), {}, page="runs/report.html", code=3)
        lines = tty.until(lambda lines: "report: runs/report.html" in lines)
    assert sum("Full: no room" in line for line in live) == 1 and not any("12 are free" in line for line in live)
    said = " ".join(filter(None, lines))
    assert said.count("Full: no room") == 1
    assert f"failed: r101 > r50 (seed 0): {reason}; where: runs/voc-gfl/failed-{key}.txt" in said
    assert "What is done is kept; the same command tries again what failed." in said


@pytest.mark.parametrize(("live", "manner", "told"), [(False, "", True), (False, "quiet", False), (True, "", False)])
def test_only_in_lines_was_a_failure_told_whole_before_the_end(live, manner, told):
    assert Progress(board(), out=io.StringIO(), err=io.StringIO(), live=live, manner=manner).told is told


def test_who_reads_the_answer_on_a_terminal_has_not_read_what_went_into_a_file(tty):
    assert Progress(board(), out=tty.stream, err=io.StringIO(), live=False).told is False
