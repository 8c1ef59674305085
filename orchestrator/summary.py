"""What a run found out, as one value that JSON can hold: report.json, and all that report.html shows."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from statistics import fmean, stdev
from typing import Any, get_args

from orchestrator.board import Board, Row, State
from orchestrator.lattice import Path
from orchestrator.settings import Setting, values
from orchestrator.statistics import interval
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
    sweeps: Sequence[Mapping[str, Any]] = (),
    rungs: Sequence[Mapping[str, Any]] = (),
    cost: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The models go from the teacher to the student; `text` is the study's YAML, `parameters` counts weights;
    `expected` is what `expectations.compared` says, published by `source`; `sweeps` what `swept.swept` says, `rungs`
    what `rungs.rungs` says, `cost` what `forecast.compared` says.

    What is not known is None; NaN and infinity never appear. A path's `score` is the mean over the seeds, known
    once every seed is trained; `spread` is the standard deviation over the seeds (n - 1; None for one seed),
    `interval` where the mean lies (95%); `test` is the mean on the test images, on which nothing is selected, None
    without such; `seconds` is what the path's stages took for one seed, on average. Gains are paired by seeds, over
    the student alone (`baseline`), the `direct` path and the student alone with the compute of the best path
    (`same_compute`), each with the interval of the paired difference.

    `tied` are the ways to the student, alone included, that cannot be told from the best of them, which is the
    first; with one seed that is the best by itself, and nothing is known of ties. `recommended` is the cheapest of
    them.
    """
    student, edges = list(models)[-1], [(teacher, taught) for teacher, taught in edges]
    known = outcomes(board, seeds=seeds, student=student, edges=edges, metric=metric)
    longer = trained_longer(board, seeds=seeds, student=student)
    return {
        "study": name,
        "metric": metric,
        "search": search,
        "seeds": list(seeds),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": time.time() - board.started,
        "compute_seconds": sum(row.seconds for row in board.rows.values() if _trained_here(row)),
        "models": [_model(n, model, (parameters or {}).get(n)) for n, model in models.items()],
        "edges": [list(edge) for edge in edges],
        **_answers(known, longer, direct=(next(iter(models)), student)),
        "expected": list(expected),
        "source": source,
        "sweeps": list(sweeps),
        "rungs": list(rungs),
        "cost": dict(cost) if cost else None,
        "stages": [_stage(row) for row in board.rows.values()],
        "counts": {state: board.count(state) for state in get_args(State)},
        "study_yaml": text,
    }


def _answers(
    known: Mapping[tuple[str, ...], dict[str, Any]], longer: dict[str, Any] | None, *, direct: tuple[str, str]
) -> dict[str, Any]:
    """The ranking of what is known of each path, and what stands beside the best; adds to each outcome its gains."""
    baseline, taught = known.get(direct[1:]), known.get(direct)
    for outcome in (*known.values(), *filter(None, [longer])):
        outcome.update(_gains(outcome, baseline=baseline, direct=taught, same_compute=longer))
    ranking = ranked(outcome for path, outcome in known.items() if len(path) > 1)
    tied = ties(ranked(known.values()))
    return {
        "best": ranking[0] if ranking else None,
        "baseline": baseline,
        "direct": taught,
        "same_compute": longer,
        "ranking": ranking,
        "tied": [outcome["path"] for outcome in tied],
        "recommended": _cheapest(tied)["path"] if tied else None,
    }


def outcomes(
    board: Board, *, seeds: Iterable[int], student: str, edges: Collection[tuple[str, str]] = (), metric: str = ""
) -> dict[tuple[str, ...], dict[str, Any]]:
    """Every path of full budget to the student, alone or taught, that is trained with all the seeds; of a sweep its
    best setting.

    `metric` names the figure whose mean on the test images is said as well, where all of them were measured there.
    """
    seeds = list(seeds)
    found: dict[tuple[tuple[str, ...], tuple[Setting, ...]], dict[int, Row]] = {}
    for path, row in _students(board, student=student, edges=edges):
        for seed in seeds if row.stage.published else [row.seed]:  # one measurement is that of every seed
            found.setdefault((path.models, path.settings), {}).setdefault(seed, row)
    best: dict[tuple[str, ...], dict[str, Any]] = {}
    for (models, settings), rows in found.items():
        outcome = _outcome(models, settings, rows, seeds=seeds, board=board, metric=metric)
        if outcome and (models not in best or outcome["score"] > best[models]["score"]):
            best[models] = outcome
    return best


def ranked(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Best score first; of equal ones the cheaper, then the shorter."""
    return sorted(found, key=lambda o: (-o["score"], _or_inf(o["seconds"]), len(o["path"]), o["path"]))


def trained_longer(board: Board, *, seeds: Sequence[int], student: str) -> dict[str, Any] | None:
    """The student alone with the compute of the best path, trained with all the seeds; and for how many `epochs`."""
    found: dict[int, dict[int, Row]] = {}
    for row in list(board.rows.values()):
        if row.path.models == (student,) and row.path.budget > 1:
            found.setdefault(row.epochs, {})[row.seed] = row
    for epochs, rows in found.items():
        if outcome := _outcome((student,), (), rows, seeds=seeds, board=board):
            return outcome | {"epochs": epochs}
    return None


def ties(best_first: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first, and those that the seeds cannot tell from it: the interval of the paired difference holds 0.

    Also where there are several seeds and still no interval. With one seed nobody can say, and no tie is claimed.
    """
    if not best_first:
        return []
    first, *rest = best_first
    several = len(first["scores"]) > 1
    return [first, *(other for other in rest if several and _tied(gain_interval(first, other)))]


def gain_interval(outcome: Mapping[str, Any], over: Mapping[str, Any] | None) -> list[float] | None:
    """Where the mean of the differences between two outcomes lies, seed by seed; None where it is the same one."""
    if over is None or over is outcome:
        return None
    return _bounds([own - other for own, other in zip(outcome["scores"], over["scores"], strict=True)])


def _bounds(values: Sequence[float]) -> list[float] | None:
    found = interval(values)
    return list(found) if found else None


def _tied(bounds: Sequence[float] | None) -> bool:
    return bounds is None or bounds[0] <= 0 <= bounds[1]


def _cheapest(tied: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By seconds, as far as they are known; of equals the better."""
    return min(tied, key=lambda outcome: _or_inf(outcome["seconds"]))


def _outcome(
    path: Sequence[str],
    settings: Sequence[Setting],
    rows: Mapping[int, Row],
    *,
    seeds: Sequence[int],
    board: Board,
    metric: str = "",
) -> dict[str, Any] | None:
    scores = [_finite(rows[s].score) for s in seeds if s in rows and rows[s].state in ("done", "reused")]
    known = [score for score in scores if score is not None]
    if len(known) < len(seeds):
        return None
    tests = [_finite(rows[seed].metrics.get(f"test/{metric}")) for seed in seeds]
    costs = [_cost(rows[seed].stage, board) for seed in seeds]
    return {
        "path": list(path),
        "settings": [values(one) for one in settings],
        "score": fmean(known),
        "scores": known,
        "keys": [rows[seed].key for seed in seeds],
        "spread": stdev(known) if len(known) > 1 else None,
        "test": None if None in tests else fmean(test for test in tests if test is not None),
        "seconds": None if None in costs else fmean(cost for cost in costs if cost is not None),
    }


def _students(board: Board, *, student: str, edges: Collection[tuple[str, str]]) -> Iterator[tuple[Path, Row]]:
    """The stages that train the student in full, by path.

    Where another name stands for the same model and recipe (self-distillation), a stage may have been wanted
    under that name alone: `A > S1` is `A > S2` too if A may teach S2.
    """
    rows, own = list(board.rows.values()), list[Row]()
    for row in rows:
        mine = [path for path in row.paths if path.budget == 1 and path.models[-1] == student]
        own += [row] if mine else []
        yield from ((path, row) for path in mine)
    for row in rows if own else ():
        above, stage = row.path.models[:-1], row.stage
        same = (stage.model, stage.recipe) == (own[0].stage.model, own[0].stage.recipe) and row.path.budget == 1
        if same and student not in row.path.models and (not above or (above[-1], student) in edges):
            yield Path((*above, student), settings=row.path.settings), row


def _trained_here(row: Row) -> bool:
    """Whether this run trained a stage. One that paused may have done so in an earlier run."""
    return row.state != "reused" and (row.state not in ("paused", "pruned") or row.started > 0)


def _cost(stage: Stage, board: Board) -> float | None:
    """Seconds of all that leads to a stage; None if the teacher of a reused stage was never looked at."""
    rows = [board.rows.get(taught.key) for taught in stage.lineage]
    seconds = [row.seconds for row in rows if row]
    return sum(seconds) if len(seconds) == len(rows) else None


def _gains(outcome: Mapping[str, Any], **others: Mapping[str, Any] | None) -> dict[str, Any]:
    """The interval of a score, and its gains over others with their intervals."""
    found: dict[str, Any] = {"interval": _bounds(outcome["scores"])}
    for name, other in others.items():
        found[f"gain_over_{name}"] = outcome["score"] - other["score"] if other else None
        found[f"interval_over_{name}"] = gain_interval(outcome, other)
    return found


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
        "setting": values(row.path.setting),
        "seed": row.seed,
        "role": row.role,
        "state": row.state,
        "score": _finite(row.score),
        "seconds": row.seconds,
        "epochs": row.epochs,
        "epoch": row.epoch,
        "selected": row.selected,
        "reused": row.state == "reused",
        "reason": row.reason,
        "history": [{name: _finite(value) for name, value in epoch.items()} for epoch in row.history],
    }
