"""Which path is best, asked of MLflow alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any

from orchestrator.connection import WHERE, LoggedModel, connect, every, talking
from trainers.call import Invalid, alternatives


@dataclass(frozen=True)
class Found:
    """A path to the student in one setting, over its seeds."""

    path: str  # `r101 > r34 > r18`; a single name: the student alone
    role: str  # student or alone
    score: float  # mean over the seeds; NaN when one of them has none that is finite
    scores: dict[int, float]  # by seed
    seconds: float  # to train the whole path, teachers included; mean over the seeds
    keys: dict[int, str]  # of the student's stage, by seed
    uris: dict[int, str]  # of its weights, by seed
    figures: dict[str, float]  # all that its metric said, such as AP50; means over the seeds
    settings: list[str] = field(default_factory=list)  # of a sweep, edge by edge: `LD.temperature 8, LD.weight 0.1`
    selected: dict[int, str] = field(default_factory=dict)  # by seed: that the score is of a selected epoch, and which


def paths(uri: str, experiment: str, *, keys: Container[str] | None = None, by: str = "score") -> list[Found]:
    """The paths to the student whose checkpoints the experiment has; highest score first, without one last.

    Checkpoints that differ in more than their seeds are different entries even when their paths read the
    same, as in a sweep or after a change of the recipe. `keys` leaves only these students; `by` is the figure that
    ranks, such as val/AP50: the score is that by which a run ranked them last. Raises `Invalid`.
    """
    client = connect(uri)
    with talking(uri):
        known = client.get_experiment_by_name(experiment)
        if known is None:
            names = [e.name for e in every(client.search_experiments)]
            raise Invalid(f"the MLflow experiment {alternatives(experiment, names)}", WHERE)
        models = list(every(partial(client.search_logged_models, [known.experiment_id])))
    ready = {model.tags["key"]: model for model in models if model.status == "READY" and "setting" in model.tags}
    groups: dict[str, list[LoggedModel]] = defaultdict(list)
    for key, model in ready.items():
        if model.tags["role"] in ("student", "alone") and (keys is None or key in keys):
            groups[model.tags["setting"]].append(model)
    found = [_found(sorted(group, key=_seed), ready, by) for group in groups.values()]
    return sorted(
        found,
        key=lambda f: (math.isfinite(f.score), f.score if math.isfinite(f.score) else 0.0),
        reverse=True,
    )


def best(uri: str, experiment: str, *, keys: Container[str] | None = None, by: str = "score") -> Found:
    """The path with the highest score. Raises `Invalid`, also when no student has a finite score."""
    found = [f for f in paths(uri, experiment, keys=keys, by=by) if math.isfinite(f.score)]
    if not found:
        raise Invalid(f"no student of the MLflow experiment {experiment} is trained yet", WHERE)
    return found[0]


def _found(models: list[LoggedModel], ready: dict[str, LoggedModel], by: str) -> Found:
    scores = {_seed(model): figure(model, by) for model in models}
    return Found(
        path=models[0].tags["path"],
        role=models[0].tags["role"],
        score=fmean(scores.values()),
        scores=scores,
        seconds=fmean(_seconds(model, ready) for model in models),
        keys={_seed(model): model.tags["key"] for model in models},
        uris={_seed(model): model.tags["uri"] for model in models},
        figures=_figures(models),
        settings=_settings(models[0], ready),
        selected={_seed(model): model.tags["selected"] for model in models if "selected" in model.tags},
    )


def _figures(models: list[LoggedModel]) -> dict[str, float]:
    """Means of what every one of the checkpoints has as `val/NAME`."""
    names = [{m.key for m in model.metrics or () if m.key.startswith("val/")} for model in models]
    return {
        name.removeprefix("val/"): fmean(figure(model, name) for model in models)
        for name in sorted(set.intersection(*names))
    }


def _settings(model: LoggedModel, ready: dict[str, LoggedModel]) -> list[str]:
    """Of the edges to it; none if nothing was swept. A checkpoint of before there were sweeps says nothing."""
    own, teacher = model.tags.get("sweep", ""), ready.get(model.tags["teacher_key"])
    above = _settings(teacher, ready) if teacher else []
    return [*above, own] if own else above


def _seconds(model: Any, ready: dict[str, LoggedModel]) -> float:
    """Of this training and those of its teachers."""
    teacher = ready.get(model.tags["teacher_key"])
    return figure(model, "seconds") + (_seconds(teacher, ready) if teacher else 0.0)


def _seed(model: LoggedModel) -> int:
    return int(model.tags["seed"])


def figure(model: LoggedModel, name: str) -> float:
    """Its newest value; NaN when it has none, as a checkpoint whose score is not finite."""
    values = [(m.step, m.timestamp, m.value) for m in model.metrics or () if m.key == name]
    return float(max(values)[2]) if values else math.nan
