"""Work that others of the same process may come between: a generator that says where it stands, or that it waits."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Turn(NamedTuple):
    """Where a training stands between two steps. Smaller is further behind."""

    epoch: int  # that it is in, from 0
    steps: int  # of it that are over


class Wait(NamedTuple):
    """There is nothing to do for a while."""

    seconds: float


Turns = Generator[Turn | Wait, None, T]


def alone(work: Turns[T]) -> T:
    """What comes of it if there is nobody else."""
    while True:
        try:
            now = next(work)
        except StopIteration as end:
            value: T = end.value
            return value
        if isinstance(now, Wait):
            time.sleep(now.seconds)
