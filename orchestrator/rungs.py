"""Who was given up when: the rungs of a race between the settings of an edge, or between paths of growing budgets."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean
from typing import Any

from orchestrator.board import TRAINED, Board, Row, state_of
from orchestrator.lattice import Path
from orchestrator.settings import Setting, text
from orchestrator.sweep import Stop

Curve = list[list[float]]  # [epoch, score]


def rungs(
    board: Board,
    *,
    stop: Stop | None,
    seeds: Collection[int],
    metric: str,
    students: Sequence[str],
    judging: Collection[int] | None = None,
) -> list[dict[str, Any]]:
    """The races of a study as JSON has them, that of whole paths first; none where nothing is given up.

    Of each: its `name`; the `path` of the edge on which settings race, None for whole paths; `rungs`, the epochs after
    which was chosen, the end of training as the last, each with how many `reached` it, how many of these `went_on`
    (None at the end) and the `best` score there; and `lines`, who raced: `name`, `points` of (epoch, mean score over
    the seeds), `state`, and whether it `won`. `judging`: the seeds by which settings are compared; None: all.
    """
    judging, found = judging or seeds, []
    for student in students:
        if race := _of_paths(board, len(seeds), student):
            found.append({"name": "whole paths" + (f" to {student}" if len(students) > 1 else ""), **race})
    if stop is not None:
        edges: dict[tuple[str, ...], dict[tuple[Setting, ...], list[Row]]] = defaultdict(lambda: defaultdict(list))
        for row in board.rows.values():
            for path in row.paths:
                if path.settings and path.budget == 1 and row.seed in judging:
                    edges[path.models][path.settings].append(row)
        for edge in sorted(edges, key=lambda edge: (len(edge), edge)):
            race = _of_settings(edge, edges[edge], stop, len(judging), f"val/{metric}")
            found.append({"name": " > ".join(edge), **race})
    return found


def _of_settings(
    path: tuple[str, ...], tried: Mapping[tuple[Setting, ...], list[Row]], stop: Stop, seeds: int, metric: str
) -> dict[str, Any]:
    ends = {row.epochs for rows in tried.values() for row in rows}
    chosen = sorted(ends.union(*(stop.rungs(end) for end in ends)))
    lines = [
        {
            "name": text(settings[-1]),
            "points": _curve(rows, seeds, metric),
            "state": state_of(row.state for row in rows),
            "score": _mean(rows, seeds),
            "epoch": (epoch := min(row.epoch for row in rows) if len(rows) == seeds else 0),
            "begun": epoch,
        }
        for settings, rows in tried.items()
    ]
    return _race(list(path), chosen, lines)


def _of_paths(board: Board, seeds: int, student: str) -> dict[str, Any] | None:
    """The race of paths that are trained for a part of their epochs first, as successive halving has it."""
    tried: dict[tuple[str, ...], dict[float, dict[Path, list[Row]]]] = defaultdict(lambda: defaultdict(dict))
    for row in board.rows.values():
        for path in row.paths:
            if len(path.models) > 1 and path.models[-1] == student and path.budget <= 1:
                tried[path.models][path.budget].setdefault(path, []).append(row)
    budgets = sorted({budget for parts in tried.values() for budget in parts})
    if len(budgets) < 2:
        return None
    length = {
        budget: max(row.epochs for parts in tried.values() for rows in parts.get(budget, {}).values() for row in rows)
        for budget in budgets
    }
    scores = {
        models: {budget: _best(parts[budget], seeds) for budget in _in_turn(budgets, parts)}
        for models, parts in tried.items()
    }
    lines = [
        _path(models, known, tried[models], length)
        for models, known in _without_control(scores, budgets).items()
        if known  # else it is no part of the race: what stands beside it is trained in full alone
    ]
    return _race(None, [length[budget] for budget in budgets], lines)


def _in_turn(budgets: Sequence[float], parts: Mapping[float, Any]) -> list[float]:
    """The budgets up to the first that a path was not given."""
    return [budget for i, budget in enumerate(budgets) if all(earlier in parts for earlier in budgets[: i + 1])]


Scores = dict[tuple[str, ...], dict[float, float | None]]


def _without_control(scores: Scores, budgets: Sequence[float]) -> Scores:
    """The same without the last budget of the direct path, if better ones were not given it: then it is a control."""
    last, before = budgets[-1], budgets[-2]
    dropped = [known[before] for known in scores.values() if before in known and last not in known]
    bar = max((score for score in dropped if score is not None), default=-math.inf)

    def own(models: tuple[str, ...], known: dict[float, float | None]) -> dict[float, float | None]:
        at = known.get(before)
        control = len(models) == 2 and at is not None and at < bar
        return {budget: score for budget, score in known.items() if not (control and budget == last)}

    return {models: own(models, known) for models, known in scores.items()}


def _path(
    models: tuple[str, ...],
    scores: Mapping[float, float | None],
    tried: Mapping[float, Mapping[Path, Sequence[Row]]],
    length: Mapping[float, int],
) -> dict[str, Any]:
    """How far a path came."""
    furthest, whole = max(scores), max(scores) == max(length)
    state = state_of(row.state for rows in tried[furthest].values() for row in rows)
    points = [[length[budget], score] for budget, score in scores.items() if score is not None]
    return {
        "name": " > ".join(models),
        "points": points,
        "state": "pruned" if state == "done" and not whole else state,
        "score": scores[furthest] if whole else None,
        "epoch": max((epoch for epoch, _ in points), default=0),
        "begun": length[furthest],
    }


def _race(path: list[str] | None, chosen: Sequence[int], lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Take together who raced, and count who came how far."""
    ended = [line for line in lines if line["state"] == "done" and line["score"] is not None]
    best = max(ended, key=lambda line: line["score"], default=None)
    at = {rung: [line for line in lines if line["epoch"] >= rung] for rung in chosen}
    return {
        "path": path,
        "rungs": [
            {
                "epoch": rung,
                "reached": len(there),
                "went_on": None if rung == chosen[-1] else sum(line["begun"] > rung for line in there),
                "best": max((score for line in there for score in _at(line["points"], rung)), default=None),
            }
            for rung, there in at.items()
        ],
        "lines": [
            {**{name: line[name] for name in ("name", "points", "state")}, "won": line is best} for line in lines
        ],
    }


def _curve(rows: Sequence[Row], seeds: int, metric: str) -> Curve:
    """Means over the seeds, after the epochs that all of them have measured."""
    values: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        for entry in row.history:
            if math.isfinite(value := entry.get(metric, math.nan)):
                values[int(entry["epoch"])].append(value)
    return [[epoch, fmean(there)] for epoch, there in sorted(values.items()) if len(there) == seeds]


def _at(points: Curve, epoch: int) -> list[float]:
    """The score when it was measured last by that epoch, if it was."""
    return [score for at, score in points if at <= epoch][-1:]


def _best(tried: Mapping[Path, Sequence[Row]], seeds: int) -> float | None:
    """Of the settings of a path, if there are several."""
    scores = [score for rows in tried.values() if (score := _mean(rows, seeds)) is not None]
    return max(scores, default=None)


def _mean(rows: Sequence[Row], seeds: int) -> float | None:
    """The mean score over all the seeds, once they are there."""
    scores = [row.score for row in rows if row.score is not None and math.isfinite(row.score) and row.state in TRAINED]
    return fmean(scores) if len(scores) == seeds else None
