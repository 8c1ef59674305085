"""That a score is of a selected epoch is said wherever the score is shown."""

import io
from pathlib import Path as File

import pytest

from orchestrator import report
from orchestrator.facts import choice, final
from orchestrator.lattice import Path
from orchestrator.live_table import LiveTable
from orchestrator.outlook import Outlook
from orchestrator.prepared import prepare
from orchestrator.progress import Progress
from orchestrator.study import load
from orchestrator.verdict import leader, verdict
from tests.orchestrator.boards import board, summary
from tests.orchestrator.studies import changed, write
from tests.orchestrator.tracked import begin, best, row, run_of, settle, steps
from trainers.call import Invalid
from trainers.spec import Best

SAID = "best epoch 7 of 12, selected on val"


def chosen_board(*seeds: int):
    filled = board(seeds=seeds or (0,))
    for each in filled.rows.values():
        each.selected = 7 + each.seed
    return filled


def test_a_row_says_which_epoch_was_kept_of_how_many():
    first, *_ = chosen_board().rows.values()
    assert first.choice == SAID
    assert next(iter(board().rows.values())).choice == ""


def test_the_report_and_the_verdict_say_it():
    found = summary(chosen_board())
    assert {stage["selected"] for stage in found["stages"]} == {7}
    assert "Its score is of its best epoch 7 of 12, selected on val, and so flatters it a little." in verdict(found)
    page = report.render(found)
    assert page.count(SAID) == len(found["stages"]) + 1
    seeds = summary(chosen_board(0, 1), seeds=(0, 1))
    assert any("best epochs 7 of 12, 8 of 12, selected on val" in line for line in verdict(seeds))


def test_nothing_is_said_where_the_last_epoch_counts():
    found = summary(board())
    assert {stage["selected"] for stage in found["stages"]} == {None}
    assert "selected" not in report.render(found).split("<script")[0] and "selected" not in leader(board())


def test_the_terminal_says_it():
    filled, stream = chosen_board(), io.StringIO()
    with Progress(filled, out=io.StringIO(), err=stream, live=False) as progress:
        for each in filled.rows.values():
            progress.changed(each)
    lines = stream.getvalue().splitlines()
    assert sum(f"({SAID})  in " in line for line in lines) == len(filled.rows)
    assert "best epochs selected on val" in lines[-1]
    table = LiveTable(filled, io.StringIO(), Outlook(filled))
    table.console.size = (200, 60)
    with table.console.capture() as captured:
        table.console.print(table.render())
    assert SAID in captured.get()


def test_mlflow_has_the_figures_of_the_epoch_that_was_kept_and_the_whole_curve(uri: str):
    tracking = begin(uri)
    history = [{"epoch": float(i), "val/AP": ap} for i, ap in enumerate((0.25, 0.75, 0.5), start=1)]
    one = row(history=history, selected=2, metrics={"val/AP": 0.75})
    one.score = 0.75
    running = row(history=history[:2], state="running")
    settle(tracking, running, one)
    tracking._background.stop()
    assert final(one)["val/AP"] == 0.75 and final(one)["epoch"] == 3 and final(one)["selected"] == 2
    assert choice(one) == {"selected": "best epoch 2 of 3, selected on val"}
    run = run_of(uri, one)
    assert run.data.tags["selected"] == "best epoch 2 of 3, selected on val"
    assert run.data.metrics["val/AP"] == run.data.metrics["score"] == 0.75 and run.data.metrics["selected"] == 2
    assert set(steps(uri, one, "val/AP")) == {(1, 0.25), (2, 0.75), (3, 0.5), (3, 0.75)}
    found = best(uri, "demo")
    assert found.score == found.figures["AP"] == 0.75 and found.selected == {0: "best epoch 2 of 3, selected on val"}


def selecting(folder: File, select: str, metric: str = "CocoAP"):
    text = changed(
        ("warmup: 0, flip: 0}", f"warmup: 0, flip: 0, select: {select}}}"), ("val: 16}", f"val: 16, metric: {metric}}}")
    )
    return load(write(folder, text))


def test_a_study_keeps_the_best_by_what_it_ranks_by(tmp_path: File):
    keys = set()
    for figure in ("AP", "AP50"):
        lattice = prepare(selecting(tmp_path, "best", f"{{CocoAP: {{score: {figure}}}}}")).lattice
        stages = [lattice.stage(Path(models), 0) for models in (("big",), ("big", "wee"))]
        assert all(stage.recipe.select == Best(best=figure) for stage in stages)
        keys.add(stages[0].key)
    last = [selecting(tmp_path, "last", f"{{CocoAP: {{score: {figure}}}}}") for figure in ("AP", "AP50")]
    keys |= {prepare(study).lattice.stage(Path(("big",)), 0).key for study in last}
    assert len(keys) == 3, "where the last is kept it does not matter by what it is ranked"


@pytest.mark.parametrize("select", ["first", "{best: AP}", "null"])
def test_anything_else_is_refused_at_its_line(tmp_path: File, select: str):
    with pytest.raises(Invalid, match=r"tiny\.yaml:8: recipe\.select: write last or best"):
        selecting(tmp_path, select)
