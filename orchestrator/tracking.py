"""MLflow: a parent run for the study, a child run for each stage, a logged model for each checkpoint.

Only the driver talks to MLflow, by one thread, so SQLite is enough and no worker needs a password. `update`
leaves a copy of the row to that thread, which brings MLflow to what the row says. That can be done again
after any failure: what MLflow has is read back first, and an epoch that is there is not written again. The
store has all that MLflow needs to know of finished stages, so what MLflow lacks in the end can be logged later.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from orchestrator import facts, notes
from orchestrator.background import Background
from orchestrator.board import Row
from orchestrator.connection import (
    LoggedModel,
    Metric,
    Run,
    connect,
    every,
    open_experiment,
    patient,
    possible,
    reason,
    talking,
)
from orchestrator.logged import Logged, path_seconds, ready, recorded, remove_doubles
from orchestrator.masking import public, without_secrets
from orchestrator.registry import register
from orchestrator.sending import METRICS, checkpoint_metrics, epoch_metrics, send
from trainers.call import Invalid

log = logging.getLogger(__name__)

STATUS = {"running": "RUNNING", "paused": "RUNNING", "done": "FINISHED", "reused": "FINISHED"}
STATUS |= {"pruned": "KILLED", "failed": "FAILED"}
Ending = Literal["FINISHED", "FAILED", "KILLED"]
STUDY, END = "study", "end"  # what the thread does beside stages, which have keys of 16 digits


class Tracking:
    """The runs of a study in an experiment. Raises `Invalid` when MLflow cannot be used.

    later: go on without MLflow while it cannot be reached, and log what it missed once it can. patience: seconds for
    which SQLite may be locked at the start. again: what to type where something is missing in the end.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        *,
        later: bool = False,
        patience: float = 60.0,
        again: str = "tapath report STUDY --relog",
    ) -> None:
        self.uri, self.experiment, self.later, self.again, self.patience = uri, experiment, later, again, patience
        possible(uri)
        self.client: Any = None
        self.experiment_id = ""
        self.parent = self.version = ""  # the id of the study's run, once it is open; the study's version
        self.logged: dict[str, Logged] = {}
        self._opening: partial[str] | None = None
        self._doubtful: set[str] = set()  # keys that could not be written: part of it may be there
        self._failed: set[str] = set()  # keys of which that was ever so
        self.unregistered = False  # whether a student could not be registered
        self.found_running = False  # whether the study's run was, before we opened it
        self._since = math.inf  # when somebody began to wait for MLflow
        self._background = Background(f"MLflow at {public(uri)}", explain=reason)
        if not later:
            patient(uri, self._connect, patience)

    def _connect(self) -> None:
        self.client = connect(self.uri, create=True)
        self.experiment_id = open_experiment(self.client, self.uri, self.experiment)

    def start(
        self, parameters: Mapping[str, object], tags: Mapping[str, str], *, description: str = "", text: str = ""
    ) -> None:
        """Open the study's run, named by the tag `study` or else as the experiment, and read what is there.

        MLflow never changes a parameter: one with another value than at the first start becomes a tag,
        `now.<name>`. `description` is what `notes.description` says, `text` the study's file.
        """
        self.version = notes.version(description)
        texts = {notes.DESCRIPTION: description, notes.TEXT: without_secrets(text)}
        self._opening = partial(self._open, parameters, tags, texts)
        if self.later:
            self._background.put(STUDY, self._ready)
        else:
            patient(self.uri, self._ready, self.patience)

    def _ready(self) -> None:
        """Have the study's run open, if MLflow could not be reached before."""
        if not self.parent and self._opening is not None:
            self.parent = self._opening()

    def _open(self, parameters: Mapping[str, object], tags: Mapping[str, str], texts: Mapping[str, str]) -> str:
        if not self.experiment_id:
            self._connect()
        name = tags.get("study", self.experiment)
        studies = every(partial(self.client.search_runs, [self.experiment_id], "tags.role = 'study'"))
        run: Run | None = next((run for run in studies if run.info.run_name == name), None)
        self.found_running = run is not None and run.info.status == "RUNNING"
        if run is None:
            run = self.client.create_run(self.experiment_id, run_name=name, tags={"role": "study"})
        elif not self.found_running:
            self.client.update_run(run.info.run_id, status="RUNNING")
        there = run.data.params
        wanted = {facts.metric(key): public(value) for key, value in parameters.items()}
        changed = {f"now.{key}": value for key, value in wanted.items() if value != there.get(key, value)}
        # Back at its first value: what was noted in between holds no more.
        changed |= {f"now.{key}": value for key, value in wanted.items() if f"now.{key}" in run.data.tags}
        for key, whole in texts.items():
            changed |= notes.pieces(key, whole, run.data.tags) if whole else {}
        send(
            self.client,
            run.info.run_id,
            params={key: value for key, value in wanted.items() if key not in there},
            tags={**changed, **{key: public(value) for key, value in tags.items()}},
        )
        self.logged = recorded(self.client, self.experiment_id)
        identifier: str = run.info.run_id
        return identifier

    def update(self, row: Row) -> None:
        """Note what is known of a stage now; returns at once. Those that wait or are lost have no run."""
        if row.state in STATUS:
            copy = replace(row, history=list(row.history))
            self._background.put(row.key, partial(self._write, copy))

    def unbegun(self, rows: Iterable[Row]) -> None:
        """Note which of the stages have no run, in the end."""
        self._background.put(notes.UNBEGUN, partial(self._note_unbegun, notes.unbegun(rows)))

    def register(self, name: str, row: Row, weights: Path, *, patience: float = 60.0, **told: Any) -> str | None:
        """Have a finished student in the registry as `models:/NAME@best`, loadable by `mlflow.pyfunc`.

        -> its version; nothing is added when these weights are there already. None, with a warning, when MLflow has
        not got the stage, and did nothing for so many seconds, or fails. `told`: more for `registry.register`.
        """
        self._settle(patience)
        have = self.logged.get(row.key)
        try:
            if have is None or not have.whole:
                raise ConnectionError("it has not got the stage yet")
            with talking(self.uri):
                version = register(self.client, facts.entity(name), row, weights, have.model, **told)
        except (Invalid, ConnectionError) as error:
            self.unregistered = True
            log.warning("%s is not registered: %s; to do it: %s", facts.entity(name), error, self.again)
            return None
        return version

    def close(self, status: Ending, *, patience: float = 60.0, busy: Collection[str] = ()) -> bool:
        """Write what is left and end all runs, but give up when MLflow does nothing for so many seconds; -> whether it
        has everything. `busy`: the keys of stages that another driver trains, which will end the runs of its own."""
        came = self._settle(patience)
        left = len(self._background.left() - {STUDY, notes.UNBEGUN})
        if self._opening is not None and not (busy and self.found_running):
            self._background.put(END, partial(self._end, status, frozenset(busy)))
        all_there = self._background.settle(patience if came else 1.0, since=time.monotonic())
        if not all_there:
            lacking = f"MLflow at {public(self.uri)} has not got {left} stage{'' if left == 1 else 's'}"
            log.warning(
                "%s and the study's end; nothing is lost, this logs it once it is back: %s", lacking, self.again
            )
        self._background.stop()
        return all_there and not self.unregistered

    def _settle(self, patience: float) -> bool:
        """Wait until everything is written, or MLflow does nothing for so long; -> whether it is. Who waits once more
        does not begin to count anew."""
        self._since = min(self._since, time.monotonic())
        return self._background.settle(patience, since=self._since)

    def _end(self, status: str, busy: Collection[str]) -> None:
        """End what still runs of this study: interrupted now, or when an older driver was killed."""
        self._ready()
        for key, have in self.logged.items():
            if have.status == "RUNNING" and have.parent == self.parent and key not in busy:
                send(self.client, have.run, tags={"state": "interrupted"})
                self.client.set_terminated(have.run, "KILLED")
                have.status = "KILLED"
        for key in self._failed & self.logged.keys():
            remove_doubles(self.client, self.experiment_id, key, self.logged[key])
        self.client.set_terminated(self.parent, status)

    def _write(self, row: Row) -> None:
        """Bring MLflow to what the row says."""
        try:
            self._ready()
            if row.key in self._doubtful or row.key not in self.logged:  # which another driver may have begun
                self.logged.pop(row.key, None)
                self.logged.update(recorded(self.client, self.experiment_id, key=row.key))
                self._doubtful.discard(row.key)
            have = self.logged.get(row.key)
            if have is None:
                have = self.logged[row.key] = self._create(row)
            if not have.whole or have.epoch < row.epoch:
                self._bring(row, have)
            else:
                if row.score is not None and math.isfinite(row.score) and row.score != have.score:
                    self._rank(row, have)
                self._note(row, have)
        except Exception:
            self._doubtful.add(row.key)
            self._failed.add(row.key)
            raise

    def _create(self, row: Row) -> Logged:
        tags = {
            **facts.tags(row),
            "state": row.state,
            "mlflow.parentRunId": self.parent,
            "mlflow.source.name": "tapath",
        }
        there = ready(self.client, self.experiment_id, row.key) if STATUS[row.state] == "FINISHED" else None
        now = there.creation_timestamp / 1000 if there else time.time()
        began = round(min(row.started or now, now - row.seconds) * 1000)  # no epoch was over later than now
        run = self.client.create_run(self.experiment_id, start_time=began, tags=tags, run_name=facts.run_name(row))
        return Logged(run.info.run_id, self.parent, "RUNNING", began, tags=tags, model=there)

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
            every_metric = [metric for epoch in part for metric in epoch_metrics(epoch, have.began)]
            send(self.client, have.run, metrics=every_metric)
            have.epoch = int(part[-1]["epoch"])
        if done and have.model is None:
            have.model = self._create_model(row, have)
        news = facts.differing(facts.outcome(row) | self._notes(row, have), have.tags)
        final = facts.final(row) if done else {}
        if done:
            have.seconds = row.seconds
            final |= path_seconds((stage.key for stage in row.stage.lineage), self.logged)
        send(
            self.client,
            have.run,
            metrics=checkpoint_metrics(final, have.model) if done and have.model else (),
            params={} if have.described else facts.parameters(row.stage),
            tags=news,
        )
        have.described, have.parent, have.tags = True, self.parent, {**have.tags, **news}
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
        send(self.client, have.run, metrics=[Metric("score", row.score, now, step, model_id=have.model.model_id)])
        have.score = row.score

    def _notes(self, row: Row, have: Logged) -> dict[str, str]:
        own = notes.of_stage(row, self.version, have.tags) if self.version else {}
        return {"mlflow.parentRunId": self.parent, **own}  # it was another's, if a person deleted that one

    def _note(self, row: Row, have: Logged) -> None:
        """Bring what is kept for reports to what the study wants now; older versions kept nothing."""
        if news := facts.differing(self._notes(row, have), have.tags):
            send(self.client, have.run, tags=news)
            have.tags = {**have.tags, **news}

    def _note_unbegun(self, text: str) -> None:
        self._ready()
        there = self.client.get_run(self.parent).data.tags
        send(self.client, self.parent, tags=facts.differing(notes.pieces(notes.UNBEGUN, text, there), there))

    def _create_model(self, row: Row, have: Logged) -> LoggedModel:
        external = {"mlflow.model.isExternal": "true"}  # MLflow's word for weights that lie elsewhere
        return self.client.create_logged_model(
            self.experiment_id,
            name=facts.entity(row.path.models[-1]),
            source_run_id=have.run,
            tags={**facts.tags(row), "sha256": row.sha256, "uri": public(row.weights), **external},
            params=facts.parameters(row.stage),
            model_type="detector",
        )
