"""Processes come and go as stages pause and are wanted again: each has a place, and nobody is in two of them."""

from __future__ import annotations

import random
from pathlib import Path as File
from types import SimpleNamespace

import pytest

from orchestrator.prepared import Prepared
from orchestrator.underway import Run
from tests.orchestrator.test_handing import began
from trainers.spec import Stage

SWEEP = "sweep={LD.weight: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], stop: {%s: {grace: 1, factor: 2}}}"


def drawn(key: str, epoch: int) -> float:
    return random.Random(f"{key} {epoch}").random()


class Played:
    """A run whose stages are trained by nobody, in an order that is drawn."""

    def __init__(self, folder: File, monkeypatch: pytest.MonkeyPatch, *, kind: str, slots: int, seed: int) -> None:
        self.slots, self.dice = slots, random.Random(seed)
        self.reached: dict[str, int] = {}  # epochs of those that paused
        self.processes: list[list[str]] = []  # the keys that each still trains
        self.failures = 0
        monkeypatch.setattr(Prepared, "paused", self.paused)
        monkeypatch.setattr(Prepared, "reached", lambda *_: True)
        self.run = began(folder, slots=slots, sets=("recipe.epochs=8", SWEEP % kind))
        prepared = self.run.prepared
        monkeypatch.setattr(prepared.store, "get", lambda stage: SimpleNamespace(key=stage.key))
        monkeypatch.setattr(prepared, "fill", lambda row, result, state: setattr(row, "state", state))
        monkeypatch.setattr(prepared, "score", lambda result: drawn(result.key, 8))

    def paused(self, stage: Stage, epoch: int) -> float | None:
        return drawn(stage.key, epoch) if self.reached.get(stage.key, 0) >= epoch else None

    def look(self) -> None:
        """Hand out all there is room for; what holds of those under way holds now."""
        while stages := self.run.next():
            self.processes.append([stage.key for stage in stages])
            for stage in stages:
                self.run.started(stage.key)
        trained = [key for process in self.processes for key in process]
        assert len(trained) == len(set(trained)), "a stage is trained twice at once"
        assert self.run.handing.room is not None
        assert len(self.processes) == len(self.run.handing.room.taken) <= self.slots

    def end(self, process: list[str]) -> None:
        """One of the stages of a process is trained as far as was asked for."""
        key = process.pop(self.dice.randrange(len(process)))
        goal = self.run.handing.goals[key]
        if goal is None:
            self.run.finished(key)
        else:
            self.reached[key] = goal
            self.run.paused(key)

    def kill(self, process: list[str]) -> None:
        """A process dies, and stages that do not keep its place wait for others."""
        process[:] = [key for key in list(process) if not self.run.again(key, "died")]

    def play(self) -> Run:
        self.look()
        while not self.run.over:
            process = self.dice.choice(self.processes)
            self.kill(process) if self.dice.random() < 0.1 else self.end(process)
            self.processes = [one for one in self.processes if one]
            self.look()
        return self.run


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("kind", ["asha", "halving"])
def test_a_stage_that_pauses_is_handed_out_again_while_those_beside_it_go_on(
    tmp_path: File, monkeypatch: pytest.MonkeyPatch, kind: str, slots: int, seed: int
) -> None:
    played = Played(tmp_path, monkeypatch, kind=kind, slots=slots, seed=seed)
    run = played.play()
    assert run.handing.room is not None and not run.handing.room.taken and not run.handing.cohorts.places
    assert {row.state for row in run.board.rows.values()} <= {"done", "paused", "pruned"}
    assert played.reached, "some have paused"
    ended = [row.key for row in run.board.rows.values() if row.state == "done"]
    assert set(ended) & played.reached.keys(), "and of these some were trained to their end"


def test_a_stage_goes_as_far_as_was_asked_for_when_it_got_its_room(
    tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a strategy takes back before it is handed out must not be trained to its end."""
    played = Played(tmp_path, monkeypatch, kind="asha", slots=2, seed=0)
    run, wanted = played.run, dict[str, int | None]()
    while not any(wanted.values()):
        for stage in run.next():
            run.started(stage.key)
            played.processes.append([stage.key])
        wanted = {stage.key: run.frontier.goal(stage.key) for stages in run.handing._next for stage in stages}
        while not wanted and played.processes:
            played.end(played.processes.pop(0))
    monkeypatch.setattr(run.frontier, "goal", lambda key: None)
    handed = [stage.key for stage in run.next()]
    assert {key: run.handing.goals[key] for key in handed} == {key: wanted[key] for key in handed}
