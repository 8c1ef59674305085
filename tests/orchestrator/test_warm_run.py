"""A sweep that starts from an earlier study, for real: trained, tracked, reported, and the same after a kill."""

from __future__ import annotations

import json
import shutil
from pathlib import Path as File
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.orchestrator import studies
from tests.orchestrator.studies import Ran, changed, tapath, underway, without, write

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# The earlier study, the tiny one, had one weight in this range: its trainings lie in the same store.
WARM = changed(("name: tiny", "name: warm"), text=without("low")) + (
    "edges: [[big, mid], [mid, wee]]\n"
    "sweep:\n  LD.weight: {loguniform: [0.05, 2]}\n  sampler: tpe\n  samples: 6\n  warm_start: true\n"
)
EDGES = [("big", "mid"), ("mid", "wee")]


def beside(finished: File, folder: File) -> File:
    """The study in a copy of the folder where the earlier one was run."""
    shutil.copytree(finished, folder)
    write(folder, WARM, "warm.yaml")
    return folder


@pytest.fixture(scope="module")
def ran(finished: File, tmp_path_factory: pytest.TempPathFactory) -> tuple[File, Ran, Ran]:
    """The folder of an undisturbed run, and what `plan` and `run` said."""
    folder = beside(finished, tmp_path_factory.mktemp("warm") / "here")
    planned, ended = tapath(folder, "plan", "warm.yaml"), tapath(folder, "run", "warm.yaml")
    assert ended.code == 0, ended.err
    return folder, planned, ended


def points(folder: File) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """The settings that were tried, by path."""
    return {tuple(edge["path"]): edge["points"] for edge in studies.report(folder, "warm")["sweeps"]}


def test_plan_and_run_say_what_each_sweep_starts_from(ran: tuple[File, Ran, Ran]) -> None:
    _, planned, ended = ran
    for teacher, student in EDGES:
        said = f"the sweep of {teacher} > {student} starts from 1 setting that earlier studies found: LD.weight 0.25"
        assert f"{said} (experiment tiny, AP " in planned.out and said in ended.err


def test_every_edge_tries_it_and_does_not_train_it_again_where_the_store_has_it(
    ran: tuple[File, Ran, Ran], finished: File
) -> None:
    found = points(ran[0])
    assert set(found) == {("big", "mid"), ("big", "mid", "wee")}
    for tried in found.values():
        warm = [point for point in tried if point["warm"]]
        assert len(tried) == 6 and [point["values"] for point in warm] == [{"LD.weight": 0.25}]
        assert warm[0]["warm"].startswith("experiment tiny, AP ") and warm[0]["state"] == "done"
    before, after = studies.written(finished), studies.written(ran[0])
    assert before.keys() < after.keys()
    reused = [s for s in studies.report(ran[0], "warm")["stages"] if s["state"] == "reused" and s["setting"]]
    assert [s["setting"] for s in reused if s["path"] == ["big", "mid"]] == [{"LD.weight": 0.25}]


def test_its_trial_has_a_tag_that_says_where_it_came_from(ran: tuple[File, Ran, Ran]) -> None:
    client = MlflowClient(f"sqlite:///{ran[0] / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("warm")
    assert experiment is not None
    tags = [run.data.tags for run in client.search_runs([experiment.experiment_id]) if "key" in run.data.tags]
    tagged = [one for one in tags if "warm_start" in one]
    assert sorted(one["path"] for one in tagged) == ["big > mid", "big > mid > wee"]
    assert all(one["sweep"] == "LD.weight 0.25" for one in tagged)
    assert all(one["warm_start"].startswith("experiment tiny, AP ") for one in tagged)


def test_the_page_shows_it_in_the_table_of_the_sweeps(ran: tuple[File, Ran, Ran]) -> None:
    page = (ran[0] / "runs" / "warm" / "report.html").read_text()
    assert page.count("6, 1 of earlier studies") == 2
    winners = [point for tried in points(ran[0]).values() for point in tried if point["won"] and point["warm"]]
    assert page.count("(from experiment tiny, AP ") == len(winners)


def test_a_run_that_was_killed_asks_for_the_same_though_mlflow_has_more_by_then(
    ran: tuple[File, Ran, Ran], finished: File, tmp_path: File
) -> None:
    folder = beside(finished, tmp_path / "here")
    before = len(studies.stored(folder))
    with underway(folder, "run", "warm.yaml") as command:
        command.until(lambda: len(studies.stored(folder)) >= before + 3)
        command.look()
        command.popen.kill()
        command.popen.wait()
    assert len(studies.stored(folder)) < len(studies.stored(ran[0]))
    kept = {file: file.stat().st_mtime_ns for file in (folder / "store" / "warm").iterdir()}
    assert len(kept) == len(EDGES)
    shutil.copy(ran[0] / "mlflow.db", folder / "mlflow.db")
    ended = tapath(folder, "run", "warm.yaml")
    assert ended.code == 0, ended.err
    assert studies.stored(folder) == studies.stored(ran[0])
    assert {file: file.stat().st_mtime_ns for file in (folder / "store" / "warm").iterdir()} == kept
    found, theirs = (
        {
            path: [(point["values"], point["warm"], point["won"]) for point in tried]
            for path, tried in points(where).items()
        }
        for where in (folder, ran[0])
    )
    assert {path: sorted(map(json.dumps, tried)) for path, tried in found.items()} == {
        path: sorted(map(json.dumps, tried)) for path, tried in theirs.items()
    }
