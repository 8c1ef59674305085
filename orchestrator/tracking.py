"""MLflow: a parent run for the study, a child run for each stage, a logged model for each checkpoint.

Only the driver talks to MLflow, by one thread, so SQLite is enough and no worker needs a password. `update`
leaves a copy of the row to that thread, which brings MLflow to what the row says. That can be done again
after any failure: what MLflow has is read back first, and an epoch that is there is not written again.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from orchestrator import facts, notes
from orchestrator.background import Background
from orchestrator.board import Row
from orchestrator.connection import (
    LoggedModel,
    Metric,
    Param,
    Run,
    RunTag,
    connect,
    every,
    open_experiment,
    talking,
)
from orchestrator.logged import Logged, path_seconds, recorded
from orchestrator.ranking import Found, best, paths
from orchestrator.registry import register
from trainers.call import Invalid

__all__ = ["Found", "Tracking", "best", "paths"]

log = logging.getLogger(__name__)

STATUS = {"running": "RUNNING", "paused": "RUNNING", "done": "FINISHED", "reused": "FINISHED"}
STATUS |= {"pruned": "KILLED", "failed": "FAILED"}
METRICS, PARAMS = 900, 90  # of one request; MLflow takes 100 parameters or tags, and 1000 things in all


class Tracking:
    """The runs of a study in an experiment. Raises `Invalid` when MLflow cannot be used."""

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri, self.experiment = uri, experiment
        self.client = connect(uri, create=True)
        with talking(uri):
            self.experiment_id = open_experiment(self.client, uri, experiment)
        self.parent = ""  # the id of the study's run
        self.version = ""  # of the study
        self.logged: dict[str, Logged] = {}
        self._doubtful: set[str] = set()  # keys that could not be written: part of it may be there
        self._background = Background(f"MLflow at {facts.public(uri)}", explain=facts.public)

    def start(
        self, parameters: Mapping[str, object], tags: Mapping[str, str], *, description: str = "", text: str = ""
    ) -> None:
        """Open the study's run, named by the tag `study` or else as the experiment, and read what is there.

        MLflow never changes a parameter: one with another value than at the first start becomes a tag,
        `now.<name>`. `description` is what `notes.description` says, `text` the study's file.
        """
        name, self.version = tags.get("study", self.experiment), notes.version(description)
        texts = {notes.DESCRIPTION: description, notes.TEXT: facts.without_secrets(text)}
        with talking(self.uri):
            studies = every(partial(self.client.search_runs, [self.experiment_id], "tags.role = 'study'"))
            run: Run | None = next((run for run in studies if run.info.run_name == name), None)
            if run is None:
                run = self.client.create_run(self.experiment_id, run_name=name, tags={"role": "study"})
            elif run.info.status != "RUNNING":
                self.client.update_run(run.info.run_id, status="RUNNING")
            self.parent = run.info.run_id
            there = run.data.params
            wanted = {facts.metric(key): facts.public(value) for key, value in parameters.items()}
            changed = {f"now.{key}": value for key, value in wanted.items() if value != there.get(key, value)}
            # Back at its first value: what was noted in between holds no more.
            changed |= {f"now.{key}": value for key, value in wanted.items() if f"now.{key}" in run.data.tags}
            for key, whole in texts.items():
                changed |= notes.pieces(key, whole, run.data.tags) if whole else {}
            self._log(
                self.parent,
                params={key: value for key, value in wanted.items() if key not in there},
                tags={**changed, **{key: facts.public(value) for key, value in tags.items()}},
            )
            self.logged = recorded(self.client, self.experiment_id)

    def update(self, row: Row) -> None:
        """Note what is known of a stage now; returns at once. Those that wait or are lost have no run."""
        if row.state in STATUS:
            copy = replace(row, history=list(row.history))
            self._background.put(row.key, partial(self._write, copy))

    def unbegun(self, rows: Iterable[Row]) -> None:
        """Note which of the stages have no run, in the end."""
        self._background.put(notes.UNBEGUN, partial(self._note_unbegun, notes.unbegun(rows)))

    def register(self, name: str, row: Row, weights: Path, *, patience: float = 60.0) -> str | None:
        """Have a finished student in the registry as `models:/NAME@best`, loadable by `mlflow.pyfunc`.

        -> its version; nothing is added when these weights are there already. None, with a warning, when
        MLflow has not got the stage within so many seconds, or fails.
        """
        self._background.wait(patience)
        have = self.logged.get(row.key)
        try:
            if have is None or not have.whole:
                raise ConnectionError("it has not got the stage yet")
            with talking(self.uri):
                version = register(self.client, facts.entity(name), row, weights, have.model)
        except (Invalid, ConnectionError) as error:
            log.warning("%s is not registered: %s; run the study again to do it", facts.entity(name), error)
            return None
        return version

    def close(self, status: Literal["FINISHED", "FAILED", "KILLED"], *, patience: float = 60.0) -> None:
        """Write what is left, waiting at most so many seconds for MLflow if it is away, and end all runs."""
        until = time.monotonic() + patience
        self._background.wait(patience)
        left = len(self._background.left())
        if self.parent:
            self._background.put("", partial(self._end, status))
        if not self._background.wait(max(1.0, until - time.monotonic())):
            log.warning(
                "MLflow at %s has not got %d stages and the study's end; run the study again to write them",
                facts.public(self.uri),
                left,
            )
        self._background.stop()

    def _end(self, status: str) -> None:
        """End what still runs of this study: interrupted now, or when an older driver was killed."""
        for have in self.logged.values():
            if have.status == "RUNNING" and have.parent == self.parent:
                self._log(have.run, tags={"state": "interrupted"})
                self.client.set_terminated(have.run, "KILLED")
                have.status = "KILLED"
        self.client.set_terminated(self.parent, status)

    def _write(self, row: Row) -> None:
        """Bring MLflow to what the row says."""
        try:
            if row.key in self._doubtful:
                self.logged.pop(row.key, None)
                self.logged.update(recorded(self.client, self.experiment_id, key=row.key))
                self._doubtful.discard(row.key)
            have = self.logged.get(row.key)
            if have is None:
                have = self.logged[row.key] = self._create(row)
            if not have.whole:
                self._bring(row, have)
            else:
                if row.score is not None and math.isfinite(row.score) and row.score != have.score:
                    self._rank(row, have)
                self._note(row, have)
        except Exception:
            self._doubtful.add(row.key)
            raise

    def _create(self, row: Row) -> Logged:
        tags = {
            **facts.tags(row),
            "state": row.state,
            "mlflow.parentRunId": self.parent,
            "mlflow.source.name": "tapath",
        }
        run = self.client.create_run(
            self.experiment_id,
            start_time=round(row.started * 1000) or None,
            tags=tags,
            run_name=facts.run_name(row),
        )
        return Logged(run.info.run_id, self.parent, "RUNNING", tags=tags)

    def _bring(self, row: Row, have: Logged) -> None:
        status = STATUS[row.state]
        if status == "RUNNING" != have.status:
            self.client.update_run(have.run, status=status)
            have.status = status
        # The last epoch waits for the checkpoint: MLflow ties metrics to it as they arrive, or never.
        done = status == "FINISHED"
        held = 0 if done and row.selected is not None else 1  # it may be of an earlier one, and then has its own entry
        last = len(row.history) - held if done else min(len(row.history), row.epochs - 1)
        for part in facts.parts(facts.epochs(row, have.epoch + 1, last), METRICS):
            now = round(time.time() * 1000)
            self._log(have.run, metrics=[metric for epoch in part for metric in metrics(epoch, now)])
            have.epoch = int(part[-1]["epoch"])
        if done and have.model is None:
            have.model = self._create_model(row, have)
        news = differing(outcome(row) | self._notes(row, have), have.tags)
        final = facts.final(row) if done else {}
        if done:
            have.seconds = row.seconds
            final |= path_seconds((stage.key for stage in row.stage.lineage), self.logged)
        self._log(
            have.run,
            metrics=checkpoint_metrics(final, have.model) if done and have.model else (),
            params={} if have.described else facts.parameters(row.stage),
            tags=news,
        )
        have.described, have.tags = True, {**have.tags, **news}
        if done and have.model:
            have.model = self.client.finalize_logged_model(have.model.model_id, "READY")
        if have.status != status:
            self.client.set_terminated(have.run, status)
            have.status = status
        have.score = row.score

    def _rank(self, row: Row, have: Logged) -> None:
        """Give a checkpoint the score by which it is ranked now: another of its figures than before."""
        assert have.model is not None and row.score is not None, "it is whole, and has a finite score"
        step, now = int(facts.final(row)["epoch"]), round(time.time() * 1000)
        self._log(have.run, metrics=[Metric("score", row.score, now, step, model_id=have.model.model_id)])
        have.score = row.score

    def _notes(self, row: Row, have: Logged) -> dict[str, str]:
        return notes.of_stage(row, self.version, have.tags) if self.version else {}

    def _note(self, row: Row, have: Logged) -> None:
        """Bring what is kept for reports to what the study wants now; older versions kept nothing."""
        if news := differing(self._notes(row, have), have.tags):
            self._log(have.run, tags=news)
            have.tags = {**have.tags, **news}

    def _note_unbegun(self, text: str) -> None:
        there = self.client.get_run(self.parent).data.tags
        self._log(self.parent, tags=differing(notes.pieces(notes.UNBEGUN, text, there), there))

    def _create_model(self, row: Row, have: Logged) -> LoggedModel:
        external = {"mlflow.model.isExternal": "true"}  # MLflow's word for weights that lie elsewhere
        return self.client.create_logged_model(
            self.experiment_id,
            name=facts.entity(row.path.models[-1]),
            source_run_id=have.run,
            tags={**facts.tags(row), "sha256": row.sha256, "uri": facts.public(row.weights), **external},
            params=facts.parameters(row.stage),
            model_type="detector",
        )

    def _log(
        self,
        run: str,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Write to a run in as few requests as MLflow allows."""
        pairs = [Param(name, value) for name, value in (params or {}).items()]
        while len(pairs) > PARAMS or len(metrics) > METRICS:
            self.client.log_batch(run, metrics[:METRICS], pairs[:PARAMS])
            metrics, pairs = metrics[METRICS:], pairs[PARAMS:]
        named = [RunTag(name, value) for name, value in (tags or {}).items()]
        while len(named) > PARAMS:
            self.client.log_batch(run, tags=named[:PARAMS])
            named = named[PARAMS:]
        if metrics or pairs or named:
            self.client.log_batch(run, metrics, pairs, named)


def differing(tags: Mapping[str, str], there: Mapping[str, str]) -> dict[str, str]:
    """Those that MLflow has not got like that; one that is not there counts as empty."""
    return {name: value for name, value in tags.items() if value != there.get(name, "")}


def outcome(row: Row) -> dict[str, str]:
    """The tags that change while a stage is trained."""
    reason, weights = facts.public(row.reason), facts.public(row.weights)
    return {"state": row.state, "reason": reason, "weights": weights, "device": row.device} | facts.choice(row)


def metrics(epoch: Mapping[str, float], timestamp: int) -> Iterable[Metric]:
    return (Metric(name, value, timestamp, int(epoch["epoch"])) for name, value in epoch.items())


def checkpoint_metrics(epoch: Mapping[str, float], model: LoggedModel) -> list[Metric]:
    """The metrics of a run's last epoch and of its checkpoint.

    They have its time: equal metrics of equal times are one in MLflow, so they may be sent again. Those that are not
    finite are kept from the checkpoint, where MLflow would turn NaN into 0.
    """
    made, step = model.creation_timestamp, int(epoch["epoch"])
    return [
        Metric(name, value, made, step, model_id=model.model_id if math.isfinite(value) else None)
        for name, value in epoch.items()
    ]
