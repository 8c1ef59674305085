"""What a store has finished, whoever asked for it: what later studies can learn about costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydantic import ValidationError

from trainers.place import Place
from trainers.result import FORMAT, Result


def results(place: Place, *, most: int) -> Iterator[Result]:
    """The results in the place of a store, newest first, at most so many; one that cannot be read is passed over."""
    found = place.find("*/result.json")
    return _read(place, sorted(found, key=lambda name: (-found[name].changed, name))[:most])


def results_of(place: Place, keys: Iterable[str]) -> Iterator[Result]:
    """The results of these stages; those that are gone or cannot be read are passed over."""
    return _read(place, [name for key in keys if place.look(name := f"{key}/result.json") is not None])


def _read(place: Place, names: Iterable[str]) -> Iterator[Result]:
    for _, text in place.read_all(names):
        try:
            result = Result.model_validate_json(text)
        except ValidationError:
            continue
        if result.format <= FORMAT:
            yield result
