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

from trainers.atomic import beside, digest, flush, set_aside
from trainers.full import Full, fitting

NAMES = f"state-{'[0-9]' * 6}-*.pt"  # the epoch, and the SHA-256 of the file


def files(folder: Path) -> list[Path]:
    """The states in a stage's folder, that of the last epoch last."""
    return sorted(folder.glob(NAMES))


def epoch_of(file: Path) -> int:
    return int(file.stem.split("-")[1])


def save(folder: Path, epoch: int, state: dict[str, Any], *, guard: Callable[[], object]) -> None:
    """Write the state after an epoch and keep the one before; only this one where both have no room, or `Full`."""
    before = [file for file in files(folder) if epoch_of(file) < epoch]
    try:
        file = _write(folder, epoch, state, guard)
    except Full as full:
        if not before[:-1] or full.errno == errno.EFBIG:  # which other files have no part in
            raise
        drop(before[:-1])
        file = _write(folder, epoch, state, guard)
    drop(set(files(folder)) - {file, *before[-1:]})


def _write(folder: Path, epoch: int, state: dict[str, Any], guard: Callable[[], object]) -> Path:
    with beside(folder / "state.pt") as aside, fitting(folder / f"state-{epoch:06d}.pt", state):
        with open(aside, "wb") as handle:  # given a name, torch would not tell that a disk is full
            torch.save(state, handle)
        flush(aside)
        place = folder / f"state-{epoch:06d}-{digest(aside)}.pt"
        guard()
        return aside.rename(place)


def last(folder: Path, *, say: Callable[[str], object]) -> dict[str, Any] | None:
    """The last state that is whole. Those after it are set aside, of which `say` is told."""
    for file in files(folder)[::-1]:
        with suppress(FileNotFoundError):  # set aside by another worker meanwhile
            if (state := whole(file)) is not None:
                return state
            say(f"what was kept after epoch {epoch_of(file)} is damaged; it is set aside as {set_aside(file)}")
    return None


def after(folder: Path, epoch: int) -> dict[str, Any] | None:
    """The state after this epoch, if it can be seen here."""
    for file in files(folder):
        with suppress(FileNotFoundError):
            if epoch_of(file) == epoch and (state := whole(file)) is not None:
                return state
    return None


def whole(file: Path) -> dict[str, Any] | None:
    """What is in a file, if it is what was written, and nothing but data."""
    if file.stem.rsplit("-", 1)[1] != digest(file) or swells(file):
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


def drop(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
