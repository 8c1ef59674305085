"""The frontier, as a Ray Tune Searcher: Tune asks what to train next and tells what came of it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any, Protocol

import ray
from ray.tune import Callback
from ray.tune.search import Searcher

from trainers.deaths import WITH_NODE, Life, advice, why
from trainers.order import SILENCE
from trainers.spec import Stage

LOOK = 10.0  # seconds that Tune may need for one round of its loop
LEFT = "left, for it or its node is taken away"
RETRIES = 3  # how often the process of a stage may die before the stage counts as failed


class Listener(Protocol):
    """The run behind the searcher."""

    @property
    def over(self) -> bool:
        """Nothing wanted is unfinished."""

    def look(self) -> None:
        """Time goes by: a round of Tune's loop."""

    def next(self) -> list[Stage]:
        """The stages that one process is to train now; none if nothing may start, or no slot is free."""

    def started(self, key: str) -> None:
        """A process has taken the stage up."""

    def epoch(self, key: str, entry: dict[str, float]) -> None:
        """The stage has finished an epoch."""

    def said(self, key: str, text: str) -> None:
        """The stage has met something that the user should know."""

    def died(self, key: str, why: str) -> None:
        """The process that trained the stage is no more; another will take it up."""

    def finished(self, key: str) -> None:
        """The stage's result is in the store."""

    def paused(self, key: str) -> None:
        """The stage is trained as far as it was to be for now, and the store has what it has reached."""

    def failed(self, key: str, reason: str, traceback: str) -> None:
        """The stage has no result."""

    def again(self, key: str, why: str) -> bool:
        """Its workers were "lost", came "late" or were "released", its process "died" or "left", or was too "crowded"
        for it; -> whether that is seen to. If not, it is to go on where it was, alone."""


@dataclass
class UnderWay:
    """A process that trains stages."""

    trial: Any  # of Tune
    heard: float  # when it last gave a sign of life
    life: Life | None = None
    why: str = ""  # it is about to die, if it is
    left: bool = False  # of its own will, with all that it had
    halting: bool = False  # it was asked to end


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

    def __init__(
        self,
        listener: Listener,
        configure: Callable[[Sequence[Stage]], dict[str, Any]],
        *,
        silence: float = SILENCE,
        kills: Callable[[str], int | None] = lambda node: None,
    ) -> None:
        """`silence`: the seconds after which a process that gives no sign of life is ended; `kills`: how many processes
        of a node the kernel has killed for lack of memory."""
        super().__init__(metric="score", mode="max")
        self.silence, self.kills = silence, kills
        self.listener = listener
        self.configure = configure
        self.keys: dict[str, list[str]] = {}  # by the id of the trial those of its stages that have not ended
        self.stages: dict[str, Stage] = {}
        self.deaths: Counter[str] = Counter()  # since the stage came any further
        self.furthest: dict[str, float] = {}  # epochs, by key
        self.orphans: list[Stage] = []
        self.under_way: dict[str, UnderWay] = {}  # by the id of the trial
        self.trials: list[Any] = []  # all of Tune's, of which some have no process yet
        self.looked = time.monotonic()

    def suggest(self, trial_id: str) -> Any:
        self.listener.look()  # while nothing runs Tune does nothing but ask here, and while one begins all but that
        if self.listener.over:
            return Searcher.FINISHED
        stages = [self.orphans.pop()] if self.orphans else self.listener.next()
        if not stages:
            return None  # Tune asks again; something is running, or the run would be over
        self.keys[trial_id] = [stage.key for stage in stages]
        self.stages |= {stage.key: stage for stage in stages}
        return self.configure(stages)

    def name(self, trial_id: str) -> str:
        """Of a trial, for Tune's own files: its first stage, and how many there are beside it."""
        first, *others = self.keys.get(trial_id, [trial_id])
        return f"{first}+{len(others)}" if others else first

    def begin(self, trial: Any) -> None:
        """A trial has a process now."""
        if trial.trial_id in self.keys:
            self.under_way[trial.trial_id] = UnderWay(trial, time.monotonic())
            for key in self.keys[trial.trial_id]:
                self.listener.started(key)

    def watch(self, trials: list[Any]) -> None:
        """End the processes of which nothing was heard for too long: they, or their machines, are frozen."""
        self.listener.look()
        self.trials, now = trials, time.monotonic()
        # Nobody was heard while this process itself stood still.
        missed, self.looked = max(0.0, now - self.looked - LOOK), now
        for one in self.under_way.values():
            one.heard += missed
            if now - one.heard > self.silence and not one.why:
                one.why = f"gave no sign of life for {self.silence:g} s and was ended"
                ray.kill(one.trial.temporary_state.ray_actor)

    def halted(self) -> bool:
        """Ask all processes to end their stages after the step that they are in; -> whether none is under way."""
        for one in self.under_way.values():
            if not one.halting:
                one.halting = True
                one.trial.temporary_state.ray_actor.halt.remote()
        return not self.under_way

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if one := self.under_way.get(trial_id):
            one.heard = time.monotonic()
            one.left = one.left or ("left" in result and "ended" not in result)
            one.why = one.why or result.get("hung", "")
            if "life" in result:
                one.life = Life.model_validate_json(result["life"])
        if "ended" in result:
            self._ended(trial_id, result)
        if "entry" in result:
            key, entry = result["key"], json.loads(result["entry"])
            if entry["epoch"] > self.furthest.get(key, 0):  # one that was replaced tells its past again
                self.furthest[key] = entry["epoch"]
                self.deaths.pop(key, None)
            self.listener.epoch(key, entry)
        if "said" in result:
            self.listener.said(result["key"], result["said"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        one = self.under_way.pop(trial_id, None)
        if result is not None and not error and "ended" in result:
            self._ended(trial_id, result)
        keys = self.keys.pop(trial_id)
        if one is not None and one.left:
            for key in keys:
                self._goes_on(key, LEFT, "left")
        elif error or result is None:
            self._died(keys, self._cause(trial_id, one))

    def _ended(self, trial_id: str, result: dict[str, Any]) -> None:
        """One of a trial's stages has ended, though its process lives."""
        key = result["key"]
        self.keys[trial_id].remove(key)
        if result["left"]:
            self._goes_on(key, LEFT, "left")
        elif result["failed"]:
            self.listener.failed(key, result["failed"], result["traceback"])
        elif result["paused"]:
            self.listener.paused(key)
        elif result["again"]:
            self.listener.again(key, result["again"])
        else:
            self.listener.finished(key)

    def _died(self, keys: list[str], cause: str) -> None:
        """The process of some stages is no more."""
        for key in keys:
            self.deaths[key] += cause != WITH_NODE  # for which the stage cannot be to blame
            if self.deaths[key] > RETRIES or self.listener.over:
                said = [f"its process died {self.deaths[key]} times"]
                said += [] if cause == "died" else [f"the last {cause}", advice(cause)]
                self.listener.failed(key, "; ".join(filter(None, said)), "")
            else:
                self._goes_on(key, cause, "died")

    def _cause(self, trial_id: str, one: UnderWay | None) -> str:
        """What became of a process, perhaps before it had begun with anything."""
        if one is not None and one.why:
            return one.why
        said, life = "", one.life if one else None
        with suppress(OSError, StopIteration):  # nothing was written of it
            trial = next(each for each in reversed(self.trials) if each.trial_id == trial_id)
            said = File(trial.error_file or "").read_text()
        return why(said, life, self.kills(life.node) if life else None)

    def _goes_on(self, key: str, why: str, how: str) -> None:
        self.listener.died(key, why)
        if not self.listener.again(key, how):
            self.orphans.append(self.stages[key])

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: running again is resuming."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class Starts(DriverOnly, Callback):
    """Tells the searcher when a stage's process really starts, until when the stage waits for resources; and that
    time goes by."""

    def __init__(self, searcher: StageSearcher) -> None:
        self.searcher = searcher

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.searcher.begin(trial)

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.searcher.watch(trials)
