"""What a study file may say, as JSON schema: for editors, which complete and check what is typed.

It is made from the classes that read a study, so it knows each model, loss, data set, strategy and sampler, with their
arguments, types and defaults. It is looser than they are: what holds between parts of a study only `tapath plan` can
tell.
"""

from __future__ import annotations

import json
from typing import get_args

from orchestrator import strategies
from orchestrator.names import NAME
from orchestrator.offered import (
    Schema,
    calls,
    comments,
    described,
    knobs,
    names,
    one_of,
    plain,
    reference,
    with_default,
)
from orchestrator.resources import UNITS, Placement, Resources
from orchestrator.spaces import RANGES
from orchestrator.study import ORIGIN, Listed, Study
from orchestrator.sweep import Stop, Sweep
from trainers import backbones, detectors, distill, metrics, optim, schedules
from trainers import data as datasets
from trainers.call import Term, offers
from trainers.spec import Guides, Recipe

DRAFT = "http://json-schema.org/draft-07/schema#"
FILE = "study.schema.json"
LINE = "# yaml-language-server: $schema="  # the first line of a study, for editors
PACKAGES = (datasets, detectors, backbones, metrics, optim, schedules, strategies)


def schema() -> Schema:
    """The schema of a study."""
    made = plain(Study.model_json_schema())
    defs: Schema = {name: one for name, one in made["$defs"].items() if name not in ("Call", "Term")}
    for kind in (Recipe, Placement, Resources, Listed):
        defs[kind.__name__] = described(defs[kind.__name__], comments(kind))
    for name, fields in _written().items():
        for field, one in fields.items():
            there = defs[name]["properties"].get(field, {})
            kept = {word: there[word] for word in ("default", "description") if word in there}
            defs[name]["properties"][field] = {**kept, **one}
    defs |= names(PACKAGES)
    defs[distill.__name__] = calls(distill, _beside())
    defs["values"] = _space({"type": "array", "minItems": 1})
    for name in ("recipe", "resources"):  # all that they are by default is said by their own fields
        del defs["Listed"]["properties"][name]["default"]
    return {"$schema": DRAFT, "title": "A study of tapath", **_study(described(made, comments(Study))), "$defs": defs}


def text() -> str:
    """The same as the file that lies in the repository."""
    return json.dumps(schema(), indent=1, sort_keys=True) + "\n"


def _written() -> dict[str, Schema]:
    """Where a study may say something in other ways than the class behind it has it."""
    guides = {"enum": list(get_args(Guides.model_fields["who"].annotation))}
    units = "|".join(filter(None, UNITS))
    size = {"type": "string", "pattern": rf"^\d+(\.\d+)? ?({units})?$"}
    memory = {"anyOf": [{"type": "integer", "minimum": 1}, size, {"type": "null"}]}
    return {
        "Listed": {
            "detector": reference(detectors),
            "backbone": reference(backbones),
            "weights": {"anyOf": [{"type": "string", "minLength": 1}, {"$ref": "#/$defs/Source"}, {"type": "null"}]},
        },
        "Recipe": {
            "optimizer": with_default(reference(optim), Recipe().optimizer),
            "schedule": with_default(reference(schedules), Recipe().schedule),
            "guides": {"anyOf": [guides, {"$ref": "#/$defs/Guides"}], "default": "teacher"},
            "select": {"enum": ["last", "best"]},
        },
        "Placement": {"memory": memory},
        "Resources": {"memory": memory},
    }


def _beside() -> Schema:
    """What stands beside the name of a loss."""
    made = described(plain(Term.model_json_schema()), comments(Term))
    fields: Schema = {name: made["properties"][name] for name in Term.beside()}
    number = {"type": "number", "minimum": 0}
    ratio = {
        "type": "object",
        "properties": {"auto": {"type": "number", "exclusiveMinimum": 0}},
        "required": ["auto"],
        "additionalProperties": False,
    }
    fields["alpha"] = {**fields["alpha"], "anyOf": [number, {"const": "auto"}, ratio]}
    return fields


def _study(made: Schema) -> Schema:
    """Its own keys."""
    fields = {name: one for name, one in made["properties"].items() if name not in ORIGIN}
    losses = {"type": "array", "minItems": 1, "items": reference(distill)}
    own = {
        "name": {"type": "string", "pattern": f"^{NAME.pattern}$"},
        "data": reference(datasets),
        "models": {
            "type": "object",
            "minProperties": 2,
            "propertyNames": {"pattern": r"^[^/>]{1,100}$"},
            "additionalProperties": {"$ref": "#/$defs/Listed"},
        },
        "distill": losses,
        "search": with_default(reference(strategies), Study.model_fields["search"].default),
        "sweep": {"anyOf": [_sweep(losses), {"type": "null"}]},
        "seeds": {**fields["seeds"], "minItems": 1, "uniqueItems": True},
    }
    for name, one in own.items():
        fields[name] = {**({"description": said} if (said := fields[name].get("description")) else {}), **one}
    for name in ("recipe", "resources"):
        del fields[name]["default"]
    fields["expected"]["default"] = {}
    return {
        "type": "object",
        "properties": fields,
        "required": [name for name in made["required"] if name != "name"],  # it is the file's unless it is said
        "additionalProperties": False,
    }


def _sweep(losses: Schema) -> Schema:
    """Knobs with what they may be, and how they are chosen."""
    values = {"$ref": "#/$defs/values"}
    own = {
        f"{name}.{knob}": values for name, thing in offers(distill).items() for knob in (*knobs(thing), *Term.beside())
    }
    fields = plain(Sweep.model_json_schema())["properties"]
    rungs = plain(Stop.model_json_schema())["properties"]
    how = rungs.pop("how")["enum"]
    kinds = {one: {"type": ["object", "null"], "properties": rungs, "additionalProperties": False} for one in how}
    return {
        "type": "object",
        "properties": {
            **own,
            **{f"recipe.{name}": values for name in Recipe.model_fields},
            "distill": _space({"type": "array", "minItems": 1, "items": losses}),
            **{name: fields[name] for name in ("sampler", "samples", "scope", "warm_start")},
            "stop": {"anyOf": [{"enum": how}, one_of(kinds), {"type": "null"}]},
        },
        "patternProperties": {r"^recipe\.\w+\..+$": values},
        "additionalProperties": False,
    }


def _space(listed: Schema) -> Schema:
    """Of a knob: a list of values, or how they are drawn."""
    ends = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 3}
    return {"anyOf": [listed, one_of({"choice": listed, "grid": listed, **dict.fromkeys(RANGES, ends)})]}
