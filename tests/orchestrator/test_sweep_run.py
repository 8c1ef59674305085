"""A sweep for real: trained under Ray, given up early, reported, tracked, and the same after a kill."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path as File
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.orchestrator import studies
from tests.orchestrator.boards import the_answer
from tests.orchestrator.studies import TEXT, Ran, changed, tapath, underway, without, write

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SWEPT = changed(("epochs: 2", "epochs: 3"), text=without("low", text=TEXT)) + (
    "sweep:\n"
    "  LD.weight: {loguniform: [0.05, 2]}\n"
    "  LD.temperature: [5, 10]\n"
    "  sampler: tpe\n"
    "  samples: 6\n"
    "  stop: {halving: {grace: 1, factor: 3}}\n"
)
EDGES = [("big", "mid"), ("big", "wee"), ("big", "mid", "wee")]
RUN = ("run", "tiny.yaml")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[File, Ran]:
    """The folder of an undisturbed run, and what it said."""
    folder = tmp_path_factory.mktemp("swept")
    write(folder, SWEPT)
    ran = tapath(folder, *RUN, cores=None)
    assert ran.code == 0, ran.err
    return folder, ran


def by_edge(folder: File) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """The stages of a report by path."""
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for stage in studies.report(folder)["stages"]:
        found.setdefault(tuple(stage["path"]), []).append(stage)
    return found


def test_every_edge_trains_all_its_settings_and_gives_all_but_the_best_up(swept: tuple[File, Ran]) -> None:
    stages = by_edge(swept[0])
    assert set(stages) == {("big",), ("wee",), *EDGES}
    for edge in EDGES:
        assert Counter(stage["state"] for stage in stages[edge]) == {"done": 2, "pruned": 4}
        done = [stage for stage in stages[edge] if stage["state"] == "done"]
        pruned = [stage for stage in stages[edge] if stage["state"] == "pruned"]
        assert all(stage["epoch"] == 3 for stage in done) and all(stage["epoch"] == 1 for stage in pruned)
        at_first = {stage["key"]: stage["history"][0]["val/AP"] for stage in stages[edge]}
        assert min(at_first[stage["key"]] for stage in done) >= max(at_first[stage["key"]] for stage in pruned)
        settings = [json.dumps(stage["setting"], sort_keys=True) for stage in stages[edge]]
        assert len(set(settings)) == 6, "no point twice"
        assert all(0.05 <= stage["setting"]["LD.weight"] <= 2 for stage in stages[edge])
    assert "given up after 1 of 3 epochs" in {stage["reason"] for stage in stages[EDGES[0]]}


def test_the_winner_of_an_edge_teaches_all_that_come_after_it(swept: tuple[File, Ran]) -> None:
    stages = by_edge(swept[0])
    winner = max((s for s in stages["big", "mid"] if s["state"] == "done"), key=lambda stage: stage["score"])
    assert {stage["teacher"] for stage in stages["big", "mid", "wee"]} == {winner["key"]}
    whole = {stage["key"] for found in stages.values() for stage in found if stage["state"] == "done"}
    assert {stage["teacher"] for found in stages.values() for stage in found} <= {*whole, None}


def test_the_best_path_is_named_with_its_settings_and_is_the_best_of_what_was_trained_whole(
    swept: tuple[File, Ran],
) -> None:
    made = studies.report(swept[0])
    students = [s for s in made["stages"] if s["state"] == "done" and s["role"] == "student"]
    winner = max(students, key=lambda stage: stage["score"])
    assert the_answer(made)["best"]["path"] == winner["path"] and the_answer(made)["best"]["keys"] == [winner["key"]]
    assert (
        the_answer(made)["best"]["score"] == winner["score"]
        and the_answer(made)["best"]["settings"][-1] == winner["setting"]
    )


def test_mlflow_has_what_was_given_up_as_pruned_and_no_model_of_it(swept: tuple[File, Ran]) -> None:
    client = MlflowClient(f"sqlite:///{swept[0] / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = {r.data.tags["key"]: r for r in client.search_runs([experiment.experiment_id]) if "key" in r.data.tags}
    stages = studies.report(swept[0])["stages"]
    assert {key: run.data.tags["state"] for key, run in runs.items()} == {s["key"]: s["state"] for s in stages}
    models = client.search_logged_models([experiment.experiment_id])
    ready = {model.tags["key"] for model in models if model.status == "READY"}
    pruned = {stage["key"] for stage in stages if stage["state"] == "pruned"}
    assert not ready & pruned and ready == {stage["key"] for stage in stages} - pruned
    for key in pruned:
        assert runs[key].info.status == "KILLED"
        assert [point.step for point in client.get_metric_history(runs[key].info.run_id, "val/AP")] == [1]


def test_what_was_given_up_keeps_its_last_checkpoint(swept: tuple[File, Ran]) -> None:
    pruned = {s["key"] for s in studies.report(swept[0])["stages"] if s["state"] == "pruned"}
    assert {file.parent.name for file in (swept[0] / "store").glob("*/state-*.pt")} == pruned
    assert {file.parent.name for file in (swept[0] / "store").glob("*/paused.json")} == pruned


def test_the_report_from_mlflow_alone_has_the_same_settings_winners_and_rungs(
    swept: tuple[File, Ran], tmp_path: File
) -> None:
    shutil.copy(swept[0] / "mlflow.db", tmp_path)
    ended = tapath(tmp_path, "report", "--experiment", "tiny")
    assert ended.code == 0 and ended.err == "", ended.err
    mine, theirs = studies.report(tmp_path), studies.report(swept[0])
    own = ("created", "seconds", "cost")
    assert {name: mine[name] for name in mine if name not in own} == {
        name: theirs[name] for name in theirs if name not in own
    }
    counted = {
        tuple(race["path"]): [(rung["epoch"], rung["reached"], rung["went_on"]) for rung in race["rungs"]]
        for race in mine["rungs"]
    }
    assert counted == {edge: [(1, 6, 2), (3, 2, None)] for edge in EDGES}


def test_best_asks_mlflow_for_the_winners_path(swept: tuple[File, Ran]) -> None:
    made = studies.report(swept[0])
    ended = tapath(swept[0], "best", "tiny.yaml")
    assert ended.code == 0 and ended.out.startswith(" > ".join(the_answer(made)["best"]["path"]) + "  score")
    found = json.loads(tapath(swept[0], "best", "tiny.yaml", "--json").out)
    assert list(found["keys"].values()) == the_answer(made)["best"]["keys"]


def test_run_again_it_trains_nothing_and_reports_the_same(swept: tuple[File, Ran]) -> None:
    folder = swept[0]
    before, written = studies.report(folder), studies.written(folder)
    states = {file.name: file.stat().st_mtime_ns for file in (folder / "store").glob("*/state-*.pt")}
    again = tapath(folder, *RUN)
    assert again.code == 0, again.err
    assert studies.written(folder) == written
    assert {file.name: file.stat().st_mtime_ns for file in (folder / "store").glob("*/state-*.pt")} == states
    after = studies.report(folder)
    kept = {stage["key"]: "pruned" if stage["state"] == "pruned" else "reused" for stage in before["stages"]}
    assert {stage["key"]: stage["state"] for stage in after["stages"]} == kept
    assert the_answer(after)["best"]["keys"] == the_answer(before)["best"]["keys"]


def test_killed_in_the_middle_and_run_again_it_ends_with_the_same_answer(
    swept: tuple[File, Ran], tmp_path: File
) -> None:
    write(tmp_path, SWEPT)
    with underway(tmp_path, *RUN, cores=None) as command:
        command.until(lambda: len(list((tmp_path / "store").glob("*/paused.json"))) >= 3)
        command.look()
        command.popen.kill()
        command.popen.wait()
    ended = tapath(tmp_path, *RUN, cores=None)
    assert ended.code == 0, ended.err
    assert studies.stored(tmp_path) == studies.stored(swept[0])
    mine, theirs = studies.report(tmp_path), studies.report(swept[0])
    assert (
        the_answer(mine)["best"]["keys"] == the_answer(theirs)["best"]["keys"]
        and the_answer(mine)["best"]["score"] == the_answer(theirs)["best"]["score"]
    )
    pruned = [{s["key"] for s in made["stages"] if s["state"] == "pruned"} for made in (mine, theirs)]
    assert pruned[0] == pruned[1]
