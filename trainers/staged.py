"""The copies of data on a node's own disk: which there are, who reads from them, and how one is removed.

Whoever reads from a copy holds a lock of the kernel's on a file beside it, which goes with its process however that
ends; the file's time says when somebody last began to.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

USED, LOCK, WHOLE = "used", "lock", "whole.json"
NAMED = re.compile(r"[A-Za-z]+-[0-9a-f]{16}")
OURS = {USED, LOCK, WHOLE, "files"}

_using: dict[Path, IO[str]] = {}  # of this process, until it ends


class Copy(NamedTuple):
    """A copy of a data set, perhaps not all of it."""

    folder: Path
    size: int  # bytes
    changed: float  # when somebody last began to read from it, seconds since 1970
    in_use: bool


def use(folder: Path) -> None:
    """Have nobody remove this folder while this process lives. Raises `OSError` if it is gone by now."""
    while folder not in _using:
        handle = (folder / USED).open("w")
        fcntl.flock(handle, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):  # removed while we waited
            if os.path.samestat(os.fstat(handle.fileno()), (folder / USED).stat()):
                _using[folder] = handle
                return
        handle.close()


def copies(place: Path) -> list[Copy]:
    """The copies in a scratch folder; what has a name or a file that is none of ours is passed over."""
    found = []
    with suppress(OSError):
        for folder in sorted(place.iterdir()):
            if NAMED.fullmatch(folder.name) and {one.name for one in folder.iterdir()} <= OURS:
                files = [file.lstat() for file in folder.rglob("*")]
                last = max((folder / name).stat().st_mtime for name in (USED, WHOLE, ".") if (folder / name).exists())
                found.append(Copy(folder, sum(one.st_size for one in files), last, _held(folder)))
    return found


def _held(folder: Path) -> bool:
    """Whether a process reads from it, or fills it."""
    for name in (USED, LOCK):
        with suppress(FileNotFoundError), (folder / name).open() as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def remove(folder: Path) -> bool:
    """Remove a copy; -> whether it is gone: not if somebody reads from it. Raises `OSError`."""
    with (folder / USED).open("a") as used, (folder / LOCK).open("a") as lock:
        try:
            for handle in (used, lock):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        (folder / WHOLE).unlink(missing_ok=True)  # first: what is left is then no copy, and filled again
        shutil.rmtree(folder)
    return True
