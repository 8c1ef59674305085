"""The report: report.json for programs, report.html for people, one page that opens offline."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from orchestrator.answers import AXES, ways
from orchestrator.verdict import arrow, between, cautions, clock, epochs, headline, remarks, way, yardsticks

# A state of an edge or a model is the first of these that one of its stages is in.
STATES = ("done", "reused", "running", "waiting", "paused", "pruned", "failed", "lost")
SHOWN = 20  # paths whose seeds are drawn


def write(summary: Mapping[str, Any], folder: Path, pictures: Mapping[str, Any] | None = None) -> Path:
    """Write the files of a summary, each whole or not at all. -> report.html. `pictures`: see `pictures.pictures`."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "report.html"
    _put(folder / "report.json", json.dumps(summary, allow_nan=False))
    if pictures:
        _put(folder / "pictures.json", json.dumps(pictures, allow_nan=False))
    _put(page, render(summary, pictures))
    return page


def render(summary: Mapping[str, Any], pictures: Mapping[str, Any] | None = None) -> str:
    """The page. Whatever comes from the study or from an error is escaped: it stays text."""
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters.update(arrow=arrow, between=between, clock=clock, count=count, epochs=epochs)
    pages.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    answers = summary["answers"]
    paths = [
        _row(outcome, answer) for answer in answers for outcome in (*answer["ranking"], answer["baseline"]) if outcome
    ]
    return pages.get_template("report.html").render(
        summary,
        headlines=[headline(summary, answer) for answer in answers],
        cautions=[line for answer in answers for line in remarks(summary, answer)] + cautions(summary),
        states=STATES,
        paths=paths,
        over_alone=any(answer["baseline"] for answer in answers),
        over_direct=any(answer["direct"] for answer in answers),
        tested=any(outcome["test"] is not None for outcome in paths),
        beside=[
            (answer["best"], rivals) for answer in answers if (rivals := yardsticks(summary, answer, answer["best"]))
        ],
        drawing=drawing(summary),
        pictures=pictures,
    )


def drawing(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the page's script draws: the lattice, the points of cost against score, and the curves."""
    scores = _scores(summary)
    best = [answer["best"]["path"] for answer in summary["answers"] if answer["best"]]
    return {
        "metric": summary["metric"],
        "best": best,
        "models": [_node(model, scores, summary["stages"]) for model in summary["models"]],
        "edges": [_edge(edge, scores, summary["stages"], best=best) for edge in summary["edges"]],
        "points": [
            {"name": way(outcome["path"]) + epochs(outcome)}
            | {key: outcome[key] for key in ("path", "score", "spread", "front", *AXES)}
            for outcome in ways(summary["answers"])
        ],
        "seeds": [row for answer in summary["answers"] for row in _seeds(answer)] if len(summary["seeds"]) > 1 else [],
        "stages": [_curves(stage) for stage in summary["stages"]],
        "sweeps": summary["sweeps"],
        "rungs": [_race(race) for race in summary["rungs"]],
    }


def _row(outcome: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the table of paths."""
    several = len(answer["tied"]) > 1
    return {
        **outcome,
        "alone": len(outcome["path"]) == 1,
        "first": outcome is answer["best"],
        "is_direct": outcome is answer["direct"],
        "tied": several and outcome["path"] in answer["tied"],
        "recommended": several and outcome["path"] == answer["recommended"],
    }


def _seeds(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The scores of each seed, by path, best first, and those that the best stands beside."""
    beside = (answer["direct"], answer["baseline"], answer["same_compute"])
    first = answer["ranking"][:SHOWN]
    return [
        {
            "name": way(outcome["path"]) + epochs(outcome),
            "path": outcome["path"],
            "tied": outcome["path"] in answer["tied"] and outcome is not answer["same_compute"],
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
    return {
        "name": model["name"],
        "title": f"{model['detector']} on {model['backbone']}",
        "parameters": count(model["parameters"]),
        "score": max(own, default=None),
        "state": _state(own, [stage["state"] for stage in stages if stage["model"] == model["name"]]),
    }


def _edge(
    edge: list[str], scores: Mapping[tuple[str, ...], float], stages: list[dict[str, Any]], *, best: list[list[str]]
) -> dict[str, Any]:
    """`paths`: all trainings along this edge, best first. `score`: that on the best path, else the best."""
    _, student = ends = edge[0], edge[1]
    own = sorted(((score, path) for path, score in scores.items() if path[-2:] == ends), reverse=True)
    on_best = next((path for path in best if ends in list(pairwise(path))), None)
    part = tuple(on_best[: on_best.index(student) + 1]) if on_best else ()
    return {
        "ends": edge,
        "best": on_best is not None,
        "score": scores.get(part, own[0][0] if own else None),
        "paths": [{"path": path, "score": score} for score, path in own],
        "state": _state(own, [stage["state"] for stage in stages if tuple(stage["path"][-2:]) == ends]),
    }


def _state(scores: list[Any], states: list[str]) -> str:
    return "done" if scores else next((state for state in STATES if state in states), "unseen")


def _curves(stage: Mapping[str, Any]) -> dict[str, Any]:
    """A stage's curves, column by column and rounded to five digits: 2,000 stages must stay a small page."""
    history = stage["history"]
    series = sorted({n for epoch in history for n in epoch if n.startswith(("val/", "train/loss"))})
    return {
        **{key: stage[key] for key in ("path", "role", "seed", "budget", "state", "epochs")},
        "epoch": [epoch["epoch"] for epoch in history],
        "curves": {n: [_short(epoch.get(n)) for epoch in history] for n in series},
    }


def _race(race: Mapping[str, Any]) -> dict[str, Any]:
    """Who was given up when, its curves rounded."""
    lines = [line | {"points": [(epoch, _short(score)) for epoch, score in line["points"]]} for line in race["lines"]]
    return {**race, "lines": lines}


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _put(path: Path, text: str) -> None:
    """Beside it first, then in its place, so that no reader finds half a file."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(text.encode("utf-8", "backslashreplace"))  # a file name in a reason need not be UTF-8
    aside.replace(path)
