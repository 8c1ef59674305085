"""One thread for all the stages that a process trains, one after another.

What CUDA has recorded, to be replayed at once, belongs to the thread that recorded it, and so does the memory that is
kept for it: in a thread of its own each stage would compile all anew, and record nothing.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class OneThread:
    """A thread that does what it is given, in order. It starts with the first."""

    def __init__(self) -> None:
        self._given: queue.SimpleQueue[tuple[Callable[[], None], threading.Event]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def do(self, what: Callable[[], None]) -> threading.Event:
        """-> what is set when that is done, be it by an exception."""
        over = threading.Event()
        self._given.put((what, over))
        if not self._thread.is_alive():
            self._thread.start()
        return over

    def _work(self) -> None:
        while True:
            what, over = self._given.get()
            try:
                what()
            finally:
                over.set()
            del what  # and all that it holds on to, until there is something else to do
