"""What packages offer by name, as JSON schema: each class or function with its arguments, types, defaults and words."""

from __future__ import annotations

import inspect
import io
import tokenize
from collections.abc import Iterable
from types import ModuleType
from typing import Any, get_type_hints

from pydantic import BaseModel, TypeAdapter

from trainers.call import Call, offering, offers

Schema = dict[str, Any]

# Words of pydantic for what JSON schema has other words for.
BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}


def reference(package: ModuleType) -> Schema:
    """To the definition of what a package offers."""
    return {"$ref": f"#/$defs/{package.__name__}"}


def calls(package: ModuleType, beside: Schema | None = None) -> Schema:
    """A name, or `{Name: {argument: value}}`; `beside`: the schemas of what may stand next to the name.

    The long form, `{name: ..., args: ...}`, is for machines, and not offered.
    """
    known = {name: _arguments(thing, package) for name, thing in offers(package).items()}
    bare = sorted(name for name, one in known.items() if "required" not in one)
    return {"anyOf": [*([{"enum": bare}] if bare else ()), one_of(known, beside)]}


def one_of(known: Schema, beside: Schema | None = None) -> Schema:
    """A mapping with one of these keys, and any `beside` it."""
    one = {"oneOf": [{"required": [name]} for name in known]} if beside else {"minProperties": 1, "maxProperties": 1}
    return {"type": "object", "properties": {**known, **(beside or {})}, "additionalProperties": False, **one}


def knobs(thing: Any) -> dict[str, inspect.Parameter]:
    """The arguments of a class or function that a study may give."""
    every = inspect.signature(thing).parameters.values()
    return {one.name: one for one in every if one.kind is one.KEYWORD_ONLY}


def _arguments(thing: Any, package: ModuleType) -> Schema:
    """Of a class or function: null where all have defaults."""
    hints = get_type_hints(thing.__init__ if inspect.isclass(thing) else thing, include_extras=True)
    needed = [name for name, knob in knobs(thing).items() if knob.default is knob.empty]
    return {
        "description": inspect.getdoc(thing) or "",
        "type": "object" if needed else ["object", "null"],
        "properties": {name: _argument(knob, hints[name], package) for name, knob in knobs(thing).items()},
        "additionalProperties": False,
        **({"required": needed} if needed else {}),
    }


def _argument(knob: inspect.Parameter, kind: Any, package: ModuleType) -> Schema:
    among = offering(kind, package)
    made = reference(among) if among is not None else plain(TypeAdapter(kind).json_schema())
    return made if knob.default is knob.empty else with_default(made, knob.default)


def with_default(made: Schema, value: Any) -> Schema:
    """The schema with a default, as a study would write it."""
    return {**made, "default": short(value)}


def short(value: Any) -> Any:
    """A default in the fewest words."""
    if isinstance(value, Call):
        return {value.name: value.args} if value.args else value.name
    return list(value) if isinstance(value, tuple) else value


def plain(made: Any) -> Any:
    """What pydantic says, in the words of draft 7, which editors know best, and without titles."""
    if isinstance(made, list):
        return [plain(one) for one in made]
    if not isinstance(made, dict):
        return made
    found = Schema()
    key: str
    for key, value in made.items():
        if key == "title" and isinstance(value, str):
            continue  # a key by that name would be a mapping
        if key == "prefixItems":
            found |= {"items": plain(value), "additionalItems": False}
        elif key in ("default", "enum", "const"):
            found[key] = value
        else:
            bound = BOUNDS.get(key, key) if isinstance(value, int | float) else key
            found[bound] = plain(value)
    return found


def comments(kind: type[BaseModel]) -> dict[str, str]:
    """What the source says of the fields of a class: the comment behind a field, or else those in the lines above."""
    return {
        name: said
        for one in reversed(kind.__mro__)
        if one.__module__.startswith(("orchestrator", "trainers"))
        for name, said in _comments(one).items()
    }


def _comments(kind: type) -> dict[str, str]:
    found: dict[str, str] = {}
    field, above, depth = "", list[str](), 0
    for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(kind)).readline):
        if token.type == tokenize.COMMENT:
            said = token.string.lstrip("# ").replace("None:", "null:")  # as a study writes it
            if field:
                found[field] = f"{found[field]} {said}" if field in found and not above else said
                above = []
            else:
                above.append(said)
        elif token.type == tokenize.OP and token.string in "([{":
            depth += 1
        elif token.type == tokenize.OP and token.string in ")]}":
            depth -= 1
        elif token.type == tokenize.NEWLINE:
            if field and above and field not in found:
                found[field] = " ".join(above)
            field, above = "", []
        elif token.type == tokenize.NAME and not field and depth == 0:
            field = token.string
    return {name: said for name, said in found.items() if name in getattr(kind, "__annotations__", {})}


def described(made: Schema, words: dict[str, str]) -> Schema:
    """The schema of a class with what its source says of each field."""
    fields = {
        name: ({**one, "description": words[name]} if name in words else one)
        for name, one in made["properties"].items()
    }
    return {**made, "properties": fields}


def names(packages: Iterable[ModuleType]) -> dict[str, Schema]:
    """The definitions of all that these packages offer."""
    return {package.__name__: calls(package) for package in packages}
