"""When something goes wrong in a run: what is lost, what goes on, and who says so."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path as File

import pytest
from mlflow import MlflowClient

from tests.orchestrator import studies
from tests.orchestrator.boards import the_answer
from tests.orchestrator.studies import Ran, changed, tapath, without, write
from tests.orchestrator.test_session import copy

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def broken(finished: File, tmp_path_factory: pytest.TempPathFactory) -> tuple[File, Ran, Ran]:
    """A study beside the first: `mid` learns at a rate at which nothing can, `wee` longer than before. Run twice."""
    folder = copy(finished, tmp_path_factory.mktemp("broken"))
    wild = ("{TinyResNet: {width: 12}}}", "{TinyResNet: {width: 12}}, recipe: {lr: 1.0e+30}}")
    longer = ("{TinyResNet: {width: 4}}}", "{TinyResNet: {width: 4}}, recipe: {epochs: 3}}")
    write(folder, changed(wild, longer, ("name: tiny", "name: broken"), text=without("low")))
    return folder, tapath(folder, "run", "tiny.yaml"), tapath(folder, "run", "tiny.yaml")


def test_another_study_reuses_the_stages_that_it_shares(broken: tuple[File, Ran, Ran], finished: File) -> None:
    folder, ran, _ = broken
    written = studies.written(folder)
    there = studies.stages(finished)["big",]["key"]
    assert studies.stages(folder, "broken")["big",]["key"] == there
    assert written[there][0] == studies.written(finished)[there][0]
    assert "started  big  " not in ran.err
    assert len(written) == 9 + 2, "wee alone and big > wee are new"


def test_a_loss_that_becomes_non_finite_fails_its_stage_by_name_with_reason_and_step(
    broken: tuple[File, Ran, Ran],
) -> None:
    folder, ran, _ = broken
    assert ran.code == 3, ran.err
    (said,) = (line for line in ran.err.splitlines() if "  failed   " in line)
    assert "big > mid" in said and "loss" in said and "step" in said
    assert "nan" in said or "inf" in said
    failed = studies.stages(folder, "broken")["big", "mid"]
    assert failed["state"] == "failed" and failed["reason"] in said and failed["score"] is None


def test_the_log_of_a_job_has_the_reason_once_and_ends_with_where_it_came_from_and_what_to_do(
    broken: tuple[File, Ran, Ran],
) -> None:
    folder, ran, _ = broken
    failed = studies.stages(folder, "broken")["big", "mid"]
    assert (ran.err + ran.out).count(failed["reason"]) == 1
    where = f"runs/broken/failed-{failed['key']}.txt"
    assert f"\nfailed: big > mid (seed 0): as said above; where: {where}\n" in ran.out
    assert "Traceback" in (folder / where).read_text()
    assert "\nWhat is done is kept; the same command tries again what failed.\n" in ran.out


def test_what_the_failed_stage_would_have_taught_is_lost_and_the_rest_goes_on(broken: tuple[File, Ran, Ran]) -> None:
    there = studies.stages(broken[0], "broken")
    assert there["big", "mid", "wee"]["state"] == "lost"
    assert {there[path]["state"] for path in [("big",), ("big", "wee"), ("wee",)]} <= {"done", "reused"}


def test_the_report_is_written_all_the_same(broken: tuple[File, Ran, Ran]) -> None:
    folder, ran, _ = broken
    page = folder / "runs" / "broken" / "report.html"
    assert str(page.relative_to(folder)) in ran.out
    assert "big" in page.read_text() and "non" not in the_answer(studies.report(folder, "broken"))["best"]["path"]
    assert the_answer(studies.report(folder, "broken"))["best"]["path"] == ["big", "wee"]


def test_a_failure_is_not_remembered_so_that_a_later_run_tries_again(broken: tuple[File, Ran, Ran]) -> None:
    folder, first_run, second = broken
    key = studies.stages(folder, "broken")["big", "mid"]["key"]
    assert not (folder / "store" / key / "result.json").exists()
    assert second.code == 3
    assert second.err.count("started") == 1 and "started  big > mid" in second.err
    assert first_run.err.count("started") == 3, "big > mid, big > wee and wee alone"


def test_mlflow_says_which_stage_failed_and_why(broken: tuple[File, Ran, Ran]) -> None:
    client = MlflowClient(f"sqlite:///{broken[0] / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("broken")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    failed = [run for run in runs if run.info.status == "FAILED" and run.data.tags.get("path") == "big > mid"]
    assert failed and "loss" in failed[0].data.tags["reason"]
    assert "RUNNING" not in {run.info.status for run in runs}


@pytest.fixture(scope="module")
def damaged(finished: File, tmp_path_factory: pytest.TempPathFactory) -> tuple[File, Ran]:
    """One teacher's weights have a flipped bit, another's record was made better by hand; their students are gone."""
    folder = copy(finished, tmp_path_factory.mktemp("damaged"))
    there, store = studies.stages(finished), folder / "store"
    for path in [("big", "mid", "wee"), ("big", "low", "wee")]:
        shutil.rmtree(store / there[path]["key"])
    weights = store / there["big", "mid"]["key"] / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    record = store / there["big", "low"]["key"] / "result.json"
    result = json.loads(record.read_text())
    result["score"] = 0.9
    record.write_text(json.dumps(result))
    return folder, tapath(folder, "run", "tiny.yaml")


def test_damaged_weights_are_set_aside_and_trained_anew(damaged: tuple[File, Ran], finished: File) -> None:
    folder, ran = damaged
    there, old, new = studies.stages(finished), studies.stored(finished), studies.stored(folder)
    teacher, student = there["big", "mid"]["key"], there["big", "mid", "wee"]["key"]
    assert list((folder / "store" / teacher).glob("*.corrupt"))
    assert new[teacher] == old[teacher], "the same weights come out, bit for bit"
    assert new[student] == old[student]
    assert "started  big > mid  " in ran.err


def test_a_teacher_whose_score_is_not_its_record_may_not_teach(damaged: tuple[File, Ran], finished: File) -> None:
    folder, ran = damaged
    assert ran.code == 3, ran.err
    really = studies.stages(finished)["big", "low"]["score"]
    (said,) = (line for line in ran.err.splitlines() if "  failed   " in line)
    assert "big > low > wee" in said
    assert "0.9000" in said and f"{really:.4f}" in said, "both figures"
    assert not (folder / "store" / studies.stages(finished)["big", "low", "wee"]["key"] / "result.json").exists()


def test_a_stage_that_can_never_be_placed_is_an_error_with_both_figures(tmp_path: File) -> None:
    write(tmp_path)
    ran = tapath(tmp_path, "run", "tiny.yaml", "--set", "resources.cpus=64000")
    assert ran.code == 2, ran.out + ran.err
    assert "64000 CPU" in ran.err and re.search(r"the cluster has \d+ CPU on 1 node", ran.err)
    assert not list((tmp_path / "store").glob("*")), "nothing was begun"
