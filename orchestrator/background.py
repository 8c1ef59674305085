"""Jobs done by one thread: the newest of each key, in turn, again and again until it succeeds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

SOON = 2.0  # seconds between two tries while somebody waits for the end


class Background:
    """Does what is put here, while those who put it go on at once.

    A job that is still waiting is replaced by a newer one of its key, so each must cover what the older ones
    would have done, and must be harmless when done again. `explain` puts an error into words fit for a log.
    """

    def __init__(
        self, name: str, *, first: float = 0.5, longest: float = 30.0, explain: Callable[[object], str] = str
    ) -> None:
        self.name, self.first, self.longest, self.explain = name, first, longest, explain
        self._changed = threading.Condition()
        self._jobs: dict[str, Callable[[], None]] = {}
        self._busy = ""  # the key of the job in hand
        self._succeeded = 0.0  # when a job did last
        self._awaited = False  # whether somebody waits for the end
        self._stopped = threading.Event()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def put(self, key: str, job: Callable[[], None]) -> None:
        """Have this done in place of what waits under the same key. Returns at once."""
        with self._changed:
            self._jobs[key] = job
            self._changed.notify_all()

    def left(self) -> set[str]:
        """The keys of what is not done yet."""
        with self._changed:
            return {*self._jobs, self._busy} - {""}

    def wait(self, patience: float) -> bool:
        """Wait until everything is done, at most so many seconds; -> whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs and not self._busy, patience)

    def settle(self, patience: float, *, since: float) -> bool:
        """Wait until everything is done, but not after a time of so many seconds in which nothing was; -> whether it
        is. `since`: when by `time.monotonic` the first of these began."""
        with self._changed:
            self._awaited = True
            self._changed.notify_all()
            try:
                while self._jobs or self._busy:
                    left = max(self._succeeded, since) + patience - time.monotonic()
                    if left <= 0:
                        return False
                    self._changed.wait(left)
                return True
            finally:
                self._awaited = False

    def stop(self) -> None:
        """Take up nothing more."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()

    def _work(self) -> None:
        delay = 0.0  # since the last success; 0: the last job succeeded
        while True:
            with self._changed:
                self._busy = ""
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._jobs or self._stopped.is_set())
                if self._stopped.is_set():
                    return
                key = self._busy = next(iter(self._jobs))
                job = self._jobs.pop(key)
            try:
                job()
            except Exception as error:  # whatever it is, this thread must outlive it: nobody else does the rest
                if not delay:
                    log.warning("%s: %s; trying again until it works", self.name, self.explain(error))
                delay = min(delay * 2 or self.first, self.longest)
                with self._changed:
                    self._jobs.setdefault(key, job)  # behind the others, unless there is a newer one
                    self._busy = ""
                self._rest(delay)
            else:
                if delay:
                    log.warning("%s: works again", self.name)
                delay, self._succeeded = 0.0, time.monotonic()

    def _rest(self, seconds: float) -> None:
        """Before the next try, until it is stopped; not for long while somebody waits."""
        late = time.monotonic() + seconds
        with self._changed:
            self._changed.wait_for(lambda: self._awaited or self._stopped.is_set(), seconds)
        self._stopped.wait(max(0.0, min(SOON, late - time.monotonic())))
