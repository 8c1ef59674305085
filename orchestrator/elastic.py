"""Stages whose number of workers changes while they train: fewer when a node goes, more when there is room for more.

A stage is ended after an epoch and handed out again, so it goes on from its last state, and `Room` alone decides where
and with how many. Ray Train's own elastic policy is not used: it would end workers in the midst of an epoch, with
numbers that a batch cannot be shared by, and it does not know what single workers of other stages hold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Mapping
from math import floor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from orchestrator import checks
from orchestrator.board import Row
from orchestrator.resources import Placement
from orchestrator.room import Room

if TYPE_CHECKING:
    from orchestrator.prepared import Prepared

RESTART = 5.0  # seconds that it takes at the least to start workers; more of them must save more than that
SETBACKS = 3  # how often workers may be lost without an epoch in between before the stage counts as failed


class Elastic:
    """What a run knows of such stages, by their keys."""

    def __init__(self) -> None:
        self.posts: dict[str, str] = {}  # the name under which the one is found that its workers listen to
        self.asked: set[str] = set()  # to end their workers, so that they have more
        self.released: list[str] = []  # those that did, and are to be handed out with what `Room` holds for them
        self._setbacks: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))  # after which epoch, and how many

    def named(self, key: str) -> str:
        """A name of its own for each time that a stage is handed out."""
        self.asked.discard(key)
        self.posts[key] = uuid4().hex
        return self.posts[key]

    def setback(self, row: Row) -> int:
        """Its workers were lost. -> how often they were without an epoch in between."""
        epoch, count = self._setbacks[row.key]
        count = count + 1 if epoch == row.epoch else 1
        self._setbacks[row.key] = row.epoch, count
        return count

    def grow(
        self,
        room: Room,
        rows: Mapping[str, Row],
        *,
        places: Mapping[str, str],
        starting: Container[str],
        ask: Callable[[str], None],
    ) -> None:
        """Take what is left over, once nobody else wants it, for those stages that would be done sooner with it even
        though they have to start anew; `ask` them to end after their epoch. `places`: by key, where a stage is."""
        for key, place in places.items():
            (model, workers), left = room.taken[place], rows[key].left
            if room.placements[model].min_workers is None or left is None or left <= RESTART:
                continue
            if key in self.asked or key in self.released or key in starting:
                continue
            least = floor(len(workers) / (1 - RESTART / left)) + 1
            if room.grow(place, batch=rows[key].stage.shared, least=least):
                self.asked.add(key)
                ask(self.posts[key])


def told(row: Row, count: int, placement: Placement) -> str:
    """How many workers a stage has, for people; nothing if that goes without saying."""
    most = 1 if row.stage.published else placement.workers
    if count == most and not row.epoch:
        return ""
    since = f", from epoch {row.epoch + 1} on" if row.epoch else ""
    return f"{row.path} (seed {row.seed}): {count} of {most} workers{since}"


def listed(prepared: Prepared) -> list[dict[str, Any]]:
    """Models whose stages have no fixed number of workers, with the fewest and the most; and whether they learn the
    same with any, or why not."""
    every = {name: one.resources for name, one in prepared.study.models.items()}
    placed = {name: one for name, one in every.items() if one.min_workers is not None}
    doubts = {name: checks.doubts(prepared, name) for name in placed}
    return [
        {"model": name, "workers": [one.fewest, one.workers], "steady": not doubts[name], "doubts": doubts[name]}
        for name, one in placed.items()
    ]


def text(one: Mapping[str, Any]) -> str:
    """One of these, for people."""
    fewest, most = one["workers"]
    return "; ".join([f"{one['model']}: {fewest} to {most} workers", *one["doubts"]])
