"""`tapath run` from YAML to the best path, and what it leaves for others: store, MLflow and report."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path as File
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.orchestrator import studies
from tests.orchestrator.boards import the_answer
from tests.orchestrator.studies import PATHS, STAGES, Ran, changed, tapath, without, write

pytestmark = pytest.mark.ray


def copy(finished: File, folder: File) -> File:
    """The undisturbed run's folder, to be changed. Nothing absolute is stored, so it may move."""
    shutil.copytree(finished, folder, dirs_exist_ok=True)
    return folder


# One study, end to end.


def test_a_study_ends_with_exit_code_0_and_every_stage_trained_once(first: tuple[File, Ran]) -> None:
    folder, ran = first
    assert ran.code == 0, ran.err
    made = studies.report(folder)
    assert len(made["stages"]) == 9
    assert {tuple(stage["path"]) for stage in made["stages"]} == STAGES
    assert not any(stage["reused"] for stage in made["stages"])
    assert len(studies.stored(folder)) == 9
    # Each once: its start and its end are said once, and no more than its two epochs are recorded.
    assert ran.err.count(" started ") == ran.err.count("  done  ") == 9
    assert all([epoch["epoch"] for epoch in stage["history"]] == [1, 2] for stage in made["stages"])


def test_it_ends_with_the_best_path_its_gains_and_where_the_report_is(first: tuple[File, Ran]) -> None:
    folder, ran = first
    best = the_answer(studies.report(folder))["best"]
    assert " > ".join(best["path"]) in ran.out
    assert f"{best['score']:.3f}" in ran.out
    assert "wee alone" in ran.out
    assert f"{best['gain_over_baseline']:+.3f}" in ran.out
    if best["path"] != ["big", "wee"]:
        assert f"{best['gain_over_direct']:+.3f}" in ran.out
    assert str(File("runs", "tiny", "report.html")) in ran.out.splitlines()[-1]


def test_the_report_has_the_figures_of_the_store(finished: File) -> None:
    made, store = studies.report(finished), studies.stored(finished)
    assert {stage["key"]: stage["score"] for stage in made["stages"]} == {key: s for key, (s, _) in store.items()}
    assert all(stage["seconds"] > 0 for stage in made["stages"])
    scores = {tuple(stage["path"]): stage["score"] for stage in made["stages"]}
    best = max(PATHS, key=scores.__getitem__)
    assert (tuple(the_answer(made)["best"]["path"]), the_answer(made)["best"]["score"]) == (best, scores[best])
    assert (the_answer(made)["baseline"]["path"], the_answer(made)["baseline"]["score"]) == (["wee"], scores["wee",])
    assert (the_answer(made)["direct"]["path"], the_answer(made)["direct"]["score"]) == (
        ["big", "wee"],
        scores["big", "wee"],
    )
    page = (finished / "runs" / "tiny" / "report.html").read_text()
    assert "big" in page and f"{scores[best]:.3f}" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "src=" not in page, "it opens offline"


def test_every_teacher_is_stored_before_its_student_starts(finished: File) -> None:
    """By the files: a student's result is younger than its teacher's."""
    written = studies.written(finished)
    for stage in studies.report(finished)["stages"]:
        if stage["teacher"]:
            assert written[stage["teacher"]][0] < written[stage["key"]][0]


def test_nothing_is_left_of_half_trained_stages(finished: File) -> None:
    assert {file.name for file in (finished / "store").glob("*/*")} == {
        "result.json",
        "weights.safetensors",
        "measured.json",
    }


def test_it_writes_nothing_but_the_store_the_runs_and_mlflow(finished: File) -> None:
    names = {file.name for file in finished.iterdir() if not file.name.startswith(".mlflow.db")}
    assert names == {"tiny.yaml", "store", "runs", "mlflow.db", "mlartifacts"}


# MLflow.


@pytest.fixture(scope="module")
def client(finished: File) -> MlflowClient:
    return MlflowClient(f"sqlite:///{finished / 'mlflow.db'}")


@pytest.fixture(scope="module")
def runs(client: MlflowClient) -> list[Any]:
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def test_mlflow_has_a_parent_run_and_a_child_for_each_stage(runs: list[Any], finished: File) -> None:
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run not in parents]
    assert len(parents) == 1 and len(children) == 9
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parents[0].info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
    by_key = {run.data.tags["key"]: run.data.tags for run in children}
    for stage in studies.report(finished)["stages"]:
        tags = by_key[stage["key"]]
        assert tags["path"] == " > ".join(stage["path"])
        assert tags["teacher_key"] == (stage["teacher"] or "")
        assert tags["role"] == stage["role"]
    roles = sorted(tags["role"] for tags in by_key.values())
    assert roles == ["alone", *["assistant"] * 3, *["student"] * 4, "teacher"]


def test_mlflow_has_all_parameters_and_the_metrics_of_every_epoch(
    client: MlflowClient, runs: list[Any], finished: File
) -> None:
    for path, stage in studies.stages(finished).items():
        (run,) = (run for run in runs if run.data.tags.get("key") == stage["key"])
        assert run.data.params["recipe.lr"] == "0.008"
        assert run.data.params["recipe.optimizer"] == "AdamW"
        assert ("distill.LD.temperature" in run.data.params) == (stage["teacher"] is not None)
        for name in ["val/AP", *(["train/loss_ld"] if stage["teacher"] else [])]:
            points = {point.step: point.value for point in client.get_metric_history(run.info.run_id, name)}
            assert points == {int(e["epoch"]): pytest.approx(e[name]) for e in stage["history"]}, (path, name)


def test_mlflow_has_a_model_for_each_checkpoint_with_score_place_and_digest(
    client: MlflowClient, runs: list[Any], finished: File
) -> None:
    models = client.search_logged_models([runs[0].info.experiment_id])
    assert len(models) == 9
    store = studies.stored(finished)
    for model in models:
        score, digest = store[model.tags["key"]]
        assert model.tags["sha256"] == digest
        assert File(model.tags["uri"].removeprefix("file://")).samefile(
            finished / "store" / model.tags["key"] / "weights.safetensors"
        )
        assert {m.key: m.value for m in model.metrics or ()}["score"] == pytest.approx(score)


def test_the_best_student_is_registered_with_the_alias_best(client: MlflowClient, finished: File) -> None:
    best = the_answer(studies.report(finished))["best"]
    version = client.get_model_version_by_alias("tiny", "best")
    assert version.tags["key"] == studies.stages(finished)[tuple(best["path"])]["key"]


# Asked by another process.


def test_best_asks_mlflow_after_the_run_is_gone_by_study_and_by_experiment(finished: File) -> None:
    best = the_answer(studies.report(finished))["best"]
    by_study = tapath(finished, "best", "tiny.yaml", "--json")
    by_name = tapath(finished, "best", "--experiment", "tiny", "--json", program=studies.MODULE)
    assert (by_study.code, by_name.code) == (0, 0), by_study.err + by_name.err
    found = json.loads(by_study.out)
    assert found == json.loads(by_name.out)
    assert found["path"] == " > ".join(best["path"])
    assert found["score"] == pytest.approx(best["score"])


# Again, and beside others.


KILLED = "import os; from trainers.scratch import scratch; made = scratch(); os._exit(9)"


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> File:
    """Where temporary files go; there is a folder of a run that was killed."""
    folder = tmp_path_factory.mktemp("temporary")
    subprocess.run([sys.executable, "-c", KILLED], env={**os.environ, "TMPDIR": str(folder)})
    assert len(list(folder.glob("tapath-*"))) == 1
    return folder


@pytest.fixture(scope="module")
def again(finished: File, temporary: File, tmp_path_factory: pytest.TempPathFactory) -> tuple[File, Ran, float]:
    """The same command a second time, in a copy of the first one's folder, and how long a core worked for it."""
    folder, before = copy(finished, tmp_path_factory.mktemp("again") / "moved"), os.times()
    ran, after = tapath(folder, "run", "tiny.yaml", program=(studies.TAPATH,), TMPDIR=str(temporary)), os.times()
    worked = after.children_user - before.children_user + after.children_system - before.children_system
    return folder, ran, worked


def test_running_again_trains_nothing_and_is_quick(again: tuple[File, Ran, float], finished: File) -> None:
    folder, ran, worked = again
    assert ran.code == 0, ran.err
    assert all(stage["reused"] for stage in studies.report(folder)["stages"])
    assert {key: time for key, (time, _) in studies.written(folder).items()} == {
        key: time for key, (time, _) in studies.written(finished).items()
    }, "copies keep their times"
    print(f"running again took {ran.seconds:.1f} s, {worked:.1f} s of a core")
    # 15 s on a quiet machine; on a busy one what it works is what it can answer for.
    assert min(ran.seconds, worked) < 15
    assert "started" not in ran.err


def test_running_again_removes_the_temporary_folder_of_a_run_that_was_killed(
    again: tuple[File, Ran, float], temporary: File
) -> None:
    assert not list(temporary.glob("tapath-*"))


def test_running_again_says_the_same_of_the_best_path(again: tuple[File, Ran, float], first: tuple[File, Ran]) -> None:
    assert again[1].out == first[1].out
    old, new = studies.report(first[0]), studies.report(again[0])
    assert new["answers"] == old["answers"]


def test_running_again_adds_no_run_and_no_version_to_mlflow(again: tuple[File, Ran]) -> None:
    client = MlflowClient(f"sqlite:///{again[0] / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 10
    assert len(client.search_logged_models([experiment.experiment_id])) == 9
    assert len(client.search_model_versions("name = 'tiny'")) == 1


def test_a_study_on_the_written_folder_is_the_same_study(finished: File, tmp_path: File) -> None:
    copy(finished, tmp_path)
    made = tapath(tmp_path, "data", "digits", "scenes", "--classes", "3", "--train", "32", "--val", "16")
    assert made.code == 0, made.err
    digits = "{Digits: {classes: 3, train: 32, val: 16}}"
    write(tmp_path, changed((digits, "{COCO: {root: scenes}}"), ("name: tiny", "name: folder")))
    ran = tapath(tmp_path, "run", "tiny.yaml")
    assert ran.code == 0, ran.err
    there, here = studies.stages(tmp_path), studies.stages(tmp_path, "folder")
    assert {path: stage["key"] for path, stage in here.items()} == {p: stage["key"] for p, stage in there.items()}
    assert all(stage["reused"] for stage in here.values())

    shorter = changed((digits, "{COCO: {root: scenes}}"), ("epochs: 2", "epochs: 1"), text=without("mid", "low"))
    write(tmp_path, shorter)
    again = tapath(tmp_path, "run", "tiny.yaml")
    assert again.code == 0, again.err
    assert "3 done" in again.err, "the processes that train it find it, in whatever folder they work"


def test_training_on_the_written_folder_gives_the_very_same_weights(finished: File, tmp_path: File) -> None:
    """One stage, trained in this process: the images come from files, the weights must not differ in a bit."""
    from orchestrator.prepared import prepare
    from orchestrator.study import load
    from trainers import data
    from trainers.call import Call
    from trainers.data.digits import write as write_digits
    from trainers.order import Order
    from trainers.stage import run_here
    from trainers.workplace import Workplace

    write_digits(Call(name="Digits", args={"classes": 3, "train": 32, "val": 16}).of(data), tmp_path / "scenes")
    digits = "{Digits: {classes: 3, train: 32, val: 16}}"
    study = load(write(tmp_path, changed((digits, f"{{COCO: {{root: {tmp_path / 'scenes'}}}}}"))))
    prepared = prepare(study)
    wanted = prepared.frontier(lambda stage: None).wanted()
    (alone,) = (node.stage for node in wanted if node.path.models == ("wee",))
    order = Order(stage=alone, data=study.data, store=str(tmp_path / "store"))
    ended: list[Any] = []
    run_here([order], lambda order, device: Workplace(device), lambda key, result: ended.append(result), cpus=1)
    (result,) = ended
    assert studies.stored(finished)[alone.key] == (result.score, result.sha256)


def test_two_workers_train_what_one_does(finished: File, tmp_path: File) -> None:
    """Two edges together on two workers of one CPU each; their teacher is there already."""
    there = studies.stages(finished)
    key = there["big",]["key"]
    shutil.copytree(finished / "store" / key, tmp_path / "elsewhere" / key)
    write(tmp_path, without("low"))
    cpus = min(1.0, (studies.CPUS or 1) / 2)
    sets = ("edges=[[big, mid], [big, wee]]", "students=[mid, wee]", "controls=[]", "resources.stages_at_once=1")
    changes = [word for one in (*sets, "resources.workers=2", f"resources.cpus={cpus}") for word in ("--set", one)]
    ran = tapath(tmp_path, "run", "tiny.yaml", "--store", "elsewhere", *changes, cores=None)
    assert ran.code == 0, ran.err
    said = ran.out + ran.err
    assert max(said.index(f"started  big > {name}") for name in ("mid", "wee")) < said.index("done     big >"), said
    for path in [("big", "mid"), ("big", "wee")]:
        one, two = there[path], studies.stages(tmp_path)[path]
        assert two["key"] == one["key"], "workers are no part of a stage"
        assert two["state"] == "done" and two["key"] in studies.stored(tmp_path, "elsewhere")
        assert [epoch["epoch"] for epoch in two["history"]] == [1, 2]
        for mine, theirs in zip(two["history"], one["history"], strict=True):
            assert mine["val/AP"] == pytest.approx(theirs["val/AP"], abs=0.003)


# What stands beside the best path.


def test_the_student_alone_is_trained_for_as_long_as_the_best_path_once_that_is_known(
    finished: File, tmp_path: File
) -> None:
    folder = copy(finished, tmp_path)
    write(folder, changed(("controls: [alone]", "controls: [alone, direct, alone_same_compute]")))
    ran, again = tapath(folder, "run", "tiny.yaml"), tapath(folder, "run", "tiny.yaml")
    assert (ran.code, again.code) == (0, 0), ran.err
    assert ran.err.count(" started ") == 1 and " started " not in again.err
    made = studies.report(folder)
    (long,) = (stage for stage in made["stages"] if stage["budget"] > 1)
    assert long["role"] == "alone" and long["path"] == ["wee"] and long["teacher"] is None
    assert len(long["history"]) == long["epochs"] == the_answer(made)["same_compute"]["epochs"] > 2
    assert the_answer(made)["same_compute"]["score"] == long["score"]
    assert the_answer(made)["baseline"]["score"] == the_answer(studies.report(finished))["baseline"]["score"]
    line = next(line for line in ran.out.splitlines() if "wee alone with the same compute, " in line)
    assert line.split()[0] == f"{long['score']:.3f}" and line.endswith(f" {long['epochs']} epochs")
    page = (folder / "runs" / "tiny" / "report.html").read_text()
    assert f"wee alone with the same compute, {long['epochs']} epochs" in page
