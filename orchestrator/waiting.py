"""What stages wait for is said, that nobody wonders why nothing happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Event
from typing import TYPE_CHECKING

from orchestrator.resources import Placement

if TYPE_CHECKING:
    from orchestrator.underway import Run

PATIENCE = 45.0  # seconds that a stage may wait before it is said what it waits for; with a quarter more not a minute


class Waits:
    """Which stages wait for processes to train them, and since when."""

    def __init__(self) -> None:
        self.handed: set[str] = set()  # those that were handed out, and nobody trains yet
        self.since: dict[str, float] = {}  # of these, and of those that are to have other workers

    def hand(self, key: str) -> None:
        self.handed.add(key)
        self.begin(key)

    def begin(self, key: str) -> None:
        """It waits, perhaps for a while already."""
        self.since.setdefault(key, time.monotonic())

    def placed(self, key: str) -> None:
        """All processes that it needs are there."""
        self.handed.discard(key)
        self.since.pop(key, None)

    def heard(self, key: str, entry: Mapping[str, float]) -> None:
        """It has told something: that it has finished an epoch, or how many workers it has now."""
        if entry.get("workers") == 0:
            self.begin(key)  # they are gone, and Ray looks for room for others
        else:
            self.placed(key)

    def withdrawn(self, key: str, why: str) -> None:
        """It has ended, or is handed out once more; if because workers were "late", it waits since the first time."""
        self.handed.discard(key)
        if why != "late":
            self.since.pop(key, None)

    def late(self) -> list[str]:
        """Those that have waited for so long that it is to be said; then they are not again for as long."""
        now = time.monotonic()
        found = [key for key, since in dict(self.since).items() if now - since > PATIENCE]
        for key in found:
            if key in self.since:  # and has not started just now
                self.since[key] = now
        return found


def watch(run: Run, ended: Event, shortage: Callable[[Placement], str], free: Callable[[], None]) -> None:
    """Say once a minute which stages of a run wait for resources, and for which, until it has ended. `free` gives back
    what is held by those that are no more: of a process that was killed beside its workers nobody else might."""
    stalled = Waits()  # for the first stage that waits while nothing runs
    while not ended.wait(PATIENCE / 4) and not run.stopping.is_set() and not run.frontier.over:
        late = run.handing.waits.late() or stalled.late()
        if late or run.bereft.is_set():
            run.bereft.clear()
            free()
        for key in late:
            row = run.board.rows[key]
            run.say(f"{row.path} waits: {shortage(run.handing.placement(row.stage))}")
        idle = not run.frontier.running and run.reading.away is None
        first = next((key for key in run.frontier.waiting if key in run.board.rows), "") if idle else ""
        for key in list(stalled.since):
            if key != first:
                stalled.placed(key)
        if first:
            stalled.begin(first)
