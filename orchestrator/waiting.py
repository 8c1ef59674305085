"""What stages wait for is said, that nobody wonders why nothing happens."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator.resources import Placement

if TYPE_CHECKING:
    from orchestrator.run import Run

PATIENCE = 60.0  # seconds that a stage may wait for resources before it is said what it waits for


def watch(run: Run, shortage: Callable[[Placement], str]) -> None:
    """Say once a minute which stages of a run wait for resources, and for which, until it ends."""
    while not run.stopping.wait(PATIENCE / 4) and not run.frontier.over:
        late = [key for key, since in dict(run.handed).items() if time.monotonic() - since > PATIENCE]
        for key in late:
            row = run.board.rows[key]
            run.say(f"{row.path} waits: {shortage(run.placement(row.stage))}")
            if key in run.handed:  # and has not started just now
                run.handed[key] = time.monotonic()
