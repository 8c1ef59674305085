"""`tapath why`: for each stage that a study wants now, why it will train or is reused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from orchestrator.board import Row
from orchestrator.differences import ABSENT, BESIDE, Difference, differences, plain
from orchestrator.document import printable
from orchestrator.frontier import Frontier
from orchestrator.nearest import Finished
from orchestrator.prepared import Prepared, prepare
from orchestrator.study import Study
from orchestrator.warm import unknown
from orchestrator.words import listed
from trainers import sources
from trainers.call import Invalid, alternatives

SHOWN = 64  # stages in the text, and names in a message
LONGEST = 80  # characters of a value in the text

# What people are told of fields whose values say nothing to them.
UNSAID = {
    ("data", "fingerprint"): "other annotations or images, or another metric",
    ("data", "masks"): "other masks",
    ("model", "weights", "sha256"): "other published weights",
}


def why(study: Study, name: str | None = None) -> dict[str, Any]:
    """The state of each stage and the reason for it, as plain data; `name`: only those that it names.

    A stage that will train for no other reason has its nearest finished stage, whoever's that is, and what differs.
    Weights that are reused are read, as `run` reads them, and set aside when they are damaged.
    Raises `Invalid`, also for a name that no stage has.
    """
    prepared = prepare(study).at_a_glance()
    frontier = prepared.frontier(prepared.stored)
    board = prepared.board(frontier)
    rows = list(board.rows.values())
    stages = [_stage(prepared, row) for row in (rows if name is None else named(name, rows, frontier))]
    if any(stage["reason"] is None for stage in stages):
        finished = Finished(prepared.store.records())
        names = {row.key: str(row.path) for row in rows}
        for stage in stages:
            if stage["reason"] is None:
                stage["nearest"] = near = _nearest(board.rows[stage["key"]], finished, names)
                stage["reason"] = _differs(near) if near else "nothing is stored yet"
    states = [stage["state"] for stage in stages]
    counts = {state: states.count(state) for state in dict.fromkeys(["reused", "begun", "will train", *states])}
    facts = {"store": str(prepared.store.root), "warm_start": prepared.warm.as_json()}
    return {"study": study.name, **facts, "counts": counts, "stages": stages}


def named(name: str, rows: Sequence[Row], frontier: Frontier) -> list[Row]:
    """The rows with this path, in all seeds; or else those whose keys begin so. Raises `Invalid` if there are none."""
    path = " > ".join(part.strip() for part in name.split(">"))
    paths = {row.key: [str(one) for one in frontier.paths_of(row.key)] for row in rows}
    found = [row for row in rows if path in paths[row.key]] or [row for row in rows if row.key.startswith(name)]
    if found:
        return found
    known = list(dict.fromkeys(one for row in rows for one in paths[row.key]))
    if len(known) > SHOWN:
        raise Invalid(f"{name} is no stage that the study wants now; `tapath plan` lists their paths and keys")
    message = "is neither the path of a stage that the study wants now nor the beginning of a key"
    raise Invalid(f"{name} {message}: {alternatives(path, known)}")


def _stage(prepared: Prepared, row: Row) -> dict[str, Any]:
    """What the store has of a stage; `reason` is None if only other stages can tell."""
    store = prepared.store
    made: dict[str, Any] = {
        "key": row.key,
        "name": str(row.path),
        "path": list(row.path.models),
        "budget": row.path.budget,
        "seed": row.seed,
        "role": row.role,
        "state": "will train" if row.epochs else "will be measured",
        "epochs": row.epochs,
        "reason": None,
    }
    if row.state == "reused" and store.check(row.stage):
        file, known = store.result_file(row.key), store.place.look(f"{row.key}/result.json")
        when = datetime.fromtimestamp(known.changed if known else 0).astimezone()
        said = f"its result is in the store: score {row.score:.4f}, of {when:%Y-%m-%d %H:%M}, {file}"
        facts = {"score": row.score, "stored": when.isoformat(timespec="seconds"), "file": str(file)}
        other = row.other_code
        return {**made, "state": "reused", **facts, "other_code": list(other), "reason": said + _since(other)}
    if row.state == "pruned":
        return {**made, "state": "pruned", "epoch": row.epoch, "reason": row.reason}
    reasons = []
    if epoch := store.begun(row.key):
        other = sources.changed(sources.noted(store.place, row.key))
        made |= {"state": "begun", "epoch": epoch, "other_code": list(other)}
        reasons.append(f"it goes on after epoch {epoch} of {row.epochs}{_since(other)}")
    if spoilt := store.spoilt(row.key):
        made["damaged"] = file = str(store.place.file(spoilt))
        reasons.append(f"its result {'is damaged' if store.place.look(spoilt) else 'has lost its weights'}: {file}")
    return {**made, "reason": "; ".join(reasons) or None}


def _since(names: Sequence[str]) -> str:
    """That a key has no code in it."""
    return f", though the code of {listed(names)} has changed since" if names else ""


def _nearest(row: Row, finished: Finished, names: dict[str, str]) -> dict[str, Any] | None:
    here = plain(row.stage)
    key = finished.nearest(here)
    if key is None:
        return None
    found = differences(here, finished.stages[key])
    return {
        "key": key,
        "name": names.get(key),  # if it is one of the study's own
        "score": finished.scores[key],
        "differences": [as_json(one) for one in found],
        "lines": lines(found),
    }


def as_json(one: Difference) -> dict[str, Any]:
    """A side that does not have the field is left out."""
    sides = {"here": one.here, "there": one.there}
    return {"key": ".".join(one.where), **{side: value for side, value in sides.items() if value is not ABSENT}}


def _differs(near: dict[str, Any]) -> str:
    count = len(near["differences"])
    whose = f" ({near['name']})" if near["name"] else ""
    return f"the nearest finished stage, {near['key']}{whose}, differs in {count} field{'s' * (count != 1)}"


def lines(found: Sequence[Difference]) -> list[str]:
    """What differs, for people; what differs in a teacher below a line that says so."""
    said = [sentence(one) for one in found if not _of_teacher(one)]
    above = [one._replace(where=one.where[1:]) for one in found if _of_teacher(one)]
    return [*said, "its teacher is another:", *(f"  {line}" for line in lines(above))] if above else said


def _of_teacher(one: Difference) -> bool:
    return one.where[0] == "teacher" and len(one.where) > 1


def sentence(one: Difference) -> str:
    """`recipe.lr: 0.01 here, 0.02 there`"""
    key = ".".join(one.where)
    if one.where in UNSAID and ABSENT not in (one.here, one.there):
        return f"{key}: {UNSAID[one.where]}"
    if one.where == ("semantics",) and one.there is None:
        return f"{key}: {one.here} here, unknown there: its key is not that of what its record says"
    if one.where == ("semantics",):
        return f"{key}: {one.here} here, {one.there} there: training itself has changed since"
    for value, other, side in ((one.here, one.there, "here"), (one.there, one.here, "there")):
        if other is ABSENT and isinstance(value, dict) and _called(value) is None:
            return f"{key}: only {side}"  # the arguments of a loss, or what only other versions have
    show = _titled if one.where == ("teacher",) else _shown
    here, there = show(one.here), show(one.there)
    return f"{key}: another value" if here == there else f"{key}: {here} here, {there} there"


def _shown(value: Any) -> str:
    """A value in short: a call by its name, losses by theirs."""
    if value is ABSENT:
        return "not set"
    if (name := _called(value)) is not None:
        return name
    if isinstance(value, list) and value and all(isinstance(one, dict | str) for one in value):
        written = f"[{', '.join(map(_shown, value))}]"
    else:
        written = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return written if len(written) <= LONGEST else f"{written[: LONGEST - 3]}..."


def _called(value: Any) -> str | None:
    """The name in a call or a loss."""
    names = [key for key in value if key not in BESIDE] if isinstance(value, dict) else []
    return str(names[0]) if len(names) == 1 and isinstance(value[names[0]], dict) else None


def _titled(stage: Any) -> str:
    """Who teaches: a stage by its model."""
    model = stage.get("model") if isinstance(stage, dict) else None
    if not isinstance(model, dict):
        return "nobody" if stage is None else _shown(stage)
    return f"{_shown(model.get('detector', ABSENT))} on {_shown(model.get('backbone', ABSENT))}"


def text(made: dict[str, Any]) -> str:
    """The reasons for people."""
    said = [f"{made['study']}: " + ", ".join(f"{count} {state}" for state, count in made["counts"].items())]
    said += unknown(made["warm_start"])
    for stage in made["stages"][:SHOWN]:
        said += ["", f"  {stage['name']} (seed {stage['seed']}, {stage['role']})  {stage['key']}"]
        near = stage.get("nearest")
        said.append(f"    {stage['state']}: {stage['reason']}{':' if near else ''}")
        said += [f"      {line}" for line in near["lines"]] if near else []
    if len(made["stages"]) > SHOWN:
        said += ["", f"  ... and {len(made['stages']) - SHOWN} more; name one, or --json has them all"]
    return "\n".join(map(printable, said))
