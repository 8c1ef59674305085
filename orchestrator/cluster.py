"""Ray under a run: the way to it, what its nodes have and see, and Tune's event loop."""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

# Tune's own loggers and snapshots would cost more than a small stage, and nothing reads them. Set before it loads.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "86400")
# Of a searcher Tune would start one process at a time, and a process that waits would keep all others waiting.
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "100000")
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # tracebacks of processes that died: a line is said of each
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")

import ray
from ray import tune
from ray._private.state import available_resources_per_node
from ray.exceptions import AuthenticationError, NodeDiedError, RayError
from ray.tune import FailureConfig, PlacementGroupFactory, RunConfig, TuneConfig, Tuner
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE
from ray.tune.stopper import Stopper
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.cores import cores
from orchestrator.masking import public
from orchestrator.reach import TOKEN
from orchestrator.resources import Placement, amount_of
from orchestrator.room import WATCHER, Node, fits
from orchestrator.searcher import DriverOnly, StageSearcher, Starts
from orchestrator.trial import Trial, draining
from trainers.address import at
from trainers.call import Invalid
from trainers.order import SILENCE
from trainers.proc import kills
from trainers.spec import Stage

# Tune would hand the driver's keys on to all trials, in what Ray writes to its log on every node. Nodes have their own.
ENV_VARS_TO_PROPAGATE.difference_update([name for name in ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")])

ANSWER = 60.0  # seconds that a node has to say whether it sees a file; whoever is slower is not held to be blind
SOON = 10.0  # seconds that a node has to say whether it killed a process
SLOW = "timed out during startup"  # what Ray says of a node on a machine that is busy
STARTS = 4  # as often a node is started before that is believed


def _join(address: str, here: dict[str, Any]) -> None:
    """Ray's own start, again if a node that it starts here takes longer than the half minute that it waits for."""
    for left in reversed(range(STARTS)):
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=True, **here)
            return
        except Exception as error:
            if address != "local" or SLOW not in str(error) or not left:
                raise
            ray.shutdown()


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Ray at an address, or of a job's own cluster, or started here for the length of the run.

    A process that is connected already, as a notebook may be, stays so: its Ray is neither started nor ended here.
    Raises `Invalid` at ("--address",) when there is none, or when it does not let us in.
    """
    if ray.is_initialized():
        if address:
            raise Invalid("this process is connected to Ray already; leave the address out", ("--address",))
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    here: dict[str, Any] = {"num_cpus": cores(), "include_dashboard": False} if address == "local" else {}
    with tempfile.TemporaryFile("w+") as said:
        try:
            _knock(address)
            with diverted(said):
                _join(address, here)
        except Exception as error:
            said.seek(0)
            heard = said.read()
            if address == "local" or not isinstance(error, OSError | AuthenticationError):
                sys.stderr.write(heard)
                raise
            locked = isinstance(error, AuthenticationError) or "Unauthenticated" in heard
            reason = f"wants a token that is not here, or another one: {TOKEN}" if locked else "does not answer"
            hint = "" if locked else ": does it run, and is this its address and the port of its GCS, as in HEAD:6379?"
            raise Invalid(f"the Ray cluster at {public(address)} {reason}{hint}", ("--address",)) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise `OSError` if nobody listens at HOST:PORT: Ray would try for many minutes, without a word."""
    host, found, port = address.rpartition(":")
    if found and port.isdecimal() and "/" not in host:
        with socket.create_connection((host, int(port)), timeout=10):
            pass


@contextmanager
def diverted(file: IO[str]) -> Iterator[None]:
    """What this process writes to stderr goes to a file: Ray's C++ complains there each second, past Python."""
    try:
        before = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    sys.stderr.flush()
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def nodes() -> list[Node]:
    """The nodes that are alive, and will be for all that anybody knows."""
    going = draining()
    alive = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in going]
    return [Node(node["NodeID"], node["Resources"], node.get("Labels") or {}) for node in alive]


def seen(nodes: Iterable[Node], file: str) -> dict[str, str]:
    """By node, nothing if a process there sees the file, else what is wrong; without those that do not answer, and
    those that have died meanwhile."""
    places = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
    look = ray.remote(num_cpus=0, max_retries=0)(sees)
    asked = {
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.name, soft=False)).remote(file): node
        for node in nodes
    }
    answers = {}
    for answer in ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER)[0] if asked else ():
        name = asked[answer].name
        label = f"node {places.get(name, '')} ({name[:8]})"
        try:
            answers[label] = ray.get(answer)
        except RayError as error:  # it cannot load us, unless it is gone
            if isinstance(error, NodeDiedError) or name not in {one["NodeID"] for one in ray.nodes() if one["Alive"]}:
                continue
            reason = str(error).strip().splitlines()[-1]
            answers[label] = f"tapath does not run there, install it as it is here: {public(reason)}"
    return answers


def sees(file: str) -> str:
    """Nothing if there is a file, else what is wrong. Looked for a few times: NFS may remember that there was none."""
    folder, _, name = file.rpartition("/")
    for _ in range(10):
        try:
            place = at(folder)
            place.reachable()
            if place.look(name) is not None:
                return ""
        except (Invalid, OSError) as error:
            return str(error)
        time.sleep(0.5)
    return "it does not see it"


def greeting() -> str:
    """That a task ran, and where: what a process of Ray says of itself."""
    resources = ray.cluster_resources()
    pid = ray.get(ray.remote(num_cpus=0, max_retries=0)(_process).remote(), timeout=ANSWER)
    return f"a task ran in process {pid}, of {resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"


def _process() -> int:
    return os.getpid()


def killed(node: str) -> int | None:
    """How many processes of a node its kernel has killed for lack of memory; None if it does not say soon."""
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    try:
        return int(
            ray.get(
                ray.remote(num_cpus=0, max_retries=0)(kills).options(scheduling_strategy=there).remote(), timeout=SOON
            )
        )
    except RayError:  # it is gone
        return None


def shortage(wanted: Placement) -> str:
    """What a stage needs, and what of it is free now on the nodes that suit it."""
    try:
        there, free = nodes(), available_resources_per_node()
    except RayError:  # it is asked again
        return f"needs {wanted.needs}; Ray does not say what is free"
    suited = [node for node in there if node.suits(wanted) and all(map(node.has.get, wanted.demand))]
    here = [free.get(node.name, {}) for node in suited]
    found = ", ".join(
        amount_of(kind, sum(one.get(kind, 0) for one in here), sum(node.has.get(kind, 0) for node in suited))
        for kind in wanted.demand
    )
    room = sum(fits(wanted, one) for one in here)
    return f"needs {wanted.needs}; free are {found} on {len(suited)} node(s), room for {room} worker(s)"


def release(post: str) -> None:
    """Ask a stage, by the name of its post, to end its workers after their epoch, and to be handed out again."""
    with suppress(ValueError):  # it has ended meanwhile
        ray.get_actor(post).release.remote()


class Interrupted(DriverOnly, Stopper):
    """Has all stages end once the run is asked to stop, each after its step, and then Tune.

    Tune itself would kill a process that takes more than ten seconds for that: while it measures, or writes a large
    state.
    """

    def __init__(self, stopping: Any, searcher: StageSearcher) -> None:
        self.stopping, self.searcher = stopping, searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return bool(self.stopping.is_set()) and self.searcher.halted()


def bundles(config: dict[str, Any]) -> PlacementGroupFactory:
    """What Tune is to find for a trial's process: the only worker itself, or who watches over several."""
    wanted = Placement.model_validate_json(config["placement"])
    if wanted.apart:
        return PlacementGroupFactory([WATCHER])
    labels = {"bundle_label_selector": [wanted.labels]} if wanted.labels else {}
    return PlacementGroupFactory([wanted.demand], **labels)


def tune_all(
    run: Any, configure: Callable[[Sequence[Stage]], dict[str, Any]], *, folder: str, silence: float = SILENCE
) -> None:
    """Let Tune run trials until the run is over. The searcher has a trial process that dies replaced.

    `configure`: what the process is told that trains these stages together.
    """
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # it lists trials that died, replaced or not
    searcher = StageSearcher(run, configure, silence=silence, kills=killed)
    Tuner(
        tune.with_resources(Trial, bundles),
        tune_config=TuneConfig(
            search_alg=searcher,
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: searcher.name(trial.trial_id),
        ),
        run_config=RunConfig(
            name="tapath",
            storage_path=folder,
            verbose=0,
            stop=Interrupted(run.stopping, searcher),
            failure_config=FailureConfig(max_failures=0),
            callbacks=[Starts(searcher)],
        ),
    ).fit()
