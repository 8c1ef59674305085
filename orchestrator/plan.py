"""What a study will train and what it has already, without training anything."""

from __future__ import annotations

from math import inf
from pathlib import Path as File
from typing import Any

from orchestrator import controls, elastic, expectations, forecast, other_code, slow_start, warm
from orchestrator.costs import relative
from orchestrator.frontier import Frontier
from orchestrator.makespan import Pretended, Slots, play
from orchestrator.masking import without_secrets
from orchestrator.prepared import Prepared, prepare
from orchestrator.study import Study


def plan(study: Study, *, data: bool = True) -> dict[str, Any]:
    """The lattice, the stages that are wanted now, and how many trainings that saves.

    A strategy that looks at scores may want more as they come in; `trainings.needed` then counts what it would
    want if every model scored alike, and `trainings.exact` is false. Without `data` neither the data nor published
    weights nor the store are looked at: `provisional` is true, and so are the keys, which stand for all that.
    """
    prepared = prepare(study, provisional=not data).at_a_glance()
    frontier = prepared.frontier(prepared.stored)
    board = prepared.board(frontier)
    stages: list[dict[str, Any]] = [
        {
            "key": row.key,
            "path": list(row.path.models),
            "budget": row.path.budget,
            "seed": row.seed,
            "role": row.role,
            "epochs": row.epochs,
            "teacher": row.stage.teacher.key if row.stage.teacher else None,
            "stored": row.state == "reused",
        }
        for row in board.rows.values()
    ]
    cost = forecast.forecast(prepared)
    return {
        "study": study.name,
        "search": study.search.name,
        "seeds": list(study.seeds),
        "provisional": not data,
        "store": prepared.store.place.address,
        "data": prepared.contents.fingerprint or None,
        "classes": list(prepared.contents.classes),
        "models": [
            {
                "name": name,
                "detector": str(entry.model.detector),
                "backbone": str(entry.model.backbone),
                "parameters": prepared.sizes[name].parameters,
                "flops": prepared.sizes[name].flops,
            }
            for name, entry in prepared.lattice.models.items()
        ],
        "edges": sorted([list(edge) for edge in prepared.lattice.edges]),
        "students": list(study.students),
        "isolated": list(prepared.lattice.isolated()),
        "paths": prepared.lattice.count()[0],
        "stages": stages,
        "expected": expectations.compared(study.expected, prepared.lattice, board, study.seeds),
        "source": without_secrets(study.source),
        "cost": cost,
        "slow_start": slow_start.listed(prepared, board),
        "stage_data": study.resources.stage_data if "root" in study.data.args else False,
        "elastic": elastic.listed(prepared),
        "warm_start": prepared.warm.as_json(),
        "other_code": other_code.found(board, prepared.store.place, prepared.underway),
        **_counted(prepared, frontier),
    }


def _counted(prepared: Prepared, frontier: Frontier) -> dict[str, Any]:
    """How many trainings there are, and how many of them for the controls."""
    study, (_, models) = prepared.study, prepared.lattice.count()
    now = forecast.settled(prepared, frontier)
    final = frontier if now else pretend(prepared)
    own = controls.bill(
        [(node.path, node.stage) for node in final.wanted()],
        prepared.lattice,
        names=study.controls or (),
        searched=prepared.searched(final.scores),
        seeds=study.seeds,
        cost=relative(prepared.forward),
    )
    # The student alone with the compute of the best path is wanted as soon as that is known.
    needed = len(keys(final)) + own["later"]
    beside = sum(name != "direct" for name in own["names"])  # direct is one of the paths
    # What was given up in an earlier run counts as what the store has: there is nothing to do for it.
    stored = len({key for key in keys(frontier) if not frontier.wants(key)})
    return {
        "controls": own,
        "trainings": {
            # Each path on its own, and the student alone, briefly or long; how often with which settings nobody says.
            "naive": None if study.sweep else (models + beside * len(study.students)) * len(study.seeds),
            "needed": needed,
            "exact": now or len(keys(final, longest=1)) == len(keys(frontier, longest=1)),
            "stored": stored,
            "missing": needed - stored,
        },
    }


def pretend(prepared: Prepared) -> Frontier:
    """The end of the study if every unknown score is the same."""
    so_far = Pretended(prepared.paused)
    frontier = prepared.frontier(prepared.stored, paused=so_far.paused)
    play(frontier, lambda stage: 0.0, on=Slots(1), reached=so_far.reached)
    return frontier


def keys(frontier: Frontier, *, longest: float = inf) -> set[str]:
    """The stages that are wanted, none of which trains for more than so many times its epochs."""
    return {node.stage.key for node in frontier.wanted() if node.path.budget <= longest}


def status(study: Study) -> dict[str, Any]:
    """What the store has of a study: done, begun (with the epoch), missing, or pruned: given up, and kept as it is."""
    prepared = prepare(study).at_a_glance()
    frontier = prepared.frontier(prepared.stored)
    stages: list[dict[str, Any]] = []
    board = prepared.board(frontier)
    for row in board.rows.values():
        begun = prepared.store.begun(row.key)
        state = {"reused": "done", "pruned": "pruned"}.get(row.state, "begun" if begun else "missing")
        stages.append(
            {
                "key": row.key,
                "path": list(row.path.models),
                "budget": row.path.budget,
                "seed": row.seed,
                "role": row.role,
                "state": state,
                "epoch": row.epoch if state == "done" else begun,
                "epochs": row.epochs,
                "score": row.score,
            }
        )
    names = ("done", "begun", "missing", *(["pruned"] if any(s["state"] == "pruned" for s in stages) else []))
    counts = {name: sum(s["state"] == name for s in stages) for name in names}
    underway = [stage["key"] for stage in stages if stage["state"] == "begun"]
    known = {
        "store": prepared.store.place.address,
        "warm_start": prepared.warm.as_json(),
        "other_code": other_code.found(board, prepared.store.place, underway),
    }
    return {"study": study.name, "counts": counts, "stages": stages, **known}


def text(made: dict[str, Any]) -> str:
    """A plan for people."""
    trainings = made["trainings"]
    lines = [f"{made['study']}: {made['paths']} paths, {made['search']}, seeds {made['seeds']}"]
    lines += ["" if made["provisional"] else f"{_store(made['store'])}\n"]
    for model in made["models"]:
        size = f"{model['parameters'] / 1e6:8.2f} M parameters {model['flops'] / 1e9:9.3f} GFLOPs an image"
        lines.append(f"  {model['name']:<16} {size}   {model['detector'].split('(')[0]}, {model['backbone']}")
    lines += [f"  students: {', '.join(made['students'])}"] if len(made["students"]) > 1 else []
    lines += [f"  {name} lies on no path and is never trained" for name in made["isolated"]]
    head = "provisional key" if made["provisional"] else "stage"
    lines += ["", f"  {head:<18}{'seed':>4}  {'epochs':>6}  {'cost':>8}  path"]
    for stage in made["stages"][:SHOWN]:
        mark = "stored" if stage["stored"] else "" if stage["epochs"] else "published weights, measured only"
        alone = "  (alone, the yardstick)" if stage["role"] == "alone" else ""
        budget = f" @{stage['budget']:g}" if stage["budget"] != 1 else ""
        path = " > ".join(stage["path"]) + budget
        facts = f"{stage['key']:<18}{stage['seed']:>4}  {stage['epochs']:>6}"
        cost = forecast.short(made["cost"], stage["key"])
        lines.append(f"  {facts}  {cost}  {path}{alone}  {mark}".rstrip())
    if len(made["stages"]) > SHOWN:
        lines.append(f"  ... and {len(made['stages']) - SHOWN} more; --json has them all")
    lines += expectations.text(made["expected"], made["source"])
    about = "" if trainings["exact"] else "about "
    naive = f" ({trainings['naive']} if every path were trained on its own)" if trainings["naive"] else ""
    stored = f"{trainings['stored']} in the store, {trainings['missing']} to do"
    if made["provisional"]:
        stored = "planned without the data: keys and what the store has are known only with it"
    if place := made["stage_data"]:
        folder = "a temporary folder" if place is True else place
        lines += ["", f"each node copies the data once to {folder} of its own, and reads them there"]
    lines += ["", *map(elastic.text, made["elastic"])] if made["elastic"] else []
    lines += ["", *said] if (said := slow_start.text(made["slow_start"])) else []
    lines += ["", *other_code.text(made["other_code"])]
    lines += [*warm.lines(made["warm_start"]), *controls_text(made["controls"]), *forecast.text(made["cost"])]
    lines.append(f"{about}{trainings['needed']} trainings{naive}, {stored}")
    return "\n".join(lines)


def controls_text(own: dict[str, Any]) -> list[str]:
    """What the controls cost, for people."""
    if not own["names"]:
        return []
    low, high = (f"{100 * share:.0f}" for share in own["share"])
    share = f"{low}%" if low == high else f"{low}% to {high}%, depending on which path is best,"
    number = f"{own['trainings']} training{'' if own['trainings'] == 1 else 's'}"
    return [f"controls {', '.join(own['names'])}: {number} for them alone, {share} of all compute"]


SHOWN = 64  # stages in the text; more is for a machine to read


def _store(address: str) -> str:
    """Where a study looks for what is trained: by a relative path another place in every folder."""
    is_there = "://" in address or File(address).exists()
    return f"store: {address}{'' if is_there else ', which is not there yet'}"


def status_text(made: dict[str, Any]) -> str:
    """The status for people."""
    lines = [f"{made['study']}: " + ", ".join(f"{n} {name}" for name, n in made["counts"].items())]
    lines += [_store(made["store"])]
    lines += [*warm.unknown(made["warm_start"]), *other_code.text(made["other_code"])]
    for stage in made["stages"]:
        score = f"{stage['score']:.4f}" if stage["score"] is not None else "      "
        progress = f"{stage['epoch'] or 0}/{stage['epochs']}"
        budget = f" @{stage['budget']:g}" if stage["budget"] != 1 else ""
        path = " > ".join(stage["path"]) + budget
        lines.append(f"  {stage['state']:<8}{progress:>7}  {score}  {path} (seed {stage['seed']})")
    return "\n".join(lines)
