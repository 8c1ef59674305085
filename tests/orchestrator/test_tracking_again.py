"""MLflow gets everything once, whatever fails or is killed on the way, and a study that is run again goes on."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import replace

import pytest

from orchestrator.tracking import Tracking
from tests.orchestrator.tracked import begin, best, fail, models, row, run_of, runs, settle, steps


def test_a_study_that_is_run_again_goes_on_in_the_same_runs(uri: str) -> None:
    finished, half = row("r101", "teacher"), row()
    first = begin(uri)
    settle(first, finished, replace(half, state="running", history=half.history[:1]))
    first.close("KILLED")
    assert [runs(uri)[name].info.status for name in sorted(runs(uri))] == ["KILLED", "KILLED", "FINISHED"]
    assert run_of(uri, half).data.tags["state"] == "interrupted"

    second = begin(uri)
    assert runs(uri)["demo"].info.status == "RUNNING"
    settle(second, replace(finished, state="reused"), replace(half, state="running", history=half.history[:2]))
    assert run_of(uri, half).info.status == "RUNNING"
    settle(second, half)
    second.close("FINISHED")
    assert {run.info.status for run in runs(uri).values()} == {"FINISHED"} and len(runs(uri)) == 3
    assert [step for step, _ in steps(uri, half, "val/AP")] == [1, 2, 3]
    assert [step for step, _ in steps(uri, finished, "val/AP")] == [1, 2, 3]
    assert run_of(uri, finished).data.tags["reused"] == "false"  # it was trained here
    assert len(models(uri)) == 2


def test_a_driver_that_was_killed_leaves_nothing_running_for_ever(uri: str) -> None:
    dead = begin(uri)
    settle(dead, row(state="running", done=1))
    dead._background.stop()
    begin(uri).close("FINISHED")
    assert sorted(run.info.status for run in runs(uri).values()) == ["FINISHED", "KILLED"]


def test_a_changed_parameter_of_the_study_is_told_by_a_tag(uri: str) -> None:
    begin(uri).close("FINISHED")
    again = Tracking(uri, "demo")
    again.start({"epochs": 12, "seeds": 3}, {"study": "demo"})
    again.close("FINISHED")
    data = runs(uri)["demo"].data
    assert data.params == {"epochs": "3", "seeds": "3"} and data.tags["now.epochs"] == "12"


def test_a_failed_stage_says_why_and_goes_on_when_it_is_tried_again(tracking: Tracking, uri: str) -> None:
    half = row(state="failed", done=1, reason="out of memory, see http://me:secret@host/log")
    settle(tracking, half, row("r101 > r34", "assistant", state="lost", done=0, reason=half.key))
    run = run_of(uri, half)
    assert run.info.status == "FAILED" and run.data.tags["reason"] == "out of memory, see http://host/log"
    assert len(runs(uri)) == 2 and not models(uri)  # the lost one has no run
    settle(tracking, row())
    run = run_of(uri, half)
    assert run.info.status == "FINISHED" and run.data.tags["reason"] == ""
    assert [step for step, _ in steps(uri, half, "val/AP")] == [1, 2, 3]


@pytest.mark.parametrize(
    "name", ["create_run", "log_batch", "create_logged_model", "finalize_logged_model", "set_terminated"]
)
@pytest.mark.parametrize("after", [False, True])
def test_an_outage_loses_nothing_and_doubles_nothing(
    name: str,
    after: bool,
    tracking: Tracking,
    uri: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    students = [row(seed=seed) for seed in range(2)]
    settle(tracking, replace(students[0], state="running", history=students[0].history[:1]))
    failures = fail(monkeypatch, tracking, name, times=2, after=after)
    with caplog.at_level(logging.WARNING):
        settle(tracking, *students)
    tracking.close("FINISHED")
    assert failures
    for student in students:
        run = run_of(uri, student)
        for metric in ("val/AP", "train/loss_ld", "epoch"):
            assert [step for step, _ in steps(uri, student, metric)] == [1, 2, 3]
        assert run.info.status == "FINISHED" and len(run.data.params) > 15 and run.data.tags["state"] == "done"
    assert len(models(uri)) == 2 and len(runs(uri)) == 3
    for model in models(uri):
        assert Counter(metric.key for metric in model.metrics)["score"] == 1 and model.status == "READY"
    told = [record.getMessage() for record in caplog.records]
    assert sum("trying again" in message for message in told) <= (len(failures) if after else 1)
    assert "trying again" in told[0] and "secret" not in "".join(told)


def test_a_run_that_a_person_deletes_while_it_trains_is_written_anew(tracking: Tracking, uri: str) -> None:
    whole = row()
    settle(tracking, replace(whole, state="running", history=whole.history[:2]))
    tracking.client.delete_run(run_of(uri, whole).info.run_id)
    settle(tracking, whole)
    assert [step for step, _ in steps(uri, whole, "val/AP")] == [1, 2, 3]


def test_closing_waits_only_so_long_for_a_server_that_stays_away(
    tracking: Tracking, uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fail(monkeypatch, tracking, "create_run", times=10**6, after=False)
    tracking.update(row())
    begun = time.perf_counter()
    tracking.close("FINISHED", patience=0.3)
    assert time.perf_counter() - begun < 5
    assert "has not got 1 stage and" in caplog.text
    again = begin(uri)
    settle(again, row(state="reused"))
    again.close("FINISHED")
    assert best(uri, "demo").score == 0.5


def test_a_deleted_experiment_comes_back_with_its_runs(uri: str) -> None:
    first = begin(uri)
    settle(first, row())
    first.close("FINISHED")
    first.client.delete_experiment(first.experiment_id)
    begin(uri).close("FINISHED")
    assert best(uri, "demo").score == 0.5
