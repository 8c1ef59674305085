"""Which processes of this machine live, told by their numbers and when they began; and marks for others to find."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

HIDDEN = "hidden"  # a process that lives, though nobody here may know since when
MARK = r"([0-9a-f]{8})-(\d+)-(\d+|hidden)"


def mark() -> str:
    """This process among all others, as a part of a file's name."""
    return f"{_short(machine())}-{os.getpid()}-{started(os.getpid())}"


def ended(mark: str) -> bool:
    """Whether the process with this mark is known to be gone. Of other machines nobody can know, nor of other
    containers: each knows its own processes alone."""
    named = re.fullmatch(MARK, mark)
    if named is None or named[1] != _short(machine()):
        return False
    return started(int(named[2])) not in (named[3], HIDDEN)


def machine() -> str:
    """This machine since its start, and who is counted among its processes; another each time where nobody says."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return uuid4().hex


def started(pid: int) -> str:
    """When a process of this machine began; empty if there is none, or it has ended and nobody has taken note."""
    try:
        # The name may have spaces and brackets: what counts comes after the last bracket.
        state, *others = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if _is_gone(pid) else HIDDEN
    return "" if state in "ZX" else others[18]


def _is_gone(pid: int) -> bool:
    """Whether there is no such process here; another user's may be out of sight."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _short(machine: str) -> str:
    return hashlib.sha256(machine.encode()).hexdigest()[:8]
