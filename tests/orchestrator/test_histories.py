"""Every epoch of many runs, read back from a database and from a server alike."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path as File
from typing import Any

import pytest

from orchestrator import connection
from orchestrator.connection import Metric, MlflowClient, connect, histories
from tests.orchestrator.boards import board, lattice
from tests.orchestrator.remember import plain, report, track

NAMES = ("r101", "r34", "r18")


@pytest.fixture
def server(uri: str, tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """MLflow's own server on the database of the test."""
    from mlflow.server import ARTIFACT_ROOT_ENV_VAR, BACKEND_STORE_URI_ENV_VAR, app, handlers
    from werkzeug.serving import make_server

    monkeypatch.setenv(BACKEND_STORE_URI_ENV_VAR, uri)
    monkeypatch.setenv(ARTIFACT_ROOT_ENV_VAR, str(tmp_path / "artifacts"))
    monkeypatch.setattr(handlers, "_tracking_store", None)
    served = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    thread.join()
    served.server_close()


def shape(found: dict[str, list[Metric]]) -> dict[str, list[tuple[int, float, int]]]:
    return {run: [(one.step, one.value, one.timestamp) for one in values] for run, values in found.items()}


def runs_of(client: MlflowClient, name: str) -> list[str]:
    experiment = client.get_experiment_by_name(name).experiment_id
    return [run.info.run_id for run in client.search_runs([experiment]) if "key" in run.data.tags]


def test_a_server_is_asked_for_many_runs_at_once_and_tells_what_its_database_has(
    uri: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = board(NAMES)
    track(uri, filled, lattice(NAMES))
    direct, asked = connect(uri), connect(server)
    runs = runs_of(direct, filled.name)
    expected = shape(histories(direct, runs, "val/AP"))
    assert len(expected) == 5 and all([step for step, *_ in one] == list(range(1, 13)) for one in expected.values())
    with monkeypatch.context() as alone:
        alone.setattr(MlflowClient, "get_metric_history", never)
        assert shape(histories(asked, runs, "val/AP")) == expected
        alone.setattr(connection, "SEVERAL", 2)
        assert shape(histories(asked, runs, "val/AP")) == shape(histories(direct, runs, "val/AP")) == expected
    assert plain(report(server, filled.name)) == plain(report(uri, filled.name))


def never(*args: Any, **options: Any) -> Any:
    raise AssertionError("each run was asked for by itself")


def broken(*args: Any, **options: Any) -> Any:
    raise ConnectionError("no such address")


@pytest.mark.parametrize("fault", ["http_request", "MOST"])
def test_a_server_that_does_not_tell_all_at_once_is_asked_run_by_run(
    fault: str, uri: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = board(NAMES)
    track(uri, filled, lattice(NAMES))
    runs = runs_of(connect(uri), filled.name)
    expected = shape(histories(connect(uri), runs, "val/AP"))
    monkeypatch.setattr(connection, fault, broken if fault == "http_request" else 3)
    assert shape(histories(connect(server), runs, "val/AP")) == expected


def test_a_metric_that_nobody_logged_has_no_values(uri: str) -> None:
    filled = board(NAMES)
    track(uri, filled, lattice(NAMES))
    assert histories(connect(uri), runs_of(connect(uri), filled.name), "val/none") == {}
