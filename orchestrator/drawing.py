"""What the script of the report's page draws: the lattice, the points of cost against score, seeds and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from orchestrator.answers import AXES, ways
from orchestrator.settings import shown
from orchestrator.verdict import epochs, way

# A state of an edge or a model is the first of these that one of its stages is in.
STATES = ("done", "reused", "running", "waiting", "paused", "pruned", "failed", "lost")
SHOWN = 20  # paths whose seeds are drawn
FIGURES = 250_000  # numbers in all curves of a page, so that it stays small enough for a mail
LEAST = 8  # epochs of a curve that are kept in any case
# Of the summary, beside what is drawn: what a download of everything has.
TOLD = (
    *("study", "metric", "search", "seeds", "created", "seconds", "compute_seconds", "edges", "students", "answers"),
    *("expected", "source", "cost", "counts", "made", "study_yaml"),
)


def drawing(summary: Mapping[str, Any]) -> dict[str, Any]:
    """All of it, as JSON has it."""
    scores, stages = _scores(summary), summary["stages"]
    best = [answer["best"]["path"] for answer in summary["answers"] if answer["best"]]
    most = _most(stages)
    return {
        "metric": summary["metric"],
        "best": best,
        "models": [_node(model, scores, stages) for model in summary["models"]],
        "edges": [_edge(edge, scores, stages, best=best) for edge in summary["edges"]],
        "points": [
            {"name": way(outcome["path"]) + epochs(outcome)}
            | {key: outcome[key] for key in ("path", "score", "spread", "front", *AXES)}
            for outcome in ways(summary["answers"])
        ],
        "seeds": [row for answer in summary["answers"] for row in _seeds(answer)] if len(summary["seeds"]) > 1 else [],
        "stages": [_stage(stage, most) for stage in stages],
        "sweeps": summary["sweeps"],
        "rungs": [_race(race) for race in summary["rungs"]],
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


def count(number: int | None) -> str:
    """11.6 M, 38 k, 512."""
    if number is None:
        return ""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def _scores(summary: Mapping[str, Any]) -> dict[tuple[str, ...], float]:
    """Mean score over the seeds of every path of full budget that is trained, also of those to assistants."""
    found: dict[tuple[str, ...], list[float]] = {}
    for stage in summary["stages"]:
        if stage["state"] in ("done", "reused") and stage["budget"] == 1 and stage["score"] is not None:
            found.setdefault(tuple(stage["path"]), []).append(stage["score"])
    means = {path: fmean(scores) for path, scores in found.items()}
    taught = [outcome for answer in summary["answers"] for outcome in answer["ranking"]]
    return means | {tuple(outcome["path"]): outcome["score"] for outcome in taught}


def _node(
    model: Mapping[str, Any], scores: Mapping[tuple[str, ...], float], stages: list[dict[str, Any]]
) -> dict[str, Any]:
    own = [score for path, score in scores.items() if path[-1] == model["name"]]
    states = [stage["state"] for stage in stages if stage["model"] == model["name"]]
    return {
        "name": model["name"],
        "title": f"{model['detector']} on {model['backbone']}",
        "parameters": count(model["parameters"]),
        "size": model["parameters"],
        "score": max(own, default=None),
        "state": _state(own, states),
        "counts": _counts(states),
    }


def _edge(
    edge: list[str], scores: Mapping[tuple[str, ...], float], stages: list[dict[str, Any]], *, best: list[list[str]]
) -> dict[str, Any]:
    """`paths`: all trainings along this edge, best first. `score`: that on the best path, else the best. `setting`: of
    the stage that has it, as far as one was swept."""
    _, student = ends = edge[0], edge[1]
    own = sorted(((score, path) for path, score in scores.items() if path[-2:] == ends), reverse=True)
    on_best = next((path for path in best if ends in list(pairwise(path))), None)
    part = tuple(on_best[: on_best.index(student) + 1]) if on_best else ()
    here = [stage for stage in stages if tuple(stage["path"][-2:]) == ends]
    told = part if part in scores else own[0][1] if own else ()
    ended = [stage for stage in here if tuple(stage["path"]) == told and stage["state"] in ("done", "reused")]
    first = max(ended, key=lambda stage: stage["score"] or 0.0, default=None)
    return {
        "ends": edge,
        "best": on_best is not None,
        "score": scores.get(part, own[0][0] if own else None),
        "setting": _setting(first) if first else "",
        "paths": [{"path": path, "score": score} for score, path in own],
        "state": _state(own, [stage["state"] for stage in here]),
        "counts": _counts([stage["state"] for stage in here]),
    }


def _state(scores: list[Any], states: list[str]) -> str:
    return "done" if scores else next((state for state in STATES if state in states), "unseen")


def _counts(states: Sequence[str]) -> dict[str, int]:
    return {state: states.count(state) for state in STATES if state in states}


def _setting(stage: Mapping[str, Any]) -> str:
    """`LD.temperature 5, LD.weight 0.5`; empty where nothing was swept."""
    return ", ".join(f"{name} {shown(value)}" for name, value in stage["setting"].items())


def _stage(stage: Mapping[str, Any], most: int) -> dict[str, Any]:
    """A stage with its curves, column by column and rounded to five digits, at `most` so many epochs of them."""
    history = _thinned(stage["history"], most, stage["selected"])
    return {
        **{key: stage[key] for key in ("key", "path", "role", "seed", "budget", "state", "epochs", "score", "losses")},
        **{key: stage[key] for key in ("seconds", "selected", "teacher", "reason")},
        "setting": _setting(stage),
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
    """At most so many epochs and that which was selected: the first, the last, and between them evenly."""
    if len(history) <= most:
        return list(history)
    kept = {round(i * (len(history) - 1) / (most - 1)) for i in range(most)}
    return [epoch for i, epoch in enumerate(history) if i in kept or epoch["epoch"] == selected]


def _race(race: Mapping[str, Any]) -> dict[str, Any]:
    """Who was given up when, its curves rounded."""
    lines = [line | {"points": [(epoch, _short(score)) for epoch, score in line["points"]]} for line in race["lines"]]
    return {**race, "lines": lines}


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
