"""What a run found out, as one value that JSON can hold: report.json, and all that report.html shows."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from statistics import fmean, median, stdev
from typing import Any, get_args

from orchestrator.answers import answer, mark_fronts
from orchestrator.board import TRAINED, Board, Row, State
from orchestrator.lattice import Path
from orchestrator.settings import Setting, values
from trainers.call import Call
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
    students: Sequence[str] = (),
    parameters: Mapping[str, int] | None = None,
    expected: Sequence[Mapping[str, Any]] = (),
    source: str = "",
    sweeps: Sequence[Mapping[str, Any]] = (),
    rungs: Sequence[Mapping[str, Any]] = (),
    cost: Mapping[str, Any] | None = None,
    made: Mapping[str, Any] | None = None,
    studies: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The models go from the root teacher on; `students` are the last if none are named; `text` is the study's YAML;
    `expected`, `sweeps`, `rungs`, `cost`, `made` are of `expectations`, `swept`, `rungs`, `forecast`, `provenance`.
    `studies`: of a report of several, which has neither `text` nor `made`, the `study`, `study_yaml`, `made` of each.

    What is not known is None; NaN and infinity never appear. A path's `score` is the mean over the seeds, known
    once every seed is trained; `spread` is the standard deviation over the seeds (n - 1; None for one seed),
    `interval` where the mean lies (95%); `test` is the mean on the test images, on which nothing is selected, None
    without such; `seconds` is what its stages took for one seed, on average; `parameters` and `latency_ms` are of its
    last model. Gains are paired by seeds, over the student alone (`baseline`), the `direct` path and the student alone
    with the compute of the best path (`same_compute`), each with the interval of the paired difference.
    """
    edges, names, counted = [(teacher, taught) for teacher, taught in edges], list(models), parameters or {}
    found = [
        _answer(board, seeds, student, edges, metric, root=names[0], parameters=counted.get(student))
        for student in students or names[-1:]
    ]
    mark_fronts(found)
    return {
        "study": name,
        "metric": metric,
        "search": search,
        "seeds": list(seeds),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": time.time() - board.started,
        "compute_seconds": sum(row.seconds for row in board.rows.values() if _trained_here(row)),
        "models": [_model(n, model, counted.get(n)) for n, model in models.items()],
        "edges": [list(edge) for edge in edges],
        "students": [one["student"] for one in found],
        "answers": found,
        "expected": list(expected),
        "source": source,
        "sweeps": list(sweeps),
        "rungs": list(rungs),
        "cost": dict(cost) if cost else None,
        "stages": [_stage(row) for row in board.rows.values()],
        "counts": {state: board.count(state) for state in get_args(State)},
        "made": dict(made or {}) or None,
        "study_yaml": text,
        "studies": list(studies),
    }


def _answer(
    board: Board,
    seeds: Sequence[int],
    student: str,
    edges: Collection[tuple[str, str]],
    metric: str,
    *,
    root: str,
    parameters: int | None,
) -> dict[str, Any]:
    """What the board answers for one student, with what using it takes.

    `tied`: the ways to it, alone included, that cannot be told from the best, which is the first; one seed knows of
    none. `recommended`: their cheapest. `front`: by what it is on Pareto's.
    """
    known = outcomes(board, seeds=seeds, student=student, edges=edges, metric=metric)
    best = max((known[path] for path in known if len(path) > 1), key=lambda one: one["score"], default=None)
    longer = trained_longer(board, seeds=seeds, student=student, seconds=best["seconds"] if best else None)
    latency = _latency(board, student)
    for outcome in filter(None, (*known.values(), longer)):
        outcome.update(parameters=parameters, latency_ms=latency)
    return answer(known, longer, root=root, student=student)


def outcomes(
    board: Board,
    *,
    seeds: Iterable[int],
    student: str,
    edges: Collection[tuple[str, str]] = (),
    metric: str = "",
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


def trained_longer(
    board: Board, *, seeds: Sequence[int], student: str, seconds: float | None = None
) -> dict[str, Any] | None:
    """The student alone with the compute of the best path, trained with all the seeds; and for how many `epochs`. Of
    several, as in a report of several experiments, that which took most nearly as many `seconds` as the best path."""
    rows: dict[int, dict[int, Row]] = {}
    for row in list(board.rows.values()):
        if any(path.models == (student,) and path.budget > 1 for path in row.paths):
            rows.setdefault(row.epochs, {})[row.seed] = row
    outcomes = {epochs: _outcome((student,), (), own, seeds=seeds, board=board) for epochs, own in rows.items()}
    found = [outcome | {"epochs": epochs} for epochs, outcome in outcomes.items() if outcome]
    return min(found, key=lambda one: abs((one["seconds"] or 0.0) - (seconds or 0.0)), default=None)


def _outcome(
    path: Sequence[str],
    settings: Sequence[Setting],
    rows: Mapping[int, Row],
    *,
    seeds: Sequence[int],
    board: Board,
    metric: str = "",
) -> dict[str, Any] | None:
    scores = [_finite(rows[s].score) for s in seeds if s in rows and rows[s].state in TRAINED]
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


def _latency(board: Board, student: str) -> float | None:
    """What a student takes for an image: the median of its trainings, as all are the same model, and each was measured
    beside whatever else ran there; on the device on which most were."""
    known: dict[str, list[float]] = {}
    for row in list(board.rows.values()):
        if "latency_ms" in row.usage and any(path.models[-1] == student for path in row.paths):
            known.setdefault(row.device, []).append(row.usage["latency_ms"])
    most = max(known, key=lambda device: len(known[device]), default=None)
    return None if most is None else median(known[most])


def _cost(stage: Stage, board: Board) -> float | None:
    """Seconds of all that leads to a stage; None if the teacher of a reused stage was never looked at."""
    rows = [board.rows.get(taught.key) for taught in stage.lineage]
    seconds = [row.seconds for row in rows if row]
    return sum(seconds) if len(seconds) == len(rows) else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _measured(epoch: Mapping[str, float]) -> Mapping[str, float | None]:
    """An epoch's figures: themselves where all are finite, as thousands of stages have many of them."""
    return epoch if all(map(math.isfinite, epoch.values())) else {name: _finite(v) for name, v in epoch.items()}


def _model(name: str, model: Model, parameters: int | None) -> dict[str, Any]:
    return {
        "name": name,
        "detector": str(model.detector),
        "backbone": str(model.backbone),
        "parameters": parameters,
    }


def _called(call: Call) -> str:
    """`LD (temperature 10, weight 0.25)`."""
    said = ", ".join(f"{name} {json.dumps(value)}" for name, value in sorted(call.args.items()))
    return f"{call.name} ({said})" if said else call.name


def _stage(row: Row) -> dict[str, Any]:
    path = row.path.models
    return {
        "key": row.key,
        "teacher": row.stage.teacher.key if row.stage.teacher else None,
        "model": path[-1],
        "path": list(path),
        "budget": row.path.budget,
        "setting": values(row.path.setting),
        "losses": [_called(term) for term in row.stage.distill],
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
        "other_code": list(row.other_code),
        "history": [_measured(epoch) for epoch in row.history],
    }
