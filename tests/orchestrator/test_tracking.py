"""MLflow gets everything once, whatever fails on the way, and can say alone which path is best."""

from __future__ import annotations

import logging
import math
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as File
from typing import Any

import pytest

from orchestrator.board import Row
from orchestrator.connection import connect
from orchestrator.lattice import Path
from orchestrator.tracking import Tracking, best, paths
from trainers.call import Call, Invalid
from trainers.spec import Data, Model, Recipe, Stage

DEPTHS = {"r101": 101, "r34": 34, "r18": 18}


def stage(path: str, seed: int = 0, epochs: int = 3, weight: float = 0.25) -> Stage:
    """The last stage of a path such as `r101 > r18`."""
    *above, name = path.split(" > ")
    return Stage(
        model=Model(detector=Call(name="GFL"), backbone=Call(name="ResNet", args={"depth": DEPTHS[name]})),
        data=Data(fingerprint="abc", classes=("cat", "dog")),
        recipe=Recipe(epochs=epochs),
        distill=(Call(name="LD", args={"weight": weight, "temperature": 10.0}),) if above else (),
        seed=seed,
        teacher=stage(" > ".join(above), seed, epochs, weight) if above else None,
    )


def row(path: str = "r101 > r18", role: str = "student", score: float = 0.5, done: int = 3, **facts: Any) -> Row:
    """A stage that has trained for `done` of its three epochs."""
    state = facts.pop("state", "done")
    own = {key: facts.pop(key) for key in ("seed", "epochs", "weight") if key in facts}
    history = facts.pop("history", None) or [
        {"epoch": float(i), "val/AP": score * i / max(done, 1), "train/loss_ld": 1.0 / i} for i in range(1, done + 1)
    ]
    return Row(
        stage(path, **own),
        Path(tuple(path.split(" > "))),
        own.get("seed", 0),
        role,
        state=state,
        score=history[-1]["val/AP"] if history else None,
        history=history,
        seconds=10.0 * done,
        **{"weights": "s3://bucket/weights", "sha256": "f" * 64, **facts},
    )


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> File:
    """A database with MLflow's tables, which take seconds to make."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    connect(f"sqlite:///{file}", create=True)
    return file


@pytest.fixture
def uri(fresh: File, tmp_path: File) -> str:
    shutil.copy(fresh, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def tracking(uri: str) -> Iterator[Tracking]:
    opened = begin(uri)
    yield opened
    opened._background.stop()


def begin(uri: str) -> Tracking:
    opened = Tracking(uri, "demo")
    opened._background.first = 0.01
    opened.start({"epochs": 3}, {"study": "demo"})
    return opened


def settle(tracking: Tracking, *rows: Row) -> None:
    """Write these one after another, none in place of another."""
    for each in rows:
        tracking.update(each)
        assert tracking._background.wait(60)


def runs(uri: str) -> dict[str, Any]:
    """The runs by name; no name twice."""
    client = connect(uri)
    found = client.search_runs([client.get_experiment_by_name("demo").experiment_id])
    named = {run.info.run_name: run for run in found}
    assert len(named) == len(found)
    return named


def run_of(uri: str, wanted: Row) -> Any:
    return next(run for run in runs(uri).values() if run.data.tags.get("key") == wanted.key)


def models(uri: str) -> list[Any]:
    client = connect(uri)
    return list(client.search_logged_models([client.get_experiment_by_name("demo").experiment_id]))


def steps(uri: str, wanted: Row, name: str) -> list[tuple[int, float]]:
    history = connect(uri).get_metric_history(run_of(uri, wanted).info.run_id, name)
    return [(metric.step, metric.value) for metric in history]


def fail(monkeypatch: pytest.MonkeyPatch, tracking: Tracking, name: str, *, times: int, after: bool) -> list[str]:
    """Let a method of the client raise so many times, before or after it has done its work."""
    real, failures = getattr(tracking.client, name), []

    def flaky(*args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs) if after or len(failures) == times else None
        if len(failures) < times:
            failures.append(name)
            raise ConnectionError("http://me:secret@server does not answer")
        return result

    monkeypatch.setattr(tracking.client, name, flaky)
    return failures


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
    assert [(each.path, each.score) for each in paths(uri, "demo")] == [("r18", 0.8), ("r101 > r18", 0.6)]
    assert [step for step, _ in steps(uri, row(), "val/AP")] == [1, 2, 3]


def test_a_checkpoint_without_any_epoch_has_a_score(tracking: Tracking, uri: str) -> None:
    settle(tracking, replace(row(), history=[]))
    assert best(uri, "demo").score == 0.5


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
    assert "has not got 1 stages" in caplog.text
    again = begin(uri)
    settle(again, row(state="reused"))
    again.close("FINISHED")
    assert best(uri, "demo").score == 0.5


def test_the_best_path_is_the_one_with_the_highest_mean_over_its_seeds(uri: str) -> None:
    first, second = begin(uri), begin(uri)
    settle(first, row("r101", "teacher", 0.9), row("r101 > r34", "assistant", 0.95))
    settle(first, row("r101 > r18", score=0.7, seed=0), row("r18", "alone", 0.4))
    settle(second, row("r101 > r18", score=0.3, seed=1), row("r101 > r34 > r18", score=0.6))
    for opened in (first, second):
        opened.close("FINISHED")
    found = paths(uri, "demo")
    assert [each.path for each in found] == ["r101 > r34 > r18", "r101 > r18", "r18"]
    assert [each.score for each in found] == pytest.approx([0.6, 0.5, 0.4])
    assert found[1].scores == pytest.approx({0: 0.7, 1: 0.3})
    assert found[0].seconds == 90 and found[1].seconds == pytest.approx((60 + 30) / 2)
    assert found[0].keys == {0: stage("r101 > r34 > r18").key} and found[2].role == "alone"
    assert best(uri, "demo") == found[0]
    assert best(uri, "demo", keys=[stage("r18").key]).path == "r18"


def test_another_figure_may_rank(tracking: Tracking, uri: str) -> None:
    def measured(path: str, role: str, figures: dict[str, float]) -> Row:
        return row(path, role, figures["val/AP"], done=1, history=[{"epoch": 1.0, **figures}])

    settle(tracking, row("r101", "teacher", 0.9))
    settle(tracking, measured("r101 > r18", "student", {"val/AP": 0.7, "val/AP50": 0.8}))
    settle(tracking, measured("r18", "alone", {"val/AP": 0.6, "val/AP50": 0.9}))
    assert best(uri, "demo").path == "r101 > r18"
    found = best(uri, "demo", by="val/AP50")
    assert (found.path, found.score) == ("r18", 0.9)


def test_settings_of_one_path_are_not_averaged(tracking: Tracking, uri: str) -> None:
    settle(tracking, row(score=0.2, weight=0.25), row(score=0.6, weight=0.5))
    assert [each.score for each in paths(uri, "demo")] == pytest.approx([0.6, 0.2])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_never_wins(bad: float, tracking: Tracking, uri: str) -> None:
    settle(tracking, row("r101 > r34 > r18", score=bad))
    with pytest.raises(Invalid, match="no student"):
        best(uri, "demo")
    settle(tracking, row("r18", "alone", -0.9))  # a miss rate: lower than the 0 that MLflow makes of NaN
    settle(tracking, row(score=0.5, seed=0), row(score=bad, seed=1))
    assert best(uri, "demo").path == "r18"
    assert len(paths(uri, "demo")) == 3
    assert not math.isfinite(run_of(uri, row("r101 > r34 > r18")).data.metrics["val/AP"]) or math.isinf(bad)


def test_an_unknown_experiment_is_refused_with_those_there_are(tracking: Tracking, uri: str) -> None:
    with pytest.raises(Invalid, match=r"demos is not one of .*did you mean demo") as refused:
        best(uri, "demos")
    assert refused.value.where == ("resources", "tracking")


def test_a_deleted_experiment_comes_back_with_its_runs(uri: str) -> None:
    first = begin(uri)
    settle(first, row())
    first.close("FINISHED")
    first.client.delete_experiment(first.experiment_id)
    begin(uri).close("FINISHED")
    assert best(uri, "demo").score == 0.5


@pytest.mark.parametrize(
    "wrong", ["mlruns", "./runs", "file:///data/mlruns", "ftp://me:secret@host/x", "", "sqlite://"]
)
def test_what_mlflow_cannot_track_in_is_refused_with_what_would_do(wrong: str) -> None:
    with pytest.raises(Invalid, match="sqlite:///") as refused:
        Tracking(wrong, "demo")
    assert refused.value.where == ("resources", "tracking") and "secret" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_server_that_is_down_is_refused_at_once_without_its_password(scheme: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = time.perf_counter()
    with pytest.raises(Invalid, match=f"{scheme}://127.0.0.1:{port}") as refused:
        Tracking(f"{scheme}://me:secret@127.0.0.1:{port}", "demo")
    assert time.perf_counter() - begun < 10
    assert "secret" not in str(refused.value) and refused.value.where == ("resources", "tracking")


def test_asking_a_database_that_is_not_there_does_not_make_it(tmp_path: File) -> None:
    with pytest.raises(Invalid, match="no MLflow database"):
        best(f"sqlite:///{tmp_path / 'none.db'}", "demo")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_database_is_refused(tmp_path: File) -> None:
    (tmp_path / "mlflow.db").write_text("not a database " * 100)
    with pytest.raises(Invalid, match="cannot be used"):
        Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", "demo")


def test_two_first_starts_at_once_print_nothing_and_leave_nothing_in_their_folder(tmp_path: File) -> None:
    (tmp_path / "here").mkdir()
    program = """
from orchestrator.tracking import Tracking
tracking = Tracking("sqlite:///../db/mlflow.db", "demo")
tracking.start({}, {})
tracking.close("FINISHED")
"""
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=tmp_path / "here",
            env={**os.environ, "PYTHONPATH": os.getcwd()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    for driver in drivers:
        assert (driver.communicate()[0], driver.returncode) == ("", 0)
    assert not list((tmp_path / "here").iterdir()) and (tmp_path / "db" / "mlflow.db").is_file()


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
