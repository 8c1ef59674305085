"""Whose turn it is among the stages that may start."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from heapq import heappop, heappush
from typing import NamedTuple


class Turn(NamedTuple):
    """Smaller comes first: the longest chain, and of equal ones the first that was wanted."""

    chain: float  # what is left of it, negative
    order: int
    key: str


class Turns:
    """Stages by the model that they train: those of one model need the same room, so if there is none for the first of
    them, there is none for the others either."""

    def __init__(self) -> None:
        self._heaps: dict[str, list[Turn]] = defaultdict(list)  # may hold what has no turn any more

    def put(self, model: str, turn: Turn) -> None:
        """A stage may start; or its chain has become longer, then it is there twice."""
        heappush(self._heaps[model], turn)

    def take(self, holds: Callable[[Turn], bool], may: Callable[[str], bool]) -> str | None:
        """The key of the first that still `holds` and whose model `may` start; the models are asked in the order of
        their turns."""
        first = [(heap[0], model) for model, heap in self._heaps.items() if _cleared(heap, holds)]
        for _, model in sorted(first):
            if may(model):
                return heappop(self._heaps[model]).key
        return None


def _cleared(heap: list[Turn], holds: Callable[[Turn], bool]) -> bool:
    """Drop from the top what holds no more; -> whether something is left."""
    while heap and not holds(heap[0]):
        heappop(heap)
    return bool(heap)
