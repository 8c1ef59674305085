"""The frontier, as a Ray Tune Searcher: Tune asks what to train next and tells what came of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from ray.tune import Callback
from ray.tune.search import Searcher

from trainers.spec import Stage

RETRIES = 3  # how often the process of a stage may die before the stage counts as failed


class Listener(Protocol):
    """The run behind the searcher."""

    @property
    def over(self) -> bool:
        """Nothing wanted is unfinished."""

    def next(self) -> Stage | None:
        """A stage that may start now, if a slot is free for it."""

    def started(self, key: str) -> None:
        """A process has taken the stage up."""

    def epoch(self, key: str, entry: dict[str, float]) -> None:
        """The stage has finished an epoch."""

    def said(self, key: str, text: str) -> None:
        """The stage has met something that the user should know."""

    def finished(self, key: str) -> None:
        """The stage's result is in the store."""

    def paused(self, key: str) -> None:
        """The stage is trained as far as it was to be for now, and the store has what it has reached."""

    def failed(self, key: str, reason: str, traceback: str) -> None:
        """The stage has no result."""

    def again(self, key: str, why: str) -> bool:
        """Its workers were "lost", came "late" or were "released", or its process "died"; -> whether that is seen to,
        as for all whose number of workers may change. Others are to go on where they were."""


class DriverOnly:
    """Lives in the driver. Tune pickles what it is given into its experiment folder; nobody reads that copy, so it
    may be empty, and what this holds (locks, the whole run) need not survive it."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StageSearcher(DriverOnly, Searcher):
    """Hands out stages whose teacher is trained, and hands a stage out again when its process died.

    Tune would replace a process that dies while it trains, but not one that dies between two stages: then it gives the
    next stage up. So Tune replaces none, and all deaths are counted here. Other state than that is not kept: the store
    and the frontier have it.
    """

    def __init__(self, listener: Listener, configure: Callable[[Stage], dict[str, Any]]) -> None:
        super().__init__(metric="score", mode="max")
        self.listener = listener
        self.configure = configure
        self.keys: dict[str, str] = {}
        self.stages: dict[str, Stage] = {}
        self.deaths: Counter[str] = Counter()
        self.orphans: list[Stage] = []

    def suggest(self, trial_id: str) -> Any:
        if self.listener.over:
            return Searcher.FINISHED
        stage = self.orphans.pop() if self.orphans else self.listener.next()
        if stage is None:
            return None  # Tune asks again; something is running, or the run would be over
        self.keys[trial_id], self.stages[stage.key] = stage.key, stage
        return self.configure(stage)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "entry" in result:
            self.listener.epoch(self.keys[trial_id], json.loads(result["entry"]))
        if "said" in result:
            self.listener.said(self.keys[trial_id], result["said"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        key = self.keys.pop(trial_id)
        if error or result is None:
            self._died(key)
        elif result.get("failed"):
            self.listener.failed(key, result["failed"], result["traceback"])
        elif result.get("paused"):
            self.listener.paused(key)
        elif result.get("again"):
            self.listener.again(key, result["again"])
        elif result.get("score") is not None:
            self.listener.finished(key)

    def _died(self, key: str) -> None:
        self.deaths[key] += 1
        if not self.listener.over and self.listener.again(key, "died"):
            return
        if self.deaths[key] > RETRIES or self.listener.over:
            self.listener.failed(key, f"its process died {self.deaths[key]} times", "")
        else:
            self.orphans.append(self.stages[key])

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: running again is resuming."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class Starts(DriverOnly, Callback):
    """Tells the run when a stage's process really starts; until then the stage waits for resources."""

    def __init__(self, searcher: StageSearcher) -> None:
        self.searcher = searcher

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = self.searcher.keys.get(trial.trial_id)
        if key is not None:
            self.searcher.listener.started(key)
