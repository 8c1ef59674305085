"""What lies in a store, by what it belongs to: the files of stages, published weights, and what was set aside."""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from trainers.atomic import ASIDE
from trainers.lease import EXPIRY, Lease, held
from trainers.place import Found, Place
from trainers.records import Known
from trainers.store import MEASURED, PAUSE, PUBLISHED, RESULT, SOURCES, WEIGHTS

KEY = re.compile(r"[0-9a-f]{16}")
STATE, LEASE = re.compile(r"state-\d{6}-[0-9a-f]{64}\.pt"), re.compile(r"lease-\d{6,}")
CONTENT, SOURCE = re.compile(r"([0-9a-f]{64})\.weights"), re.compile(r"[0-9a-f]{16}\.json")
CORRUPT = ".corrupt"  # the end of what was set aside


class Kept(NamedTuple):
    """The files of a store that are known, with what is known of each unread."""

    stages: Mapping[str, Mapping[str, Found]]  # by key, without what was set aside
    aside: Mapping[str, Found]
    published: Mapping[str, Found]  # weights, by the SHA-256 of their content
    sources: Mapping[str, str]  # the notes of where they came from, by name: the SHA-256


def look(place: Place) -> Kept:
    """All that is known; of what is not nothing is said."""
    stages: dict[str, dict[str, Found]] = defaultdict(dict)
    aside, published = dict[str, Found](), dict[str, Found]()
    notes = []
    for name, found in place.find("*/*").items():
        folder, file = name.split("/")
        if KEY.fullmatch(folder) and _of_stage(file):
            stages[folder][name] = found
        elif file.endswith(CORRUPT) and _known(folder, file.removesuffix(CORRUPT)):
            aside[name] = found
        elif folder == PUBLISHED and (content := CONTENT.fullmatch(file)):
            published[content[1]] = found
        elif folder == PUBLISHED and SOURCE.fullmatch(file):
            notes.append(name)
    sources = {}
    for name, text in place.read_all(notes):
        with suppress(ValidationError):
            sources[name] = Known.model_validate_json(text).sha256
    return Kept(stages, aside, published, sources)


def _of_stage(file: str) -> bool:
    whole = file in (RESULT, WEIGHTS, MEASURED, PAUSE, SOURCES) or STATE.fullmatch(file) or LEASE.fullmatch(file)
    return bool(whole or ASIDE.fullmatch(file))


def _known(folder: str, file: str) -> bool:
    if folder == PUBLISHED:
        return bool(CONTENT.fullmatch(file) or SOURCE.fullmatch(file))
    return bool(KEY.fullmatch(folder)) and _of_stage(file)


def records(place: Place, keys: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    """What was written of these stages, as plain data of whichever version; those that say nothing are left out."""
    found = {}
    for name, text in place.read_all([f"{key}/{RESULT}" for key in keys]):
        with suppress(ValueError, RecursionError):
            record = json.loads(text)
            if isinstance(record, dict) and isinstance(record.get("stage"), dict):
                found[name.split("/")[0]] = record
    return found


def weights_of(stage: Any) -> Iterator[str]:
    """The SHA-256 of the published weights that a stage and those above it started from, in whichever version."""
    while isinstance(stage, dict):
        model = stage.get("model")
        given = model.get("weights") if isinstance(model, dict) else None
        if isinstance(given, dict) and isinstance(given.get("sha256"), str):
            yield given["sha256"]
        stage = stage.get("teacher")


def busy(place: Place, kept: Kept) -> set[str]:
    """The keys of the stages that somebody trains now. It takes seconds if another machine has some."""
    leased = [key for key, files in kept.stages.items() if any(LEASE.fullmatch(one.split("/")[1]) for one in files)]
    return held({key: Lease(place.file(key)) for key in leased})


def remove_stage(place: Place, key: str, *, patience: float = 1.1 * EXPIRY) -> bool:
    """Remove what is known of a stage, its result first; -> whether it is gone: not if somebody has taken it up.

    patience: seconds until a lease is free that a process of another machine has left behind.
    """
    lease, until = Lease(place.file(key)), time.monotonic() + patience
    while not lease.take():
        if time.monotonic() > until:
            return False
        time.sleep(place.pause)
    try:
        there = [name for name in place.find(f"{key}/*") if _of_stage(name.split("/")[1])]
        for name in sorted(there, key=lambda name: (not name.endswith(RESULT), name)):
            if not LEASE.fullmatch(name.split("/")[1]):
                place.remove(name)
    finally:
        lease.release()
    if isinstance(place.root, Path):
        with suppress(OSError):  # something is in it that is none of ours
            (place.root / key).rmdir()
    return True
