"""Whoever gives no sign of life is ended; whoever leaves of its own will has not died."""

from __future__ import annotations

import json
import threading
from pathlib import Path as File
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator import searcher as searching
from orchestrator.cluster import Interrupted
from orchestrator.ended import Finished
from orchestrator.searcher import LOOK, RETRIES, StageSearcher
from trainers.deaths import Life

LIFE = Life(node="n", pid=1, peak=2**30, used=2**30, total=2**31, kills=0)


class Told:
    """The run behind the searcher."""

    over = False

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.keys = ["key"]  # of what it hands out together
        self.elastic = False  # the number of its workers may change
        self.looks = 0

    def look(self) -> None:
        self.looks += 1

    def again(self, key: str, why: str) -> bool:
        if self.elastic:
            self.lines.append(f"again: {why}")
        return self.elastic

    def next(self) -> list[Any]:
        return [SimpleNamespace(key=key) for key in self.keys]

    def started(self, key: str) -> None:
        self.lines.append("started")

    def epoch(self, key: str, entry: dict[str, float]) -> None: ...

    def died(self, key: str, why: str) -> None:
        self.lines.append(why)

    def failed(self, key: str, reason: str, traceback: str) -> None:
        self.lines.append(reason)


class Play:
    """A searcher whose clock goes by hand, and the actors that it has ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: File) -> None:
        self.now, self.ended, self.killed, self.file = 0.0, [], 0, folder / "error.txt"
        monkeypatch.setattr(searching.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(searching.ray, "kill", self.ended.append)
        self.told = Told()
        self.searcher = StageSearcher(self.told, lambda stages: {}, silence=100, kills=lambda node: self.killed)
        self.trials: list[Any] = []

    def begin(self) -> str:
        """A process begins with the stage; -> its trial."""
        trial = f"trial {len(self.trials)}"
        actor = SimpleNamespace(ray_actor=f"actor of {trial}")
        self.trials.append(SimpleNamespace(trial_id=trial, temporary_state=actor, error_file=str(self.file)))
        self.searcher.suggest(trial)
        self.searcher.begin(self.trials[-1])
        return trial

    def after(self, seconds: float) -> None:
        """Time goes by, in which Tune goes round."""
        for _ in range(10):
            self.now += seconds / 10
            self.searcher.watch(self.trials)


def end(key: str = "key", **how: Any) -> dict[str, Any]:
    """What a trial says of the end of a stage."""
    return {"ended": True, **Finished(key, **how)._asdict()}


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, tmp_path: File) -> Play:
    return Play(monkeypatch, tmp_path)


def test_a_process_that_gives_no_sign_of_life_is_ended_once_and_named(play: Play) -> None:
    trial = play.begin()
    play.after(90)
    play.searcher.on_trial_result(trial, {"life": LIFE.model_dump_json()})
    play.after(90)
    assert play.ended == []
    play.after(30)
    play.after(30)
    assert play.ended == ["actor of trial 0"]
    assert play.told.looks == 1 + 4 * 10, "the run looks about in every round, though no stage is asked for"
    play.searcher.on_trial_complete(trial, error=True)
    assert play.told.lines == ["started", "gave no sign of life for 100 s and was ended"]


def test_nobody_is_ended_because_the_driver_itself_stood_still(play: Play) -> None:
    play.begin()
    play.after(50)
    play.now += 5000  # a laptop that was closed, a debugger
    play.searcher.watch(play.trials)
    play.after(50 - LOOK)
    assert play.ended == []
    play.after(30)
    assert play.ended == ["actor of trial 0"]


def test_who_leaves_in_time_may_do_so_any_number_of_times(play: Play) -> None:
    for _ in range(RETRIES + 3):
        trial = play.begin()
        play.searcher.on_trial_result(trial, {"left": True})
        play.searcher.on_trial_complete(trial, error=True)
    assert set(play.told.lines) == {"started", "left, for it or its node is taken away"}


def test_the_last_death_of_too_many_is_told_with_what_is_known_of_it(play: Play) -> None:
    for number in range(RETRIES + 1):
        trial = play.begin()
        play.searcher.watch(play.trials)
        play.searcher.on_trial_result(trial, {"life": LIFE.model_dump_json()})
        play.file.write_text("Worker unexpectedly exits with a connection error code 2.")
        play.killed = int(number == RETRIES)
        play.searcher.on_trial_complete(trial, error=True)
    *before, last = (line for line in play.told.lines if line != "started")
    assert before == ["died"] * RETRIES
    figures = "it had taken 1 GiB, and 1 of 2 GiB of the node were in use when it was last heard of"
    killed = f"was killed by the kernel, for its node had no memory left: {figures}"
    assert last.startswith(f"its process died {RETRIES + 1} times; the last {killed}; say in resources.memory what")


def test_a_process_that_made_no_step_says_so_before_it_ends(play: Play) -> None:
    trial = play.begin()
    play.searcher.on_trial_result(trial, {"hung": "made no step for 100 s and was ended"})
    play.searcher.on_trial_complete(trial, error=True)
    assert play.told.lines == ["started", "made no step for 100 s and was ended"]


def test_a_stage_whose_number_of_workers_may_change_is_handed_out_by_the_run_and_not_by_the_searcher(
    play: Play,
) -> None:
    play.told.elastic = True
    play.searcher.on_trial_complete(play.begin(), end(left=True))
    play.searcher.on_trial_complete(play.begin(), error=True)
    assert [line for line in play.told.lines if line.startswith("again")] == ["again: left", "again: died"]
    assert not play.searcher.orphans


def test_deaths_are_forgotten_once_the_stage_has_come_further(play: Play) -> None:
    for epoch in range(1, 2 * RETRIES):
        for _ in range(2):  # the second tells of the same epoch again, and dies in the next
            trial = play.begin()
            play.searcher.on_trial_result(trial, {"key": "key", "entry": json.dumps({"epoch": epoch})})
            play.searcher.on_trial_complete(trial, error=True)
    assert {*play.told.lines} == {"started", "died"}
    for _ in range(RETRIES - 1):
        play.searcher.on_trial_complete(play.begin(), error=True)
    assert play.told.lines[-1] == f"its process died {RETRIES + 1} times"


def test_all_are_asked_once_to_end_and_tune_goes_on_until_they_have(play: Play) -> None:
    asked: list[str] = []
    first, second = play.begin(), play.begin()
    for trial in play.trials:
        actor = SimpleNamespace(halt=SimpleNamespace(remote=lambda name=trial.trial_id: asked.append(name)))
        trial.temporary_state.ray_actor = actor
    stopping = threading.Event()
    interrupted = Interrupted(stopping, play.searcher)
    assert not interrupted.stop_all() and asked == []
    stopping.set()
    for trial in (first, second):
        assert not interrupted.stop_all() and not interrupted.stop_all() and asked == [first, second]
        play.searcher.on_trial_complete(trial, end(failed="stopped"))
    assert interrupted.stop_all()


def test_of_stages_that_train_together_each_is_told_of_for_itself(play: Play) -> None:
    play.told.keys = ["a", "b", "c"]
    trial = play.begin()
    assert play.searcher.name(trial) == "a+2"
    play.searcher.on_trial_result(trial, {"key": "b", "entry": json.dumps({"epoch": 1})})
    play.searcher.on_trial_result(trial, end("b", failed="no good", traceback="where"))
    play.searcher.on_trial_result(trial, end("c", again="crowded"))
    play.searcher.on_trial_complete(trial, end("a", failed="nor this"))
    assert play.told.lines == ["started"] * 3 + ["no good", "nor this"]
    assert not play.searcher.keys and not play.searcher.under_way


def test_with_a_process_die_those_of_its_stages_that_have_not_ended(play: Play) -> None:
    play.told.keys = ["a", "b"]
    trial = play.begin()
    play.searcher.on_trial_result(trial, end("a", failed="no good"))
    play.searcher.on_trial_complete(trial, error=True)
    assert play.told.lines == ["started"] * 2 + ["no good", "died"]
    assert dict(play.searcher.deaths) == {"b": 1}
    assert [stage.key for stage in play.searcher.orphans] == ["b"]


def test_a_death_with_a_node_is_no_stages_fault(play: Play) -> None:
    for _ in range(RETRIES + 2):
        play.file.write_text("The actor died because its node has died. Node Id: abc")
        trial = play.begin()
        play.searcher.watch(play.trials)
        play.searcher.on_trial_complete(trial, error=True)
    assert {*play.told.lines} == {"started", "died with its node"}
