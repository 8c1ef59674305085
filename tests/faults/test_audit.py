"""What a driver has left in a cluster and in the temporary folder is found, said and removed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path as File

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util import list_named_actors, placement_group, placement_group_table

from orchestrator import audit
from tests import buckets
from tests.faults import clusters
from trainers.address import at
from trainers.atomic import DAY
from trainers.scratch import abandoned, clear, scratch

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
        assert clear() == [left] and not left.exists()
        assert all(folder.is_dir() for folder in (File(mine), other, elsewhere))
    assert not File(mine).exists() and clear() == []


KILLED = """
import os, signal, sys
from pathlib import Path
from trainers.address import at
place = at(sys.argv[1])
with place.draft("0123456789abcdef/weights.safetensors") as draft:
    draft.write_text("half of it")
    print(draft, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_over(store: str) -> File:
    """The draft of a file in a store, of a process that was killed over it."""
    ended = subprocess.run([sys.executable, "-c", KILLED, store], capture_output=True, text=True)
    return File(ended.stdout.strip())


def test_what_a_killed_process_was_about_to_write_to_a_bucket_is_removed(temporary: File) -> None:
    draft = killed_over("s3://bucket/store")
    assert draft.is_file() and draft.parent.parent == temporary
    assert clear() == [draft.parent] and not draft.exists()


PROBING = """
import os, sys
from orchestrator import reach
from trainers.bucket import Bucket
place = Bucket(*sys.argv[1].removeprefix("s3://").split("/", 1))
if sys.argv[2] == "probe":
    place.read = lambda name: os._exit(9)
    place.writable()
reach.unseen(place, lambda file: os._exit(9))
"""


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("what", ["probe", "seen"])
def test_what_a_killed_process_asked_of_a_bucket_by_way_of_trial_is_removed_by_the_next(what: str) -> None:
    store = buckets.new()
    ended = subprocess.run([sys.executable, "-c", PROBING, store, what])
    (left,) = buckets.names(store)
    assert ended.returncode == 9 and left.startswith(f".{what}.")
    buckets.put(f"{store}/.{what}.{'0' * 32}", b"of whom nobody knows, and young")
    buckets.put(f"{store}/.kept", b"by somebody")
    at(store).writable()
    assert sorted(buckets.names(store)) == sorted([".kept", f".{what}.{'0' * 32}"])


def test_what_killed_processes_had_half_written_in_a_folder_is_removed_when_its_stage_is_opened(tmp_path: File) -> None:
    """Those of processes that live, and young ones of whom nobody knows, stay."""
    dead, place = killed_over(str(tmp_path)), at(tmp_path)
    folder, unknown = dead.parent, "0" * 32
    old, young = folder / f".result.json.{unknown}", folder / f".measured.json.{unknown}"
    for file in (old, young, folder / ".kept", folder / "result.json"):
        file.write_text("text")
    os.utime(old, (time.time() - 2 * DAY, time.time() - 2 * DAY))
    os.utime(folder / ".kept", (0, 0))
    with place.draft(f"{folder.name}/lease-000001") as mine:
        mine.write_text("text")
        place.tidy(folder.name)
        assert sorted(folder.iterdir()) == sorted([mine, young, folder / ".kept", folder / "result.json"])
    place.tidy("never-there")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    with clusters.cluster(head=1) as made:
        yield made


@pytest.fixture
def cluster(nodes: Cluster) -> Iterator[None]:
    """This process is a driver of its own in it."""
    ray.init(nodes.address, log_to_driver=False, logging_level="ERROR", namespace="left")
    yield
    ray.shutdown()


class Maker:
    """Of a placement group."""

    def make(self) -> str:
        group = placement_group([{"CPU": 0.25}])
        ray.get(group.ready())
        return str(group.id.hex())

    def end(self) -> None:
        os._exit(1)


class TrainController(Maker):
    """As Ray Train's makes that of its workers."""


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_the_room_of_a_controller_that_is_dead_is_given_back_while_the_driver_goes_on() -> None:
    """Somebody else may have made a group for others, who use it."""
    dead, alive, other = (ray.remote(num_cpus=0)(kind).remote() for kind in (TrainController, TrainController, Maker))
    left, kept, handed_on = ray.get([one.make.remote() for one in (dead, alive, other)])
    own = placement_group([{"CPU": 0.25}])
    ray.get(own.ready())
    assert audit.freed() == []
    for one in (other, dead):
        one.end.remote()
    clusters.until(lambda: [row["State"] for row in ray._private.state.actors().values()].count("DEAD") == 2)
    assert audit.freed() == [left] and audit.freed() == []
    states = {key: one["state"] for key, one in placement_group_table().items()}
    assert states == {left: "REMOVED", **dict.fromkeys((kept, handed_on, own.id.hex()), "CREATED")}


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_what_is_left_in_the_cluster_is_said_and_removed(left: File) -> None:
    class Forgotten:
        def lives(self) -> bool:
            return True

    assert not audit.leftovers() and list_named_actors(all_namespaces=True) == []
    actor = ray.remote(num_cpus=0)(Forgotten).options(name="forgotten", lifetime="detached").remote()
    nameless = ray.remote(num_cpus=0)(Forgotten).options(lifetime="detached").remote()
    assert ray.get(nameless.lives.remote())
    del nameless
    group = placement_group([{"CPU": 1}], lifetime="detached")
    assert ray.get(actor.lives.remote()) and ray.get(group.ready())
    assert audit.cleared(patience=0.3) == [
        "2 actor(s) were left in the cluster and are removed: Forgotten, Forgotten",
        "1 placement group(s) were left in the cluster and are removed",
        "1 temporary folder(s) of processes that were killed are removed",
    ]
    assert audit.cleared() == [] and not audit.leftovers() and not left.exists()
    assert ray.get(ray.remote(num_cpus=1)(lambda: "its CPU is free").remote(), timeout=180)
