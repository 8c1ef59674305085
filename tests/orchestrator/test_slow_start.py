"""Trainings that end within their warm-up are named, by a plan and by a run."""

from __future__ import annotations

import json
from pathlib import Path as File
from typing import Any

import pytest

from orchestrator import plan as planning
from orchestrator import slow_start
from orchestrator.study import load
from tests.orchestrator.stored import store
from tests.orchestrator.studies import changed, tapath, without, write

# Four steps an epoch; the rate is the same all the way but for the warm-up.
STEADY = (("schedule: OneCycle, warmup: 0, ", "schedule: Constant, "),)


def planned(folder: File, *sets: str, data: bool = True) -> dict[str, Any]:
    file = write(folder, changed(*STEADY))
    return planning.plan(load(file, (f"resources.store={folder / 'store'}", *sets)), data=data)


def test_a_training_with_fewer_steps_than_its_warm_up_is_named_with_what_would_do(tmp_path: File) -> None:
    made = planned(tmp_path, "recipe.epochs=39")
    (one,) = made["slow_start"]
    assert (one["models"], one["warmup"], one["steps"]) == (["big", "mid", "low", "wee"], 500, 156)
    assert one["reaches"] == pytest.approx(0.001 + 0.999 * 155 / 500)
    said = "warning: big, mid, low, wee: the learning rate reaches 31% of lr, as its warm-up takes 500 steps and the "
    assert f"{said}training has 156; write warmup: 15 into the recipe, or more epochs" in planning.text(made)
    assert planned(tmp_path, "recipe.epochs=39", "recipe.warmup=15")["slow_start"] == []


def test_a_warm_up_that_is_over_and_leaves_the_rate_as_it_is_is_not(tmp_path: File) -> None:
    assert planned(tmp_path, "recipe.epochs=4", "recipe.warmup=14")["slow_start"] == []  # 16 steps
    assert planned(tmp_path, "recipe.epochs=4", "recipe.warmup=16")["slow_start"]
    (one,) = planned(tmp_path, "recipe.epochs=4", "recipe.warmup=14", "recipe.schedule=Step")["slow_start"]
    assert one["reaches"] < 0.9, "the rate falls before it is there"
    low = "recipe.schedule={Step: {at: [0.0]}}"
    assert planned(tmp_path, "recipe.epochs=40", "recipe.warmup=20", low)["slow_start"] == [], "so is the schedule"


def test_only_those_are_named_that_have_it(tmp_path: File) -> None:
    made = planned(tmp_path, "recipe.warmup=0", "models.low.recipe={warmup: 9}")
    assert [one["models"] for one in made["slow_start"]] == [["low"]]


def test_what_a_search_trains_in_part_is_named_as_such(tmp_path: File) -> None:
    halving = "search={successive_halving: {budgets: [0.1, 1]}}"
    made = planned(tmp_path, "recipe.epochs=20", "recipe.warmup=10", halving)
    assert {name for one in made["slow_start"] for name in one["models"]} == {"mid @0.1", "low @0.1", "wee @0.1"}
    assert planned(tmp_path, "recipe.epochs=20", "recipe.warmup=10")["slow_start"] == []


def test_what_is_trained_or_not_read_is_not_looked_at(tmp_path: File) -> None:
    file = write(tmp_path, changed(*STEADY))
    study = load(file, (f"resources.store={tmp_path / 'store'}",))
    store(study, ("big",))
    (one,) = planning.plan(study)["slow_start"]
    assert one["models"] == ["mid", "low", "wee"]
    assert planned(tmp_path, data=False)["slow_start"] == []


def test_of_many_kinds_some_are_shown() -> None:
    found = [{"models": ["a"], "warmup": 500, "steps": steps, "reaches": 0.2} for steps in range(10, 17)]
    lines = slow_start.text(found)
    assert len(lines) == 6 and lines[-1] == "and 2 more such trainings; `tapath plan --json` has them all"
    assert slow_start.text([]) == []


@pytest.mark.ray
def test_a_run_says_it_once_where_people_read_and_in_its_log(tmp_path: File) -> None:
    write(tmp_path, changed(*STEADY, ("epochs: 2", "epochs: 1"), text=without("mid", "low")))
    ran = tapath(tmp_path, "run", "tiny.yaml", "--json-lines")
    assert ran.code == 0, ran.err
    notes = [one["text"] for one in map(json.loads, ran.out.splitlines()) if "text" in one]
    assert sum("big, wee: the learning rate reaches" in text for text in notes) == 1
    assert (tmp_path / "runs/tiny/run.log").read_text().count("big, wee: the learning rate reaches") == 1
