"""Where a command writes what it was asked for: looked at before it begins, and what is said if that fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as File

from trainers.call import Invalid

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # what the end of a write raises, which names no file


@contextmanager
def writable(place: File | None, *where: str, folder: bool = True) -> Iterator[None]:
    """Raise `Invalid` at the option `where` if a folder, or a file, cannot be written, now or while the block does.

    Errors about other files pass through. place: None if nothing is to be written."""
    if place is None:
        yield
        return
    kind = "folder" if folder else "file"
    try:
        _look(place, folder=folder)
        yield
    except OSError as error:
        if not _about(error, place):
            raise
        advice = "make room, or name another" if error.errno in FULL else f"name another {kind}, or change its rights"
        raise Invalid(f"{place} cannot be written: {error.strerror or error}; {advice}", where) from error


def _look(place: File, *, folder: bool) -> None:
    """Raise what writing would, as far as it can be known before."""
    there = existing(place)
    if there != place.expanduser().absolute():
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{there} is a file", str(there))
    elif there.is_dir() != folder:
        said = "it is a file, and no folder" if folder else "it is a folder"
        raise OSError(errno.EISDIR, said, str(there))
    if not os.access(there, os.W_OK | (os.X_OK if there.is_dir() else 0)):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))


def _about(error: OSError, place: File) -> bool:
    """Whether an error is about a place, what lies in it, where it lies, or what is to get its name."""
    if error.filename is None:
        return error.errno in FULL
    file, place = File(str(error.filename)).absolute(), place.absolute()
    aside = file.parent == place.parent and file.name.startswith(f".{place.name}.")
    return place in (file, *file.parents) or file in place.parents or aside


def existing(place: File) -> File:
    """The folder, or the nearest above it that there is."""
    place = place.expanduser().absolute()
    return next(folder for folder in (place, *place.parents) if folder.exists())
