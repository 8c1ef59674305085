"""Equal models under two names, swept: a stage is as much of the second name's paths as of the first's."""

from __future__ import annotations

import random
from pathlib import Path as File

import pytest

from orchestrator import verdict
from orchestrator.asked import students
from orchestrator.lattice import best
from orchestrator.prepared import Prepared, prepare
from orchestrator.study import Study, load
from tests.orchestrator.studies import changed, without, write
from trainers.spec import Best, Stage

TWINS = changed(
    ("  wee: {detector", "  first: {detector"),
    ("controls", "sweep: {LD.weight: [0.1, 0.2]}\ncontrols"),
    text=without("mid", "low"),
)


def study(folder: File, *sets: str) -> Study:
    (line,) = (line for line in TWINS.splitlines() if line.startswith("  first: "))
    text = TWINS.replace(line, f"{line}\n{line.replace('first', 'second')}")
    return load(write(folder, text), (f"resources.store={folder / 'store'}", *sets))


@pytest.mark.parametrize("search", ["exhaustive", "best_predecessor", "greedy", "{promising: {of: exhaustive}}"])
def test_the_best_path_is_among_those_that_mlflow_is_asked_for(
    tmp_path: File, monkeypatch: pytest.MonkeyPatch, search: str
) -> None:
    def score(prepared: Prepared, stage: Stage, *_: object, **__: object) -> float:
        return random.Random(stage.key).random()

    monkeypatch.setattr(Prepared, "stored", score)
    monkeypatch.setattr(Prepared, "paused", score)
    made = study(tmp_path, f"search={search}")
    prepared = prepare(made)
    frontier = prepared.frontier(prepared.stored)
    path = best(frontier.scores, prepared.lattice, "second")
    assert path is not None and {prepared.lattice.stage(path, seed).key for seed in made.seeds} <= students(made)[0]


def test_epochs_that_a_setting_selects_are_selected_by_the_figure_that_ranks(tmp_path: File) -> None:
    prepared = prepare(study(tmp_path, "sweep={recipe.select: [best, last]}"))
    wanted = [node for node in prepared.frontier(lambda stage: 0.5).wanted() if node.path.settings]
    assert {str(node.stage.recipe.select) for node in wanted} == {str(Best(best="AP")), "last"}


def test_a_lead_by_a_setting_that_the_same_seeds_chose_is_said_to_be_flattered() -> None:
    best_of = {"best": {"keys": ["a"]}}
    stages = [{"key": "a", "setting": {"LD.weight": 0.1}}, {"key": "b", "setting": {}}]
    assert len(verdict._swept({"seeds": [0, 1], "stages": stages}, best_of)) == 1
    assert not verdict._swept({"seeds": [0], "stages": stages}, best_of)
    assert not verdict._swept({"seeds": [0, 1], "stages": stages}, {"best": {"keys": ["b"]}})
    assert not verdict._swept({"seeds": [0, 1], "stages": stages}, {"best": None})
