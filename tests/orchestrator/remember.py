"""Boards made by hand, brought to MLflow as a run would, and the report that is made from MLflow alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from orchestrator import across, notes, remembered
from orchestrator.board import Board
from orchestrator.lattice import Lattice
from orchestrator.remembered import Remembered
from orchestrator.tracking import Tracking
from tests.orchestrator import boards

# What a report from MLflow need not have in common with the run's own: when it was written, and how long that took.
OWN = ("created", "seconds")


def track(uri: str, filled: Board, lattice: Lattice, *, text: str = "", close: bool = True, **said: Any) -> Tracking:
    """Everything on the board, in its order, as it is now."""
    for place, row in enumerate(filled.rows.values()):
        row.place = place
        row.weights, row.sha256 = f"/store/{row.key}", "f" * 64
        row.metrics = row.metrics or {n: v for n, v in (row.history or [{}])[-1].items() if n.startswith("val/")}
    opened = Tracking(uri, filled.name)
    parameters = {name: boards.SIZES.get(name, 1_000_000) for name in lattice.names}
    known = {"metric": "AP", "search": "exhaustive", "parameters": parameters, **said}
    opened.start(
        {"data.fingerprint": lattice.data.fingerprint},
        {"study": filled.name, "metric": known["metric"]},
        description=notes.description(lattice, **known),
        text=text,
    )
    for row in filled.rows.values():
        opened.update(copy.copy(row))
    opened.unbegun(filled.rows.values())
    assert opened._background.wait(120)
    if close:
        opened.close("FINISHED")
    return opened


def remember(uri: str, *names: str) -> Remembered:
    return across.together(remembered.read(uri, names))


def report(uri: str, *names: str) -> dict[str, Any]:
    return across.summary_of(remember(uri, *names))


def plain(summary: dict[str, Any], *but: str) -> dict[str, Any]:
    """What two reports of the same have in common; the stages by key, whatever their order."""
    return {name: value for name, value in summary.items() if name not in (*OWN, *but)}


def keys(rows: Sequence[Any]) -> list[str]:
    return [row.key for row in rows]
