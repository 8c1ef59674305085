"""How far a run is, and how long it still takes: what was predicted, put right by what was measured since."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from orchestrator.board import Board, Row
from trainers.spec import Stage

OPEN = ("waiting", "running")
TRUST = 0.05  # a prediction counts as much as so great a part of the work, once it was measured

ALMOST = 0.99  # of a run that is not over; it may want more than was predicted


class Glance(NamedTuple):
    """A run at one moment."""

    part: float  # of the work, from 0 to 1
    left: float | None  # seconds until all is trained; None: nobody knows


def by_epochs(stage: Stage) -> float:
    """The cost of a stage, as long as nothing better is known."""
    return float(stage.recipe.epochs)


class Outlook:
    """Knows what there is to do in all, and how far it has come. What an earlier run trained is no work of this one.

    Work is counted in what `cost` says. How many seconds a unit of it takes is what those stages took that this run has
    trained, or is training; a forecast may say that a unit is a second, and counts for a little beside them.
    """

    def __init__(self, board: Board) -> None:
        self.board = board
        self.cost: Callable[[Stage], float] = by_epochs
        self.forecast = 0.0  # the work in all as it was predicted; strategies want more as they learn more
        self.spread = 1.0  # how long the whole takes for a unit of work: less than 1 where stages run side by side
        self.in_seconds = False
        self.whole = True  # whether all that is on the board is wanted to its end, as far as can be known
        self.heard: dict[str, float] = {}  # when each row changed last, by key

    def expect(self, made: Mapping[str, Any], cost: Callable[[Stage], float], *, whole: bool) -> None:
        """Take a forecast for one number of slots. `whole`: no stage is paused and perhaps given up."""
        self.cost, self.whole, self.in_seconds = cost, whole, made["unit"] == "seconds"
        if made["trainings"] and made["total"]:
            (on,) = made["slots"]
            self.spread = on["makespan"] / made["total"]
            self.forecast = made["total"] * self._unit(made["stages"])

    def _unit(self, stages: Mapping[str, Any]) -> float:
        """How much of `cost` a unit of a forecast's costs is."""
        known = ((row, stages[row.key]["cost"]) for row in list(self.board.rows.values()) if row.key in stages)
        return next((self.cost(row.stage) / its for row, its in known if its), 0.0)

    def changed(self, row: Row) -> None:
        """A row has changed just now."""
        self.heard[row.key] = time.time()

    def since(self, row: Row) -> float:
        """Seconds of its own that a running stage has trained since it changed last. Those who are trained together
        take turns."""
        if row.state != "running" or row.key not in self.heard:
            return 0.0
        return max(0.0, time.time() - self.heard[row.key]) / self.together(row)

    def together(self, row: Row) -> int:
        """How many stages the process of a running stage trains, itself included."""
        if not row.group:
            return 1
        rows = list(self.board.rows.values())
        return max(1, sum(other.group == row.group and other.state == "running" for other in rows))

    def left(self, row: Row) -> float | None:
        """Seconds until a running stage is done, if it has an epoch to judge by."""
        return None if row.left is None else max(0.0, row.left - self.since(row)) * self.together(row)

    def now(self) -> Glance:
        """How far the run is at this moment."""
        rows = [row for row in list(self.board.rows.values()) if row.state not in ("reused", "lost")]
        costs = {row.key: self.cost(row.stage) for row in rows}
        had = {row.key: costs[row.key] * self._part(row, costs[row.key]) for row in rows}
        left = {row.key: costs[row.key] - had[row.key] for row in rows if row.state in OPEN}
        if not left and not any(row.state == "paused" for row in rows):
            return Glance(1.0, 0.0)
        done = sum(had.values())
        total = max(self.forecast, done + (sum(left.values()) if self.whole else 0.0))
        pace = self._pace(rows, costs, total)
        needed = max((total - done) * self.spread, self._chain(rows, left) if self.whole else 0.0)
        return Glance(min(ALMOST, done / total) if total else 0.0, None if pace is None else needed * pace)

    def _part(self, row: Row, cost: float) -> float:
        """How much of a stage is trained, guessed within the epoch that is under way."""
        if row.state == "done" or not row.epochs:
            return float(row.state == "done")
        predicted = cost / row.epochs if self.in_seconds else 0.0
        each = row.seconds / row.epoch if row.epoch else predicted  # seconds
        under_way = min(1.0, self.since(row) / each) if each else 0.0
        return min(1.0, (row.epoch + under_way) / row.epochs)

    def _pace(self, rows: list[Row], costs: Mapping[str, float], total: float) -> float | None:
        """Seconds that a unit of work takes."""
        trust = TRUST * total if self.in_seconds else 0.0
        trained = [row for row in rows if row.epoch and row.epochs]
        work = sum(costs[row.key] * row.epoch / row.epochs for row in trained)
        return (sum(row.seconds for row in trained) + trust) / (work + trust) if work + trust else None

    @staticmethod
    def _chain(rows: list[Row], left: Mapping[str, float]) -> float:
        """The most work that stages and those that wait for them have left, one after another."""
        chains: dict[str, float] = {}
        for row in rows:  # a teacher before its students
            if row.key in left:
                above = chains.get(row.stage.teacher.key, 0.0) if row.stage.teacher else 0.0
                chains[row.key] = above + left[row.key]
        return max(chains.values(), default=0.0)
