"""How long a training takes, without the time in which others of its process have their turn."""

from __future__ import annotations

import time


class Clock:
    """Goes from the start, stands while it `rest`s, and can be told of what it did not see or should not count."""

    def __init__(self) -> None:
        self._off = 0.0  # what it is behind of the time of day
        self._rests: float | None = None  # since when

    def now(self) -> float:
        """Seconds since some moment in the past."""
        return (time.perf_counter() if self._rests is None else self._rests) - self._off

    @property
    def stands(self) -> bool:
        return self._rests is not None

    def rest(self) -> None:
        """Stand still."""
        self._rests = time.perf_counter()

    def go(self) -> None:
        """Go on."""
        if self._rests is not None:
            self._off += time.perf_counter() - self._rests
            self._rests = None

    def count(self, seconds: float) -> None:
        """Be so much later; earlier, if it is negative."""
        self._off -= seconds
