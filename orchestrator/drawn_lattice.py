"""What the report's page draws of the lattice: the models, and who taught whom how well."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any, NamedTuple

from orchestrator.board import STATES, TRAINED
from orchestrator.settings import shown
from trainers.call import canonical

# Where an edge has no score, it opens the first of these: what it says, it says of that.
OPENED = ("failed", "lost", "pruned", "running", "paused", "waiting", "done", "reused")

Stage = Mapping[str, Any]  # as a summary has it
Models = tuple[str, ...]  # of a path


class Known(NamedTuple):
    """A path of which a score is known: a mean over its seeds, and the stage of the first."""

    score: float
    stage: Stage


def models(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`score`: the best that was reached, on whichever path and with whichever setting."""
    known = _known(summary)
    return [_model(model, known, summary["stages"]) for model in summary["models"]]


def edges(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`paths`: all trainings along an edge, best first. `score`: that on the best path, else the best. `setting`: with
    which it was had, as far as one was swept. `stage`: the key of the training that had it."""
    best = [answer["best"] for answer in summary["answers"] if answer["best"]]
    known = _known(summary) | _on_the_way(best, _by_key(summary))
    return [_edge(edge, known, summary["stages"], best=[one["path"] for one in best]) for edge in summary["edges"]]


def setting(stage: Stage) -> str:
    """`LD.temperature 5, LD.weight 0.5`; empty where nothing was swept."""
    return ", ".join(f"{name} {shown(value)}" for name, value in stage["setting"].items())


def count(number: int | None) -> str:
    """11.6 M, 38 k, 512."""
    if number is None:
        return ""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def _by_key(summary: Mapping[str, Any]) -> dict[str, Stage]:
    return {stage["key"]: stage for stage in summary["stages"]}


def _known(summary: Mapping[str, Any]) -> dict[Models, Known]:
    """Every path of full budget that is trained, also those to assistants. Where several settings were tried, the best
    of those that were trained with most seeds, as those that win may be trained with more."""
    stages = _by_key(summary)
    tried: dict[Models, dict[str, list[Stage]]] = defaultdict(lambda: defaultdict(list))
    for stage in summary["stages"]:
        if stage["state"] in TRAINED and stage["budget"] == 1 and stage["score"] is not None:
            settings = canonical([one["setting"] for one in _lineage(stage, stages)])
            tried[tuple(stage["path"])][settings].append(stage)
    found = {
        path: max(map(_mean, by_setting.values()), key=lambda one: (one[0], one[1].score))[1]
        for path, by_setting in tried.items()
    }
    taught = [outcome for answer in summary["answers"] for outcome in answer["ranking"]]
    return found | {
        tuple(outcome["path"]): Known(outcome["score"], stages[outcome["keys"][0]])
        for outcome in taught
        if outcome["keys"][0] in stages
    }


def _on_the_way(best: Sequence[Mapping[str, Any]], stages: Mapping[str, Stage]) -> dict[Models, Known]:
    """The stages that led to the best, by their paths: there may be others of the same models, and better ones."""
    found: dict[Models, Known] = {}
    for outcome in best:
        lines = [list(_lineage(stages[key], stages)) for key in outcome["keys"] if key in stages]
        for above in range(len(outcome["path"])):
            own = [line[above] for line in lines if above < len(line) and line[above]["score"] is not None]
            if own:
                found.setdefault(tuple(outcome["path"][: len(outcome["path"]) - above]), _mean(own)[1])
    return found


def _mean(own: Sequence[Stage]) -> tuple[int, Known]:
    """Of how many it is, and the mean."""
    return len(own), Known(fmean(stage["score"] for stage in own), own[0])


def _lineage(stage: Stage, stages: Mapping[str, Stage]) -> Iterator[Stage]:
    """The stage, its teacher, and so on, as far as they are known."""
    here: Stage | None = stage
    while here:
        yield here
        here = stages.get(here["teacher"])


def _model(model: Mapping[str, Any], known: Mapping[Models, Known], stages: Sequence[Stage]) -> dict[str, Any]:
    own = [one.score for path, one in known.items() if path[-1] == model["name"]]
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
    edge: list[str], known: Mapping[Models, Known], stages: Sequence[Stage], *, best: Sequence[Sequence[str]]
) -> dict[str, Any]:
    ends = edge[0], edge[1]
    own = sorted(((one.score, path) for path, one in known.items() if path[-2:] == ends), reverse=True)
    on_best = next((path for path in best if ends in list(pairwise(path))), None)
    part = tuple(on_best[: on_best.index(ends[1]) + 1]) if on_best else ()
    here = [stage for stage in stages if tuple(stage["path"][-2:]) == ends]
    told = known[part if part in known else own[0][1]] if own else None
    opened = told.stage if told else min(here, key=lambda stage: OPENED.index(stage["state"]), default=None)
    return {
        "ends": edge,
        "best": on_best is not None,
        "score": told.score if told else None,
        "setting": setting(told.stage) if told else "",
        "stage": opened["key"] if opened else None,
        "paths": [{"path": path, "score": score} for score, path in own],
        "state": _state(own, [stage["state"] for stage in here]),
        "counts": _counts([stage["state"] for stage in here]),
    }


def _state(scores: Sequence[float | tuple[float, Models]], states: Sequence[str]) -> str:
    return "done" if scores else next((state for state in STATES if state in states), "unseen")


def _counts(states: Sequence[str]) -> dict[str, int]:
    return {state: states.count(state) for state in STATES if state in states}
