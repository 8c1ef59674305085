"""`tapath gc`: what a store has that no study needs any more, and its removal.

Kept is what the named studies want, what registered models were made of, what somebody trains now, and all that is not
known here. Of a stage that goes its result goes first, so that whoever is killed half-way leaves what counts as not
trained, and the next call removes the rest.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path as File
from typing import Any, Literal, NamedTuple

from orchestrator.document import printable
from orchestrator.needed import Needed, by_models, by_studies, loaded
from trainers import kept_files, staged
from trainers.address import at
from trainers.call import Invalid
from trainers.kept_files import Kept
from trainers.place import Place
from trainers.spec import Stage
from trainers.staging import scratch
from trainers.store import PUBLISHED

AGE = re.compile(r"(\d+(?:\.\d+)?) ?([smhdw])")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
NOBODY = "no study that is named wants it"


class Scrap(NamedTuple):
    """What may go: a stage by its key, a file by its name in the store, or a folder with a copy of data."""

    kind: Literal["stage", "weights", "aside", "copy"]
    name: str
    size: int  # bytes
    changed: float  # seconds since 1970
    reason: str


class Sorted(NamedTuple):
    """What a store has: what may go, and what is said of the rest."""

    place: Place
    scraps: list[Scrap]
    kept: int  # stages
    strangers: list[str]  # keys of stages that are trained now for a study that nobody named


def age(text: str) -> float:
    """Seconds of `30d`, `12h`, `2w`. Raises `Invalid`."""
    found = AGE.fullmatch(text.strip())
    if found is None:
        raise Invalid("write a number and s, m, h, d or w, as in 30d", ("--older-than",))
    return float(found[1]) * UNITS[found[2]]


def sort(
    files: Sequence[File],
    *,
    store: str | None = None,
    tracking: str | None = None,
    older: str | None = None,
    say: Callable[[str], object] = bool,
) -> Sorted:
    """What the store of these studies has that none of them needs. Nothing is removed. Raises `Invalid`.

    `say` is told what might be needed and cannot be known.
    """
    if not files:
        raise Invalid("name the studies that are still needed, or a folder of them with --all-studies-in")
    before = time.time() - (age(older) if older else 0.0)
    studies = loaded(files, store)
    place = at(studies[0].resources.store)
    place.reachable()
    needed = by_studies(studies)
    kept = kept_files.look(place)
    for key, model in by_models((one.resources.tracking_uri for one in studies), tracking, say).items():
        needed.stages |= dict.fromkeys(_lineage(place, key), model)
    working = kept_files.busy(place, kept)
    found = [one for one in _scraps(place, kept, needed, working, before) if one.changed <= before]
    going = {one.name for one in found if one.kind == "stage"}
    return Sorted(place, found, len(kept.stages.keys() - going), sorted(working - needed.stages.keys()))


def _lineage(place: Place, key: str) -> list[str]:
    """The keys of a stage and of those that taught it, as far as this version can tell."""
    record = kept_files.records(place, {key: None}).get(key)
    try:
        return [key, *(one.key for one in Stage.model_validate(record["stage"]).lineage)] if record else [key]
    except ValueError:  # another version's
        return [key]


def _scraps(place: Place, kept: Kept, needed: Needed, working: set[str], before: float) -> Iterator[Scrap]:
    unneeded = {key: files for key, files in kept.stages.items() if key not in needed.stages and key not in working}
    trained = kept_files.records(place, unneeded)
    for key, files in unneeded.items():
        changed = max(one.changed for one in files.values())
        said = f"{_called(trained.get(key))}, and {NOBODY}"
        yield Scrap("stage", key, sum(one.size for one in files.values()), changed, said)
    for name, one in kept.aside.items():
        yield Scrap("aside", name, one.size, one.changed, "it was damaged, and set aside")
    # What a stage started from stays as long as its result does, too young ones and those of models included.
    young = [key for key, files in unneeded.items() if max(one.changed for one in files.values()) > before]
    staying = dict.fromkeys([*(key for key in kept.stages if key not in unneeded), *young])
    told = kept_files.records(place, staying)
    used = {one for record in told.values() for one in kept_files.weights_of(record["stage"])} | needed.weights.keys()
    if any(key not in needed.stages and key not in told for key in staying):  # begun, and nobody knows from what
        used |= kept.published.keys()
    for sha256, one in kept.published.items():
        if sha256 not in used:
            said = f"published weights, and {NOBODY}"
            yield Scrap("weights", f"{PUBLISHED}/{sha256}.weights", one.size, one.changed, said)
    yield from _copies(needed)


def _called(record: dict[str, Any] | None) -> str:
    """What a stage trained, for people, in whichever version."""
    if record is None:
        return "not finished"
    model, score = record["stage"].get("model"), record.get("score")
    parts = [next(iter(one), "") for one in model.values() if isinstance(one, dict)] if isinstance(model, dict) else []
    return f"{' on '.join(parts[:2])}, {score:.4f}" if parts and isinstance(score, float) else "finished"


def _copies(needed: Needed) -> Iterator[Scrap]:
    """Copies of data on this machine."""
    for folder in sorted({*needed.scratches, scratch(True)}):
        for one in staged.copies(folder):
            if one.folder.name not in needed.copies and not one.in_use:
                yield Scrap("copy", str(one.folder), one.size, one.changed, f"a copy of data, and {NOBODY}")


def remove(found: Sorted, say: Callable[[str], object] = bool) -> list[Scrap]:
    """Remove what may go; -> what is still there. Raises `Invalid` if a study is run here that nobody named."""
    if found.strangers:
        message = f"{len(found.strangers)} stages are trained here now for a study that is not named"
        shown = ", ".join(found.strangers[:3])
        raise Invalid(f"{message}, and which may need more: name it, too, or wait until it ends ({shown})")
    left = []
    for one in found.scraps:
        try:
            gone = _gone(found.place, one)
        except OSError as error:
            gone = False
            say(f"{one.name} cannot be removed: {error.strerror or error}")
        if not gone:
            left.append(one)
    return left


def _gone(place: Place, one: Scrap) -> bool:
    if one.kind == "copy":
        return staged.remove(File(one.name))
    if one.kind == "stage":
        return kept_files.remove_stage(place, one.name)
    place.remove(one.name)
    if one.kind == "weights":  # and the notes of where they came from
        sha256 = File(one.name).stem
        for name, content in kept_files.look(place).sources.items():
            if content == sha256:
                place.remove(name)
    return True


def as_json(found: Sorted, left: Sequence[Scrap] | None) -> dict[str, Any]:
    """left: what is still there after the removal; None: nothing was to be removed."""
    return {
        "store": str(found.place.root),
        "scraps": [one._asdict() for one in found.scraps],
        "size": sum(one.size for one in found.scraps),
        "kept_stages": found.kept,
        "busy_strangers": found.strangers,
        "removed": None if left is None else len(found.scraps) - len(left),
        "left": [one.name for one in left or ()],
    }


def text(found: Sorted, left: Sequence[Scrap] | None) -> str:
    """For people: largest first."""
    lines = [
        f"{'':4}{_size(one.size):>9}  {one.kind:<8}{one.name}  {one.reason}"
        for one in sorted(found.scraps, key=lambda one: -one.size)
    ]
    sizes = _size(sum(one.size for one in found.scraps))
    head = f"{found.place.root}: {len(found.scraps)} things that are not needed, {sizes}; {found.kept} stages stay"
    if found.strangers:
        lines.append(f"{len(found.strangers)} stages are trained now for a study that is not named; name it, too")
    if left is None:
        lines.append("nothing was removed; add --delete to do it" if found.scraps else "there is nothing to remove")
    else:
        lines.append(f"removed {len(found.scraps) - len(left)}" + (f", {len(left)} are still there" if left else ""))
    return "\n".join(map(printable, [head, *lines]))


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
