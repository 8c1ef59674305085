"""What the script of the report's page draws: the lattice, the points of cost against score, seeds and curves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from orchestrator.answers import AXES, ways
from orchestrator.drawn_lattice import edges, models, setting
from orchestrator.words import epochs, way

SHOWN = 20  # paths whose seeds are drawn
FIGURES = 100_000  # numbers in all curves of a page, so that it stays small enough for a mail
POINTS = 30_000  # of the lines of all races
LEAST = 4  # epochs of a curve that are kept in any case
# Of the summary, beside what is drawn: what a download of everything has.
TOLD = (
    *("study", "metric", "search", "seeds", "created", "seconds", "compute_seconds", "edges", "students", "answers"),
    *("expected", "source", "cost", "counts", "made", "study_yaml", "studies"),
)


def drawing(summary: Mapping[str, Any]) -> dict[str, Any]:
    """All of it, as JSON has it."""
    stages = summary["stages"]
    most = _most(stages)
    lines = sum(len(race["lines"]) for race in summary["rungs"])
    return {
        "metric": summary["metric"],
        "best": [answer["best"]["path"] for answer in summary["answers"] if answer["best"]],
        "models": models(summary),
        "edges": edges(summary),
        "points": [
            {"name": way(outcome["path"]) + epochs(outcome)}
            | {key: outcome[key] for key in ("path", "score", "spread", "front", *AXES)}
            for outcome in ways(summary["answers"])
        ],
        "seeds": [row for answer in summary["answers"] for row in _seeds(answer)] if len(summary["seeds"]) > 1 else [],
        "stages": [_stage(stage, most) for stage in stages],
        "sweeps": summary["sweeps"],
        "rungs": [_race(race, max(LEAST, POINTS // max(1, lines))) for race in summary["rungs"]],
        "told": {name: summary[name] for name in TOLD},
    }


def _seeds(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The scores of each seed, by path, best first, and those that the best stands beside."""
    beside = (answer["direct"], answer["baseline"], answer["same_compute"])
    first = answer["ranking"][:SHOWN]
    return [
        {
            "name": way(outcome["path"]) + epochs(outcome),
            "path": outcome["path"],
            "tied": outcome["path"] in answer["tied"] and "epochs" not in outcome,
            **{key: outcome[key] for key in ("score", "scores", "interval")},
        }
        for outcome in (*first, *(other for other in beside if other and other not in first))
    ]


def _stage(stage: Mapping[str, Any], most: int) -> dict[str, Any]:
    """A stage with its curves, column by column and rounded to five digits, at `most` so many epochs of them."""
    history = _thinned(stage["history"], most, stage["selected"])
    return {
        **{key: stage[key] for key in ("key", "path", "role", "seed", "budget", "state", "epochs", "score", "losses")},
        **{key: stage[key] for key in ("seconds", "selected", "teacher", "reason")},
        "setting": setting(stage),
        "epoch": [epoch["epoch"] for epoch in history],
        "curves": {name: [_short(epoch.get(name)) for epoch in history] for name in _series(stage)},
        "thinned": len(history) < len(stage["history"]),
    }


def _series(stage: Mapping[str, Any]) -> list[str]:
    names = {name for epoch in stage["history"] for name in epoch}
    return sorted(name for name in names if name.startswith(("val/", "train/loss")))


def _most(stages: Sequence[Mapping[str, Any]]) -> int:
    """Epochs of a curve for which there is room."""
    return max(LEAST, FIGURES // max(1, sum(len(_series(stage)) + 1 for stage in stages)))


def _thinned(history: Sequence[Mapping[str, Any]], most: int, selected: int | None) -> list[Mapping[str, Any]]:
    """At most so many epochs and that which was selected."""
    kept = _spread(len(history), most)
    return [epoch for i, epoch in enumerate(history) if i in kept or epoch["epoch"] == selected]


def _spread(count: int, most: int) -> Collection[int]:
    """At most so many of the first numbers: the first, the last, and between them evenly."""
    return range(count) if count <= most else {round(i * (count - 1) / (most - 1)) for i in range(most)}


def _race(race: Mapping[str, Any], most: int) -> dict[str, Any]:
    """Who was given up when, its curves rounded, at `most` so many epochs of them and the rungs."""
    rungs, lines = {rung["epoch"] for rung in race["rungs"]}, []
    for line in race["lines"]:
        kept = _spread(len(line["points"]), most)
        points = [
            (epoch, _short(score)) for i, (epoch, score) in enumerate(line["points"]) if i in kept or epoch in rungs
        ]
        lines.append(line | {"points": points})
    thinned = any(len(line["points"]) > most for line in race["lines"])
    return {**race, "lines": lines, "thinned": thinned}


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
