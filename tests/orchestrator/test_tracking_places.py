"""Where MLflow can track and where not, said at once; and what a database needs before it can be used."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path as File
from typing import Any

import pytest

from orchestrator import connection
from orchestrator.ranking import paths
from orchestrator.tracking import Tracking
from trainers.call import Invalid


@pytest.mark.parametrize(
    "wrong", ["mlruns", "./runs", "file:///data/mlruns", "ftp://me:secret@host/x", "", "sqlite://"]
)
def test_what_mlflow_cannot_track_in_is_refused_with_what_would_do(wrong: str) -> None:
    with pytest.raises(Invalid, match="sqlite:///") as refused:
        Tracking(wrong, "demo")
    assert refused.value.where == ("resources", "tracking") and "secret" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["http", "postgresql", "postgresql+psycopg2"])
def test_a_server_that_is_down_is_refused_at_once_without_its_password(scheme: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = time.perf_counter()
    with pytest.raises(Invalid, match=re.escape(f"{scheme}://127.0.0.1:{port}")) as refused:
        Tracking(f"{scheme}://me:secret@127.0.0.1:{port}", "demo")
    assert time.perf_counter() - begun < 10
    assert "secret" not in str(refused.value) and refused.value.where == ("resources", "tracking")


def test_asking_a_database_that_is_not_there_does_not_make_it(tmp_path: File) -> None:
    with pytest.raises(Invalid, match="no MLflow database"):
        paths(f"sqlite:///{tmp_path / 'none.db'}", ["demo"])
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_database_is_refused(tmp_path: File) -> None:
    (tmp_path / "mlflow.db").write_text("not a database " * 100)
    with pytest.raises(Invalid, match="cannot be used"):
        Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", "demo")


def test_two_first_starts_at_once_print_nothing_and_leave_nothing_in_their_folder(tmp_path: File) -> None:
    (tmp_path / "here").mkdir()
    program = """
from orchestrator import connection
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


def test_a_first_start_that_is_killed_between_two_tables_is_no_hindrance_to_the_next(tmp_path: File) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    program = f"""
import os, signal
from orchestrator import connection
from orchestrator.tracking import Tracking
from mlflow.store.db import utils
from sqlalchemy import event

def second(*_):
    made = engine.connect().exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar()
    if made > 5:
        os.kill(os.getpid(), signal.SIGKILL)

begin = utils._initialize_tables
def half(new):
    global engine
    engine = new
    event.listen(new, "commit", second)
    begin(new)

utils._initialize_tables = half
Tracking({uri!r}, "demo")
"""
    killed = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert killed.returncode == -signal.SIGKILL
    assert sorted(file.name for file in tmp_path.iterdir()) == [".mlflow.db.lock", "mlflow.db.new"], "it had begun"
    assert connection.connect(uri, create=True).search_experiments()
    assert sorted(file.name for file in tmp_path.iterdir()) == [".mlflow.db.lock", "mlflow.db"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_database_that_may_only_be_read_is_asked_all_the_same(
    number: int, uri: str, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For root every file can be written, so it is the lock that says no."""

    def closed(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if str(file).endswith(".lock"):
            raise OSError(number, os.strerror(number), str(file))
        return open(file, mode, *args, **options)

    monkeypatch.setattr(connection, "open", closed, raising=False)
    assert connection.connect(uri).search_experiments()
    with pytest.raises(Invalid, match=os.strerror(number)):
        connection.connect(f"sqlite:///{tmp_path}/new.db", create=True)
