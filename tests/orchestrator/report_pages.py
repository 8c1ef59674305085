"""Summaries of made-up studies, one for each thing that a report's page has to show."""

from __future__ import annotations

from typing import Any

from orchestrator import expectations
from orchestrator.board import Board
from orchestrator.lattice import Path
from orchestrator.sweep import sweep
from orchestrator.swept import swept
from tests.orchestrator.boards import board, fail, longer, summary
from tests.orchestrator.sweeps import WEIGHT
from tests.orchestrator.test_rungs import FOUR, NAMES, raced, races

MADE = {
    "command": "tapath run studies/voc-gfl.yaml --set recipe.epochs=12",
    "versions": {"python": "3.11.7", "torch": "2.9.1", "ray": "2.60.0"},
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "changed": True,
}
SEEDS = (0, 1, 2)


def seeded() -> dict[str, Any]:
    """Three seeds of every path, the student alone for longer, figures of a paper, and what it cost."""
    filled = board(seeds=SEEDS)
    longer(filled, seeds=SEEDS)
    found = summary(filled, seeds=SEEDS)
    expected = [expectations.beside("r101 > r18", name, 36.5, value) for name, value in (("AP", 0.375), ("AP50", None))]
    stages = [cost(stage, number) for number, stage in enumerate(found["stages"])]
    more = {"run": None, "ratio": 1.1, "stages": stages}
    return found | {"expected": expected, "source": "the paper, table 4", "cost": more, "made": MADE}


def cost(stage: dict[str, Any], number: int) -> dict[str, Any]:
    own = {key: stage[key] for key in ("key", "path", "budget", "seed", "role", "seconds")}
    used = {"measuring_seconds": 2.0, "images_per_second": 100.0 + number, "peak_memory_bytes": 1e9, "workers": 1}
    return {
        **own,
        "predicted": stage["seconds"] * 0.9 if number % 3 else None,
        "basis": "like",
        "device": "gpu",
        **used,
    }


def broken() -> dict[str, Any]:
    """An edge fails, and what needed it is lost; a path was given up."""
    filled = board()
    fail(filled, Path(("r101", "r34")), "RuntimeError: the loss became NaN in step 3")
    given_up = next(row for row in filled.rows.values() if row.path == Path(("r101", "r50", "r34")))
    given_up.state, given_up.history = "pruned", given_up.history[:4]
    return summary(filled)


def searched() -> dict[str, Any]:
    """Settings raced on an edge."""
    filled, _ = raced(FOUR)
    found = summary(filled, NAMES)
    knobs = sweep({WEIGHT: list(FOUR), "stop": {"halving": {"grace": 1, "factor": 2}}})
    return found | {"sweeps": swept(filled, knobs, (0,), "AP"), "rungs": races(filled)}


def several() -> dict[str, Any]:
    """Two students."""
    students = ("r34", "r18")
    return summary(board(students=students), students=students)


def nothing() -> dict[str, Any]:
    """A run that ended before anything was trained."""
    return summary(Board("empty"))


def large() -> dict[str, Any]:
    """513 stages."""
    names = [f"m{i}" for i in range(10)]
    return summary(board(names), names)


STUDIES = {"seeded": seeded, "broken": broken, "searched": searched, "several": several, "nothing": nothing}
