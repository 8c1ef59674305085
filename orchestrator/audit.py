"""What a run has left in the cluster and on this machine when it ends, and that it is removed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from typing import NamedTuple

import ray
from ray.core.generated.gcs_pb2 import PlacementGroupTableData
from ray.exceptions import RayError
from ray.util import list_named_actors, placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainers.scratch import clear

PATIENCE = 10.0  # seconds in which what is about to end may end by itself
CONTROLLER = "TrainController"  # Ray Train's, of the workers of a stage
RAYS_OWN = {"_AutoscalingCoordinatorActor"}  # Ray Train has one for all drivers of a cluster, that outlives each
REMOVAL = 60.0  # seconds in which what is left must have gone
LOOK = 0.1  # seconds between two looks


class Leftovers(NamedTuple):
    """Of this driver, in the cluster that it has joined."""

    actors: dict[str, str]  # the name of the class, by id
    groups: list[str]  # placement groups, by id

    def __bool__(self) -> bool:
        return bool(self.actors or self.groups)


def there() -> set[str]:
    """The ids of the actors and placement groups that this driver has before a run: in a notebook, somebody else's."""
    job = ray.get_runtime_context().get_job_id()
    return {key for key in (*ray._private.state.actors(), *placement_group_table()) if key.endswith(job)}


def leftovers(but: Collection[str] = ()) -> Leftovers:
    """The actors that live and the placement groups that hold resources; the stages' queues are actors, too. Without
    those of these ids.

    Asked of the control store itself, for the public API of states needs a dashboard. Ids end with their driver's.
    """
    job = ray.get_runtime_context().get_job_id()
    actors = {
        key: name
        for key, actor in ray._private.state.actors().items()
        if actor["State"] != "DEAD"
        and actor["JobID"] == job
        and key not in but
        and (name := actor["ActorClassName"].rpartition(".")[2]) not in RAYS_OWN
    }
    own = {key: one for key, one in placement_group_table().items() if key.endswith(job) and key not in but}
    return Leftovers(actors, [key for key, one in own.items() if one["state"] != "REMOVED"])


def freed() -> list[str]:
    """Give back the placement groups of this driver that Ray Train's controllers have left who are dead, while it goes
    on; -> their ids. Their workers are dead with them; what others have made and handed on is not touched.

    Ray Train keeps a group of workers of which one dies while they start, and Ray itself gives it back with the driver
    alone: until then no other workers would find room. Ray's public table does not say who made a group.
    """
    job = ray.get_runtime_context().get_job_id()
    found = []
    for row in ray._private.state.state._connect_and_get_accessor().get_placement_group_table():
        one = PlacementGroupTableData.FromString(row)
        key = one.placement_group_id.hex()
        kept = one.state == PlacementGroupTableData.REMOVED or one.is_detached or not one.creator_actor_id
        if key.endswith(job) and not kept and _was_controller(ray.ActorID(one.creator_actor_id)):
            remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(key)))
            found.append(key)
    return found


def _was_controller(maker: ray.ActorID) -> bool:
    actor = {} if maker.is_nil() else ray._private.state.actors(maker.hex())  # no actor: the driver itself
    return bool(actor) and actor["State"] == "DEAD" and actor["ActorClassName"].rpartition(".")[2] == CONTROLLER


def free() -> None:
    """Give these back if Ray answers: what finds no room for them waits, and somebody tries this again."""
    with suppress(Exception):  # part of it is not public; no stage and no run should end for it
        freed()


def _remove(left: Leftovers) -> None:
    """End actors and give groups back. Ray ends only those actors of which one has a handle or a name, and those that
    Ray Train leaves where a trial is killed and no dashboard runs have neither: of these the process is ended."""
    named = set()
    for one in list_named_actors(all_namespaces=True):
        with suppress(ValueError, RayError):  # it has ended meanwhile
            actor = ray.get_actor(one["name"], namespace=one["namespace"])
            if actor._actor_id.hex() in left.actors:
                ray.kill(actor)
                named.add(actor._actor_id.hex())
    ending = []
    for key in left.actors.keys() - named:
        found = ray._private.state.actors(key)
        if found and found["State"] != "DEAD":
            there = NodeAffinitySchedulingStrategy(found["Address"]["NodeID"], soft=False)
            end = ray.remote(num_cpus=0, max_retries=0)(_end).options(scheduling_strategy=there)
            ending.append(end.remote(found["Pid"]))
    if ending:
        ray.wait(ending, num_returns=len(ending), timeout=PATIENCE)
    for key in left.groups:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(key)))


def _end(pid: int) -> None:
    with suppress(ProcessLookupError):  # it has ended meanwhile
        os.kill(pid, signal.SIGKILL)


def cleared(patience: float = PATIENCE, *, but: Collection[str] = ()) -> list[str]:
    """Remove what this driver has left after so many seconds, but for these ids, and the temporary folders of processes
    that were killed; -> what there is to say of it. What lives no longer than its driver needs no removing, and is said
    all the same."""
    late = time.monotonic() + patience
    while (left := leftovers(but)) and time.monotonic() < late:
        time.sleep(LOOK)
    said = []
    if left.actors:
        names = ", ".join(sorted(left.actors.values()))
        said.append(f"{len(left.actors)} actor(s) were left in the cluster and are removed: {names}")
    if left.groups:
        said.append(f"{len(left.groups)} placement group(s) were left in the cluster and are removed")
    late = time.monotonic() + REMOVAL
    while left and time.monotonic() < late:  # a node that is busy does what it is told late, or not at all
        _remove(left)
        time.sleep(LOOK)
        left = leftovers(but)
    if left:
        kept = ", ".join([*sorted(left.actors.values()), *(f"group {key}" for key in left.groups)])
        said.append(f"not removed within {REMOVAL:g} s, and to be looked for with `ray list actors`: {kept}")
    if folders := clear():
        said.append(f"{len(folders)} temporary folder(s) of processes that were killed are removed")
    return said
