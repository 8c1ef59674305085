"""A disk without room, said so that somebody can help: for which file, how much it takes, and how much there is."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

# A full disk, a used up quota, and a limit on the size of a file.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Full(OSError):
    """A file had no room where it was to be."""


@contextmanager
def fitting(file: Path | str, content: Any, *, folder: Path) -> Iterator[None]:
    """Raise `Full` if there is no room in `folder` for what is written inside: `content`, tensors in whatever holds
    them, which is to become `file`. Other errors pass through."""
    try:
        yield
    except Exception as error:  # each library has an error of its own for it
        number = reason(error)
        if number is None:
            raise
        full = Full(f"no room for {file}: {told(folder, needed(content), number)}")
        full.errno = number
        raise full from error


def told(folder: Path, size: int, number: int) -> str:
    """How much is needed and free, and what would help."""
    try:
        free = f"{shutil.disk_usage(folder).free:,} are free there"
    except OSError:
        free = "how many are free there is not known"
    help = "make room and run the same command again, finished epochs are kept"
    return f"it takes about {size:,} bytes, {free} ({os.strerror(number)}); {help}"


def needed(content: Any) -> int:
    """Bytes of all the tensors in a nest of mappings and lists; the rest is small beside them."""
    if isinstance(content, Tensor):
        return content.numel() * content.itemsize
    parts = content.values() if isinstance(content, Mapping) else content if isinstance(content, list | tuple) else ()
    return sum(needed(part) for part in parts)


def reason(error: BaseException | None) -> int | None:
    """The number of the system's error, if it is one of a lack of room; None for all others.

    torch raises one of its own when it closes the file, and keeps the system's as what came before; safetensors has
    nothing but its text.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return error.errno
        if (found := re.search(r"\(os error (\d+)\)", str(error))) and int(found[1]) in NO_ROOM:
            return int(found[1])
        error = error.__cause__ or error.__context__
    return None
