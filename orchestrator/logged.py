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
    began: int = 0  # milliseconds since 1970
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
    own: dict[tuple[str, str], LoggedModel] = {}  # of each stage and run
    whole: dict[str, LoggedModel] = {}  # of a stage, of whichever run: a person may have deleted the one that made it
    for model in every(partial(client.search_logged_models, [experiment_id], condition or None)):
        its, made = model.tags.get("key"), model.status == "READY"
        if its is not None and (made or (its, model.source_run_id) not in own):
            own[its, model.source_run_id] = model
            whole |= {its: model} if made else {}
    found: dict[str, Logged] = {}
    for run in every(partial(client.search_runs, [experiment_id], condition)):
        its = run.data.tags.get("key")
        if its is None or (its in found and found[its].whole):
            continue
        model = own.get((its, run.info.run_id)) or whole.get(its)
        found[its] = Logged(
            run=run.info.run_id,
            parent=run.data.tags.get("mlflow.parentRunId", ""),
            status=run.info.status,
            began=run.info.start_time or 0,
            epoch=int(run.data.metrics.get("epoch", 0)),
            described=bool(run.data.params),
            tags=run.data.tags,
            model=model,
            seconds=run.data.metrics.get("seconds") if run.info.status == "FINISHED" else None,
            score=figure(model, "score") if model is not None else None,
        )
    return found


def ready(client: MlflowClient, experiment_id: str, key: str) -> LoggedModel | None:
    """The whole checkpoint of a stage, which is there without a run if a person deleted that."""
    found = every(partial(client.search_logged_models, [experiment_id], f"tags.key = '{key}'"))
    return next((model for model in found if model.status == "READY"), None)


def remove_doubles(client: MlflowClient, experiment_id: str, key: str, have: Logged) -> None:
    """Delete a second run or checkpoint of a stage that was begun and no more: a server that was away may carry out
    later what it was asked before, and has been asked again since."""
    condition = f"tags.key = '{key}'"
    for run in list(every(partial(client.search_runs, [experiment_id], condition))):
        if run.info.run_id != have.run and run.info.status != "FINISHED":
            client.delete_run(run.info.run_id)
    for model in list(every(partial(client.search_logged_models, [experiment_id], condition))):
        if have.model is not None and model.model_id != have.model.model_id and model.status != "READY":
            client.delete_logged_model(model.model_id)


def path_seconds(stages: Iterable[str], logged: Mapping[str, Logged]) -> dict[str, float]:
    """The metric that says what a path took, by the keys of its stages; nothing if MLflow lacks one of them."""
    seconds = [logged[key].seconds if key in logged else None for key in stages]
    known = [one for one in seconds if one is not None]
    return {"path_seconds": sum(known)} if len(known) == len(seconds) else {}
