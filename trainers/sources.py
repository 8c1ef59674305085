"""By which code a stage was trained: of each class that it names, what the file means that defines it.

A stage's key has names and knobs, and no code; so whoever corrects a loss gets what the old one has taught. A result
remembers a digest of each such file, with those of its base classes, and what differs can be said. Comments, docstrings
and layout are no part of it, nor are functions of other files, as of `pair.py` and `outputs.py`: for that there is
`spec.SEMANTICS`. Digests are compared within one minor version of Python, since each reads the same text into another
tree.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from pydantic import ValidationError

from trainers import backbones, build, data, detectors, distill, metrics, optim, schedules
from trainers.call import Call, offering, offers
from trainers.place import Place, write
from trainers.records import Begun
from trainers.spec import Stage
from trainers.store import SOURCES, Store

READ = time.time()  # when the files had been read that are imported above
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}:"  # what a digest begins with
MIXED = "+"  # what one ends with where a training went on with other code: none is equal to that
PACKAGES = {
    module.__name__.rpartition(".")[2]: module
    for module in (backbones, data, detectors, distill, metrics, optim, schedules)
}
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def of(stage: Stage, dataset: Call) -> dict[str, str]:
    """The digests of all that trains a stage on a data set, by `distill.LD` and the like.

    What cannot be read as source is left out, and so are an optimizer of published weights and losses that weigh 0.
    """
    named = [(stage.model.detector, detectors), (stage.model.backbone, backbones), (dataset, data)]
    if not stage.published:
        named += [(stage.recipe.optimizer, optim), (stage.recipe.schedule, schedules)]
    named += [(term, distill) for term in stage.distill if not build.silent(term)]
    found = {name: now(name) for call, package in named for name in _names(call, package)}
    return {name: digest for name, digest in sorted(found.items()) if digest is not None}


def _names(call: Call, package: ModuleType) -> Iterator[str]:
    """What a call names, and the calls among its arguments."""
    yield f"{package.__name__.rpartition('.')[2]}.{call.name}"
    thing = offers(package)[call.name]
    hints = get_type_hints(thing.__init__ if inspect.isclass(thing) else thing, include_extras=True)
    for name, value in call.args.items():
        if (among := offering(hints.get(name), package)) is not None:
            yield from _names(Call.model_validate(value), among)


@cache
def now(name: str) -> str | None:
    """The digest of `distill.LD` as this process has it; None if nothing is called so, or its source is not there, or
    was written since this process has read it."""
    package, _, thing = name.partition(".")
    known = offers(PACKAGES[package]) if package in PACKAGES else {}
    if thing not in known:
        return None
    try:
        files = _files(known[thing])
        if any(file.stat().st_mtime > READ for file in files):
            return None
        each = [digest(file.read_bytes()) for file in files]
    except (OSError, SyntaxError, ValueError):
        return None
    return PYTHON + (each[0] if len(each) == 1 else hashlib.sha256(" ".join(each).encode()).hexdigest()[:16])


def _files(thing: Any) -> list[Path]:
    """The files that define a class and its base classes, or a function; of ours alone beside its own."""
    bases = inspect.getmro(thing)[1:] if inspect.isclass(thing) else ()
    ours = [base for base in bases if base.__module__.partition(".")[0] == __name__.partition(".")[0]]
    return [Path(name) for name in dict.fromkeys(inspect.getfile(one) for one in (thing, *ours))]


def digest(source: bytes) -> str:
    """16 hex digits, the same for files that differ in comments, docstrings and layout alone."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def changed(before: Mapping[str, str]) -> tuple[str, ...]:
    """The classes whose code is another here and now than these digests are of; none that another Python has read."""
    return _changed(tuple(before.items()))


@lru_cache(maxsize=1024)  # thousands of stages name the same few
def _changed(before: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    return tuple(name.partition(".")[2] for name, digest in before if differ(digest, now(name)))


def differ(one: str | None, other: str | None) -> bool:
    """Whether two digests are known to be of different code."""
    comparable = one is not None and other is not None and one.partition(":")[0] == other.partition(":")[0]
    return comparable and one != other


def since(before: Mapping[str, str], then: Mapping[str, str]) -> dict[str, str]:
    """What a training remembers that was begun by some code and goes on by some: where both differ, that they do."""
    mixed = {
        name: f"{one.rstrip(MIXED)}{MIXED}"
        for name, one in before.items()
        if differ(one, then.get(name)) or (one.endswith(MIXED) and name in then)
    }
    return {**then, **mixed}


def note(store: Store, key: str, code: Mapping[str, str]) -> None:
    """Have the store know by which code a stage was trained so far. It is forgotten with the stage's states."""
    write(store.place, f"{key}/{SOURCES}", Begun(sources=dict(code)).model_dump_json(), guard=store.guard)


def noted(place: Place, key: str) -> dict[str, str]:
    """What the store knows of that; nothing of a stage that an earlier version has begun."""
    with suppress(OSError, ValidationError):
        return Begun.model_validate_json(place.read(f"{key}/{SOURCES}")).sources
    return {}
