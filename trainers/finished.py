"""What a store has finished, whoever asked for it: what later studies can learn about costs."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from trainers.place import Place
from trainers.result import FORMAT, Result


def results(place: Place, *, most: int) -> Iterator[Result]:
    """The results in the place of a store, newest first, at most so many; one that cannot be read is passed over."""
    found = place.find("*/result.json")
    newest = sorted(found, key=lambda name: (-found[name].changed, name))[:most]
    for _, text in place.read_all(newest):
        try:
            result = Result.model_validate_json(text)
        except ValidationError:
            continue
        if result.format <= FORMAT:
            yield result
