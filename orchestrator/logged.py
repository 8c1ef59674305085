"""What MLflow has of the stages of an experiment, read back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from orchestrator.connection import LoggedModel, MlflowClient, every
from orchestrator.ranking import figure


@dataclass
class Logged:
    """What MLflow has of a stage."""

    run: str
    parent: str
    status: str
    epoch: int = 0  # the last one that is there
    described: bool = False  # whether its parameters are there
    tags: Mapping[str, str] = field(default_factory=dict)
    model: LoggedModel | None = None
    score: float | None = None  # of the checkpoint
    seconds: float | None = None  # of its training, once it is done

    @property
    def whole(self) -> bool:
        return self.status == "FINISHED" and self.model is not None and self.model.status == "READY"


def recorded(client: MlflowClient, experiment_id: str, *, key: str = "") -> dict[str, Logged]:
    """What the experiment has of all stages, or of one."""
    condition = f"tags.key = '{key}'" if key else ""
    models = {
        model.tags["key"]: model
        for model in every(partial(client.search_logged_models, [experiment_id], condition or None))
        if "key" in model.tags
    }
    found: dict[str, Logged] = {}
    for run in every(partial(client.search_runs, [experiment_id], condition)):
        its = run.data.tags.get("key")
        if its is None or (its in found and found[its].whole):
            continue
        found[its] = Logged(
            run=run.info.run_id,
            parent=run.data.tags.get("mlflow.parentRunId", ""),
            status=run.info.status,
            epoch=int(run.data.metrics.get("epoch", 0)),
            described=bool(run.data.params),
            tags=run.data.tags,
            model=models.get(its),
            seconds=run.data.metrics.get("seconds") if run.info.status == "FINISHED" else None,
            score=figure(models[its], "score") if its in models else None,
        )
    return found


def path_seconds(stages: Iterable[str], logged: Mapping[str, Logged]) -> dict[str, float]:
    """The metric that says what a path took, by the keys of its stages; nothing if MLflow lacks one of them."""
    seconds = [logged[key].seconds if key in logged else None for key in stages]
    known = [one for one in seconds if one is not None]
    return {"path_seconds": sum(known)} if len(known) == len(seconds) else {}
