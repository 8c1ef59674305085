"""The process that trains stages, as Tune drives it; without a Ray around it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path as File
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from orchestrator.ended import Finished
from orchestrator.one_thread import OneThread
from orchestrator.resources import Placement
from orchestrator.trial import LOADING, UNWATCHED, Trial
from tests.trainers.stages import order, stage
from trainers.call import Invalid
from trainers.loop import Paused, Stopped
from trainers.post import Beat, End, Letters
from trainers.stage import StageFailed


@pytest.fixture
def process(tmp_path: File) -> Trial:
    """One that was given a stage that would take long."""
    made = Trial.__new__(Trial)
    made.stages, made.going, made.ending, made.looked, made.node = 0, False, False, time.monotonic(), ""
    made.thread = OneThread()
    made._start(given(tmp_path))
    return made


def given(folder: File) -> dict[str, Any]:
    asked = order(stage(epochs=1000), folder)
    return {"orders": [asked.model_dump_json()], "placement": Placement().model_dump_json()}


def leases(folder: File) -> list[File]:
    return list(folder.glob("*/lease-*"))


def test_a_driver_that_ends_before_it_knows_of_a_process_leaves_no_stage_taken(process: Trial, tmp_path: File) -> None:
    """Nobody would wait for it to give the stage back."""
    before = threading.active_count()
    process.cleanup()
    assert process.over is None and threading.active_count() == before, "it never began"
    assert not leases(tmp_path)


def test_a_stage_is_taken_with_the_first_step_that_is_asked_for_and_given_back_when_the_process_is_told_to_end(
    process: Trial, tmp_path: File
) -> None:
    while not leases(tmp_path):
        assert "ended" not in process.step()
    process.cleanup()
    assert process.over is not None and process.over.is_set() and not leases(tmp_path)


def test_all_stages_of_a_process_are_trained_by_one_thread_whatever_becomes_of_them(
    process: Trial, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What CUDA has recorded can be replayed by the thread alone that recorded it."""
    threads = []

    def trained(*_: Any, **__: Any) -> None:
        threads.append(threading.get_ident())
        raise [SystemExit("a library wants to end the process"), StageFailed("it does not train")][len(threads) % 2]

    monkeypatch.setattr("trainers.stage.train_together", trained)
    failures = []
    for _ in range(3):
        while "ended" not in (said := process.step()):
            pass
        failures.append(said["failed"])
        assert process.reset_config(given(tmp_path))
    assert len(set(threads)) == 1 and threads[0] != threading.get_ident()
    assert failures == ["it does not train", "SystemExit: a library wants to end the process", "it does not train"]


def test_a_process_whose_node_is_taken_away_is_there_until_its_workers_have_given_back_what_they_held(
    process: Trial, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hears of the end of a stage before that, and nobody else would give it back."""
    ended = threading.Event()

    def work() -> None:
        process._end(next(iter(process.training)), Stopped())
        ended.wait()

    monkeypatch.setattr("orchestrator.trial.BEAT", 0.1)
    monkeypatch.setattr("orchestrator.trial.draining", lambda: {""})  # its own node
    process.work, process.alone = work, False
    process.leave()
    assert set(process.step()) == {"life"}
    for _ in range(3):
        assert set(process.step()) == {"life", "left"}, "if it is killed meanwhile it has left all the same"
    ended.set()
    assert process.step() == {"left": True}


def test_a_process_that_is_told_to_go_between_two_stages_does_not_begin_with_the_next(
    process: Trial, tmp_path: File
) -> None:
    process.going = True
    assert process.step() == {"left": True}
    assert process.over is None and not leases(tmp_path)


def test_a_stage_whose_controller_dies_is_gone_on_with_by_another_process(process: Trial) -> None:
    def died() -> None:
        process._guard(dies, Placement())

    def dies(_: Placement) -> None:
        raise ActorDiedError()

    process.work = died
    while "hung" not in (said := process.step()):
        assert set(said) == {"life"}
    assert said == {"hung": UNWATCHED} and process.ending


class Answers:
    """A call to another process, which is answered at once."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self.remote = answer


def after_its_workers(process: Trial, monkeypatch: pytest.MonkeyPatch, outcome: Callable[..., Any]) -> Finished:
    """How a stage ends whose workers have said that it is done, if the store says this."""
    (key,) = process.training
    letters, over = Letters([key]), threading.Event()
    letters.end(key, End("done"))
    over.set()
    monkeypatch.setattr("orchestrator.trial.ray.get", lambda answer: answer)
    monkeypatch.setattr("orchestrator.trial.outcome", outcome)
    process._watch_workers(SimpleNamespace(take=Answers(letters.take)), over)
    assert not process.training
    (_, end) = process.news.get_nowait()
    assert isinstance(end, Finished)
    return end


def test_a_stage_whose_workers_end_while_the_store_is_away_has_what_they_stored_when_it_is_back(
    process: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = [OSError(5, "the server says 503")] * 3

    def outcome(*_: Any) -> BaseException:
        if away:
            raise away.pop()
        return Paused()

    assert after_its_workers(process, monkeypatch, outcome).paused and not away


def test_a_stage_of_which_the_store_says_what_nobody_understands_fails_with_it(
    process: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    def outcome(*_: Any) -> None:
        raise Invalid("it is of a later version")

    assert after_its_workers(process, monkeypatch, outcome).failed == "Invalid: it is of a later version"


@pytest.fixture
def unheard(process: Trial, monkeypatch: pytest.MonkeyPatch) -> Letters:
    """The post of its workers, of which none has told anything yet."""
    monkeypatch.setattr("orchestrator.trial.ray.get", lambda answer: answer)
    monkeypatch.setattr("orchestrator.trial.draining", set)
    monkeypatch.setattr("orchestrator.trial.free", lambda: None)
    return Letters([*process.training])


def post(letters: Letters) -> Any:
    return SimpleNamespace(**{name: Answers(getattr(letters, name)) for name in ("late", "nodes", "unheard", "take")})


def test_workers_of_which_nothing_is_heard_for_too_long_are_given_up_with_their_process(
    process: Trial, unheard: Letters
) -> None:
    process._look_at_workers(post(unheard))
    assert process.training
    unheard.begun -= process.silence + LOADING
    process._look_at_workers(post(unheard))
    (_, end) = process.news.get_nowait()
    assert isinstance(end, Finished) and not process.training
    assert end.lost == f"heard nothing of its workers for {process.silence + LOADING:.0f} s, and was ended"


def test_workers_of_which_one_was_heard_are_not(process: Trial, unheard: Letters) -> None:
    unheard.begun -= process.silence + LOADING
    unheard.beat(0, Beat(None, "a node", 0.0))
    process._look_at_workers(post(unheard))
    assert process.training


def test_room_is_given_back_as_long_as_workers_wait_for_it(
    process: Trial, unheard: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: list[str] = []
    monkeypatch.setattr("orchestrator.trial.free", lambda: freed.append("once"))
    for _ in range(3):
        process._look_at_workers(post(unheard))
    unheard.beat(0, Beat(None, "a node", 0.0))
    process._look_at_workers(post(unheard))
    assert freed == ["once"] * 3


@pytest.mark.parametrize(("leaving", "left"), [(True, True), (False, False)])
def test_a_stage_whose_workers_ended_while_its_process_was_told_to_go_and_the_store_was_away_has_not_failed(
    process: Trial, unheard: Letters, monkeypatch: pytest.MonkeyPatch, leaving: bool, left: bool
) -> None:
    def run(*_: Any, **__: Any) -> None:
        if leaving:
            process.leave()

    monkeypatch.setattr("orchestrator.trial.run_on_workers", run)
    monkeypatch.setattr("orchestrator.trial.post_here", lambda *_: SimpleNamespace(**vars(post(unheard)), stop=Told()))
    process._train_on_workers(Placement(workers=2))
    (_, end) = process.news.get_nowait()
    assert isinstance(end, Finished) and end.left == left and bool(end.failed) != left


class Told:
    """A call to another process of which nobody awaits anything."""

    def remote(self) -> None:
        pass
