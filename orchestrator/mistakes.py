"""What pydantic finds wrong with a tree of values, in words for the person who wrote it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from orchestrator.document import Where
from trainers.call import Invalid, alternatives

_WORDS = {
    "tuple_type": "write a list, as in [a, b]",
    "dict_type": "write a mapping, as in {key: value}",
    "model_type": "write a mapping, as in {key: value}",
    "bool_type": "write true or false",
}


def found(errors: ValidationError, tree: Any, known: Callable[[Where], Iterable[str]]) -> list[Invalid]:
    """One mistake for each error. `known`: the keys that there may be at a place."""
    return [_mistake(error, tree, known) for error in errors.errors(include_url=False)]


def unknown(where: Where, known: Iterable[str]) -> Invalid:
    """The key at the end of `where` does not exist."""
    return Invalid(f"there is no such key: {alternatives(str(where[-1]), known)}", where)


def _mistake(error: Mapping[str, Any], tree: Any, known: Callable[[Where], Iterable[str]]) -> Invalid:
    where = _where(error["loc"], tree)
    if error["type"] == "extra_forbidden":
        return unknown(where, known(where[:-1]))
    if error["type"] == "missing":
        return Invalid("this key is missing; add it", (*where, error["loc"][-1]))
    value = error["input"]
    message = _WORDS.get(error["type"], error["msg"].removeprefix("Value error, "))
    if error["type"] == "string_type" and isinstance(value, int | float):
        message += "; put it in quotes"
    return Invalid(f"{message} (got {json.dumps(value, ensure_ascii=False):.80})", where)


def _where(location: Iterable[str | int], tree: Any) -> Where:
    """Pydantic's location without what is not in the tree, such as the mark of a key that is itself wrong."""
    where: Where = ()
    for part in location:
        if part in (tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()):
            where = (*where, part)
            tree = tree[part]
    return where
