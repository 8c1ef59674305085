"""What several files share: one undisturbed run of the tiny study, for all tests that only look at what it left; an
empty MLflow database; and a folder of one's own."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path as File
from typing import TYPE_CHECKING

import pytest

from tests.orchestrator.studies import Ran, tapath, write

if TYPE_CHECKING:  # importing MLflow takes seconds, which only its own tests should
    from orchestrator.tracking import Tracking
    from tests.orchestrator.browser import Browser


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[File, Ran]:
    """The folder that it ran in, and what `tapath run` said. Copy the folder to change it.

    Of several processes of tests one runs it for all.
    """
    own = tmp_path_factory.getbasetemp()
    place = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder, said = place / "first", place / "first.json"
    with (place / "first.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            write(folder)
            said.write_text(json.dumps(asdict(tapath(folder, "run", "tiny.yaml"))))
    return folder, Ran(**json.loads(said.read_text()))


@pytest.fixture(scope="session")
def finished(first: tuple[File, Ran]) -> File:
    """The folder of an undisturbed run that ended well."""
    folder, ran = first
    assert ran.code == 0, ran.err
    return folder


@pytest.fixture
def in_a_folder(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> File:
    """A database with MLflow's tables, which take seconds to make."""
    from orchestrator.connection import connect

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    connect(f"sqlite:///{file}", create=True)
    return file


@pytest.fixture
def uri(fresh: File, tmp_path: File) -> str:
    """Of a database of the test's own, in its folder."""
    shutil.copy(fresh, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def tracking(uri: str) -> Iterator[Tracking]:
    """A study that has begun."""
    from tests.orchestrator.tracked import begin

    opened = begin(uri)
    yield opened
    opened._background.stop()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A real browser; where there is none its tests are skipped, but never where everything has to pass."""
    from tests.orchestrator import browser as real

    if lacking := real.lacking():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(lacking)
    with real.browsing(tmp_path_factory.mktemp("browser")) as window:
        yield window
