"""Temporary folders whose names say whose they are, so that those of processes that were killed can be found."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainers.lease import Holder, Lease

NAME = re.compile(r"tapath-([0-9a-f]{8})-(\d+)-(\d+)-\w+")


@contextmanager
def scratch() -> Iterator[str]:
    """A folder that is gone afterwards; if this process is killed, with the next `sweep` on this machine."""
    me = _me()
    prefix = f"tapath-{_short(me.machine)}-{me.pid}-{me.started}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        yield folder


def abandoned() -> list[Path]:
    """The folders of processes of this machine that are no more."""
    me, found = _me(), []
    for folder in Path(tempfile.gettempdir()).glob("tapath-*"):
        name = NAME.fullmatch(folder.name)
        # Another container may share the folder, and knows its own processes alone.
        if name is None or name[1] != _short(me.machine) or (name[2], name[3]) == (str(me.pid), me.started):
            continue
        if me.model_copy(update={"pid": int(name[2]), "started": name[3]}).is_dead:
            found.append(folder)
    return sorted(found)


def sweep() -> list[Path]:
    """Remove the folders that processes left behind which were killed; -> which."""
    found = abandoned()
    for folder in found:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def _me() -> Holder:
    """This process among all others."""
    return Lease(Path()).me


def _short(machine: str) -> str:
    return hashlib.sha256(machine.encode()).hexdigest()[:8]
