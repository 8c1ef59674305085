"""What a study will cost, before it is trained; and beside it what it did cost, afterwards."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path as File
from typing import Any

from orchestrator.board import TRAINED, Board, Row
from orchestrator.costs import Costs
from orchestrator.frontier import Frontier
from orchestrator.makespan import Places, Planned, Pretended, Schedule, Slots, play
from orchestrator.prepared import Prepared
from orchestrator.room import Room
from orchestrator.words import clock
from trainers.spec import Stage

SEVERAL = (1, 2, 4, 8)  # slots of which a plan speaks where the study does not say how many stages train at once


def forecast(prepared: Prepared, room: Room | None = None) -> dict[str, Any]:
    """What is still to be trained, as if every model scored alike, in all and on a cluster.

    None: on as many slots as stages may run at once by the study, and if it does not say, on one and on several.
    In seconds, or where nobody knows them as parts of the whole: `unit` says which. `stages` has the whole cost of each
    by key, and on what it is based; of those that were begun only the rest is in `total` and the makespans.
    """
    at_once = prepared.study.resources.stages_at_once
    numbers = (room.most(),) if room else (at_once,) if at_once else SEVERAL
    known: dict[str, float | None] = {}

    def done(stage: Stage) -> float | None:
        """As `stored`, but a run has not found it: its own frontier may want it later, and reads its weights then."""
        if stage.key not in known:
            result = None if prepared.inputs.provisional else prepared.store.get(stage)
            known[stage.key] = None if result is None else prepared.score(result)
        return known[stage.key]

    first = prepared.frontier(done)
    later = "alone_same_compute" in (prepared.study.controls or ())  # is wanted once the best path is known
    waiting = first.waiting if settled(prepared, first) and not later else None

    def played_on(places: Places) -> Schedule:
        so_far = Pretended(prepared.paused)
        fresh, relative = waiting is None, prepared.costs.relative
        frontier = (
            prepared.frontier(done, paused=so_far.paused) if fresh else Planned(waiting or {}, relative, first.model)
        )
        return play(frontier, prepared.left, on=places, reached=so_far.reached)

    # On one slot it takes the whole, in any order.
    counts = sorted({*numbers} - {1}) or [1]
    played = [played_on(room.emptied() if room else Slots(number)) for number in counts]
    stages = {slot.stage.key: slot.stage for schedule in played for slot in schedule.stages}
    predictions = {key: prepared.costs.predict(stage) for key, stage in stages.items()}
    in_seconds = all(prediction.seconds is not None for prediction in predictions.values())
    whole = 1.0 if in_seconds else played[0].total or 1.0
    total = played[0].total / whole
    return {
        "unit": "seconds" if in_seconds else "parts",
        "total": total,
        "trainings": len(stages),
        "bases": dict(Counter(prediction.basis for prediction in predictions.values())),
        "slots": [
            *([{"slots": 1, "makespan": total, "lower_bound": total}] if 1 in numbers else ()),
            *(_on(number, schedule, whole) for number, schedule in zip(counts, played, strict=True) if number > 1),
        ],
        "stages": {
            key: {"cost": prepared.costs.relative(stage) / whole, "basis": predictions[key].basis}
            for key, stage in stages.items()
        },
    }


def settled(prepared: Prepared, frontier: Frontier) -> bool:
    """Whether a fresh frontier wants all that it ever will, whatever comes out."""
    return frontier.over or (prepared.study.search.name == "exhaustive" and prepared.sweep is None)


def _on(number: int, schedule: Schedule, whole: float) -> dict[str, Any]:
    return {
        "slots": number,
        "makespan": schedule.makespan / whole,
        "lower_bound": schedule.lower_bound / whole,
    }


def text(made: Mapping[str, Any]) -> list[str]:
    """A forecast for people, in lines; none when nothing is to be trained."""
    if not made["trainings"]:
        return []
    places, best = [], math.inf
    for on in made["slots"]:
        if on["makespan"] < best:  # more slots than that are of no use
            best = on["makespan"]
            least = f" (at the least {_cost(made, on['lower_bound'])})" if on["slots"] > 1 else ""
            places.append(f"{_cost(made, best)} on {on['slots']} slot{'s' if on['slots'] > 1 else ''}{least}")
    if made["unit"] != "seconds":
        why = "no like stage was trained on this data before"
        return [f"cost: unknown, {why}", f"of the time of all trainings it takes {', '.join(places)}"]
    words = {"measured": "as measured", "scaled": "scaled by FLOPs"}
    bases = ", ".join(f"{made['bases'][basis]} {word}" for basis, word in words.items() if basis in made["bases"])
    return [f"cost: {clock(made['total'])} of training predicted ({bases})", f"it takes {', '.join(places)}"]


def _cost(made: Mapping[str, Any], cost: float) -> str:
    return clock(cost) if made["unit"] == "seconds" else f"{100 * cost:.0f}%"


def short(made: Mapping[str, Any], key: str) -> str:
    """The cost of a stage, in 8 characters: `~` before what was scaled; nothing for what need not be trained."""
    found = made["stages"].get(key)
    if found is None or found["basis"] == "none":
        return " " * 8
    if made["unit"] != "seconds":
        return f"{100 * found['cost']:7.1f}%"
    return f"{'~' * (found['basis'] == 'scaled')}{clock(found['cost'])}".rjust(8)


def compared(
    board: Board,
    *,
    costs: Costs | None = None,
    made: Mapping[str, Any] | None = None,
    makespan: float | None = None,
    earlier: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What each stage was predicted to cost and did cost, for report.json.

    `costs` predicted those that were trained in this run, and `made` is its forecast; others have what an `earlier`
    report says of them, as has the run if none was predicted. `makespan`: seconds from the start of training to its
    end, processes started and results read back.
    """
    before = {stage["key"]: stage for stage in (earlier or {}).get("stages", ())}
    rows = [row for row in board.rows.values() if row.state in TRAINED]
    run = (earlier or {}).get("run")
    if made is not None and made["unit"] == "seconds" and made["trainings"]:
        (on,) = made["slots"]
        predicted = {"seconds": made["total"], "trainings": made["trainings"], **on}
        given_up = [row for row in board.rows.values() if row.state == "pruned" and row.started]  # in this run
        done = [row for row in rows if row.state == "done"] + given_up
        took = {
            "seconds": sum(row.seconds for row in done),
            "trainings": len(done),
            "given_up": len(given_up),
            "makespan": makespan,
        }
        run = {"predicted": predicted, "took": took}
    stages = [_stage(row, costs, before.get(row.key)) for row in rows]
    return {"run": run, "ratio": _ratio(stages), "stages": stages}


def _stage(row: Row, costs: Costs | None, before: Mapping[str, Any] | None) -> dict[str, Any]:
    seconds, basis = None, "unknown"
    if row.state == "done" and costs is not None:
        seconds, basis = costs.predict(row.stage)
    elif before is not None:
        seconds, basis = before["predicted"], before["basis"]
    return {
        "key": row.key,
        "path": list(row.path.models),
        "budget": row.path.budget,
        "seed": row.seed,
        "role": row.role,
        "predicted": seconds,
        "basis": basis,
        "seconds": row.seconds,
        "device": row.device,
        **{name: row.usage.get(name) for name in USAGE},
    }


USAGE = ("measuring_seconds", "images_per_second", "peak_memory_bytes", "workers")


def earlier(folder: File) -> dict[str, Any] | None:
    """What the last report in a folder says of costs."""
    try:
        found: dict[str, Any] | None = json.loads((folder / "report.json").read_text())["cost"]
    except (OSError, ValueError, KeyError):
        return None
    return found


def _ratio(stages: Iterable[Mapping[str, Any]]) -> float | None:
    """How many times as long as predicted all took that was predicted; None if nothing was."""
    pairs = [(one["predicted"], one["seconds"]) for one in stages if one["predicted"]]
    return sum(took for _, took in pairs) / sum(said for said, _ in pairs) if pairs else None
