"""Which path is best, asked of MLflow alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean, stdev
from typing import NamedTuple

from orchestrator.connection import LoggedModel, connect, every, experiments, talking


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
    experiments: list[str] = field(default_factory=list)  # that have its checkpoints, in the order asked
    data: str = ""  # the fingerprint
    names: list[str] = field(default_factory=list)  # that studies have for this data, such as `Digits: {classes: 3}`
    metric: str = ""  # the figure that the score is; empty if the study never said
    stages: int = 1  # that the path trains; published weights are no training
    worker_seconds: float = math.nan  # seconds times the workers of each stage; mean over the seeds
    parameters: float | None = None  # of the student; None: not known
    latency_ms: float | None = None  # of the student, where it was trained; mean over the seeds
    whole: bool = True  # whether MLflow has all its teachers; else `seconds` and the like lack some

    @property
    def student(self) -> str:
        return self.path.split(" > ")[-1]

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None of a single one, or where a score is not finite."""
        return stdev(self.scores.values()) if len(self.scores) > 1 and math.isfinite(self.score) else None


class Experiment(NamedTuple):
    """What MLflow has of an experiment's studies and finished stages."""

    name: str
    metric: str  # that ranks; empty if its study never said
    data: list[tuple[str, str]]  # fingerprints with the names that studies have for them
    models: list[LoggedModel]


def paths(
    uri: str, names: Sequence[str] | None, *, keys: Container[str] | None = None, by: str = "score"
) -> list[Found]:
    """The paths to the student whose checkpoints the experiments have; highest score first, without one last.

    Checkpoints that differ in more than their seeds are different entries even when their paths read the
    same, as in a sweep or after a change of the recipe. Those that differ in nothing else are one, whichever
    experiments they are from. `names`: of experiments; None for all. `keys` leaves only these students; `by` is the
    figure that ranks, such as val/AP50: the score is that by which a run ranked them last. Raises `Invalid`.
    """
    ready: dict[str, LoggedModel] = {}
    groups: dict[tuple[str, str, str], dict[str, LoggedModel]] = defaultdict(dict)
    places: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    said: dict[str, list[str]] = defaultdict(list)
    for one in read(uri, names):
        for fingerprint, name in one.data:
            said[fingerprint] += [] if not name or name in said[fingerprint] else [name]
        for model in one.models:
            if model.status == "READY" and "setting" in model.tags:
                key = model.tags["key"]
                ready[key] = model
                # Who is a student may have changed since it was logged: a study names its own.
                if key in keys if keys is not None else model.tags["role"] in ("student", "alone"):
                    group = (model.tags["setting"], model.tags["path"], one.metric)
                    groups[group][key] = model
                    places[group] += [] if one.name in places[group] else [one.name]
    found = [
        _found(sorted(models.values(), key=_seed), ready, by, places[group], said, metric=group[2])
        for group, models in groups.items()
    ]
    return sorted(
        found,
        key=lambda f: (math.isfinite(f.score), f.score if math.isfinite(f.score) else 0.0),
        reverse=True,
    )


def read(uri: str, names: Sequence[str] | None) -> list[Experiment]:
    """These experiments, or all. Raises `Invalid`, also for one that is not there."""
    client = connect(uri)
    with talking(uri):
        asked = experiments(client, names)
        return [_experiment(name, client.search_runs, client.search_logged_models, own) for name, own in asked]


def _experiment(
    name: str, search_runs: Callable[..., object], search_models: Callable[..., object], identifier: str
) -> Experiment:
    runs = list(every(partial(search_runs, [identifier], "tags.role = 'study'")))
    data = []
    for run in runs:
        now = {key.removeprefix("now."): value for key, value in run.data.tags.items() if key.startswith("now.")}
        for said in (run.data.params, {**run.data.params, **now}):  # as it began, and as it is now
            if "data.fingerprint" in said:
                data.append((said["data.fingerprint"], said.get("data", "")))
    metric = next((run.data.tags["metric"] for run in runs if "metric" in run.data.tags), "")
    return Experiment(name, metric, data, list(every(partial(search_models, [identifier]))))


def _found(
    models: list[LoggedModel],
    ready: dict[str, LoggedModel],
    by: str,
    experiments: list[str],
    names: dict[str, list[str]],
    *,
    metric: str,
) -> Found:
    scores = {_seed(model): figure(model, by) for model in models}
    lines = [list(_line(model, ready)) for model in models]
    data = (models[0].params or {}).get("data.fingerprint", "")
    return Found(
        path=models[0].tags["path"],
        role="student" if " > " in models[0].tags["path"] else "alone",
        score=fmean(scores.values()),
        scores=scores,
        seconds=fmean(sum(figure(one, "seconds") for one in line) for line in lines),
        keys={_seed(model): model.tags["key"] for model in models},
        uris={_seed(model): model.tags["uri"] for model in models},
        figures=_figures(models),
        settings=[own for one in reversed(lines[0]) if (own := one.tags.get("sweep", ""))],
        selected={_seed(model): model.tags["selected"] for model in models if "selected" in model.tags},
        experiments=experiments,
        data=data,
        names=names.get(data, []),
        metric=by.removeprefix("val/") if by != "score" else metric,
        stages=sum(figure(one, "epoch") > 0 for one in lines[0]),
        worker_seconds=fmean(sum(figure(one, "seconds") * _workers(one) for one in line) for line in lines),
        parameters=_known(figure(models[0], "parameters")),
        latency_ms=_known(fmean(figure(model, "latency_ms") for model in models)),
        whole=not any(line[-1].tags["teacher_key"] for line in lines),
    )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _figures(models: list[LoggedModel]) -> dict[str, float]:
    """Means of what every one of the checkpoints has as `val/NAME`."""
    names = [{m.key for m in model.metrics or () if m.key.startswith("val/")} for model in models]
    return {
        name.removeprefix("val/"): fmean(figure(model, name) for model in models)
        for name in sorted(set.intersection(*names))
    }


def _line(model: LoggedModel | None, ready: dict[str, LoggedModel]) -> Iterator[LoggedModel]:
    """A checkpoint, its teacher, and so on, as far as they are known."""
    while model is not None:
        yield model
        model = ready.get(model.tags["teacher_key"])


def _workers(model: LoggedModel) -> float:
    """That trained it together; one if nobody noted it."""
    number = figure(model, "workers")
    return number if math.isfinite(number) else 1.0


def _seed(model: LoggedModel) -> int:
    return int(model.tags["seed"])


def figure(model: LoggedModel, name: str) -> float:
    """Its newest value; NaN when it has none, as a checkpoint whose score is not finite."""
    values = [(m.step, m.timestamp, m.value) for m in model.metrics or () if m.key == name]
    return float(max(values)[2]) if values else math.nan
