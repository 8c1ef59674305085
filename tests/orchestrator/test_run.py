"""A study under way says once what a reader of its log should know."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress
from pathlib import Path as File

import pytest

from orchestrator import waiting
from orchestrator.prepared import prepare
from orchestrator.resources import Placement
from orchestrator.room import Node, Room
from orchestrator.signals import handling
from orchestrator.study import load
from orchestrator.underway import Run
from tests.orchestrator.studies import write
from trainers import visible
from trainers.order import Order


@pytest.fixture
def run(tmp_path: File) -> Run:
    made = Run(prepare(load(write(tmp_path), (f"resources.store={tmp_path / 'store'}",))))
    made.refresh()
    return made


def test_a_process_that_takes_a_stage_up_again_is_said_to_go_on(run: Run) -> None:
    said: list[str] = []
    run.say = said.append
    (stage,) = run.next()
    run.started(stage.key)
    assert said == []
    run.epoch(stage.key, {"epoch": 1.0, "seconds": 1.0, "val/AP": 0.25})
    run.started(stage.key)
    assert said == ["the process of big (seed 0) ended; it goes on from epoch 1"]


def test_why_a_process_ended_is_said_if_anybody_knows(run: Run) -> None:
    said: list[str] = []
    run.say = said.append
    (stage,) = run.next()
    run.started(stage.key)
    run.died(stage.key, "died with its node")
    assert said == [], "another process is still to be found"
    run.started(stage.key)
    assert said == ["the process of big (seed 0) died with its node; it goes on from epoch 0"]


def test_a_stage_that_waits_for_resources_is_said_to_as_long_as_it_waits(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.waiting.PATIENCE", 0.2)
    said: list[str] = []
    run.say = said.append
    (stage,) = run.next()
    given_back: list[float] = []

    def free() -> None:
        given_back.append(time.monotonic())

    ended = threading.Event()
    needs = "needs 1 CPU, free are 0 of 4"
    watch = threading.Thread(target=waiting.watch, args=(run, ended, lambda placement: needs, free))
    watch.start()
    time.sleep(1)
    run.started(stage.key)
    time.sleep(0.2)
    before = list(said)
    time.sleep(0.5)
    ended.set()
    watch.join()
    assert 2 <= len(before) <= 5 and set(before) == {"big waits: needs 1 CPU, free are 0 of 4"}
    assert said == before, "it waits no more"
    assert len(given_back) == len(said), "what the dead hold may be what it waits for"


def test_what_a_process_that_died_beside_its_workers_held_is_given_back_before_anybody_has_waited_for_long(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.waiting.PATIENCE", 2.0)
    given_back, ended = threading.Event(), threading.Event()
    watch = threading.Thread(target=waiting.watch, args=(run, ended, lambda placement: "", given_back.set))
    watch.start()
    (stage,) = run.next()
    run.started(stage.key)
    run.died(stage.key, "died")
    assert not given_back.wait(1), "it had none"
    monkeypatch.setattr(run.handing, "whole", lambda stage: Placement(workers=2))
    run.died(stage.key, "died")
    assert given_back.wait(60)
    ended.set()
    watch.join()


def watched(run: Run, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the run says, and for what its stages wait; it is looked for often."""
    monkeypatch.setattr("orchestrator.waiting.PATIENCE", 0.2)
    said: list[str] = []
    run.say = said.append
    short = "needs 2 CPU, free are 1 of 1"
    watching = (run, threading.Event(), lambda placement: short, lambda: None)
    threading.Thread(target=waiting.watch, args=watching, daemon=True).start()
    return said


def test_it_is_said_within_a_minute_what_a_stage_waits_for() -> None:
    assert waiting.PATIENCE * 1.25 < 60


def test_a_stage_whose_workers_died_and_find_no_room_again_is_said_to_wait(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = watched(run, monkeypatch)
    (stage,) = run.next()
    run.started(stage.key)
    run.epoch(stage.key, {"epoch": 0.0, "workers": 2.0})
    time.sleep(0.5)
    assert said == []
    run.epoch(stage.key, {"epoch": 0.0, "workers": 0.0})
    time.sleep(0.5)
    assert set(said) == {"big waits: needs 2 CPU, free are 1 of 1"}
    run.epoch(stage.key, {"epoch": 0.0, "workers": 2.0})
    time.sleep(0.1)
    before = list(said)
    time.sleep(0.4)
    assert said == before
    run.stopping.set()


def test_a_stage_whose_workers_are_late_again_and_again_has_waited_since_the_first_time(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.handing, "whole", lambda stage: Placement(workers=2, min_workers=1))
    said = watched(run, monkeypatch)
    for _ in range(8):  # more often than it would be said
        (stage,) = run.next()
        assert stage is not None
        time.sleep(0.05)
        assert run.again(stage.key, "late")
    assert "big waits: needs 2 CPU, free are 1 of 1" in said
    run.stopping.set()


def test_where_nothing_runs_it_is_said_what_the_first_stage_waits_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the last node is gone."""
    run.handing.room = Room([], {"big": Placement()})
    said = watched(run, monkeypatch)
    time.sleep(0.6)
    run.stopping.set()
    assert set(said) == {"big waits: needs 2 CPU, free are 1 of 1"}


def test_what_a_new_process_tells_of_the_past_is_not_noted_twice(run: Run) -> None:
    (stage,) = run.next()
    for _ in range(2):
        run.started(stage.key)
        run.epoch(stage.key, {"epoch": 1.0, "seconds": 1.0, "val/AP": 0.25})
    assert [entry["epoch"] for entry in run.board.rows[stage.key].history] == [1]


def test_an_interrupt_that_somebody_swallows_is_not_forgotten(run: Run) -> None:
    """Ray's start once did."""
    with handling(run._break), suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert run.over and run.interrupted


def test_the_handlers_of_before_come_back(run: Run) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with handling(run._break):
        assert signal.getsignal(signal.SIGTERM) == run._break
    assert signal.getsignal(signal.SIGTERM) == before


def test_another_thread_may_not_receive_signals_and_needs_not() -> None:
    done = []

    def elsewhere() -> None:
        with handling(lambda number, frame: None):
            done.append(True)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert done == [True]


def test_a_stage_that_paused_without_a_word_in_the_store_fails_and_is_not_asked_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visible, "PATIENCE", 0.0)
    (stage,) = run.next()
    run.handing.goals[stage.key] = 1
    run.started(stage.key)
    run.paused(stage.key)
    row = run.board.rows[stage.key]
    assert row.state == "failed" and "does not say what it had" in row.reason
    assert stage.key in run.frontier.failed


def test_the_board_is_brought_up_only_to_what_has_changed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    extend = run.prepared.extend
    monkeypatch.setattr(
        run.prepared, "extend", lambda board, wanted: looked.append(len(wanted)) or extend(board, wanted)
    )
    run.refresh()
    node = run.frontier.wanted()[-1]
    del run.board.rows[node.stage.key]
    run.frontier.fresh.append(node)
    run.refresh()
    run.refresh()
    assert looked == [0, 1, 0] and node.stage.key in run.board.rows


def test_a_stage_is_handed_out_with_what_its_models_resources_say(tmp_path: File) -> None:
    sets = (
        f"resources.store={tmp_path / 'store'}",
        "resources.micro_batch=4",
        "models.big.resources.micro_batch=2",
        "models.big.resources.sync_batch_norm=true",
        "resources.teacher_precision=bf16",
        "models.big.resources.channels_last=false",
    )
    made = Run(prepare(load(write(tmp_path), sets)))
    made.refresh()
    orders = {}
    for _ in range(2):
        (stage,) = made.next()
        assert stage is not None
        orders[made.board.rows[stage.key].path] = Order.model_validate_json(made._order(stage))
    big, *others = (orders[name] for name in sorted(orders))
    assert (big.micro_batch, big.sync_batch_norm) == (2, True)
    assert [(one.micro_batch, one.sync_batch_norm) for one in others] == [(4, False)]
    assert (big.channels_last, big.teacher_precision, big.compile) == (False, "bf16", False)
    assert [(one.channels_last, one.teacher_precision) for one in others] == [(None, "bf16")]


def test_a_stage_whose_node_is_gone_waits_for_room_and_one_whose_node_is_there_keeps_its_place(run: Run) -> None:
    run.handing.cohorts.most = 1
    here, there = (Node(name, {"CPU": 1.0}) for name in ("here", "there"))
    run.handing.nodes = lambda: [here, there]
    placements = {name: one.resources for name, one in run.prepared.study.models.items()}
    run.handing.room = Room(run.handing.nodes(), placements, stages_at_once=1)
    (stage,) = run.next()
    run.started(stage.key)
    ((place, (_, [name])),) = run.handing.room.taken.items()
    assert run.again(stage.key, "left") is False and list(run.handing.room.taken) == [place]
    run.handing.nodes = lambda: [node for node in (here, there) if node.name != name]
    run.died(stage.key, "died with its node")
    assert run.again(stage.key, "died") is True and not run.handing.room.taken
    assert run.board.rows[stage.key].state == "waiting"
    said: list[str] = []
    run.say = said.append
    (again,) = run.next()
    assert again == stage and [where for _, where in run.handing.room.taken.values()] != [[name]]
    run.started(stage.key)
    assert said == ["the process of big (seed 0) died with its node; it goes on from epoch 0"]
