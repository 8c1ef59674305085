"""As many of a report's pictures as there is room for in its page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any


def fitting(pictures: Mapping[str, Any], sizes: Sequence[int], room: int) -> dict[str, Any]:
    """The same with the first images that fit, at least with one. `sizes`: of each image, as `room` in bytes."""
    kept: list[int] = []
    for place in _in_turn(pictures):
        room -= sizes[place]
        if kept and room < 0:
            break
        kept.append(place)
    kept.sort()
    edges = pictures["edges"]
    return {
        **pictures,
        "images": [pictures["images"][place] for place in kept],
        "edges": edges and {**edges, "image": kept.index(edges["image"])},
    }


def _in_turn(pictures: Mapping[str, Any]) -> Iterator[int]:
    """The places of the images: that of the edges first, then in turn those that differ most and those that are spread
    evenly, so that what is shown is no more one-sided where it is less."""
    images, edges = pictures["images"], pictures["edges"]
    first = [edges["image"]] if edges else []
    both = [[place for place, one in enumerate(images) if one["differs"] is differs] for differs in (True, False)]
    turns = (place for pair in zip_longest(*both) for place in pair if place is not None)
    yield from dict.fromkeys([*first, *turns])
