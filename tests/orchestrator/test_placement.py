"""Models on different parts of a cluster: real nodes with labels and resources of their own, on one machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path as File

import pytest
import ray
from ray.util.placement_group import placement_group_table, remove_placement_group

from orchestrator import cluster
from orchestrator.resources import Placement
from orchestrator.room import Node, Room
from tests.faults import clusters
from tests.orchestrator import ready, studies
from tests.orchestrator.studies import changed, tapath, without, write

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PLACED = changed(
    ("big: {detector", "big: {resources: {workers: 2, cpus: 0.5}, detector"),
    ("low: {detector", "low: {resources: {custom: {camera: 1}, memory: 100 MiB}, detector"),
    ("wee: {detector", "wee: {resources: {labels: {disk: ssd}}, detector"),
    text=without("mid"),
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A head, and beside it a node with a camera and one with a fast disk."""
    with clusters.cluster(head=1) as nodes:
        nodes.add_node(num_cpus=1, resources={"camera": 1})
        nodes.add_node(num_cpus=1, labels={"disk": "ssd"})
        nodes.wait_for_nodes()
        yield nodes.address


def test_each_model_is_trained_where_its_resources_say(address: str, tmp_path: File) -> None:
    write(tmp_path, PLACED)
    ran = tapath(tmp_path, "run", "tiny.yaml", "--address", address)
    assert ran.code == 0, ran.err
    there = studies.stages(tmp_path)
    assert there.keys() == {("big",), ("big", "low"), ("big", "wee"), ("big", "low", "wee"), ("wee",)}
    results = [json.loads(file.read_text()) for file in (tmp_path / "store").glob("*/result.json")]
    workers = {
        result["stage"]["model"]["backbone"]["TinyResNet"]["width"]: result["usage"]["workers"] for result in results
    }
    assert workers == {16: 2, 8: 1, 4: 1}


def test_nothing_of_it_changes_a_key(tmp_path: File) -> None:
    plans = []
    for text in (PLACED, without("mid")):
        write(tmp_path, text)
        ran = tapath(tmp_path, "plan", "tiny.yaml", "--json")
        assert ran.code == 0, ran.err
        plans.append([stage["key"] for stage in json.loads(ran.out)["stages"]])
    assert plans[0] == plans[1]


def test_what_no_node_can_have_is_refused_before_anything_starts(address: str, tmp_path: File) -> None:
    write(tmp_path, changed(("disk: ssd", "disk: tape"), text=PLACED))
    ran = tapath(tmp_path, "run", "tiny.yaml", "--address", address)
    assert ran.code == 2 and "a stage of wee needs 1 worker(s) with 1 CPU, disk=tape each" in ran.err
    assert not (tmp_path / "runs").exists()


def test_every_node_is_asked_whether_it_sees_the_store(address: str, tmp_path: File) -> None:
    with cluster.connected(address):
        nodes = cluster.nodes()
        assert len(nodes) == 3
        there, nowhere = (cluster.seen(nodes, str(place)) for place in (tmp_path, tmp_path / "nowhere"))
        assert sorted(there.values()) == ["", "", ""] and there.keys() == nowhere.keys()
        assert set(nowhere.values()) == {"it does not see it"}
        assert all(any(node.name[:8] in name for name in there) for node in nodes)
        gone = Node("5c" * 28, {"CPU": 1.0})
        assert cluster.seen([*nodes, gone], str(tmp_path)) == there, "a node that has died says nothing"


def test_sqlite_is_refused_for_a_job_on_several_nodes(
    address: str, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, PLACED)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    ran = tapath(tmp_path, "run", "tiny.yaml", "--address", address)
    assert ran.code == 2 and "resources.tracking: SQLite (mlflow.db) is a file of the node" in ran.err
    assert not (tmp_path / "mlflow.db").exists() and not (tmp_path / "runs").exists()


def test_what_ray_leaves_in_an_environment_is_kept_from_commands(address: str) -> None:
    with cluster.connected(address):
        pass
    with cluster.connected(None):
        pass
    assert ready.fits(studies.environment())


def test_a_trial_is_placed_on_the_node_that_its_labels_name(address: str) -> None:
    with cluster.connected(address):
        nodes = cluster.nodes()
        (fast,) = (node for node in nodes if node.labels.get("disk") == "ssd")
        wanted = Placement(labels={"disk": "ssd"})
        group = cluster.bundles({"placement": wanted.model_dump_json()}).to_placement_group()
        ray.get(group.ready(), timeout=30)
        assert set(placement_group_table(group)["bundles_to_node_id"].values()) == {fast.name}
        remove_placement_group(group)
        room = Room(nodes, {"wee": wanted, "all": Placement(workers=3)})
        assert (room.slots("wee"), room.slots("all")) == (1, 1)
