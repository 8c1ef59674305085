"""A study under way: what Ray Tune is asked to train, and what is noted of what comes of it."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from orchestrator import reach, waiting
from orchestrator.board import Board, Row
from orchestrator.elastic import SETBACKS
from orchestrator.handing import Handing
from orchestrator.masking import without_secrets
from orchestrator.prepared import Prepared
from orchestrator.reading import Reading
from orchestrator.room import Room
from orchestrator.signals import handling
from trainers.order import Order
from trainers.result import Result
from trainers.scratch import scratch
from trainers.spec import Stage


class Run:
    """A study under way. Tune's searcher asks it what to train and tells it what came of it."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.stopping = threading.Event()
        self.reading = Reading(prepared, say=lambda text: self.say(text), end=self.stopping.set)
        self.look = self.reading.look
        self.say: Callable[[str], None] = lambda text: None
        with self.reading.certain():
            self.frontier = prepared.frontier(self._stored)
        self.board = Board(prepared.study.name)
        self.handing = Handing(prepared.study, self.frontier, self.board, lambda text: self.say(text))
        self.changed: Callable[[Row], None] = lambda row: None  # told of every change of a stage
        # Told what there is to know of one: that it is tried again ("retry"), or something else ("note").
        self.tell: Callable[[str, Row, str], None] = lambda event, row, text: self.say(text)
        self.leave: Callable[[], None] = lambda: None  # called before the process ends at once
        self.tracebacks: dict[str, str] = {}
        self.ends: dict[str, str] = {}  # what became of the process of a stage that waits for another
        self.bereft = threading.Event()  # some process with workers has died, and they may hold their room still

    @property
    def over(self) -> bool:
        return self.frontier.over or self.stopping.is_set()

    @property
    def interrupted(self) -> bool:
        return self.stopping.is_set() and not self.frontier.over and not self.reading.lost

    def _stored(self, stage: Stage) -> float | None:
        """The score of a stage that is stored whole, as far as can be known: who trains it looks once more."""
        return self.reading.ask(lambda: self.prepared.stored(stage, whole=True))

    def refresh(self) -> None:
        """Show what has become wanted, what is lost, and what was damaged."""
        while self.prepared.damaged:
            self.say(self.prepared.damaged.pop(0))
        # Only what is new: with a sweep on every edge there is something thousands of times.
        fresh, self.frontier.fresh = self.frontier.fresh, []
        added = self.prepared.extend(self.board, fresh)
        if added:
            gc.freeze()  # they stay to the end: thousands of them need not be walked through by every collection
        for row in added:
            if row.state != "waiting":
                self.changed(row)
        for row in self.prepared.given_up(self.board, self.frontier) + self.prepared.lost(self.board, self.frontier):
            self.changed(row)

    def next(self) -> list[Stage]:
        """The stages that one process is to train together now."""
        return [] if self.reading.away is not None else self.handing.next()

    def started(self, key: str) -> None:
        """A process has taken the stage up. Several workers must be found first, and send an epoch 0 then."""
        row = self.board.rows[key]
        if row.state == "running" or key in self.ends:
            why = self.ends.pop(key, "ended")
            text = f"the process of {row.path} (seed {row.seed}) {why}; it goes on from epoch {row.epoch}"
            self.tell("retry", row, text)
        if not self.handing.placement(row.stage).apart:
            self.handing.waits.placed(key)
            self._runs(row)

    def _runs(self, row: Row) -> None:
        row.state, row.started = "running", row.started or time.time()
        row.group = self.handing.cohorts.group(row.key)
        self.changed(row)

    def epoch(self, key: str, entry: dict[str, float]) -> None:
        row = self.board.rows[key]
        if row.state != "running" and entry.get("workers") != 0:
            self._runs(row)
        self.handing.waits.heard(key, entry)
        if entry["epoch"] <= row.epoch:
            return  # a process that was replaced tells its past again
        row.history.append(entry)
        row.seconds = entry["seconds"]
        row.score = entry.get(f"val/{self.prepared.score_name}", row.score)
        self.changed(row)

    def said(self, key: str, text: str) -> None:
        row = self.board.rows[key]
        self.tell("note", row, f"{row.path} (seed {row.seed}): {without_secrets(text)}")

    def died(self, key: str, why: str) -> None:
        row, why = self.board.rows[key], without_secrets(why)
        if self.handing.whole(row.stage).apart:
            self.bereft.set()
        if self.handing.whole(row.stage).min_workers is not None:
            self.tell("retry", row, f"the process of {row.path} (seed {row.seed}) {why}")
        else:
            self.ends[key] = why  # said when another process goes on

    def finished(self, key: str) -> None:
        row, store = self.board.rows[key], self.prepared.store

        def found(result: Result) -> None:
            self.prepared.fill(row, result, "done")
            self.frontier.finish(key, self.prepared.score(result))
            self.changed(row)
            self.refresh()

        self._expect(key, lambda: store.get(row.stage), found, f"its result is not in the store {store.root}")

    def paused(self, key: str) -> None:
        row, goal, root = self.board.rows[key], self.handing.goals.get(key), self.prepared.store.root

        def found(there: bool) -> None:
            row.state = "paused"
            self.frontier.pause(key)
            self.changed(row)
            self.refresh()

        lacking = f"it paused, and the store {root} does not say what it had"
        self._expect(key, lambda: self.prepared.reached(row.stage, goal), found, lacking)

    def _expect(self, key: str, look: Callable[[], Any], found: Callable[[Any], None], lacking: str) -> None:
        """Have `found` called with what a stage that has ended left in the store, once it can be read."""
        self.handing.left(key)
        self.reading.expect(key, look, found, lambda: self.failed(key, lacking, ""))

    def failed(self, key: str, reason: str, traceback: str) -> None:
        row = self.board.rows[key]
        self.handing.left(key)
        if self.stopping.is_set():
            self.frontier.retry(key)
            row.state = "waiting"
            return
        reason = without_secrets(reason)
        row.state, row.reason = "failed", reason
        self.tracebacks[key] = without_secrets(traceback)
        self.frontier.fail(key, reason)
        self.changed(row)
        self.refresh()

    def again(self, key: str, why: str) -> bool:
        """What has no process any more, or no memory beside others, is trained by another one once there is room."""
        row, handing = self.board.rows[key], self.handing
        if handing.whole(row.stage).min_workers is not None:
            return self._resized(row, why)
        if why not in ("crowded", "late") and handing.stands(key) and self.reading.away is None:
            handing.waits.begin(key)
            return False
        row.state = "waiting"
        self.changed(row)
        if why == "crowded":
            handing.cohorts.crowded(row.stage)
            self.said(key, f"no memory beside the others; it goes on apart from them, from epoch {row.epoch}")
        elif why == "died" and handing.cohorts.has(key):
            handing.cohorts.part(key)
        handing.retry(key, why)
        self.refresh()  # perhaps nobody wants it any more, and it was the last
        return True

    def _resized(self, row: Row, why: str) -> bool:
        """A stage whose workers have come to be too many or too few goes on once there is room for it."""
        key, handing = row.key, self.handing
        if why in ("lost", "died") and (times := handing.elastic.setback(row)) > SETBACKS:
            self.failed(key, f"its workers were lost {times} times after epoch {row.epoch}", "")
            return True
        if why == "released" and handing.stands(key):
            handing.waits.withdrawn(key, why)
            handing.elastic.released.append(key)
        else:
            handing.retry(key, why)
        row.state = "waiting"
        self.changed(row)
        return True

    @contextmanager
    def on_ray(self, address: str | None) -> Iterator[None]:
        """Ray at an address, or started here. Raises `Invalid` when no stage could ever be placed there."""
        reach.at_home(address)
        from orchestrator import cluster  # Ray takes seconds to load, and a finished study needs none

        # The handler is put twice: Ray's start puts a SIGTERM handler of its own.
        with handling(self._break), cluster.connected(address), handling(self._break):
            models, nodes = self.prepared.study.models, cluster.nodes()
            self.handing.nodes, self.handing.release = cluster.nodes, cluster.release
            self.handing.room = room = Room(
                nodes,
                {name: one.resources for name, one in models.items() if name not in self.prepared.lattice.isolated()},
                stages_at_once=self.prepared.study.resources.stages_at_once,
            )
            room.check()
            reach.scattered(self.prepared.study, len(nodes))
            if len(nodes) > 1:
                reach.unseen(self.prepared.store.place, partial(cluster.seen, room.hosts()))
            yield

    def train(self) -> None:
        """Let Ray Tune train what is wanted and missing, until nothing is left or somebody interrupts."""
        from orchestrator import audit, cluster

        theirs, ended = audit.there(), threading.Event()
        watching = (self, ended, cluster.shortage, audit.free)
        with handling(self._interrupt):
            threading.Thread(target=waiting.watch, args=watching, daemon=True).start()
            try:
                with scratch() as folder:
                    cluster.tune_all(self, self._configure, folder=folder, silence=self.reading.silence)
                for key in self.reading.awaited:  # nobody waits for them any longer
                    self.failed(key, "stopped", "")
            finally:
                ended.set()
                for text in audit.cleared(but=theirs):
                    self.say(text)

    def _configure(self, stages: Sequence[Stage]) -> dict[str, Any]:
        """What the process is told that trains stages together."""
        placement, post = self.handing.placement(stages[0]), self.handing.post(stages)
        orders = [self._order(stage) for stage in stages]
        return {"orders": orders, "placement": placement.model_dump_json(), "post": post}

    def _order(self, stage: Stage) -> str:
        from trainers.staging import anywhere

        study, placement = self.prepared.study, self.handing.placement(stage)
        return Order(
            stage=stage,
            data=anywhere(study.data),
            store=self.prepared.store.place.address,
            **placement.told,
            # Whoever may pause is compared with whoever goes on, after as many epochs.
            evaluate_every=1 if self.prepared.pausing else study.resources.evaluate_every,
            bad_images=study.resources.bad_images,
            until=self.handing.goals[stage.key],
            run=self.board.run,
            study=study.name,
            lease=study.resources.lease,
            stage_data=study.resources.stage_data,
            content=self.prepared.inputs.dataset.fingerprint,
            silence=study.resources.silence,
        ).model_dump_json()

    def _interrupt(self, number: int, frame: object) -> None:
        """Ctrl-C or SIGTERM once: stop at the next step, all finished epochs are kept. Twice: end now."""
        if self.stopping.is_set():
            self.leave()
            os._exit(128 + number)
        self.stopping.set()
        self.say("stopping at the next step; finished epochs are kept, run the same command to go on")

    def _break(self, number: int, frame: object) -> None:
        """Ctrl-C or SIGTERM while nothing is trained."""
        self.stopping.set()  # should Ray's start swallow the exception, nothing will be trained all the same
        raise KeyboardInterrupt
