"""One thread, as small tensors gain nothing by more; a store; an MLflow database with its tables, and one of a test's
own; an undisturbed run of the tiny study."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.orchestrator.conftest import finished, first, fresh, uri
from trainers.store import Store

__all__ = ["finished", "first", "fresh", "uri"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")
