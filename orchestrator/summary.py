"""What a run found out, as one value that JSON can hold: report.json, and all that report.html shows."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from statistics import fmean, stdev
from typing import Any, get_args

from orchestrator.board import Board, Row, State
from trainers.spec import Model, Stage


def summarize(
    *,
    name: str,
    text: str,
    metric: str,
    search: str,
    seeds: Sequence[int],
    models: Mapping[str, Model],
    edges: Iterable[tuple[str, str]],
    board: Board,
    parameters: Mapping[str, int] | None = None,
    expected: Sequence[Mapping[str, Any]] = (),
    source: str = "",
    cost: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The models go from the teacher to the student; `text` is the study's YAML, `parameters` counts weights;
    `expected` is what `expectations.compared` says, published by `source`; `cost` what `forecast.compared` says.

    What is not known is None; NaN and infinity never appear. A path's `score` is the mean over the seeds,
    known once every seed is trained; `spread` is the standard deviation over the seeds (n - 1; None for one
    seed); `seconds` is what the path's stages took for one seed, on average.
    """
    root, student = next(iter(models)), list(models)[-1]
    edges = [(teacher, taught) for teacher, taught in edges]
    known = outcomes(board, seeds=seeds, student=student, edges=edges)
    baseline, direct = known.get((student,)), known.get((root, student))
    for outcome in known.values():
        outcome["gain_over_baseline"] = _gain(outcome, baseline)
        outcome["gain_over_direct"] = _gain(outcome, direct)
    ranking = ranked(outcome for path, outcome in known.items() if len(path) > 1)
    return {
        "study": name,
        "metric": metric,
        "search": search,
        "seeds": list(seeds),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": time.time() - board.started,
        "compute_seconds": sum(row.seconds for row in board.rows.values() if row.state != "reused"),
        "models": [_model(n, model, (parameters or {}).get(n)) for n, model in models.items()],
        "edges": [list(edge) for edge in edges],
        "best": ranking[0] if ranking else None,
        "baseline": baseline,
        "direct": direct,
        "ranking": ranking,
        "expected": list(expected),
        "source": source,
        "cost": dict(cost) if cost else None,
        "stages": [_stage(row) for row in board.rows.values()],
        "counts": {state: board.count(state) for state in get_args(State)},
        "study_yaml": text,
    }


def outcomes(
    board: Board, *, seeds: Iterable[int], student: str, edges: Collection[tuple[str, str]] = ()
) -> dict[tuple[str, ...], dict[str, Any]]:
    """Every path of full budget to the student, alone or taught, that is trained with all the seeds."""
    seeds = list(seeds)
    found: dict[tuple[str, ...], dict[int, Row]] = {}
    for path, row in _students(board, student=student, edges=edges):
        for seed in seeds if row.stage.published else [row.seed]:  # one measurement is that of every seed
            found.setdefault(path, {}).setdefault(seed, row)
    outcome = {path: _outcome(path, rows, seeds=seeds, board=board) for path, rows in found.items()}
    return {path: value for path, value in outcome.items() if value}


def ranked(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Best score first; of equal ones the cheaper, then the shorter."""
    return sorted(found, key=lambda o: (-o["score"], _or_inf(o["seconds"]), len(o["path"]), o["path"]))


def _outcome(
    path: Sequence[str], rows: Mapping[int, Row], *, seeds: Sequence[int], board: Board
) -> dict[str, Any] | None:
    scores = [_finite(rows[s].score) for s in seeds if s in rows and rows[s].state in ("done", "reused")]
    known = [score for score in scores if score is not None]
    if len(known) < len(seeds):
        return None
    costs = [_cost(rows[seed].stage, board) for seed in seeds]
    return {
        "path": list(path),
        "score": fmean(known),
        "scores": known,
        "spread": stdev(known) if len(known) > 1 else None,
        "seconds": None if None in costs else fmean(cost for cost in costs if cost is not None),
    }


def _students(
    board: Board, *, student: str, edges: Collection[tuple[str, str]]
) -> Iterator[tuple[tuple[str, ...], Row]]:
    """The stages that train the student in full, by path.

    Where another name stands for the same model and recipe (self-distillation), a stage may have been wanted
    under that name first: `A > S1` is `A > S2` too if A may teach S2.
    """
    rows = [row for row in list(board.rows.values()) if row.path.budget == 1]
    own = [row for row in rows if row.path.models[-1] == student]
    yield from ((row.path.models, row) for row in own)
    for row in rows if own else ():
        above, stage = row.path.models[:-1], row.stage
        same = (stage.model, stage.recipe) == (own[0].stage.model, own[0].stage.recipe)
        if same and student not in row.path.models and (not above or (above[-1], student) in edges):
            yield (*above, student), row


def _cost(stage: Stage, board: Board) -> float | None:
    """Seconds of all that leads to a stage; None if the teacher of a reused stage was never looked at."""
    rows = [board.rows.get(taught.key) for taught in stage.lineage]
    seconds = [row.seconds for row in rows if row]
    return sum(seconds) if len(seconds) == len(rows) else None


def _gain(outcome: Mapping[str, Any], over: Mapping[str, Any] | None) -> float | None:
    return outcome["score"] - over["score"] if over else None


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _model(name: str, model: Model, parameters: int | None) -> dict[str, Any]:
    return {
        "name": name,
        "detector": str(model.detector),
        "backbone": str(model.backbone),
        "parameters": parameters,
    }


def _stage(row: Row) -> dict[str, Any]:
    path = row.path.models
    return {
        "key": row.key,
        "teacher": row.stage.teacher.key if row.stage.teacher else None,
        "model": path[-1],
        "path": list(path),
        "budget": row.path.budget,
        "seed": row.seed,
        "role": row.role,
        "state": row.state,
        "score": _finite(row.score),
        "seconds": row.seconds,
        "epochs": row.epochs,
        "epoch": row.epoch,
        "reused": row.state == "reused",
        "reason": row.reason,
        "history": [{name: _finite(value) for name, value in epoch.items()} for epoch in row.history],
    }
