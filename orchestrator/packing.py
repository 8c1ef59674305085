"""The drawing as the page has it: thousands of stages as columns, so that names and values that repeat are there once.
`rowsOf` in page/drawing.js makes rows of it again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

# What the cost of a stage says of the stage itself.
SHARED = ("key", "path", "budget", "seed", "role", "seconds")


def packed(drawn: Mapping[str, Any]) -> dict[str, Any]:
    """The same with its stages, and what they cost, by columns."""
    stages, told = drawn["stages"], drawn["told"]
    curves = [{**stage, "series": list(stage["curves"]), "curves": list(stage["curves"].values())} for stage in stages]
    cost = told["cost"]
    if cost:
        places = {stage["key"]: place for place, stage in enumerate(stages)}
        own = [{"at": places[one["key"]], **_without(one, SHARED)} for one in cost["stages"]]
        cost = {**cost, "stages": _columns(own)}
    return {**drawn, "stages": _columns(curves), "told": {**told, "cost": cost}}


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many rows, and each column by its name."""
    names = list(rows[0]) if rows else []
    return {"rows": len(rows), "columns": {name: _column([row[name] for row in rows]) for name in names}}


def _column(values: Sequence[Any]) -> dict[str, Any]:
    """All values; or if that is shorter, the different ones, and at which of them each is."""
    written = [json.dumps(value) for value in values]
    places = {text: place for place, text in enumerate(dict.fromkeys(written))}
    at = [places[text] for text in written]
    if sum(map(len, places)) + sum(len(str(place)) for place in at) < sum(map(len, written)):
        return {"of": [json.loads(text) for text in places], "at": at}
    return {"all": list(values)}


def _without(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}
