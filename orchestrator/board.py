"""What is known of every stage of a run: the one record that the terminal, MLflow and the report are written from."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal
from uuid import uuid4

from orchestrator.lattice import Path
from trainers.spec import Stage

# paused: trained in part, until it is known whether it goes on; pruned: it does not
State = Literal["waiting", "running", "paused", "done", "reused", "pruned", "failed", "lost"]
STATES: tuple[State, ...] = ("done", "reused", "running", "waiting", "paused", "pruned", "failed", "lost")  # as told
TRAINED: tuple[State, ...] = ("done", "reused")
UNFINISHED: tuple[State, ...] = ("failed", "lost", "running", "waiting", "paused", "pruned")  # worst first


@dataclass
class Row:
    """One stage of the run."""

    stage: Stage
    path: Path  # the first of the paths that want it
    seed: int
    role: str  # teacher, assistant, student, or alone: the student that nobody teaches
    state: State = "waiting"
    score: float | None = None  # of the last epoch so far, or of the one that was kept
    history: list[dict[str, float]] = field(default_factory=list)  # one entry an epoch, with "epoch" from 1
    metrics: dict[str, float] = field(default_factory=dict)  # of the stored result
    seconds: float = 0.0  # of training and validation
    reason: str = ""  # why it failed, or the key of the failed stage that it needed
    started: float = 0.0  # wall clock
    weights: str = ""  # where they lie, once it is done
    sha256: str = ""
    selected: int | None = None  # the epoch that was kept because it was the best; None: the last, or none yet
    device: str = ""  # that it was trained on, once it is done
    usage: dict[str, float] = field(default_factory=dict)  # what it took beside seconds, as far as that was noted
    other_code: tuple[str, ...] = ()  # of what it names, that of which the code is another now than when it was trained
    warm: str = ""  # where the setting of its edge comes from, if an earlier study found it
    others: list[Path] = field(default_factory=list)  # more paths that want it: of equal models under other names
    place: int = 0  # how many became wanted before it
    group: str = ""  # equal for stages that one process trains together; empty: it is alone

    @property
    def key(self) -> str:
        return self.stage.key

    @property
    def paths(self) -> list[Path]:
        """All that want it, as far as that was noted."""
        return [self.path, *self.others]

    @property
    def epoch(self) -> int:
        return int(self.history[-1]["epoch"]) if self.history else 0

    @property
    def epochs(self) -> int:
        """0 for published weights, which are only measured."""
        return 0 if self.stage.published else self.stage.recipe.epochs

    @property
    def choice(self) -> str:
        """How it comes that the score is not the last epoch's."""
        return "" if self.selected is None else f"best epoch {self.selected} of {self.epochs}, selected on val"

    @property
    def speed(self) -> float | None:
        """Images a second in training: of the last epoch so far, or of the whole."""
        last = self.history[-1].get("train/images_per_second") if self.history else None
        return self.usage.get("images_per_second", last)

    @property
    def left(self) -> float | None:
        """Seconds until it is done, if it is running and has an epoch to judge by."""
        if self.state != "running" or not self.history:
            return None
        return self.seconds / self.epoch * (self.epochs - self.epoch)


class Board:
    """The rows of a run by key, in the order in which they became wanted."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.run = uuid4().hex  # which run of the study it is
        self.rows: dict[str, Row] = {}
        self.started = time.time()

    def count(self, *states: State) -> int:
        return sum(row.state in states for row in self.rows.values())


def state_of(states: Iterable[State]) -> State:
    """That of several stages together: the worst that one of them is in; done once all are trained."""
    known = set(states)
    return next((state for state in UNFINISHED if state in known), "done")
