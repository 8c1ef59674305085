"""Studies in a notebook: what may be loaded, what a run gives, and what Jupyter shows of both."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path as File
from typing import Any

import pytest

import orchestrator
from orchestrator import Result, best, load
from orchestrator.shown import of_result
from orchestrator.verdict import verdict
from tests.orchestrator.boards import board, longer, summary, the_answer
from tests.orchestrator.studies import TEXT, changed, environment, stages, without, write
from tests.orchestrator.test_report import EVIL
from trainers.call import Invalid

SHORT = "{data: Digits, models: {a: {detector: GFL, backbone: TinyResNet}, b: {detector: GFL, backbone: TinyResNet}}"
SHORT += ", distill: [KD]}"


class Shown(HTMLParser):
    """The tags of what a notebook shows, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.cells.append(data)


@pytest.fixture(autouse=True)
def folder(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> File:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def test_importing_the_package_is_quick_and_brings_nothing_large() -> None:
    heavy = ("ray", "mlflow", "torch", "pandas", "pydantic")
    code = f"import sys, orchestrator; print([name for name in {heavy} if name in sys.modules], dir(orchestrator))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert ran.stdout.startswith("[] ")
    with pytest.raises(AttributeError, match="no attribute 'bests'"):
        _ = orchestrator.bests
    assert callable(orchestrator.run) and set(orchestrator.__all__) == {"Result", "best", "load", "run"}


# Loading, and what is shown of a study.


def test_a_study_is_loaded_from_a_file_or_from_its_text_with_sets(folder: File) -> None:
    file = write(folder, TEXT)
    for source in (file, str(file), TEXT, "\n" + TEXT):
        study = load(source, ["recipe.epochs=7"])
        assert (study.name, study.recipe.epochs, list(study.models)) == ("tiny", 7, ["big", "mid", "low", "wee"])
    assert load(SHORT).name == "study"


def test_a_mistake_is_said_with_its_line_in_a_text_too() -> None:
    with pytest.raises(Invalid, match=r"study\.yaml:8: recipe.epoch: "):
        load(changed(("{epochs: 2, batch", "{epoch: 2, batch")))
    with pytest.raises(Invalid, match=r"nothing\.yaml"):
        load("nothing.yaml")


def test_a_study_shows_its_models_and_what_it_would_train_and_writes_nothing(folder: File) -> None:
    shown = Shown(load(TEXT)._repr_html_())
    for name in ("tiny", "big", "mid", "low", "wee"):
        assert name in shown.cells
    facts = dict(zip(shown.cells, shown.cells[1:], strict=False))
    assert (facts["paths"], facts["stages"], facts["edges"], facts["search"]) == ("4", "9", "any", "exhaustive()")
    assert "cost" not in facts, "nobody knows it yet"
    assert not list(folder.iterdir())


def test_a_study_whose_data_are_not_there_is_shown_all_the_same() -> None:
    study = load(changed(("{Digits: {classes: 3, train: 32, val: 16}}", "{COCO: {root: /nowhere}}")))
    facts = Shown(study._repr_html_()).cells
    assert "COCO(root=/nowhere" in "".join(facts) and facts[facts.index("paths") + 1] == "4"


def test_names_of_models_stay_text() -> None:
    study = load(changed(("  big:", '  "<i onload=x &amp":')))
    shown = Shown(study._repr_html_())
    assert "<i onload=x &amp" in shown.cells
    assert set(shown.tags) <= {"p", "b", "table", "tr", "th", "td"}


# What came of it.


def result(**other: Any) -> Result:
    filled = board(seeds=(0, 1))
    longer(filled, seeds=(0, 1))
    return Result(0, "runs/voc-gfl/report.html", summary(filled, seeds=(0, 1)) | other)


def test_the_ranking_has_a_row_for_each_path_with_its_score_spread_interval_seconds_and_settings() -> None:
    came = result()
    answer = the_answer(dict(came.summary))
    frame = came.ranking
    assert len(frame) == len(answer["ranking"]) + 2
    assert frame.score.is_monotonic_decreasing
    top = frame[frame.role == "taught"].iloc[0]
    expected = answer["best"]
    assert top.path == " > ".join(expected["path"])
    assert (top.score, top.spread, top.seconds) == (expected["score"], expected["spread"], expected["seconds"])
    assert [top.low, top.high] == expected["interval"] and top.settings == expected["settings"]
    (alone,) = frame[frame.role == "alone"].itertuples()
    assert alone.path == "r18" and alone.score == answer["baseline"]["score"]


def test_the_stages_and_their_curves_are_frames_that_share_keys() -> None:
    came = result()
    known = {stage["key"]: stage for stage in came.summary["stages"]}
    assert set(came.stages.index) == set(known) and "history" not in came.stages
    assert came.stages.path.map(lambda path: path.split(" > ")[-1]).eq(came.stages.model).all()
    assert len(came.curves) == sum(len(stage["history"]) for stage in known.values())
    for key, curve in came.curves.groupby("key"):
        assert curve["val/AP"].tolist() == [epoch["val/AP"] for epoch in known[str(key)]["history"]]
        assert curve.epoch.tolist() == list(range(1, len(curve) + 1))


def test_where_nothing_was_trained_the_frames_are_empty() -> None:
    nothing = summary(board())
    nothing["answers"] = [one | {"best": None, "ranking": [], "baseline": None} for one in nothing["answers"]]
    nothing["stages"] = [stage | {"history": []} for stage in nothing["stages"]]
    came = Result(3, "report.html", nothing)
    assert came.ranking.empty and "score" in came.ranking and came.curves.empty
    assert "report.html" in came._repr_html_()


def test_a_result_shows_the_answer_and_the_first_paths() -> None:
    came = result()
    shown = Shown(came._repr_html_())
    assert [cell for cell in shown.cells if cell in verdict(came.summary)] == verdict(came.summary)
    assert f"{the_answer(dict(came.summary))['best']['score']:.4f}" in shown.cells
    assert "report: runs/voc-gfl/report.html" in shown.cells
    assert "summary" not in repr(came), "which is long"


@pytest.mark.parametrize("name", EVIL)
def test_what_a_result_shows_stays_text(name: str) -> None:
    found = summary(board()) | {"metric": name}
    assert set(Shown(of_result(found, name)).tags) <= {"p", "table", "tr", "th", "td"}


# A study that ran.


@pytest.mark.ray
def test_best_asks_mlflow_by_study_by_file_or_by_experiment(finished: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    by_study, by_file, by_name = best(load("tiny.yaml")), best("tiny.yaml"), best("tiny")
    for frame in (by_study, by_file, by_name):
        assert frame.path.tolist() == by_study.path.tolist()
    scores = {path: stage["score"] for path, stage in stages(finished).items()}
    assert len(by_study) == 5 and by_study.score.is_monotonic_decreasing
    for row in by_study.itertuples():
        assert row.score == pytest.approx(scores[tuple(str(row.path).split(" > "))])
    assert len(best("tiny", top=2)) == 2
    with pytest.raises(Invalid, match="nobody"):
        best("tiny", student="nobody")


NOTEBOOK = """
import ray
from orchestrator import best, load, run

@ray.remote(num_cpus=0)
class Mine:
    def value(self):
        return 41

study = load("tiny.yaml", ["resources.pictures=2"])
first = run(study)
assert first.code == 0 and not ray.is_initialized(), "the Ray that was started is ended"
assert first.stages.state.eq("done").sum() == 3, first.stages.state

ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
mine = Mine.remote()
ray.get(mine.value.remote())
from orchestrator import run
second = run(load("tiny.yaml", ["recipe.epochs=1", "resources.pictures=2"]), quiet=True)
assert second.code == 0 and second.stages.state.eq("done").sum() == 3
assert ray.is_initialized() and ray.get(mine.value.remote()) == 41, "what the user has in Ray lives on"
try:
    run(load("tiny.yaml", ["recipe.epochs=3"]), address="127.0.0.1:1")
except ValueError as error:
    print(error)
third = run("tiny.yaml")
assert third.stages.reused.all() and ray.is_initialized()
assert first.ranking.score.tolist() == third.ranking.score.tolist()
assert best(study).score.iloc[0] == max(first.ranking.score)
ray.shutdown()
"""


@pytest.mark.ray
@pytest.mark.slow
def test_two_runs_in_one_process_and_in_the_users_own_ray(folder: File) -> None:
    """As the cells of a notebook, one after another."""
    write(folder, without("mid", "low"))
    (folder / "cells.py").write_text(NOTEBOOK)
    ran = subprocess.run([sys.executable, "cells.py"], capture_output=True, text=True, timeout=550, env=environment())
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "connected to Ray already; leave the address out" in ran.stdout
    assert "\x1b" not in ran.stdout + ran.stderr, "no codes for terminals"
    assert ran.stdout.count("report: runs/tiny/report.html") == 3 and ran.stderr.count("  started  ") == 3
    assert "were left in the cluster" not in ran.stderr
