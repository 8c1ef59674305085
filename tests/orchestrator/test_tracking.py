"""What MLflow gets of a study: a run for each stage, its epochs as they come, and a logged model for its weights."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.ranking import paths
from orchestrator.tracking import Tracking
from tests.orchestrator.tracked import begin, best, models, row, run_of, runs, settle, stage, steps


def test_a_stage_is_a_child_run_of_the_study_with_its_parameters_metrics_and_tags(tracking: Tracking, uri: str) -> None:
    student = row()
    settle(tracking, row("r101", "teacher"), student)
    tracking.close("FINISHED")
    found = runs(uri)
    assert set(found) == {"demo", f"teacher-r101-{stage('r101').key[:8]}", f"student-r18-{student.key[:8]}"}
    run = run_of(uri, student)
    assert run.data.tags["mlflow.parentRunId"] == found["demo"].info.run_id
    assert run.data.tags["path"] == "r101 > r18" and run.data.tags["path_length"] == "2"
    assert run.data.tags["teacher_key"] == stage("r101").key
    assert run.data.tags["state"] == "done" and run.data.tags["reused"] == "false"
    assert run.data.params["distill.LD.temperature"] == "10.0" and run.data.params["recipe.lr"] == "0.01"
    assert run.data.params["model.backbone.ResNet.depth"] == "18"
    assert run.data.metrics["score"] == 0.5 and run.data.metrics["seconds"] == 30
    assert steps(uri, student, "train/loss_ld") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert found["demo"].data.params == {"epochs": "3"}
    assert {run.info.status for run in found.values()} == {"FINISHED"}


def test_epochs_are_written_as_they_come_and_none_twice(tracking: Tracking, uri: str) -> None:
    last = row()
    settle(tracking, *(replace(last, state="running", history=last.history[:n]) for n in (0, 1, 1, 2, 3)))
    assert [step for step, _ in steps(uri, last, "val/AP")] == [1, 2]
    assert run_of(uri, last).info.status == "RUNNING"
    settle(tracking, last, last)
    assert [step for step, _ in steps(uri, last, "val/AP")] == [1, 2, 3]


def test_a_checkpoint_is_a_ready_logged_model_with_its_score(tracking: Tracking, uri: str) -> None:
    student = row()
    settle(tracking, student)
    (model,) = models(uri)
    assert model.status == "READY" and model.name == "r18"
    assert model.source_run_id == run_of(uri, student).info.run_id
    assert {metric.key: metric.value for metric in model.metrics}["score"] == 0.5
    assert model.tags["key"] == student.key and model.tags["uri"] == "s3://bucket/weights"
    assert model.tags["sha256"] == "f" * 64 and model.params["recipe.epochs"] == "3"


def test_a_run_and_its_checkpoint_have_what_the_stage_cost(tracking: Tracking, uri: str) -> None:
    took = {"images_per_second": 120.0, "peak_memory_bytes": 5e8, "measuring_seconds": 4.0, "workers": 2.0}
    last = row(usage=took, device="NVIDIA H100")
    settle(tracking, replace(last, state="running", history=last.history[:2], usage={}, device=""), last)
    (model,) = models(uri)
    for metrics in (run_of(uri, last).data.metrics, {metric.key: metric.value for metric in model.metrics}):
        assert took.items() <= metrics.items() and metrics["seconds"] == 30
    assert model.tags["device"] == run_of(uri, last).data.tags["device"] == "NVIDIA H100"
    assert steps(uri, last, "workers") == [(3, 2.0)], "with the last epoch, like the score"


def test_updating_does_not_wait_for_the_database(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    real = tracking.client.create_run

    def slow(*args: Any, **kwargs: Any) -> Any:
        gate.wait(30)
        return real(*args, **kwargs)

    monkeypatch.setattr(tracking.client, "create_run", slow)
    begun = time.perf_counter()
    for seed in range(100):
        tracking.update(row(seed=seed))
    assert time.perf_counter() - begun < 1
    tracking._background.stop()
    gate.set()


def test_what_changes_in_a_row_after_the_update_is_not_written(tracking: Tracking, uri: str) -> None:
    later = row(state="running", done=1)
    with tracking._background._changed:  # so that the thread cannot begin
        tracking.update(later)
        later.history.append({"epoch": 2.0, "val/AP": 9.0})
    assert tracking._background.wait(60)
    assert [step for step, _ in steps(uri, later, "val/AP")] == [1]


def test_a_stage_that_another_study_trained_is_written_whole_and_marked(tracking: Tracking, uri: str) -> None:
    reused = row(state="reused")
    settle(tracking, reused)
    assert run_of(uri, reused).data.tags["reused"] == "true" and models(uri)[0].tags["reused"] == "true"
    assert [step for step, _ in steps(uri, reused, "val/AP")] == [1, 2, 3]
    assert best(uri, "demo").path == "r101 > r18"


def test_a_checkpoint_that_is_ranked_by_another_figure_has_that_as_its_score(tracking: Tracking, uri: str) -> None:
    settle(tracking, row(score=0.5), row("r18", "alone", 0.4))
    settle(tracking, row(score=0.5))  # told again: nothing new
    assert Counter(metric.key for metric in models(uri)[0].metrics)["score"] == 1
    again = begin(uri)
    settle(again, replace(row(score=0.5), score=0.6, state="reused"))
    settle(again, replace(row("r18", "alone", 0.4), score=0.8, state="reused"))
    again.close("FINISHED")
    assert [(each.path, each.score) for each in paths(uri, ["demo"])] == [("r18", 0.8), ("r101 > r18", 0.6)]
    assert [step for step, _ in steps(uri, row(), "val/AP")] == [1, 2, 3]


def test_a_checkpoint_without_any_epoch_has_a_score(tracking: Tracking, uri: str) -> None:
    settle(tracking, replace(row(), history=[]))
    assert best(uri, "demo").score == 0.5


@pytest.mark.slow
def test_two_hundred_stages(tracking: Tracking, uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.perf_counter()
    for seed in range(200):
        tracking.update(row(seed=seed, epochs=1, done=1))
    assert tracking._background.wait(300)
    took = time.perf_counter() - begun
    with capsys.disabled():
        print(f"\n200 stages of one epoch: {took:.1f} s")
    tracking.close("FINISHED")
    assert len(best(uri, "demo").scores) == 200
