"""One undisturbed run of the tiny study, shared by all tests that only look at what it left."""

from __future__ import annotations

from pathlib import Path as File

import pytest

from tests.orchestrator.studies import Ran, tapath, write


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[File, Ran]:
    """The folder that it ran in, and what `tapath run` said. Copy the folder to change it."""
    folder = tmp_path_factory.mktemp("first")
    write(folder)
    return folder, tapath(folder, "run", "tiny.yaml")


@pytest.fixture(scope="session")
def finished(first: tuple[File, Ran]) -> File:
    """The folder of an undisturbed run that ended well."""
    folder, ran = first
    assert ran.code == 0, ran.err
    return folder
