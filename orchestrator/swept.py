"""What a sweep has found, edge by edge: for the report."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection
from statistics import fmean
from typing import Any

from orchestrator.board import Board, Row, state_of
from orchestrator.importance import importance
from orchestrator.settings import Setting, shown, values
from orchestrator.spaces import Space
from orchestrator.sweep import Sweep

Tried = dict[tuple[Setting, ...], list[Row]]  # the trainings of each trial


def swept(board: Board, sweep: Sweep, seeds: Collection[int], metric: str) -> list[dict[str, Any]]:
    """The settings that were tried on each edge, as JSON has them; the edges of the shortest paths first.

    Of each edge: its `path`; `axes`, the knobs, each with its `ticks`, (place, text); `points`, each with its `values`,
    their `places` (0..1, or None where a knob plays no part), `score` (a mean over the seeds, None until all are
    there), `epochs`, `state`, `warm`, where an earlier study found it (or None), and whether it `won`; and the
    `importance` of each knob, by the `metric` that all had after as many epochs. `seeds`: those that judged the
    settings. Where a path was trained with several budgets, that with which most settings were tried is shown.
    """
    edges: dict[tuple[str, ...], dict[float, Tried]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in board.rows.values():
        for path in row.paths:
            if path.settings and row.seed in seeds:
                edges[path.models][path.budget][path.settings].append(row)
    shortest_first = sorted(edges, key=lambda path: (len(path), path))
    most = {path: max(edges[path].items(), key=lambda one: (len(one[1]), one[0]))[1] for path in edges}
    return [_edge(path, most[path], sweep, len(seeds), f"val/{metric}") for path in shortest_first]


def _edge(path: tuple[str, ...], tried: Tried, sweep: Sweep, seeds: int, metric: str) -> dict[str, Any]:
    points = [_point(settings, rows, sweep, seeds) for settings, rows in tried.items()]
    ended = [point for point in points if point["state"] == "done" and point["score"] is not None]
    best = max(ended, key=lambda point: point["score"], default=None)
    for point in points:
        point["won"] = point is best
    known = [(point, rows) for point, rows in zip(points, tried.values(), strict=True) if point["score"] is not None]
    first = min((point["epochs"] for point, _ in known), default=0)
    alike = [
        (point["values"], [score for row in rows for score in _after(row, first, metric)]) for point, rows in known
    ]
    return {
        "path": list(path),
        "axes": [{"name": name, "ticks": _ticks(space)} for name, space in sweep.knobs.items()],
        "points": points,
        "importance": importance(sweep.knobs, [(own, fmean(scores)) for own, scores in alike if len(scores) == seeds]),
    }


def _after(row: Row, epoch: int, metric: str) -> list[float]:
    """What a stage had when it was measured last by that epoch, if it was."""
    return [e[metric] for e in row.history if e["epoch"] <= epoch and metric in e][-1:]


def _point(settings: tuple[Setting, ...], rows: list[Row], sweep: Sweep, seeds: int) -> dict[str, Any]:
    given = values(settings[-1])
    scores = [row.score for row in rows if row.score is not None and math.isfinite(row.score)]
    return {
        "values": given,
        "text": {name: shown(value) for name, value in given.items()},
        "places": {name: _along(space, given[name]) if name in given else None for name, space in sweep.knobs.items()},
        "score": fmean(scores) if len(scores) == seeds else None,
        "epochs": min(row.epoch for row in rows),
        "warm": next((row.warm for row in rows if row.warm), None),
        "state": state_of(row.state for row in rows),
    }


def _along(space: Space, value: Any) -> float:
    """Where a value lies between the ends of its knob, 0..1; those of a choice lie evenly."""
    if space.kind == "choice":
        return space.options.index(value) / max(1, len(space.options) - 1)
    low, high, here = (math.log(x) if space.log else x for x in (space.low, space.high, value))
    return (here - low) / (high - low)


def _ticks(space: Space) -> list[tuple[float, str]]:
    if space.kind == "choice":
        return [(_along(space, option), shown(option)) for option in space.options]
    middle = space.at(0.5)
    return [(_along(space, value), shown(value)) for value in (space.low, middle, space.high)]
