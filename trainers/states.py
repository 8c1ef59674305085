"""Where a half-trained stage stopped: files that are read back only if they are what was written, and run no code.

The last two are kept. Of a damaged one then an epoch is lost, and not all that was trained; it costs the room of one
state for each stage that is being trained.
"""

from __future__ import annotations

import errno
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from trainers.atomic import digest
from trainers.full import Full, fitting
from trainers.place import Place

NAMES = f"state-{'[0-9]' * 6}-*.pt"  # the epoch, and the SHA-256 of the file


def names(place: Place, key: str) -> list[str]:
    """Of the states of a stage, that of the last epoch last."""
    return list(place.find(f"{key}/{NAMES}"))


def epoch_of(name: str) -> int:
    return int(_said(name)[0])


def save(place: Place, key: str, epoch: int, state: dict[str, Any], *, guard: Callable[[], object]) -> None:
    """Write the state after an epoch and keep the one before; only this one where both have no room, or `Full`."""
    before = [name for name in names(place, key) if epoch_of(name) < epoch]
    try:
        new = _write(place, key, epoch, state, guard)
    except Full as full:
        # Other files have no part in a limit to the size of one, nor those in a bucket in a full disk here.
        if not before[:-1] or full.errno == errno.EFBIG or not isinstance(place.root, Path):
            raise
        guard()
        drop(place, before[:-1])
        new = _write(place, key, epoch, state, guard)
    drop(place, set(names(place, key)) - {new, *before[-1:]})


def _write(place: Place, key: str, epoch: int, state: dict[str, Any], guard: Callable[[], object]) -> str:
    told = place.file(f"{key}/state-{epoch:06d}.pt")
    with place.draft(f"{key}/state.pt") as draft, fitting(told, state, folder=draft.parent):
        with open(draft, "wb") as handle:  # given a name, torch would not tell that a disk is full
            torch.save(state, handle)
        name = f"{key}/state-{epoch:06d}-{digest(draft)}.pt"
        place.settle(draft, name, guard=guard)
    return name


def last(place: Place, key: str, *, say: Callable[[str], object]) -> tuple[str, dict[str, Any]] | None:
    """The last state that is whole, with its name. Those after it are set aside, of which `say` is told."""
    for name in names(place, key)[::-1]:
        with suppress(FileNotFoundError):  # set aside by another worker meanwhile
            if (state := read(place, name)) is not None:
                return name, state
            say(f"what was kept after epoch {epoch_of(name)} is damaged; it is set aside as {place.set_aside(name)}")
    return None


def read(place: Place, name: str) -> dict[str, Any] | None:
    """What is in this very file; None if it is not what was written."""
    with place.copy(name) as file:
        return whole(file) if digest(file) == _said(name)[1] else None


def whole(file: Path) -> dict[str, Any] | None:
    """What is in a file, if it is a state, and nothing but data."""
    if swells(file):
        return None
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # what only looks like a state makes torch raise anything
        if "alloc" in str(error):  # for want of memory, which is no fault of the file
            raise
        return None
    return state if isinstance(state, dict) else None


def swells(file: Path) -> bool:
    """Whether a file of torch becomes larger when it is read: torch packs nothing, and a bomb grows a thousandfold."""
    if not zipfile.is_zipfile(file):
        return False
    try:
        with zipfile.ZipFile(file) as opened:
            parts = opened.infolist()
    except (zipfile.BadZipFile, RuntimeError, ValueError):
        return True
    packed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
    return packed or sum(part.file_size for part in parts) > file.stat().st_size


def drop(place: Place, names: Iterable[str]) -> None:
    for name in names:
        place.remove(name)


def _said(name: str) -> list[str]:
    """The epoch and the digest in the name of a state."""
    return name.removesuffix(".pt").rsplit("-", 2)[1:]
