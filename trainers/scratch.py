"""Temporary folders whose names say whose they are, so that those of processes that were killed can be found."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from trainers.alive import MARK, ended, mark

NAME = re.compile(rf"tapath-({MARK})-\w+")


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder that is gone once it is closed, or with this process; if that is killed, with the next `clear` on this
    machine."""
    return tempfile.TemporaryDirectory(prefix=f"tapath-{mark()}-", ignore_cleanup_errors=True)


def abandoned() -> list[Path]:
    """The folders of processes of this machine that are no more."""
    named = ((folder, NAME.fullmatch(folder.name)) for folder in Path(tempfile.gettempdir()).glob("tapath-*"))
    return sorted(folder for folder, name in named if name is not None and ended(name[1]))


def clear() -> list[Path]:
    """Remove the folders that processes left behind which were killed; -> which."""
    found = abandoned()
    for folder in found:
        shutil.rmtree(folder, ignore_errors=True)
    return found
