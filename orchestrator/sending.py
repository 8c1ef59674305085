"""Metrics, parameters and tags on their way to a run of MLflow: in few requests, and harmless when sent twice.

A request that nobody answered in time may still be carried out, later. Metrics that are equal in name, value, step and
time are one in MLflow, so each epoch has a time that depends on nothing but the run and the epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.connection import LoggedModel, Metric, MlflowClient, Param, RunTag

METRICS, PARAMS = 900, 90  # of one request; MLflow takes 100 parameters or tags, and 1000 things in all


def send(
    client: MlflowClient,
    run: str,
    *,
    metrics: Sequence[Metric] = (),
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write to a run in as few requests as MLflow allows."""
    pairs = [Param(name, value) for name, value in (params or {}).items()]
    while len(pairs) > PARAMS or len(metrics) > METRICS:
        client.log_batch(run, metrics[:METRICS], pairs[:PARAMS])
        metrics, pairs = metrics[METRICS:], pairs[PARAMS:]
    named = [RunTag(name, value) for name, value in (tags or {}).items()]
    while len(named) > PARAMS:
        client.log_batch(run, tags=named[:PARAMS])
        named = named[PARAMS:]
    if metrics or pairs or named:
        client.log_batch(run, metrics, pairs, named)


def epoch_metrics(epoch: Mapping[str, float], began: int) -> Iterable[Metric]:
    """The metrics of an epoch, at the time when it was over if the run had gone on from `began`, milliseconds since
    1970, without interruption: no later than it really was, and never later than now."""
    over = min(began + round(1000 * epoch.get("seconds", epoch["epoch"])), round(1000 * time.time()))
    return (Metric(name, value, over, int(epoch["epoch"])) for name, value in epoch.items())


def checkpoint_metrics(epoch: Mapping[str, float], model: LoggedModel) -> list[Metric]:
    """The metrics of a run's last epoch and of its checkpoint, at the checkpoint's time.

    Those that are not finite are kept from the checkpoint, where MLflow would turn NaN into 0.
    """
    made, step = model.creation_timestamp, int(epoch["epoch"])
    return [
        Metric(name, value, made, step, model_id=model.model_id if math.isfinite(value) else None)
        for name, value in epoch.items()
    ]
