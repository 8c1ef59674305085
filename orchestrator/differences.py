"""What differs between two stages, field by field.

A stage is compared as its JSON, because a store may hold what older and newer versions have written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from trainers import spec
from trainers.call import Call, Term, canonical
from trainers.spec import Stage

Plain = dict[str, Any]  # a stage, its teacher within it, and `semantics`
ABSENT: Final[Any] = object()  # the value of a field that one side does not have
BESIDE = Term.model_fields.keys() - Call.model_fields.keys()  # what is written beside a loss's name


class Difference(NamedTuple):
    """A field with its two values; `where` are its keys as a study writes them, `teacher` before those of a teacher."""

    where: tuple[str, ...]
    here: Any
    there: Any


def plain(stage: Stage) -> Plain:
    """A stage as its record would have it."""
    return {"semantics": spec.SEMANTICS, **json.loads(stage.model_dump_json())}


def recorded(key: str, stage: Mapping[str, Any]) -> Plain:
    """The stage of a record, with the `semantics` under which it got its key; None if none gives that key."""
    try:
        fitting = (number for number in range(spec.SEMANTICS, -1, -1) if _address(stage, number) == key)
        return {"semantics": next(fitting, None), **stage}
    except ValueError:  # something that no version writes, such as NaN
        return {"semantics": None, **stage}


def _address(stage: Mapping[str, Any], semantics: int) -> str:
    own = {name: canonical(value) for name, value in stage.items() if name != "teacher"}
    teacher = stage.get("teacher")
    above = _address(teacher, semantics) if isinstance(teacher, dict) else None
    return spec.address(own, teacher=above, semantics=semantics)


def differences(here: Any, there: Any, where: tuple[str, ...] = ()) -> list[Difference]:
    """All fields that differ, each as deep as the two can be compared: nothing of a GFL is that of an ATSS."""
    if written(here) == written(there):
        return []
    if isinstance(here, dict) and isinstance(there, dict) and _comparable(here, there):
        return [
            one
            for key in dict.fromkeys([*here, *there])
            for one in differences(here.get(key, ABSENT), there.get(key, ABSENT), (*where, key))
        ]
    if where[-1:] == ("distill",) and isinstance(here, list) and isinstance(there, list):
        return _losses(here, there, where)
    return [Difference(where, here, there)]


def distance(here: Any, there: Any, where: tuple[str, ...] = ()) -> int:
    """How far apart two values are: in how many fields, all those counted of what only one of them has."""
    return sum(max(_fields(one.here), _fields(one.there)) for one in differences(here, there, where))


def _fields(value: Any) -> int:
    if isinstance(value, dict):
        return max(1, sum(map(_fields, value.values())))
    losses = [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
    return max(1, sum(map(_fields, losses)))


def _comparable(here: Plain, there: Plain) -> bool:
    return not here or not there or not here.keys().isdisjoint(there)


def _losses(here: list[Any], there: list[Any], where: tuple[str, ...]) -> list[Difference]:
    """Loss by loss: by name, or by position where one of them is there twice."""
    ours, theirs = _by_name(here), _by_name(there)
    if ours is None or theirs is None:
        return differences(_by_place(here), _by_place(there), where)
    if not _comparable(ours, theirs):
        return [Difference(where, here, there)]
    found = differences(ours, theirs, where)
    left = [name for name in ours if name in theirs]
    if [*left, *(name for name in theirs if name not in ours)] != list(theirs):
        found.append(Difference(where, list(ours), list(theirs)))  # their order
    return found


def _by_place(losses: list[Any]) -> Plain:
    return {str(i): loss for i, loss in enumerate(losses)}


def _by_name(losses: list[Any]) -> dict[str, Plain] | None:
    """Each loss's arguments by its name, with what is written beside it; None if names do not tell them apart."""
    found: dict[str, Plain] = {}
    for loss in losses:
        names = [key for key in loss if key not in BESIDE] if isinstance(loss, dict) else []
        args = loss[names[0]] if len(names) == 1 else None
        if not isinstance(args, dict) or names[0] in found or args.keys() & BESIDE:
            return None
        found[names[0]] = {**args, **{key: value for key, value in loss.items() if key in BESIDE}}
    return found


def written(value: Any) -> str:
    """Equal for equal values of JSON, and for no others: 1 is not 1.0, as in a key."""
    return "" if value is ABSENT else json.dumps(value, sort_keys=True)
