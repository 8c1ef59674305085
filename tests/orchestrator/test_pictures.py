"""The pictures of a report: whose detections they show, when they are looked up, and that nothing fails for them."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path as File
from typing import Any

import pytest

from orchestrator import pictures, session
from orchestrator.pictures import panels
from orchestrator.prepared import prepare
from orchestrator.report import render
from orchestrator.study import Study, load
from tests.orchestrator import stored
from tests.orchestrator.boards import board, summary, the_answer
from tests.orchestrator.commands import DIGITS
from tests.orchestrator.studies import changed, without, write
from tests.orchestrator.test_report import EVIL, Page
from trainers.call import Invalid

TITLES = ("title", "role", "student")


def titles(filled: Any, found: dict[str, Any]) -> list[tuple[str, ...]]:
    return [tuple(panel[name] for name in TITLES) for panel, _ in panels(filled, found)]


# Whose.


def test_the_teacher_and_the_student_alone_taught_directly_and_by_the_best_path_stand_side_by_side() -> None:
    filled = board()
    found = summary(filled)
    best = " > ".join(the_answer(found)["best"]["path"])
    assert best != "r101 > r18"
    assert titles(filled, found) == [
        ("r101", "teacher", ""),
        ("r18 alone", "alone", "r18"),
        ("r101 > r18", "direct", "r18"),
        (best, "distilled", "r18"),
    ]
    stages = [stage for _, stage in panels(filled, found)]
    assert stages[0].teacher is None and stages[1].teacher is None and stages[2].teacher == stages[0]
    assert next(stages[3].lineage) == stages[0]


def test_where_teaching_directly_is_best_it_stands_there_once_and_several_seeds_show_the_first() -> None:
    filled = board(("r101", "r18"), seeds=(3, 4))
    found = summary(filled, seeds=(3, 4))
    assert [role for _, role, _ in titles(filled, found)] == ["teacher", "alone", "distilled"]
    assert {stage.seed for _, stage in panels(filled, found)} == {3}


def test_of_several_students_each_is_there_and_the_teacher_once() -> None:
    filled = board(students=("r34", "r18"))
    roles = [(role, student) for _, role, student in titles(filled, summary(filled, students=("r34", "r18")))]
    assert roles.count(("teacher", "")) == 1
    assert {("alone", "r34"), ("distilled", "r34"), ("alone", "r18"), ("distilled", "r18")} <= set(roles)


def test_where_nothing_is_distilled_there_is_nothing_to_show() -> None:
    filled = board()
    for row in filled.rows.values():
        if row.role == "student":
            row.state, row.score = "failed", None
    assert panels(filled, summary(filled)) == []


def test_a_student_that_was_never_trained_alone_is_compared_with_direct_teaching_or_the_teacher() -> None:
    shown = [
        {"student": "", "role": "teacher"},
        {"student": "a", "role": "direct"},
        {"student": "a", "role": "distilled"},
    ]
    assert pictures._pairs(shown) == [(2, 1)]
    assert pictures._pairs([shown[0], shown[2]]) == [(1, 0)]
    assert pictures._pairs(shown[:2]) == []


# The page.

EDGES = {
    "image": 0,
    "label": 0,
    "truth": [1, 1, 5, 5],
    "truth_bins": [1.0, 1.0, 1.0, 1.0],
    "entropy": 1.0,
    "lines": [{"panel": n, "box": [1, 1, 5, 5], "edges": [[0.5, 0.5]] * 4, "divergence": 0.1} for n in (0, 1)],
}


def made(name: str = "one", **other: Any) -> dict[str, Any]:
    """What `pictures` may have found, with this name wherever a name stands."""
    image = {"name": name, "width": 8, "height": 8, "uri": "data:image/jpeg;base64,AAAA", "differs": True}
    image |= {"truth": [[1, 1, 5, 5, 0]], "found": [[[1, 1, 5, 5, 0.9, 0, 0]], []]}
    shown = [
        {"title": name, "role": role, "student": "r18" if role != "teacher" else ""} for role in ("teacher", "alone")
    ]
    whole = {"mark": "", "panels": shown, "looked": 9, "of": 10, "threshold": 0.4, "classes": [name]}
    return {**whole, "images": [image, {**image, "differs": False}], "edges": EDGES, **other}


def test_the_page_has_the_section_only_where_there_are_pictures() -> None:
    found = summary(board())
    assert 'id="seen"' not in render(found) and "seen-data" not in render(found)
    page = Page(render(found, made()))
    assert "What they find" in page.text["h2"] and "An edge is a distribution" in page.text["h3"]
    (data,) = (json.loads(text) for text in page.text["script"] if "data:image/jpeg" in text)
    assert data == made()
    assert page.data["metric"] == found["metric"], "the page's own data are where they were"


def test_detectors_without_distributions_have_no_word_of_edges() -> None:
    assert "An edge is a distribution" not in render(summary(board()), made(edges=None))


@pytest.mark.parametrize("name", EVIL)
def test_names_of_classes_images_and_models_stay_text(name: str) -> None:
    found = summary(board())
    plain, hostile = Page(render(found, made())), Page(render(found, made(name)))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    (data,) = (json.loads(text) for text in hostile.text["script"] if "data:image/jpeg" in text)
    assert data["classes"] == [name] and data["images"][0]["name"] == name
    assert "innerHTML" not in render(found, made(name))


# Of a study that ran.


@pytest.fixture
def ran(finished: File, tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> File:
    """A copy of the folder of a study that ran well, in which the test runs."""
    shutil.copytree(finished, tmp_path / "ran", copy_function=shutil.copy2)
    monkeypatch.chdir(tmp_path / "ran")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "ran" / "runs" / "tiny"


def never(*args: Any, **options: Any) -> Any:
    raise AssertionError("looked again")


def of(folder: File) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "pictures.json").read_text())
    return found


@pytest.mark.ray
def test_a_run_ends_with_pictures_in_its_report(ran: File) -> None:
    found = of(ran)
    assert [panel["role"] for panel in found["panels"]][:2] == ["teacher", "alone"]
    assert len(found["images"]) == 6 and found["of"] == 16
    assert found["classes"] == ["zero", "one", "two"]
    page = (ran / "report.html").read_text()
    assert 'id="seen"' in page and found["images"][0]["uri"][:60] in page
    assert (ran / "pictures.json").stat().st_size < 1_000_000
    scores = {tuple(stage["path"]): stage["score"] for stage in json.loads((ran / "report.json").read_text())["stages"]}
    assert found["panels"][0]["score"] == scores[("big",)] and found["panels"][1]["score"] == scores[("wee",)]


@pytest.mark.ray
def test_the_report_again_looks_at_nothing_again(ran: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.seen.look", never)
    before = of(ran)
    session.rewrite(load("tiny.yaml"))
    assert of(ran) == before and 'id="seen"' in (ran / "report.html").read_text()


@pytest.mark.ray
def test_another_number_of_pictures_is_looked_up_and_changes_no_key(ran: File) -> None:
    keys = [stage["key"] for stage in json.loads((ran / "report.json").read_text())["stages"]]
    (ran / "pictures.json").write_text("no JSON")
    session.rewrite(load("tiny.yaml", ["resources.pictures=2"]))
    assert len(of(ran)["images"]) == 2
    again = json.loads((ran / "report.json").read_text())["stages"]
    assert [stage["key"] for stage in again] == keys and all(stage["reused"] for stage in again)


@pytest.mark.ray
def test_a_study_that_wants_none_has_no_section_and_nothing_is_looked_up(
    ran: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.seen.look", never)
    session.rewrite(load("tiny.yaml", ["resources.pictures=0"]))
    assert 'id="seen"' not in (ran / "report.html").read_text()
    with pytest.raises(Invalid, match=r"resources\.pictures: Input should be greater"):
        load("tiny.yaml", ["resources.pictures=-1"])


# Where it cannot be done.


@pytest.fixture
def untaught(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study whose stages are stored with weights that no detector can load."""
    monkeypatch.chdir(tmp_path)
    text = changed((DIGITS, "{Digits: {classes: 3, train: 16, val: 8}}"), text=without("mid", "low"))
    study = load(write(tmp_path, text))
    stored.store(study, ("big",), ("wee",), ("big", "wee"))
    return study


def test_what_cannot_be_looked_up_is_left_out_with_one_line(untaught: Study, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        page = session.rewrite(untaught)
    (line,) = [record.message for record in caplog.records if "pictures" in record.message]
    assert line.startswith("the report has no pictures: ") and "\n" not in line
    assert 'id="seen"' not in File(page).read_text()


def test_a_page_with_pictures_that_cannot_be_written_leaves_the_one_without(
    untaught: Study, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: Any) -> Any:
        raise OSError("No space left on device")

    filled = board()
    prepared = prepare(untaught)
    monkeypatch.setattr(pictures, "_made", lambda *args: made())
    monkeypatch.setattr("orchestrator.report.write", full)
    with caplog.at_level(logging.WARNING):
        pictures.illustrate(prepared, filled, summary(filled))
    assert [record.message for record in caplog.records] == ["the report has no pictures: No space left on device"]


def test_an_interrupt_leaves_the_pictures_out_and_the_report_is_there(
    untaught: Study, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupted(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainers.seen.look", interrupted)
    with caplog.at_level(logging.WARNING):
        page = session.rewrite(untaught)
    assert [record.message for record in caplog.records] == ["the report has no pictures: interrupted"]
    assert File(page).is_file()
