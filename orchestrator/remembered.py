"""What MLflow remembers of an experiment: its study and its board, without study file, store or data."""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from orchestrator import notes, provenance
from orchestrator.board import Row, State
from orchestrator.connection import (
    WHERE,
    LoggedModel,
    Metric,
    MlflowClient,
    Run,
    connect,
    every,
    experiments,
    histories,
    talking,
)
from orchestrator.facts import metric
from orchestrator.lattice import Lattice, Path
from orchestrator.ranking import figure
from trainers.call import Invalid
from trainers.spec import Stage

STATES: dict[str, State] = {"RUNNING": "running", "FAILED": "failed", "FINISHED": "done", "SCHEDULED": "waiting"}
USAGE = ("images_per_second", "peak_memory_bytes", "measuring_seconds", "workers", "parameters", "latency_ms")


@dataclass(frozen=True)
class Remembered:
    """An experiment: its study as `notes.description` describes it, and the stages that this study wants."""

    name: str
    study: str
    described: Mapping[str, Any]
    lattice: Lattice
    text: str  # of the study's file, with what was set from the command line
    rows: list[Row]  # in the order in which they became wanted
    cautions: list[str] = field(default_factory=list)  # what is not as it should be
    made: Mapping[str, Any] | None = None  # as `provenance.made` has it, if that was noted
    parts: Sequence[Mapping[str, Any]] = ()  # of several, how to run each; then `text` and `made` say nothing


class Written(NamedTuple):
    """A stage as MLflow has it."""

    run: Run
    model: LoggedModel | None
    paths: list[Path]

    @property
    def tags(self) -> Mapping[str, str]:
        tags: Mapping[str, str] = self.run.data.tags
        return tags

    @property
    def key(self) -> str:
        return self.tags["key"]

    @property
    def place(self) -> tuple[int, int]:
        """A stage comes after its teacher, which has a shorter path, whatever else is wrong."""
        return len(self.paths[0].models), int(self.tags.get(notes.PLACE) or 0)


def read(uri: str, names: Sequence[str]) -> list[Remembered]:
    """These experiments. Raises `Invalid` for one that is not there, has nothing trained, or was logged by a version
    that kept too little."""
    client = connect(uri)
    with talking(uri):
        return [_experiment(client, name, identifier) for name, identifier in experiments(client, names)]


def _experiment(client: MlflowClient, name: str, identifier: str) -> Remembered:
    runs = list(every(partial(client.search_runs, [identifier])))
    stages = [run for run in runs if "key" in run.data.tags]
    if not any(run.info.status == "FINISHED" for run in stages):
        raise Invalid(f"no stage of the MLflow experiment {name} is trained yet", WHERE)
    studies = [run for run in runs if run.data.tags.get("role") == "study"]
    run = max(studies, key=lambda run: (notes.DESCRIPTION in run.data.tags, run.info.start_time), default=None)
    text = notes.joined(notes.DESCRIPTION, run.data.tags) if run else ""
    wanted = notes.version(text)
    own = [run for run in stages if run.data.tags.get(notes.VERSION) == wanted]
    if run is None or not wanted or not own:
        raise Invalid(
            f"MLflow has too little of the experiment {name} for a report: an earlier version logged it, or its run "
            "was killed early; run its study once more with `tapath run`: that adds what is missing, and trains "
            "nothing again",
            WHERE,
        )
    try:
        described = json.loads(text)
        lattice = notes.lattice_of(described)
    except (ValueError, KeyError, TypeError) as error:
        message = f"this version cannot read what another kept of the study of the MLflow experiment {name}"
        raise Invalid(f"{message}: {str(error).partition(chr(10))[0]}", WHERE) from error
    models = {m.tags["key"]: m for m in every(partial(client.search_logged_models, [identifier])) if "key" in m.tags}
    written = [Written(run, models.get(run.data.tags["key"]), _paths(run)) for run in _once(own)]
    rows, cautions = _rows(client, written, lattice)
    known = {row.key for row in rows}
    noted = notes.rows_of(notes.joined(notes.UNBEGUN, run.data.tags), lattice)
    rows = sorted([*rows, *(row for row in noted if row.key not in known)], key=lambda row: row.place)
    if left := len({run.data.tags["key"] for run in stages} - {one.key for one in written}):
        were = "stage is" if left == 1 else "stages are"
        cautions.insert(0, f"{left} {were} left out, which the study of {name} does not want as it was run last.")
    study = run.data.tags.get("study", name)
    yaml, made = notes.joined(notes.TEXT, run.data.tags), provenance.remembered(run.data.tags)
    return Remembered(name, study, described, lattice, yaml, rows, cautions, made)


def _once(runs: Sequence[Run]) -> list[Run]:
    """One run for each key: a finished one, if there is any, or else the newest."""
    found: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: (run.info.status == "FINISHED", run.info.start_time or 0)):
        found[run.data.tags["key"]] = run
    return list(found.values())


def _paths(run: Run) -> list[Path]:
    return notes.paths_of(notes.joined(notes.PATHS, run.data.tags))


def _rows(client: MlflowClient, written: Sequence[Written], lattice: Lattice) -> tuple[list[Row], list[str]]:
    """The rows, and what is wrong with some of them."""
    stages: dict[str, Stage] = {}
    others, unread = 0, 0
    for one in sorted(written, key=lambda one: one.place):
        stage = _stage(one, lattice, stages)
        if stage is None:
            unread += 1
            continue
        stages[one.key] = stage
        others += stage.key != one.key
    cautions = []
    if others:
        were = "stage was" if others == 1 else "stages were"
        cautions.append(f"{others} {were} trained by another version, for which this one has other keys.")
    if unread:
        were = "stage is" if unread == 1 else "stages are"
        cautions.append(f"{unread} {were} left out: another version trained what this one has no words for.")
    kept = sorted((one for one in written if one.key in stages), key=lambda one: int(one.tags.get(notes.PLACE) or 0))
    curves = _histories(client, kept)
    return [_row(one, stages[one.key], curves[one.run.info.run_id], lattice) for one in kept], cautions


def _stage(one: Written, lattice: Lattice, above: Mapping[str, Stage]) -> Stage | None:
    """The stage that has this key; or if there is none here, the one that says the same; None: it cannot be said."""
    try:
        stage = lattice.stage(one.paths[0], int(one.tags["seed"]))
        if stage.key == one.key:
            return stage
    except (KeyError, ValueError):  # a setting, say, of a knob that is no more
        pass
    teacher = one.tags["teacher_key"]
    if teacher and teacher not in above:
        return None
    try:
        return notes.stage_of(notes.joined(notes.SPEC, one.tags), above.get(teacher))
    except ValueError:
        return None


def _row(one: Written, stage: Stage, history: list[dict[str, float]], lattice: Lattice) -> Row:
    run, tags, model = one.run, one.tags, one.model if one.run.info.status == "FINISHED" else None
    names = {metric(name): name for name in _names(one)}
    last = {name: _number(value) for name, value in run.data.metrics.items()}
    if model is not None:
        last = {m.key: figure(model, m.key) for m in model.metrics or ()}
    path, *others = one.paths
    selected = last.get("selected", math.nan)
    return Row(
        stage,
        path,
        int(tags["seed"]),
        lattice.role(path),  # who is a student may have changed since it was logged
        state=_state(run, history),
        score=last.get("score"),
        history=history,
        metrics={names.get(name, name): value for name, value in last.items() if "/" in name} if model else {},
        seconds=last.get("seconds", 0.0),
        reason=tags.get("reason", ""),
        started=(run.info.start_time or 0) / 1000,
        weights=model.tags.get("uri", "") if model else "",
        sha256=model.tags.get("sha256", "") if model else "",
        selected=int(selected) if math.isfinite(selected) else None,
        device=tags.get("device", ""),
        usage={name: last[name] for name in USAGE if name in last},
        others=others,
        place=int(tags.get(notes.PLACE) or 0),
        warm=tags.get("warm_start", ""),
    )


def _state(run: Run, history: Sequence[Mapping[str, float]]) -> State:
    """An interrupted stage is trained in part: nobody knows yet whether it goes on."""
    said = run.data.tags.get("state", "")
    if run.info.status == "FINISHED":
        return "reused" if said == "reused" else "done"
    if run.info.status == "KILLED":
        return "pruned" if said == "pruned" else "paused" if history else "waiting"
    return "paused" if said == "paused" else STATES[run.info.status]


def _names(one: Written) -> list[str]:
    """Of what was measured, as they were before MLflow's rules for names."""
    found: list[str] = json.loads(notes.joined(notes.FIGURES, one.tags) or "[]")
    return found


def _histories(client: MlflowClient, written: Sequence[Written]) -> dict[str, list[dict[str, float]]]:
    """Epoch by epoch, by run."""
    wanted: dict[str, dict[str, Written]] = defaultdict(dict)
    for one in written:
        for name in _names(one):
            if not name.startswith("test/"):  # of the checkpoint alone
                wanted[name][one.run.info.run_id] = one
    entries: dict[str, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for name, ones in wanted.items():
        for run, values in histories(client, list(ones), metric(name)).items():
            for step, value in _epochs(values, ones[run].model):
                entries[run][step][name] = value
    return defaultdict(list, {run: [steps[step] for step in sorted(steps)] for run, steps in entries.items()})


def _epochs(values: Sequence[Metric], model: LoggedModel | None) -> Iterator[tuple[int, float]]:
    """The values of a metric by epoch, from 1 on.

    The last epoch may have two: its own, and where another epoch was selected that one's, which has the time of the
    checkpoint.
    """
    by_step: dict[int, list[Metric]] = defaultdict(list)
    for value in values:
        by_step[value.step].append(value)
    made = model.creation_timestamp if model else None
    for step, there in by_step.items():
        own = [value for value in there if value.timestamp != made] or there
        if step >= 1:
            yield step, _number(own[0].value)


def _number(value: float) -> float:
    """As it was: a database has no infinity, and MLflow writes the largest number."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value
