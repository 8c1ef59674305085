"""Ray clusters of a test's own, and what processes are in them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import ray
from ray._private.node import Node
from ray.cluster_utils import Cluster

from tests.orchestrator.ready import forget
from tests.orchestrator.studies import command_line, descendants, lives, stat

TRIALS = ("ray::ResourceTrainable", "ray::Trial")
WORKERS = ("ray::RayTrainWorker", "ray::_RayTrainWorker")
# What starts for a node its autoscaler, its reader of logs, what is left of its dashboard where none is wanted.
BESIDE = ("start_monitor", "start_log_monitor", "start_api_server")
RAYS_OWN = "_AutoscalingCoordinatorActor"  # one for all that use Ray Train in a cluster


@contextmanager
def cluster(*cpus: int, head: int = 0, token: str = "", **options: Any) -> Iterator[Cluster]:
    """A head with so many CPUs, and nodes with so many each. `token`: all of them ask for it, and this process and what
    it starts have it; without one none does."""
    os.environ.pop("RAY_AUTH_MODE", None)  # left by a Ray that an earlier test started in this process
    with pytest.MonkeyPatch.context() as patch:
        if token:
            patch.setenv("RAY_AUTH_MODE", "token")
            patch.setenv("RAY_AUTH_TOKEN", token)
        forget()
        bare(patch)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": head, "include_dashboard": False, **options})
        try:
            for count in cpus:
                made.add_node(num_cpus=count)
            made.wait_for_nodes()
            yield made
        finally:
            made.shutdown()
    forget()


def bare(patch: pytest.MonkeyPatch) -> None:
    """Have nodes that this process starts go without what nobody listens to."""
    for name in BESIDE:
        patch.setattr(Node, name, lambda node, **asked: None)


def processes(*names: str) -> list[int]:
    """Those whose command line begins so, of the clusters of this test and no others."""
    ours = descendants(os.getpid())
    return sorted(pid for pid, since in ours if lives((pid, since)) and command_line((pid, since)).startswith(names))


def trained() -> int:
    """The process that trains; those that load images for it are forks of it, and so have its name."""
    found = processes(*TRIALS)
    (pid,) = (one for one in found if int(stat(one)[1]) not in found)
    return pid


def until(condition: Callable[[], Any], *, limit: float = 300) -> Any:
    """Wait for something; -> what it is."""
    late = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < late, f"nothing came within {limit} s"
        time.sleep(0.02)
    return found


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def left(address: str) -> dict[str, list[str]]:
    """What somebody who looks at the cluster from outside sees of its users: actors and placement groups."""
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    try:
        alive = [one["ActorClassName"] for one in ray._private.state.actors().values() if one["State"] != "DEAD"]
        actors = [name for name in alive if name != RAYS_OWN]
        table = ray.util.placement_group_table()
        groups = [key for key, one in table.items() if one["state"] != "REMOVED"]
        return {"actors": actors, "groups": groups}
    finally:
        ray.shutdown()


def drain(address: str, node: str) -> None:
    """The notice that a node will be taken away in five minutes, as of a cloud."""
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline = int((time.time() + 300) * 1000)
    accepted, why = GcsClient(address=address).drain_node(node, reason, "a test", deadline)
    assert accepted, why
