"""Models on different parts of a cluster: real nodes with labels and resources of their own, on one machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path as File

import pytest
import ray
from ray.util.placement_group import (
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from orchestrator import cluster
from orchestrator.resources import Placement
from orchestrator.room import Node, Room
from tests.faults import clusters
from tests.orchestrator import ready, studies
from tests.orchestrator.studies import changed, tapath, without, write
from trainers.call import Invalid

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PLACED = changed(
    ("big: {detector", "big: {resources: {workers: 2, cpus: 0.5}, detector"),
    (
        "low: {detector",
        "low: {resources: {gpus: 1, accelerator: A100, custom: {camera: 1}, memory: 100 MiB}, detector",
    ),
    ("wee: {detector", "wee: {resources: {labels: {disk: ssd}}, detector"),
    text=without("mid"),
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A head, and beside it a node with a camera and eight GPUs, by its own account, and one with a fast disk."""
    with clusters.cluster(head=1) as nodes:
        nodes.add_node(num_cpus=1, num_gpus=8, resources={"camera": 1, "accelerator_type:A100": 1})
        nodes.add_node(num_cpus=1, labels={"disk": "ssd"})
        nodes.wait_for_nodes()
        yield nodes.address


def test_each_model_is_trained_where_its_resources_say(address: str, tmp_path: File) -> None:
    write(tmp_path, changed(("workers: 2, ", ""), text=PLACED))  # workers are placed below
    ran = tapath(tmp_path, "run", "tiny.yaml", "--address", address)
    assert ran.code == 0, ran.err
    there = studies.stages(tmp_path)
    assert there.keys() == {("big",), ("big", "low"), ("big", "wee"), ("big", "low", "wee"), ("wee",)}
    assert workers(tmp_path) == {16: 1, 8: 1, 4: 1}


def workers(folder: File) -> dict[int, int]:
    """How many trained the models, by their widths."""
    results = [json.loads(file.read_text()) for file in (folder / "store").glob("*/result.json")]
    return {one["stage"]["model"]["backbone"]["TinyResNet"]["width"]: one["usage"]["workers"] for one in results}


@pytest.mark.parametrize(("wanted", "count"), [("custom: {camera: 1}", 1), ("workers: 2, custom: {camera: 0.5}", 2)])
def test_workers_that_find_no_room_are_said_to_wait_and_keep_nobody_else_from_training(
    address: str, tmp_path: File, wanted: str, count: int
) -> None:
    seated = ("big: {detector", f"big: {{resources: {{cpus: 0.5, {wanted}}}, detector")
    write(tmp_path, changed(seated, text=without("mid", "low")))
    run = ("run", "tiny.yaml", "--address", address)
    with cluster.connected(address):  # somebody else has the only camera
        theirs = placement_group([{"camera": 1}])
        ray.get(theirs.ready(), timeout=60)
        with studies.underway(tmp_path, *run) as command:
            command.until(lambda: len(studies.stored(tmp_path)) == 1)
            command.until(lambda: "big waits: " in command.text)
            said = f"big waits: needs {count} worker(s) with 0.5 CPU, {1 / count:g} camera each; free are "
            assert said in command.text and ", 0 of 1 camera" in command.text
            assert "started  big" not in command.text and "started  wee alone" in command.text
            remove_placement_group(theirs)
            assert command.end(600) == 0, command.text
    assert studies.stages(tmp_path).keys() == {("big",), ("big", "wee"), ("wee",)}
    assert workers(tmp_path) == {16: count, 4: 1}


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


def test_a_ray_that_is_started_here_lets_nobody_in_without_its_token(tmp_path: File) -> None:
    with cluster.connected(None):
        there = ray.get_runtime_context().gcs_address
        program = f"import ray; ray.init(address={there!r}, logging_level='ERROR')"
        variables = {**studies.environment(), "HOME": str(tmp_path)}
        other = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True)
    assert other.returncode != 0 and "AuthenticationError" in other.stderr, other.stderr


def test_a_trial_is_placed_on_the_node_that_its_labels_name_or_that_has_its_gpus(address: str) -> None:
    with cluster.connected(address):
        nodes = cluster.nodes()
        (fast,) = (node for node in nodes if node.labels.get("disk") == "ssd")
        (large,) = (node for node in nodes if node.has.get("GPU"))
        wanted = Placement(labels={"disk": "ssd"})
        for placement, node in ((wanted, fast), (Placement(gpus=8, accelerator="A100"), large)):
            group = cluster.bundles({"placement": placement.model_dump_json()}).to_placement_group()
            ray.get(group.ready(), timeout=180)
            assert set(placement_group_table(group)["bundles_to_node_id"].values()) == {node.name}
            remove_placement_group(group)
        room = Room(nodes, {"wee": wanted, "all": Placement(workers=3), "eighth": Placement(cpus=0.1, gpus=1)})
        assert (room.slots("wee"), room.slots("all"), room.slots("eighth")) == (1, 1, 8)
        with pytest.raises(Invalid, match="H100"):
            Room(nodes, {"wee": Placement(gpus=1, accelerator="H100")}).check()


def test_stages_of_which_each_wants_more_than_half_of_the_cluster_run_one_after_another(
    address: str, tmp_path: File
) -> None:
    """Of three processors each takes two; the third is for whoever wants one."""
    gang = ("big: {detector", "big: {resources: {workers: 2}, detector")
    seeds = ("controls: [alone]\n", "controls: [alone]\nseeds: [0, 1]\n")
    write(tmp_path, changed(gang, seeds, ("epochs: 2", "epochs: 1"), text=without("mid", "low")))
    ran = tapath(tmp_path, "run", "tiny.yaml", "--address", address)
    assert ran.code == 0, ran.err
    told = re.findall(r" (started|done) +(big|wee alone)(?: \(seed (\d)\))?  ", ran.err)
    large = [(what, seed) for what, model, seed in told if model == "big"]
    assert [what for what, _ in large] == ["started", "done"] * 2, ran.err
    assert len({seed for _, seed in large}) == 2
    first_small = next(number for number, (_, model, _) in enumerate(told) if model == "wee alone")
    assert ("done", "big", large[-1][1]) in told[first_small:], "nobody trained beside them"
