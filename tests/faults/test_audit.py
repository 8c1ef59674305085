"""What a driver has left in a cluster and in the temporary folder is found, said and removed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path as File

import pytest
import ray
from ray.util import list_named_actors, placement_group

from orchestrator import audit
from trainers.scratch import abandoned, scratch, sweep

LEAVING = """
import os, signal
from trainers.scratch import scratch
with scratch() as folder:
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def temporary(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> File:
    """Where temporary folders are made, here and by processes that are started."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.fixture
def left(temporary: File) -> File:
    """A folder of a process that was killed."""
    ended = subprocess.run([sys.executable, "-c", LEAVING], capture_output=True, text=True)
    return File(ended.stdout.strip())


def test_a_folder_of_a_process_that_was_killed_is_removed_and_others_are_not(temporary: File, left: File) -> None:
    other = temporary / "tapath-of-somebody"
    other.mkdir()
    elsewhere = temporary / f"tapath-00000000-{left.name.split('-', 2)[2]}"
    elsewhere.mkdir()
    with scratch() as mine:
        assert abandoned() == [left] and left.is_dir()
        assert sweep() == [left] and not left.exists()
        assert all(folder.is_dir() for folder in (File(mine), other, elsewhere))
    assert not File(mine).exists() and sweep() == []


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR", namespace="left")
    yield
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_what_is_left_in_the_cluster_is_said_and_removed(left: File) -> None:
    class Forgotten:
        def lives(self) -> bool:
            return True

    assert not audit.leftovers() and list_named_actors(all_namespaces=True) == []
    actor = ray.remote(num_cpus=0)(Forgotten).options(name="forgotten", lifetime="detached").remote()
    group = placement_group([{"CPU": 1}], lifetime="detached")
    assert ray.get(actor.lives.remote()) and ray.get(group.ready())
    assert audit.cleared(patience=0.3) == [
        "1 actor(s) were left in the cluster and are removed: Forgotten",
        "1 placement group(s) were left in the cluster and are removed",
        "1 temporary folder(s) of processes that were killed are removed",
    ]
    assert audit.cleared() == [] and not audit.leftovers() and not left.exists()
    assert ray.get(ray.remote(num_cpus=1)(lambda: "its CPU is free").remote(), timeout=30)
