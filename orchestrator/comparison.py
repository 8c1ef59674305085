"""`tapath best --compare`: the best paths of two studies side by side, and where their students differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as File
from statistics import fmean
from typing import Any

from orchestrator.connection import LoggedModel
from orchestrator.differences import Difference, differences, recorded
from orchestrator.document import printable
from orchestrator.listing import cost, lines, plain, unlike
from orchestrator.ranking import Found, read
from orchestrator.statistics import interval
from orchestrator.why import as_json
from orchestrator.why import lines as sentences

Side = dict[str, Any]  # a stage, its teacher within it


@dataclass(frozen=True)
class Best:
    """The best path of a study, with the MLflow that knows it."""

    study: str
    uri: str
    found: Found


def compare(here: Best, there: Best) -> dict[str, Any]:
    """Both paths, what the first gains over the second, and what differs, as plain data.

    `gains` are by seed, as far as both have the seed, and `interval` is that of their mean at 95%. Where the scores do
    not compare, `comparable` is false, `reasons` say why, and there is neither. What differs is read from the
    records in the stores if both are there, else from MLflow's parameters. Raises `Invalid`.
    """
    ours, theirs = here.found, there.found
    reasons = unlike([ours, theirs])
    shared = [] if reasons else sorted(ours.scores.keys() & theirs.scores.keys())
    gains = {seed: ours.scores[seed] - theirs.scores[seed] for seed in shared}
    bounds = interval(list(gains.values()))
    source, found = _differences(here, there, min(shared, default=None))
    return {
        "studies": [{"study": one.study, **plain(one.found)} for one in (here, there)],
        "comparable": not reasons,
        "reasons": reasons,
        "gain": None if reasons else fmean(gains.values()) if gains else ours.score - theirs.score,
        "paired": bool(gains),
        "gains": gains,
        "interval": list(bounds) if bounds else None,
        "differences_from": source,
        "differences": [as_json(one) for one in found],
        "lines": sentences(found),
    }


def text(made: Mapping[str, Any], first: Best, second: Best) -> str:
    """The comparison of these two for people."""
    (here, there), said = made["studies"], [*_head(first), *_head(second)]
    if not made["comparable"]:
        said.append(f"The scores do not compare: {'; '.join(made['reasons'])}.")
    else:
        said.append(_gain(made, here["study"], there["study"]))
        if not here["metric"] or not there["metric"]:
            said.append("Which figure a score is was not recorded for both: older runs did not say.")
    said.append("")
    if not made["lines"]:
        said.append(f"The students differ in nothing but seeds, as {made['differences_from']} has it.")
    else:
        said.append(f"What differs, from {made['differences_from']}; here is {here['study']}, there {there['study']}:")
        said += [f"  {line}" for line in made["lines"]]
    return "\n".join(map(printable, said))


def _head(best: Best) -> list[str]:
    first, *rest = lines(best.found)
    spread = "" if best.found.spread is None else f", spread {best.found.spread:.4f}"
    return [f"{best.study}: {first}{spread}, {cost(best.found)}", *rest]


def _gain(made: Mapping[str, Any], here: str, there: str) -> str:
    said = f"{here} is {made['gain']:+.4f} against {there}"
    if not made["paired"]:
        return f"{said}; they share no seed, so nobody knows how much of it is noise."
    each = ", ".join(f"{seed}: {gain:+.4f}" for seed, gain in made["gains"].items())
    if made["interval"] is None:
        return f"{said} (by seed {each}); so few seeds say nothing about noise."
    low, high = made["interval"]
    tie = ": a tie" if low <= 0 <= high else ""
    return f"{said} (by seed {each}), 95% interval {low:+.4f} to {high:+.4f}{tie}."


def _differences(here: Best, there: Best, seed: int | None) -> tuple[str, list[Difference]]:
    """Where they are from, and what differs between the students of this seed, or else of each one's lowest."""
    ours, theirs = (one.found.keys[min(one.found.keys) if seed is None else seed] for one in (here, there))
    source = "the records of the stores"
    one, other = _record(here, ours), _record(there, theirs)
    if one is None or other is None:
        source, one, other = "the parameters in MLflow", _parameters(here, ours), _parameters(there, theirs)
    return source, [each for each in differences(one, other) if not _of_seed(each)]


def _of_seed(one: Difference) -> bool:
    """Seeds make no other setting."""
    *teachers, last = one.where
    return last == "seed" and {*teachers} <= {"teacher"}


def _record(best: Best, key: str) -> Side | None:
    """A stage as the store has it in which its weights lie; None if that cannot be read from here."""
    weights = next(best.found.uris[seed] for seed, own in best.found.keys.items() if own == key)
    try:
        record = json.loads((File(weights).parent / "result.json").read_bytes())
        stage = record["stage"]
        return recorded(key, stage) if isinstance(stage, dict) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _parameters(best: Best, key: str) -> Side:
    """The same of MLflow: `recipe.lr` and the like, as text."""
    models = {
        model.tags["key"]: model
        for one in read(best.uri, best.found.experiments)
        for model in one.models
        if "key" in model.tags
    }
    return _nested(models[key], models)


def _nested(model: LoggedModel, models: Mapping[str, LoggedModel]) -> Side:
    made: Side = {name: value for name, value in (model.params or {}).items() if name != "teacher"}
    if key := model.tags.get("teacher_key"):
        made["teacher"] = _nested(models[key], models) if key in models else key
    return made
