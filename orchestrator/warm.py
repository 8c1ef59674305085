"""What the sweeps of a study start from: the settings that earlier studies in MLflow found on like edges.

MLflow is asked once. What it answered before the first stage started is kept in the store, a file for each edge, so
that a study that was killed asks for the same settings again though MLflow has more by then, its own trainings too.

    <store>/warm/<digest>.json   by the digest of all that makes the sweep of an edge another one: its knobs, the models
                                 and recipes of both ends and of the root teacher, the losses, the data and the score
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from orchestrator.alike import Earlier, alike, earlier, trainings
from orchestrator.document import printable
from orchestrator.lattice import Lattice, Path
from orchestrator.settings import LOSSES, Setting, setting, text
from orchestrator.sweep import Sweep
from trainers.call import Invalid, Spec, Term, canonical
from trainers.place import Place as Storage
from trainers.spec import SEMANTICS
from trainers.store import Store

WHERE = ("sweep", "warm_start")
FOLDER = "warm"
SHOWN_SWEEPS, SHOWN_SETTINGS = 8, 3  # in a text
UNREAD = "it is not known what earlier studies found, so this is planned without"

Place = tuple[str, ...]  # the teacher and student of a sweep's edge; empty: one sweep's settings hold along every path


class Kept(Spec):
    """What the store has of a sweep's start."""

    settings: tuple[Earlier, ...]


@dataclass(frozen=True)
class Warm:
    """The settings that the sweeps of a study start from; none if the study does not ask for them."""

    asked: bool = False
    found: Mapping[Place, tuple[Earlier, ...]] = field(default_factory=dict)
    losses: tuple[Term, ...] = ()
    new: Mapping[Place, str] = field(default_factory=dict)  # the file in which the store will have what it lacks
    storage: Storage | None = None  # of the store
    unknown: str = ""  # why MLflow could not be asked for that

    @cached_property
    def starts(self) -> dict[Place, dict[Setting, Earlier]]:
        """What was found, by setting."""
        return {place: {setting(one.values, self.losses): one for one in found} for place, found in self.found.items()}

    def _of(self, path: Path) -> dict[Setting, Earlier]:
        return self.starts.get(() if () in self.starts else path.models[-2:], {})

    def settings(self, path: Path) -> Sequence[Setting]:
        """Those that the sweep of a path begins with."""
        return list(self._of(path))

    def origin(self, path: Path) -> str:
        """Where the setting of a trial's last edge comes from, for people; empty if no earlier study found it."""
        found = self._of(path).get(path.setting)
        return found.origin if found else ""

    def certain(self) -> None:
        """Raise `Invalid` when it is not known what earlier studies found."""
        if self.unknown:
            message = "see that MLflow can be reached, or remove warm_start; from then on it is not asked again"
            raise Invalid(f"what earlier studies found is not known: {self.unknown}; {message}", WHERE)

    def keep(self) -> None:
        """Have it all in the store. Raises `Invalid` if it does not go there, or if another run was faster."""
        self.certain()
        for place, name in self.new.items():
            assert self.storage is not None, "what is new goes there"
            written, file = Kept(settings=self.found[place]).model_dump_json(indent=1), self.storage.file(name)
            try:
                if self.storage.create(name, written) or self.storage.read(name) == written.encode():
                    continue
            except OSError as error:
                message = f"cannot write {file}: {error.strerror or error}; nothing was written"
                raise Invalid(message, ("resources", "store")) from None
            raise Invalid(f"another run has just begun with other settings, those in {file}; run again", WHERE)

    def lines(self) -> list[str]:
        """What the sweeps start from, for people."""
        return lines(self.as_json())

    def as_json(self) -> dict[str, Any] | None:
        """The same for machines; None if the study does not ask for it. The `edge` of a sweep is None where its
        settings hold along every path."""
        if not self.asked:
            return None
        sweeps = [
            {
                "edge": list(place) or None,
                "settings": [
                    {**one.model_dump(mode="json"), "text": text(own), "origin": one.origin}
                    for own, one in found.items()
                ],
            }
            for place, found in self.starts.items()
        ]
        return {"known": not self.unknown, "reason": self.unknown or None, "sweeps": sweeps}


def lines(made: Mapping[str, Any] | None) -> list[str]:
    """What `as_json` says, for people: a line for each sweep that starts from something, or one that says why not."""
    if made is None:
        return []
    if not made["known"]:
        return [f"{UNREAD}: {made['reason']}"]
    warm = [one for one in made["sweeps"] if one["settings"]]
    if not warm:
        return ["no earlier study found a setting on an edge like these; no sweep has one to start from"]
    left = len(warm) - SHOWN_SWEEPS
    return [*map(_line, warm[:SHOWN_SWEEPS]), *([f"... and {left} more sweeps start from some"] if left > 0 else ())]


def unknown(made: Mapping[str, Any] | None) -> list[str]:
    """The line that says that it is not known what the sweeps start from, if that is so."""
    return lines(made) if made is not None and not made["known"] else []


def _line(made: Mapping[str, Any]) -> str:
    found = made["settings"]
    whose = f"the sweep of {' > '.join(made['edge'])} starts" if made["edge"] else "the sweeps of all paths start"
    shown = [f"{one['text']} ({one['origin']})" for one in found[:SHOWN_SETTINGS]]
    shown += [f"and {len(found) - SHOWN_SETTINGS} more"] if len(found) > SHOWN_SETTINGS else []
    number = f"{len(found)} setting{'' if len(found) == 1 else 's'}"
    return printable(f"{whose} from {number} that earlier studies found: {', '.join(shown)}")


def warm(
    sweep: Sweep | None, lattice: Lattice, store: Store, *, uri: str, metric: str, provisional: bool = False
) -> Warm:
    """What the sweeps of a study start from, as the store has it, or else MLflow; nothing is written.

    MLflow is asked for the best by `metric`, where it has that. If it cannot be asked, the answer says why.
    provisional: neither is looked at. Raises `Invalid` for a file that cannot be read.
    """
    if sweep is None or not sweep.warm_start:
        return Warm()
    if provisional:
        return Warm(asked=True, unknown="neither the store nor MLflow is looked at without the data")
    files = {place: f"{FOLDER}/{name}.json" for place, name in digests(sweep, lattice, metric).items()}
    with store.glimpse():
        there = {place: read(store.place, name, sweep, lattice) for place, name in files.items()}
    found = {place: kept for place, kept in there.items() if kept is not None}
    new = {place: file for place, file in files.items() if place not in found}
    why = ""
    if new:
        try:
            found |= _ask(sweep, lattice, new, uri=uri, metric=metric)
        except Invalid as error:
            why = str(error)
    in_order = {place: found[place] for place in files if place in found}
    return Warm(asked=True, found=in_order, losses=lattice.distill, new=new, storage=store.place, unknown=why)


def places(sweep: Sweep, lattice: Lattice) -> dict[Place, tuple[tuple[str, ...], str]]:
    """The sweeps that may start from earlier ones, with the teachers and the student of the edges that are looked for.

    Where a setting holds along a whole path all paths start from the same, so that they still share their prefixes:
    from what was found on edges to the last student, whoever of the lattice teaches it.
    """
    if sweep.scope == "path":
        last = lattice.students[-1]
        return {(): (lattice.teachers(last), last)}
    return {(one, name): ((one,), name) for name in lattice.names for one in lattice.teachers(name)}


def digests(sweep: Sweep, lattice: Lattice, metric: str) -> dict[Place, str]:
    """For each sweep 16 hex digits, others for whatever makes it another sweep."""
    common = {
        "knobs": {name: space.model_dump(mode="json") for name, space in sweep.knobs.items()},
        "settings": sweep.num_warm,
        "scope": sweep.scope,
        "losses": [term.canonical for term in lattice.distill],
        "data": lattice.data.canonical,
        "score": metric,
        "semantics": SEMANTICS,
    }

    def entry(name: str) -> list[str]:
        return [lattice.models[name].model.canonical, lattice.models[name].recipe.canonical]

    return {
        place: hashlib.sha256(
            canonical({**common, "models": [entry(name) for name in (lattice.root, *teachers, student)]}).encode()
        ).hexdigest()[:16]
        for place, (teachers, student) in places(sweep, lattice).items()
    }


def read(storage: Storage, name: str, sweep: Sweep, lattice: Lattice) -> tuple[Earlier, ...] | None:
    """What the store has of a sweep's start; None if it has nothing. Raises `Invalid` if that is damaged."""
    try:
        kept = Kept.model_validate_json(storage.read(name)).settings
        wrong = next((one for one in kept if not _possible(one.values, sweep, lattice.distill)), None)
        if wrong is None:
            return kept
        reason = f"the sweep cannot have the setting {canonical(wrong.values)}"
    except FileNotFoundError:
        return None
    except ValidationError:
        reason = "it is damaged"
    except OSError as error:
        reason = error.strerror or str(error)
    message = f"what the sweeps started from cannot be read from {storage.file(name)}: {reason}"
    raise Invalid(f"{message}; remove that file, and the next run asks MLflow anew, or remove warm_start", WHERE)


def _possible(given: Mapping[str, Any], sweep: Sweep, losses: tuple[Term, ...]) -> bool:
    """Whether a sweep can have these values: those of all knobs that make a difference, and no others."""
    known = all(name in sweep.knobs and sweep.knobs[name].holds(value) for name, value in given.items())
    if not known or (LOSSES in sweep.knobs) != (LOSSES in given):
        return False
    needed = setting({**dict.fromkeys(sweep.knobs), **given}, losses)
    return {name for name, _ in needed} == given.keys()


def _ask(
    sweep: Sweep, lattice: Lattice, new: Mapping[Place, str], *, uri: str, metric: str
) -> dict[Place, tuple[Earlier, ...]]:
    """What MLflow has for these sweeps. Raises `Invalid` when it cannot be used."""
    from orchestrator.connection import sqlite_file  # importing MLflow takes seconds
    from orchestrator.ranking import read as experiments

    if uri.startswith("sqlite") and (file := sqlite_file(uri)).name and not file.exists():
        return dict.fromkeys(new, ())  # there was no earlier study; a run will make it
    found = trainings(experiments(uri, None), metric)
    wanted, answer = places(sweep, lattice), {}
    for place in new:
        above, student = wanted[place]
        entry, teachers = lattice.models[student], [lattice.models[name].model for name in above]
        like = alike(found, teachers=teachers, student=entry.model)
        fingerprint = lattice.data.fingerprint
        best = earlier(like, sweep.knobs, entry.recipe, lattice.distill, fingerprint=fingerprint, metric=metric)
        answer[place] = tuple(best[: sweep.num_warm])
    return answer
