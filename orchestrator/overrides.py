"""`--set recipe.epochs=2`: a value put into a study's tree before anything is checked."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Collection, Sequence
from typing import Any

from orchestrator import scalar
from orchestrator.document import Document, Where, located, printable
from orchestrator.masking import without_secrets
from orchestrator.yamlfile import parse
from trainers.call import Invalid, alternatives

# What `--set` may add to a study on its way.
CREATED = {"recipe", "resources", "search", "sweep", "optimizer", "schedule", "guides", "resize", "crop"}


def applied(document: Document, sets: Sequence[str]) -> Document:
    """A study's document after each of these. Raises `Invalid` if it is no mapping, or as `assign` does."""
    if not isinstance(document.tree, dict):
        kind = "empty" if document.tree is None else "not a mapping"
        raise document.refusal([Invalid(f"this is {kind}; a study has at least data, models and distill")])
    for assignment in sets:
        document = assign(document, assignment, creates=CREATED)
    return document


def assign(document: Document, assignment: str, *, creates: Collection[str]) -> Document:
    """The document with the value at a dotted path replaced or added; the value is YAML.

    Every key on the way must be there already, except those named in `creates`. The key of a call, `LD` for
    `{LD: }`, may be walked into. Raises `Invalid` naming the `--set`.
    """
    source = f"--set {without_secrets(shlex.quote(assignment)):.200}"
    path, equals, text = assignment.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise Invalid(printable(f"{source}: write key.key=value, as in recipe.epochs=2"))
    if not text.strip():
        raise Invalid(printable(f"{source}: there is no value; write null for none"))
    value = parse(text, source, numbered=False).tree
    tree = copy.deepcopy(document.tree)
    try:
        for key in keys:
            scalar.value(key, plain=False)
        where = _put(tree, keys, value, creates)
    except Invalid as mistake:
        raise Invalid(printable(without_secrets(f"{source}: {located(mistake)}"))) from None
    places = {key: place for key, place in document.places.items() if key[: len(where)] != where}
    for n in range(1, len(where)):
        places.setdefault(where[:n], source)
    parent = where[:-1]
    if parent and parent in document.places and where not in document.places:  # a key too many is the parent's mistake
        places[parent] = f"{document.places[parent]}, with {source}"
    places[where] = source
    return Document(document.source, document.text, tree, places)


def _put(node: Any, keys: list[str], value: Any, creates: Collection[str]) -> Where:
    """Put the value into the tree; returns where it went."""
    where: Where = ()
    while True:
        key, keys = _step(node, keys, where)
        if not keys:
            node[key] = value
            return (*where, key)
        if isinstance(node, dict) and key not in node:
            if node and key not in creates:
                raise Invalid(alternatives(str(key), node), where)
            node[key] = None
        where = (*where, key)
        if not isinstance(node[key], dict | list):
            if node[key] not in (None, keys[0]):
                raise Invalid(f"this is {node[key]}, which has no {keys[0]}; set it as a whole", where)
            node[key] = {} if node[key] is None else {keys[0]: {}}
        node = node[key]


def _step(node: Any, keys: list[str], where: Where) -> tuple[str | int, list[str]]:
    """The next key on the way and those after it. Names may hold dots: the longest key that is there."""
    if isinstance(node, list):
        if keys[0] not in map(str, range(len(node))):
            raise Invalid(f"{keys[0]:.100} is no position in this list of {len(node)}; the first is 0", where)
        return int(keys[0]), keys[1:]
    joined = (".".join(keys[:n]) for n in range(len(keys), 0, -1))
    key = next((key for key in joined if key in node), keys[0])
    return key, keys[key.count(".") + 1 :]
