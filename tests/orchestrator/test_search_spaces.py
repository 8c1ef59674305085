"""Every study that comes with the project can be planned as it stands; and what some of them are about."""

from __future__ import annotations

from functools import cache
from pathlib import Path as File
from typing import Any

import pytest
import torch

from orchestrator import plan as planning
from orchestrator import strategies
from orchestrator.study import Study, load
from trainers import backbones, data, detectors, distill, metrics, optim, schedules
from trainers.call import Call, offers
from trainers.data.split import Split
from trainers.spec import Recipe

FOLDER = File(__file__).parents[2] / "search_spaces"
STUDIES = sorted(file.stem for file in FOLDER.glob("*.yaml"))
EVERY = sorted(file.relative_to(FOLDER).with_suffix("").as_posix() for file in FOLDER.rglob("*.yaml"))
PUBLISHED = [name for name in EVERY if "/" in name and not name.startswith("small/")]


def study(name: str, folder: File, *sets: str) -> Study:
    return load(FOLDER / f"{name}.yaml", (f"resources.store={folder}", *sets))


@cache
def as_written(name: str) -> Study:
    return load(FOLDER / f"{name}.yaml")


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
    assert made["trainings"]["missing"] == made["trainings"]["needed"] >= len(made["stages"])
    assert study(name, tmp_path).sweep or made["trainings"]["needed"] == len(made["stages"])
    assert "trainings" in planning.text(made)


@pytest.mark.parametrize("name", EVERY)
def test_it_can_be_planned_without_its_data_and_bears_the_name_of_its_place(
    name: str, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = as_written(name)
    assert made.name == name.replace("/", "_")
    planned = planning.plan(made, data=False)
    assert planned["provisional"] and planned["data"] is None and planned["isolated"] == []
    assert planned["paths"] >= 1 and all(model["flops"] > 1e6 for model in planned["models"])
    assert planned["trainings"]["missing"] == planned["trainings"]["needed"] >= len(planned["stages"])
    assert list(tmp_path.iterdir()) == [], "a plan writes nothing"


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_it_expects_its_metric_can_say(name: str) -> None:
    made = as_written(name)
    figures = {figure for published in made.expected.values() for figure in published}
    assert figures <= known(Call.model_validate(made.data.args["metric"]))
    assert bool(made.expected) == bool(made.source), "figures have a source"
    assert made.expected or name.startswith("mimic/"), "the tables of Li et al. could not be found"


@pytest.mark.parametrize("name", EVERY)
def test_it_begins_by_saying_what_it_is(name: str) -> None:
    comment = [line for line in (FOLDER / f"{name}.yaml").read_text().splitlines() if line.startswith("#")]
    assert 1 <= len(comment) <= 8
    if name in PUBLISHED:
        said = " ".join(line.strip("# ") for line in comment)
        assert "https://" in said and "GPU" in said and said.endswith("planned, not run here.")


def known(metric: Call) -> set[str]:
    """What a metric says of a split that has one object of every size."""
    sizes = {"s": 20.0, "m": 60.0, "l": 200.0}
    annotations = [
        {"id": n, "image_id": 1, "category_id": 1, "bbox": [10, 10, side, side], "area": side**2, "iscrowd": 0}
        for n, side in enumerate(sizes.values(), 1)
    ]
    images = [{"id": 1, "file_name": "1.jpg", "width": 640, "height": 480}]
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    split = Split(coco, ("person",), lambda index: torch.zeros(3, 480, 640, dtype=torch.uint8))
    return set(metric.complete(metrics).of(metrics).figures(split))


def calls(value: Any) -> set[str]:
    """The names of all calls in a resolved study."""
    if isinstance(value, dict):
        return set(value) | set().union(*map(calls, value.values()))
    if isinstance(value, list):
        return set().union(*map(calls, value)) if value else set()
    return {value} if isinstance(value, str) else set()


def test_every_detector_backbone_loss_data_set_and_metric_has_a_study() -> None:
    named = set().union(*(calls(as_written(name).resolved()) for name in EVERY))
    for package in (detectors, backbones, distill, data, metrics, optim, schedules, strategies):
        assert not (missing := offers(package).keys() - named), f"{package.__name__}: no study has {missing}"


def test_every_knob_of_a_recipe_is_turned_by_some_study() -> None:
    plain, turned = Recipe(), set[str]()
    for name in EVERY:
        for one in as_written(name).models.values():
            turned |= {knob for knob in Recipe.model_fields if getattr(one.recipe, knob) != getattr(plain, knob)}
    assert turned == Recipe.model_fields.keys()


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
