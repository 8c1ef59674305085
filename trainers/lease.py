"""Who trains a stage now: one process of all that share a store, whichever run and machine they belong to.

A lease is a numbered file in the stage's folder, and the highest number holds. Whoever holds it writes to it again and
again; if that stops, another takes the next number, which the place gives to one alone. So a process that was frozen
finds a higher number when it comes back, and writes nothing. No two machines' clocks are compared: everybody waits by
their own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from pydantic import ValidationError

from trainers.address import at
from trainers.alive import HIDDEN, machine, started
from trainers.call import Spec
from trainers.turns import Turns, Wait

EXPIRY = 60.0  # seconds after which a lease that nobody renews is another's
RENEWALS = 6  # in that time


_held: set[str] = set()  # the leases of this process, by name


class Lost(RuntimeError):
    """Another process has taken the stage over."""


class Holder(Spec):
    """What a lease says of its holder."""

    name: str  # of this lease and no other
    machine: str  # with its processes' namespace: only there do process numbers say something
    pid: int
    started: str  # when the process began, by the machine's own count
    expiry: float  # seconds in which it renews the lease, or loses it
    study: str = ""  # for which it trains, by name
    run: str = ""  # of that study, by a name of its own
    beat: int = 0

    @property
    def is_dead(self) -> bool:
        """Whether it is known to be gone. Of other machines nobody can know."""
        if (self.machine, self.pid) == (machine(), os.getpid()):
            return self.name not in _held  # of this process: it could not be removed when it was released
        return self.machine == machine() and started(self.pid) not in (self.started, HIDDEN)


class Lease:
    """The lease of one stage, as one process sees it."""

    def __init__(self, folder: Path | str, *, expiry: float = EXPIRY, study: str = "", run: str = "") -> None:
        self.place, self.expiry = at(folder), expiry
        here = {"machine": machine(), "pid": os.getpid(), "started": started(os.getpid())}
        self.me = Holder(name=uuid4().hex, expiry=expiry, study=study, run=run, **here)
        self.number = 0  # 0: not held
        self._seen: tuple[int, Holder | None] = (0, None)
        self._since = time.monotonic()  # when what was seen last was new
        self._renewed = 0.0  # when the last renewal began
        self._late = False  # a renewal took so long that it may have been another's stage by then
        self._lock = threading.Lock()
        self._over = threading.Event()

    def take(self) -> bool:
        """Take the stage if nobody holds it; -> whether it is ours now."""
        number, holder = self._highest()
        if (number, holder) != self._seen:
            self._seen, self._since = (number, holder), time.monotonic()
        free = number == 0 or (holder is not None and holder.is_dead)
        if not free and time.monotonic() - self._since < (holder or self.me).expiry:
            return False
        _held.add(self.me.name)  # first: a lease of this process that is not held counts as left behind
        try:
            if self.place.create(_name(number + 1), self.me.model_dump_json()):
                self.number, self._renewed = number + 1, time.monotonic()
        finally:
            if not self.number:
                _held.discard(self.me.name)
        if not self.number:
            return False
        for older in self._numbers():
            if older < self.number:
                with suppress(OSError):  # of no more use, and in nobody's way
                    self.place.remove(_name(older))
        threading.Thread(target=self._renew_until_over, daemon=True).start()
        return True

    def wait(self, *, done: Callable[[], bool], stop: Callable[[], bool], say: Callable[[str], None]) -> Turns[bool]:
        """Wait until the stage is ours; -> whether it is: not if it is `done` by another, or somebody wants a stop."""
        said = False
        while not (done() or stop()):
            if self.take():
                if not done():  # in the moment between
                    return True
                self.release()
                return False
            if not said:
                say(f"{self._whose(self._seen[1])}; waiting for it")
                said = True
            yield Wait(min(self.place.pause, self.expiry / RENEWALS))
        return False

    def _is_of_ours(self, holder: Holder | None) -> bool:
        return holder is not None and holder.run == self.me.run != ""

    def _whose(self, holder: Holder | None) -> str:
        """Who it is that holds the stage, for people."""
        if self._is_of_ours(holder):
            return "an earlier process of this run has not given this stage up yet"
        if holder is not None and holder.study == self.me.study != "":
            return "another run of this study, or an earlier one whose process still lives, trains this stage"
        return "another run trains this stage"

    def check(self) -> None:
        """Raise `Lost` if the stage is another's by now; to be called before anything of it is written."""
        if time.monotonic() - self._renewed > self.expiry / 2:
            self._renew()  # or wait for the renewal under way
        number, holder = self._highest()
        # By its name, as numbers begin anew once nobody holds the stage.
        if self._late or number != self.number or (holder is not None and holder.name != self.me.name):
            who = "another process of this run" if self._is_of_ours(holder) else "another run"
            key = Path(self.place.address).name
            raise Lost(f"{who} has taken over {key}, as this one was not heard of for a while")

    def release(self) -> None:
        """Nobody holds it any more, if it was ours."""
        with self._lock:
            self._over.set()
            _held.discard(self.me.name)
            with suppress(OSError):  # it is renewed no more, and expires
                if self._ours() is not None:
                    self.place.remove(_name(self.number))
            self.number = 0

    def _renew_until_over(self) -> None:
        while not self._over.wait(self.expiry / RENEWALS):
            with suppress(OSError):  # a disk that is full or slow for a while; who finds it expired takes it
                self._renew()

    def _renew(self) -> None:
        with self._lock:
            # A file that is gone, or another's by now, is not made again.
            began, old = time.monotonic(), self._ours()
            if old is None:
                return
            self.me = self.me.model_copy(update={"beat": self.me.beat + 1})
            if not self.place.swap(_name(self.number), old, self.me.model_dump_json()):
                return
            self._renewed = began
            # Frozen between looking and writing: another may have had the stage and finished it, and the file that it
            # removed is there again.
            if time.monotonic() - began > self.expiry:
                self._late = True
                with suppress(OSError):
                    self.place.remove(_name(self.number))

    def _ours(self) -> bytes | None:
        """What our file says; None if there is none that can be read, or it is another's."""
        if not self.number:
            return None
        try:
            text = self.place.read(_name(self.number))
            return text if Holder.model_validate_json(text).name == self.me.name else None
        except (OSError, ValidationError):
            return None

    def _highest(self) -> tuple[int, Holder | None]:
        """The lease that holds, and whose it is; 0 if there is none. None: it cannot be read now."""
        numbers = self._numbers()
        if not numbers:
            return 0, None
        try:
            return numbers[-1], Holder.model_validate_json(self.place.read(_name(numbers[-1])))
        except (OSError, ValidationError):
            return numbers[-1], None

    def _numbers(self) -> list[int]:
        return sorted(int(name.split("-")[1]) for name in self.place.find("lease-[0-9]*"))


def held(leases: Mapping[str, Lease]) -> set[str]:
    """The names of those that somebody holds. A process of this machine is known to live or not; another's is given the
    time in which it would renew its lease."""
    here, others = set[str](), dict[str, tuple[int, Holder | None]]()
    for name, lease in leases.items():
        number, holder = lease._highest()
        if holder is not None and holder.machine == machine():
            here |= set() if holder.is_dead else {name}
        elif number:
            others[name] = number, holder
    expiry = [holder.expiry if holder else EXPIRY for _, holder in others.values()]
    time.sleep(1.5 * max(expiry, default=0.0) / RENEWALS)
    return here | {name for name, seen in others.items() if leases[name]._highest() != seen}


def _name(number: int) -> str:
    return f"lease-{number:06d}"
