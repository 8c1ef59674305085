"""The short forms of figures, names and lists for people, and tables of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.board import STATES, State


def clock(seconds: float) -> str:
    """0.4 s, 25 s, 3:20 or 1:02:03."""
    if seconds < 59.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 or not seconds else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rate(images: float | None) -> str:
    """Images a second, 48 or 0.4; empty if nobody knows."""
    return "" if images is None else f"{images:.{0 if images >= 9.95 else 1}f}"


def between(bounds: Sequence[float] | None) -> str:
    """`+0.010 to +0.030`, or nothing."""
    return f"{bounds[0]:+.3f} to {bounds[1]:+.3f}" if bounds else ""


def tally(counts: Counter[State]) -> str:
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])


def epochs(outcome: Mapping[str, Any]) -> str:
    """`, 48 epochs` where a model was trained for longer than the others."""
    return f", {outcome['epochs']} epochs" if "epochs" in outcome else ""


def arrow(path: Iterable[str]) -> str:
    return " > ".join(path)


def way(path: Sequence[str]) -> str:
    """A path, or `r18 alone`."""
    return arrow(path) if len(path) > 1 else f"{path[0]} alone"


def listed(names: Sequence[str], last: str = "and", *, most: int = 9) -> str:
    """`a, b and c`; of more than `most` the first, and how many more there are."""
    shown = list(names) if len(names) <= most else [*names[:most], f"{len(names) - most} more"]
    return f" {last} ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


def plain(text: str) -> str:
    """One line without control characters."""
    return "".join(c if c.isprintable() else " " for c in text.strip())


def rows(table: list[list[str]]) -> list[str]:
    """Lines with their columns below one another."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
