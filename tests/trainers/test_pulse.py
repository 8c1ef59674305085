"""Who hangs is told from who works, who rests and who waits for another."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest
import torch

from tests.trainers.stages import CPU, STEPS, order, stage
from trainers import post as posts
from trainers import worker, workers
from trainers.order import Order
from trainers.post import Beat, Letters
from trainers.pulse import TOGETHER, Pulse
from trainers.stage import of_others
from trainers.worker import work


def test_a_pulse_is_silent_since_its_last_step_and_never_while_it_rests() -> None:
    pulse = Pulse()
    assert pulse.silent() == 0, "nothing has begun"
    ask = pulse.beating(lambda: False, device=CPU)
    assert ask() is False and pulse.steps == 1
    time.sleep(0.05)
    assert 0.05 <= pulse.silent() < 5
    ask()
    assert pulse.silent() < 0.05
    pulse.rest()
    time.sleep(0.01)
    assert pulse.silent() == 0


def test_who_is_asked_to_stop_stops_before_the_next_step() -> None:
    wishes = iter([False, True])
    ask = Pulse().beating(lambda: next(wishes), device=CPU)
    assert [ask(), ask()] == [False, True]


def test_of_stages_that_several_workers_train_together_on_gpus_all_stop_within_fifty_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever of them asks, and though it is asked seldom: it waits for the device."""
    asked: list[bool] = []

    def anywhere(here: bool, *, device: torch.device) -> bool:
        asked.append(here)
        return here

    monkeypatch.setattr(workers, "count", lambda: 2)
    monkeypatch.setattr(workers, "anywhere", anywhere)
    pulse, wish = Pulse(), Event()
    stages = dict(enumerate(pulse.beating(wish.is_set, device=torch.device("cuda")) for _ in range(4)))
    made = Counter[int]()
    for _ in range(100):
        made.update(number for number, ask in stages.items() if not ask())
    wish.set()
    for _ in range(TOGETHER // 4 + 2):
        stages = {number: ask for number, ask in stages.items() if not ask()}
    assert not stages
    assert made == dict.fromkeys(range(4), 100) and len(asked) == 400 // TOGETHER + 1


def test_while_data_are_copied_the_pulse_rests_and_no_worker_asks_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker of a node copies and another waits, and each looks as often as it likes whether to stop."""
    pulse, seen = Pulse(), []
    opened = worker.opened

    def opening(order: Order, *, stop: Callable[[], bool], say: Callable[[str], None]) -> object:
        stop()
        seen.append((pulse.steps, pulse.silent()))
        return opened(order, stop=stop, say=say)

    monkeypatch.setattr(worker, "opened", opening)
    work(order(stage(epochs=1), tmp_path), device=CPU, pulse=pulse)
    assert seen == [(0, 0.0)] and pulse.steps == STEPS


def test_a_post_is_there_at_once_as_it_loads_no_torch() -> None:
    code = "import sys, trainers.post; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Clock:
    """That of the post, by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(posts.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def beat(post: Letters, *silent: float | None) -> None:
    """Signs of life of several workers, by rank; None: of this one there is none."""
    for rank, seconds in enumerate(silent):
        if seconds is not None:
            post.beat(rank, Beat(f"actor {rank}", f"node {rank}", seconds))


def test_a_worker_of_which_nothing_is_heard_is_late_and_named_once(clock: Clock) -> None:
    post = Letters()
    beat(post, 0, 0)
    clock.now += 9
    beat(post, 9, None)
    assert post.late(10) == {}
    clock.now += 2
    assert post.late(10) == {1: "actor 1"}
    assert post.late(10) == {} and post.nodes() == {"node 0"}


def test_those_that_wait_for_a_frozen_one_are_not_taken_for_it(clock: Clock) -> None:
    """They notice first: their last step began before its last sign of life."""
    post = Letters()
    beat(post, 0.5, 0.5)
    clock.now += 9.8
    beat(post, 10.3, None)
    assert post.late(10) == {1: "actor 1"}


def test_workers_that_live_and_make_no_step_are_late_together(clock: Clock) -> None:
    post = Letters()
    beat(post, 10.5, 10.5)
    assert post.late(10) == {0: "actor 0", 1: "actor 1"}


def test_a_post_tells_workers_to_stop_and_forgets_those_that_are_replaced(clock: Clock) -> None:
    post = Letters()
    assert post.beat(0, Beat("actor", "node", 0)) is False
    post.stop()
    assert post.beat(0, Beat("actor", "node", 0)) is True
    post.forget()
    clock.now += 100
    assert post.late(10) == {} and post.nodes() == set()


@pytest.mark.parametrize(
    ("error", "others"),
    [
        (RuntimeError("[pair.cc:547] Connection closed by peer [127.0.0.1]:4242"), True),
        (torch.distributed.DistBackendError("NCCL communicator was aborted on rank 1"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (KeyError("tower"), False),
    ],
)
def test_a_worker_that_lost_another_has_not_failed_itself(error: Exception, others: bool) -> None:
    assert of_others(error) is others


def test_nobody_is_late_because_the_post_itself_stood_still(clock: Clock) -> None:
    post = Letters()
    beat(post, 0, 0)
    clock.now += 5000  # a machine that was suspended
    assert post.late(100) == {}
    for _ in range(10):
        clock.now += posts.LOOK
        late = post.late(100)
    assert set(late) == {0, 1}
