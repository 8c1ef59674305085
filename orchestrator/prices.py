"""By which measurements a study reckons in GPU hours: those of its first run.

Every training adds a measurement, and by the newest a budget would end otherwise each time that it goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from pydantic import ValidationError

from orchestrator.costs import Measured
from orchestrator.lattice import Lattice
from trainers.call import Call, Invalid, Spec, canonical
from trainers.place import Place, write
from trainers.store import Store

FOLDER = "prices"


class Basis(Spec):
    """The keys of the stages whose seconds were known."""

    keys: tuple[str, ...]


class Prices:
    """What a search is priced by, as the store has it, or else by all that is measured now."""

    def __init__(
        self,
        store: Store,
        search: Call,
        lattice: Lattice,
        measured: Iterable[Measured],
        *,
        of: Callable[[Iterable[str]], Iterable[Measured]],
    ) -> None:
        """`of`: what stages have taken, by their keys. Raises `Invalid` for a file that cannot be read."""
        said = {
            "search": search.canonical,
            "data": lattice.data.canonical,
            "models": {name: entry.model.canonical for name, entry in lattice.models.items()},
        }
        self.store = store
        self.name = f"{FOLDER}/{hashlib.sha256(canonical(said).encode()).hexdigest()[:16]}.json"
        kept = _read(store.place, self.name)
        # Of what is gone from the store since then nothing is known any more.
        known = list(of(kept.keys)) if kept else []
        self.measured = known or list(measured)
        self.is_new = not known

    def keep(self) -> None:
        """Have the next run reckon likewise."""
        if self.is_new and self.measured:
            text = Basis(keys=tuple(one.stage.key for one in self.measured)).model_dump_json()
            write(self.store.place, self.name, text)


def _read(place: Place, name: str) -> Basis | None:
    try:
        return Basis.model_validate_json(place.read(name))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        message = f"by what the search was priced cannot be read from {place.file(name)}"
        raise Invalid(f"{message}; remove that file, and it is priced anew", ("search",)) from None
