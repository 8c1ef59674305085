"""MLflow's server is killed, frozen or away, its database locked or its rows deleted: a study goes on, and in the end
everything is logged once. A real server, real runs.

An outage in the middle of a write, request by request: `tests/orchestrator/test_tracking_again.py`.
"""

from __future__ import annotations

import logging
import shutil
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path as File
from typing import Any

import pytest

from orchestrator import connection
from orchestrator.prepared import prepare
from orchestrator.session import relog
from orchestrator.study import load
from orchestrator.study_run import begun
from orchestrator.tracking import Tracking
from tests.faults.servers import Mlflow, mlflow
from tests.orchestrator import studies
from tests.orchestrator.heads import ports
from tests.orchestrator.studies import Ran, tapath, underway, without, write
from tests.orchestrator.tracked import begin, best, models, row, settle, steps
from trainers.lease import Lease

TWO = without("mid", "low")
ALL = {("big", 1, 2), ("big > wee", 1, 2), ("wee", 1, 2)}  # its stages with their epochs
QUICK = ("--set", "resources.tracking_patience=1")
SHORT = 2  # seconds after which a request to MLflow is given up; 30 unless its own variable says so


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, fresh: File) -> Iterator[Mlflow]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(fresh, folder / "mlflow.db")
    with mlflow(folder, "--backend-store-uri", f"sqlite:///{folder}/mlflow.db") as started:
        yield started


def everything(uri: str, name: str) -> dict[str, dict[str, list[int]]]:
    """By path the steps of every metric; no stage has two runs or two checkpoints, and no run is left running."""
    client = connection.connect(uri)
    identifier = client.get_experiment_by_name(name).experiment_id
    found = client.search_runs([identifier])
    assert "RUNNING" not in {run.info.status for run in found}
    stages = [run for run in found if "key" in run.data.tags]
    assert len(found) == len(stages) + 1 and max(Counter(run.data.tags["key"] for run in stages).values()) == 1
    checkpoints = list(client.search_logged_models([identifier]))
    assert {model.status.value for model in checkpoints} <= {"READY"}
    assert max(Counter(model.tags["key"] for model in checkpoints).values()) == 1
    return {
        run.data.tags["path"]: {
            metric: [point.step for point in client.get_metric_history(run.info.run_id, metric)]
            for metric in run.data.metrics
        }
        for run in stages
    }


# 31: the server is down at the start.


@pytest.fixture(scope="module")
def untracked(tmp_path_factory: pytest.TempPathFactory) -> tuple[File, Ran, Ran]:
    """A study that is refused where there is no MLflow, and then trained all the same."""
    folder = tmp_path_factory.mktemp("untracked")
    write(folder, TWO)
    (port,) = ports(1)
    words = ("run", "tiny.yaml", "--set", f"resources.tracking=http://me:hush@127.0.0.1:{port}", *QUICK)
    refused = tapath(folder, *words)
    assert not list(folder.glob("store/*/*")), "nothing was trained"
    return folder, refused, tapath(folder, *words, "--tracking-later")


@pytest.mark.ray
@pytest.mark.slow
def test_a_server_that_is_down_at_the_start_is_refused_at_once_with_what_to_do(
    untracked: tuple[File, Ran, Ran],
) -> None:
    _, refused, _ = untracked
    assert refused.code == 2 and "MLflow at http://127.0.0.1:" in refused.err, refused.err
    assert "cannot be used: Connection refused" in refused.err and "--tracking-later" in refused.err
    assert "hush" not in refused.err + refused.out


@pytest.mark.ray
@pytest.mark.slow
def test_a_study_may_be_trained_without_mlflow_and_logged_later(
    untracked: tuple[File, Ran, Ran], server: Mlflow
) -> None:
    folder, _, later = untracked
    assert later.code == 4 and len(studies.stored(folder)) == 3, later.err
    assert later.err.count("Connection refused") == 1 and "Traceback" not in later.err, later.err
    assert "tapath report tiny.yaml --set resources.tracking=http://127.0.0.1:" in later.err
    assert "--relog" in later.err and "hush" not in later.err + later.out
    logged = tapath(folder, "report", "tiny.yaml", "--set", f"resources.tracking={server.uri}", "--relog")
    assert logged.code == 0, logged.err
    found = everything(server.uri, "tiny")
    assert {(path, *found[path]["val/AP"]) for path in found} == ALL
    assert connection.connect(server.uri).get_model_version_by_alias("tiny", "best").version == "1"


def test_a_run_that_began_without_the_server_is_logged_whole_once_it_is_there(server: Mlflow) -> None:
    server.kill()
    try:
        tracking = Tracking(server.uri, "absent", later=True)
        tracking._background.first = 0.01
        tracking.start({"epochs": 3}, {"study": "absent"})
        first, second = row("r101", "teacher"), row()
        for one in (replace(first, state="running", history=first.history[:1]), first, second):
            tracking.update(one)
        wait_for(lambda: len(tracking._failed) == 2)
    finally:
        server.start()
    assert tracking.close("FINISHED")
    found = everything(server.uri, "absent")
    assert {path: steps_of["val/AP"] for path, steps_of in found.items()} == {
        "r101": [1, 2, 3],
        "r101 > r18": [1, 2, 3],
    }
    assert best(server.uri, "absent").score == 0.5


def test_what_mlflow_can_never_track_in_is_refused_even_if_it_may_be_later() -> None:
    with pytest.raises(connection.Invalid, match="it has given up folders"):
        Tracking("./mlruns", "demo", later=True)


# 32: it is away in the middle, and in the end.


def test_what_a_killed_or_frozen_server_missed_is_logged_once_and_in_order(
    server: Mlflow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One stage is half logged when the server is killed, another is asked for while it is frozen, and what it was
    asked for is carried out when it thaws, though nobody waits for that any more."""
    tracking = begin(server.uri, "outages")
    first, second = row("r101", "teacher"), row()
    with caplog.at_level(logging.WARNING):
        settle(tracking, replace(first, state="running", history=first.history[:1]))
        server.kill()
        for done in (2, 3):
            tracking.update(replace(first, state="running", history=first.history[:done]))
        tracking.update(first)
        wait_for(lambda: caplog.text.count("trying again") == 1)
        server.start()
        assert tracking._background.wait(60)
        server.signal(signal.SIGSTOP)
        try:
            with monkeypatch.context() as hurried:
                hurried.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(SHORT))
                tracking.update(second)
                wait_for(lambda: caplog.text.count("trying again") == 2)
        finally:
            server.signal(signal.SIGCONT)
        assert tracking._background.wait(60)
    tracking.close("FINISHED")
    told = [record.getMessage() for record in caplog.records]
    assert sum("trying again" in text for text in told) == 2 and sum("works again" in text for text in told) == 2, told
    found = everything(server.uri, "outages")
    assert set(found) == {"r101", "r101 > r18"}
    for steps_of in found.values():
        assert steps_of["val/AP"] == steps_of["train/loss_ld"] == [1, 2, 3]
    assert best(server.uri, "outages").score == 0.5


@pytest.mark.ray
@pytest.mark.slow
def test_a_study_whose_server_dies_on_the_way_trains_on_and_says_how_to_log_the_rest(
    server: Mlflow, tmp_path: File
) -> None:
    write(tmp_path, TWO)
    there = ("--set", "name=dying", "--set", f"resources.tracking={server.uri}", *QUICK)
    with underway(tmp_path, "run", "tiny.yaml", *there) as command:
        command.until(lambda: list((tmp_path / "store").glob("*/state-*.pt")) or studies.stored(tmp_path))
        server.kill()
        try:
            assert command.end() == 4, command.text
        finally:
            server.start()
    assert command.text.count("trying again until it works") == 1 and "Traceback" not in command.text
    (said,) = (line for line in command.text.splitlines() if "nothing is lost" in line)
    words = said.partition("once it is back: ")[2].split()
    assert words[:3] == ["tapath", "report", "tiny.yaml"] and words[-1] == "--relog", said
    assert len(studies.stored(tmp_path)) == 3 and (tmp_path / "runs/dying/report.html").exists()
    logged = tapath(tmp_path, *words[1:], "--set", "resources.tracking_patience=60")
    assert logged.code == 0, logged.err
    found = everything(server.uri, "dying")
    assert {(path, *found[path]["val/AP"]) for path in found} == ALL


@pytest.mark.ray
@pytest.mark.slow
def test_a_server_that_is_back_soon_after_the_last_stage_is_waited_for(server: Mlflow, tmp_path: File) -> None:
    write(tmp_path, TWO)
    there = ("--set", "name=back", "--set", f"resources.tracking={server.uri}")
    with underway(tmp_path, "run", "tiny.yaml", *there) as command:
        command.until(lambda: list((tmp_path / "store").glob("*/state-*.pt")) or studies.stored(tmp_path))
        server.kill()
        try:
            command.until(lambda: len(studies.stored(tmp_path)) == 3 and "trying again until it works" in command.text)
            assert command.popen.poll() is None, "it is waited for"
        finally:
            server.start()
        assert command.end() == 0, command.text
    found = everything(server.uri, "back")
    assert {(path, *found[path]["val/AP"]) for path in found} == ALL


def wait_for(condition: Any, limit: float = 60) -> None:
    late = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < late
        time.sleep(0.02)


# 33: SQLite is locked by somebody else.


def test_a_locked_database_is_waited_for_at_the_start_and_on_the_way(
    uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A writer's lock at the start, longer than the five seconds for which SQLite itself waits; then a reader's, longer
    than the twenty for which MLflow has it wait."""
    file = connection.sqlite_file(uri)
    with caplog.at_level(logging.WARNING):
        with locked(file, "BEGIN EXCLUSIVE", seconds=6):
            tracking = begin(uri)
        assert "is locked by another process; waiting for it" in caplog.text
        with locked(file, "BEGIN", "SELECT * FROM runs", seconds=23):
            tracking.update(row())
            assert not tracking._background.wait(1)
        assert tracking._background.wait(60)
    assert tracking.close("FINISHED")
    assert [step for step, _ in steps(uri, row(), "val/AP")] == [1, 2, 3] and len(models(uri)) == 1


@contextmanager
def locked(file: File, *statements: str, seconds: float) -> Iterator[None]:
    """Somebody else has the database open in a transaction for so many seconds, and surely no longer than the block."""
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    for statement in statements:
        other.execute(statement).fetchall()
    ending = threading.Timer(seconds, other.rollback)
    ending.start()
    try:
        yield
    finally:
        ending.join()
        other.close()


# 34: a person deletes rows of MLflow.


@pytest.mark.ray
@pytest.mark.slow
def test_what_a_person_deleted_is_logged_again_from_the_store(
    untracked: tuple[File, Ran, Ran], uri: str, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study's run and a stage's in MLflow's own way, another stage's run and some epochs of a third in SQL."""
    shutil.copytree(untracked[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    study = load("tiny.yaml", [f"resources.tracking={uri}"])
    assert relog(study)
    before, client = everything(uri, "tiny"), connection.connect(uri)
    found = {run.data.tags.get("path", "study"): run.info.run_id for run in of_experiment(uri, "tiny")}
    client.delete_run(found["study"])
    client.delete_run(found["big"])
    with sqlite3.connect(connection.sqlite_file(uri)) as person:
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            person.execute(f"DELETE FROM {table} WHERE run_uuid = ?", [found["wee"]])
        for table in ("metrics", "latest_metrics"):
            person.execute(f"DELETE FROM {table} WHERE run_uuid = ?", [found["big > wee"]])
    person.close()
    assert relog(study)
    assert everything(uri, "tiny") == before
    assert {run.data.tags.get("mlflow.parentRunId") for run in of_experiment(uri, "tiny")} == {
        None,
        next(run.info.run_id for run in of_experiment(uri, "tiny") if run.data.tags.get("role") == "study"),
    }
    assert len(client.search_model_versions("name = 'tiny'")) == 1


def of_experiment(uri: str, name: str) -> list[Any]:
    client = connection.connect(uri)
    return list(client.search_runs([client.get_experiment_by_name(name).experiment_id]))


@pytest.mark.ray
@pytest.mark.slow
def test_who_logs_again_while_a_run_is_under_way_leaves_to_it_what_it_trains(
    untracked: tuple[File, Ran, Ran], uri: str, tmp_path: File, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The study's run and the stage that is trained stay RUNNING; the stages that are done are logged."""
    shutil.copytree(untracked[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    study, key = load("tiny.yaml", [f"resources.tracking={uri}"]), studies.stages(tmp_path)["big", "wee"]["key"]
    (tmp_path / "store" / key / "result.json").unlink()
    prepared = prepare(study)
    (under_way,) = (row for row in prepared.board(prepared.frontier(prepared.stored)).rows.values() if row.key == key)
    lease, driver = Lease(tmp_path / "store" / key), begun(prepared)
    assert lease.take()
    settle(driver, replace(under_way, state="running", history=[{"epoch": 1.0, "val/AP": 0.25, "seconds": 1.0}]))
    assert relog(study)
    assert "1 stage(s) are being trained; that run logs them" in capsys.readouterr().err
    found = {run.data.tags.get("path", "study"): run.info.status for run in of_experiment(uri, "tiny")}
    assert found == {"study": "RUNNING", "big > wee": "RUNNING", "big": "FINISHED", "wee": "FINISHED"}
    lease.release()
    assert relog(study)
    found = {run.data.tags.get("path", "study"): run.info.status for run in of_experiment(uri, "tiny")}
    assert found["study"] == found["big > wee"] == "KILLED", "nobody trains any more"
    driver.close("KILLED")


def test_of_two_drivers_of_a_study_each_notes_what_the_other_has_begun_and_leaves_it_running(
    untracked: tuple[File, Ran, Ran], uri: str, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one waits while the other trains: it shows the stage, too, and may end first."""
    shutil.copytree(untracked[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    study, key = load("tiny.yaml", [f"resources.tracking={uri}"]), studies.stages(tmp_path)["big", "wee"]["key"]
    prepared = prepare(study)
    (done,) = (row for row in prepared.board(prepared.frontier(prepared.stored)).rows.values() if row.key == key)
    runs = replace(done, state="running", history=[{"epoch": 1.0, "val/AP": 0.25, "seconds": 1.0}])
    first, second = begun(prepared), begun(prepared)
    settle(first, runs)
    settle(second, runs)
    assert [run.data.tags.get("path") for run in of_experiment(uri, "tiny")].count("big > wee") == 1
    assert second.close("KILLED", busy={key})
    assert {run.info.status for run in of_experiment(uri, "tiny")} == {"RUNNING"}
    settle(first, replace(done, state="done"))
    assert first.close("FINISHED")
    assert {run.info.status for run in of_experiment(uri, "tiny")} == {"FINISHED"}
