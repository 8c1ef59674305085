"""What a driver reads in the store while others write there: it may come later, and the store may be away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.masking import public
from trainers import visible
from trainers.call import Invalid

if TYPE_CHECKING:
    from orchestrator.prepared import Prepared

T = TypeVar("T")

AGAIN = 5.0  # seconds until a store that is away is asked again


@dataclass
class Awaited:
    """What a stage has left, that cannot be seen yet."""

    look: Callable[[], Any]  # -> None as long as it is not there
    found: Callable[[Any], None]
    missing: Callable[[], None]  # it should have come by now
    late: float  # when it should
    next: float = 0.0  # when to look again


class Reading:
    """The one place where a run reads from the store once it has begun. Nothing sleeps here: Tune's loop goes on, and
    what cannot be read is asked for again in a later round of it. Only a request that is under way is waited for, as
    long as whoever sends it tries again.

    `end` is called for a store that is away for longer than the study's `resources.silence`; `say` is told when it
    goes and comes.
    """

    def __init__(self, prepared: Prepared, *, say: Callable[[str], None], end: Callable[[], None]) -> None:
        self.place, self.silence = prepared.store.place, prepared.study.resources.silence
        self.say, self.end = say, end
        self.away: float | None = None  # since when
        self.lost = False  # it was away for too long
        self.awaited: dict[str, Awaited] = {}  # by the key of a stage
        self._certain = False
        self._next = 0.0  # when a store that is away is asked again

    def ask(self, look: Callable[[], T]) -> T | None:
        """What `look` says; None while the store cannot be reached."""
        asked = time.monotonic()
        if self.away is not None and asked < self._next:
            return None
        try:
            found = look()
        except OSError as error:
            if self._certain:
                raise
            self._gone(error, asked)
            return None
        if self.away is not None:
            self.away = None
            self.say(f"the store {self.place.root} answers again")
        return found

    @contextmanager
    def certain(self) -> Iterator[None]:
        """What is asked in this block is answered. Raises `Invalid` if it cannot be."""
        self._certain = True
        try:
            yield
        except OSError as error:
            reason = public(error.strerror or error)
            raise Invalid(f"the store {self.place.root} cannot be read: {reason}", ("resources", "store")) from None
        finally:
            self._certain = False

    def expect(
        self, key: str, look: Callable[[], T | None], found: Callable[[T], None], missing: Callable[[], None]
    ) -> None:
        """Have `found` called with what `look` says, as soon as that is not None; `missing`, if it is for
        `visible.PATIENCE` seconds in which the store could be reached."""
        self.awaited[key] = Awaited(look, found, missing, time.monotonic() + visible.PATIENCE)
        self._look(key)

    def look(self) -> None:
        """Look for what is awaited, and for the store itself if it is away: nothing can be trained while it is."""
        for key in list(self.awaited):
            self._look(key)
        if self.away is not None and not self.awaited:
            self.ask(lambda: self.place.look("any"))

    def _look(self, key: str) -> None:
        one = self.awaited[key]
        if time.monotonic() < one.next:
            return
        there = self.ask(one.look)
        now = time.monotonic()
        one.next = now + min(visible.LOOK, visible.PATIENCE / 10)
        if there is not None:
            del self.awaited[key]
            one.found(there)
        elif self.away is not None:
            one.late = now + visible.PATIENCE
        elif now >= one.late:
            del self.awaited[key]
            one.missing()

    def _gone(self, error: OSError, asked: float) -> None:
        if self.away is None:
            self.away = asked
            reason = public(error.strerror or error)
            self.say(f"the store {self.place.root} cannot be read: {reason}; trying again until it can")
        self._next = time.monotonic() + min(AGAIN, self.silence / 10)
        if time.monotonic() - self.away > self.silence and not self.lost:
            self.lost = True
            self.say(
                f"the store {self.place.root} could not be read for {self.silence:g} s: the run ends; once it can, run "
                "the same command to go on"
            )
            self.end()
