"""Ray under a run: where it is, how many stages fit on it at once, and Tune's event loop."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Tune's own loggers and snapshots would cost more than a small stage, and nothing reads them. Set before it loads.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "86400")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")

import ray
from ray import tune
from ray.tune import FailureConfig, PlacementGroupFactory, RunConfig, TuneConfig, Tuner
from ray.tune.stopper import Stopper

from orchestrator.resources import Placement
from orchestrator.room import Node
from orchestrator.searcher import DriverOnly, StageSearcher, Starts
from orchestrator.trial import Trial
from trainers.spec import Stage

DRIVER = {"memory": 1.0}  # of a stage with several workers: any part of a CPU could keep its own workers out for ever


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Ray at an address, or of a job's own cluster, or started here for the length of the run."""
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    here: dict[str, Any] = {"num_cpus": os.cpu_count(), "include_dashboard": False} if address == "local" else {}
    ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=True, **here)
    try:
        yield
    finally:
        ray.shutdown()


def nodes() -> list[Node]:
    """The nodes that are alive."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    return [Node(node["NodeID"], node["Resources"], node.get("Labels") or {}) for node in alive]


def shortage(wanted: Placement) -> str:
    """What a stage needs, and what is free of it now."""
    free, total = ray.available_resources(), ray.cluster_resources()
    return "; ".join(
        f"needs {amount * wanted.workers:g} {kind}, free are {free.get(kind, 0):g} of {total.get(kind, 0):g}"
        for kind, amount in wanted.demand.items()
    )


class Interrupted(DriverOnly, Stopper):
    """Ends all trials once the run is asked to stop."""

    def __init__(self, stopping: Any) -> None:
        self.stopping = stopping

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return bool(self.stopping.is_set())


def bundles(config: dict[str, Any]) -> PlacementGroupFactory:
    """What Tune is to find for a trial's process: the only worker itself, or who watches over several."""
    wanted = Placement.model_validate_json(config["placement"])
    if wanted.workers > 1:
        return PlacementGroupFactory([DRIVER])
    labels = {"bundle_label_selector": [wanted.labels]} if wanted.labels else {}
    return PlacementGroupFactory([wanted.demand], **labels)


def tune_all(run: Any, order: Callable[[Stage], str], placement: Callable[[Stage], Placement], *, folder: str) -> None:
    """Let Tune run trials until the run is over. The searcher has a trial process that dies replaced."""
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # it lists trials that died, replaced or not

    def configure(stage: Stage) -> dict[str, Any]:
        return {"order": order(stage), "placement": placement(stage).model_dump_json()}

    searcher = StageSearcher(run, configure)
    Tuner(
        tune.with_resources(Trial, bundles),
        tune_config=TuneConfig(
            search_alg=searcher,
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: searcher.keys.get(trial.trial_id, trial.trial_id),
        ),
        run_config=RunConfig(
            name="tapath",
            storage_path=folder,
            verbose=0,
            stop=Interrupted(run.stopping),
            failure_config=FailureConfig(max_failures=0),
            callbacks=[Starts(searcher)],
        ),
    ).fit()
