"""Every study that comes with the project can be planned as it stands; and what some of them are about."""

from __future__ import annotations

from pathlib import Path as File
from typing import Any

import pytest

from orchestrator import plan as planning
from orchestrator.study import Study, load

FOLDER = File(__file__).parents[2] / "search_spaces"
STUDIES = sorted(file.stem for file in FOLDER.glob("*.yaml"))


def study(name: str, folder: File, *sets: str) -> Study:
    return load(FOLDER / f"{name}.yaml", (f"resources.store={folder}", *sets))


@pytest.fixture
def planned(tmp_path: File) -> Any:
    return lambda name, *sets: planning.plan(study(name, tmp_path, *sets))


def keys(made: dict[str, Any]) -> dict[tuple[tuple[str, ...], int], str]:
    return {(tuple(stage["path"]), stage["seed"]): stage["key"] for stage in made["stages"]}


def test_there_are_studies() -> None:
    assert {"demo", "self_ld", "takd"} <= set(STUDIES)


@pytest.mark.parametrize("name", STUDIES)
def test_it_bears_the_name_of_its_file_and_can_be_planned(planned: Any, name: str, tmp_path: File) -> None:
    assert study(name, tmp_path).name == name
    made = planned(name)
    assert made["paths"] >= 1 and made["isolated"] == []
    assert made["trainings"]["missing"] == len(made["stages"]) == made["trainings"]["needed"]
    assert "trainings" in planning.text(made)


def test_self_ld_has_one_model_under_two_names_whose_teacher_is_the_student_alone(planned: Any, tmp_path: File) -> None:
    teacher, student = study("self_ld", tmp_path).models.values()
    assert teacher.model == student.model and teacher.recipe == student.recipe
    found = keys(planned("self_ld"))
    assert {path for path, _ in found} == {("teacher",), ("teacher", "student")}
    assert len(set(found.values())) == len(found) == 6  # three seeds; no training for the student alone


def test_takd_has_all_paths_of_two_assistants_and_kd_alone(planned: Any, tmp_path: File) -> None:
    assert [loss.name for loss in study("takd", tmp_path).distill] == ["KD"]
    made = planned("takd")
    assert made["paths"] == 4
    students = {path for path, _ in keys(made) if path[-1] == "tiny" and len(path) > 1}
    middle: tuple[tuple[str, ...], ...] = ((), ("medium",), ("small",), ("medium", "small"))
    assert students == {("large", *assistants, "tiny") for assistants in middle}


def test_another_temperature_of_takd_is_another_training_of_all_but_the_untaught(planned: Any) -> None:
    once, again = keys(planned("takd")), keys(planned("takd", "distill.0.KD.temperature=2"))
    assert {path for (path, seed), key in once.items() if again[path, seed] == key} == {("large",), ("tiny",)}
