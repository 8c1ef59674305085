"""Files that are there whole or not at all, whenever the process dies or the disk is full."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from trainers.alive import MARK, ended, mark
from trainers.call import Invalid

# How file systems say that they have no hard links, and those that hide the answer behind rights.
LINKLESS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK}
UNFLUSHABLE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # folders of some network file systems

ASIDE = re.compile(rf"\..+\.(?:({MARK})-)?[0-9a-f]{{32}}")  # a file before it has its name
DAY = 86400.0  # seconds


def write(file: Path, fill: Callable[[Path], object], *, guard: Callable[[], object] = bool) -> None:
    """Fill a file beside its place, flush it to the disk, and rename it: it is there whole or not at all. `guard` is
    called before it is renamed; if that raises, the file is as it was."""
    with beside(file) as aside:
        fill(aside)
        flush(aside)
        guard()
        aside.rename(file)


def write_new(fills: Mapping[Path, Callable[[Path], object]]) -> None:
    """Fill new files beside their places, and name them when all are whole: in the end all are there, or none.

    Nothing is written over, folders are made where they are missing. After an error all is as it was: `Invalid` names
    the file of an `OSError`, whatever else is raised passes through. A process that is killed while it names the
    files may leave some of them, each whole, or, where there are no hard links, one of them empty.
    """
    asides = {file: _aside(file) for file in fills}
    ours: dict[Path, os.stat_result] = {}
    made: list[Path] = []
    place = Path()
    try:
        for place, fill in fills.items():
            _make(place.parent, made)
            fill(asides[place])
            flush(asides[place])
            ours[place] = asides[place].lstat()
        for place, aside in asides.items():
            _name(aside, place)
        for place in asides:
            asides[place].unlink(missing_ok=True)  # a renamed one is gone
        for place in {each.parent: each for each in [*fills, *made]}.values():
            _flush_folder(place.parent)
    except OSError as error:
        left = _undo(asides, ours, made)
        ending = f"these cannot be removed: {', '.join(map(str, left))}" if left else "nothing was written"
        raise Invalid(f"cannot write {place}: {error.strerror or error}; {ending}") from None
    except BaseException:
        _undo(asides, ours, made)
        raise


def create(file: Path, text: str) -> bool:
    """Make a file that is not there, whole; -> whether we did. Of many that try at once one does."""
    with beside(file) as aside:
        aside.write_text(text)
        flush(aside)
        try:
            _link(aside, file)
        except FileExistsError:
            return False
        _flush_folder(file.parent)
    return True


@contextmanager
def beside(file: Path) -> Iterator[Path]:
    """A name of our own beside a file's place; what is still there in the end is removed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(file)
    try:
        yield aside
    finally:
        aside.unlink(missing_ok=True)


def flush(file: Path) -> None:
    with open(file, "rb+") as handle:
        os.fsync(handle.fileno())


def digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(file, "rb") as handle:
        hasher = hashlib.sha256()
        while block := handle.read(1 << 20):
            hasher.update(block)
        return hasher.hexdigest()


def left_behind(folder: Path) -> list[Path]:
    """What processes that were killed were about to write in a folder: files of those of this machine that are no more,
    and of any that are older than a day, when no clock is so wrong that somebody could still write them."""
    found = []
    with suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.scandir(folder):
            with suppress(FileNotFoundError):
                # Only these are looked at: a store may have thousands of folders.
                if ASIDE.fullmatch(entry.name) and is_left_behind(
                    entry.name, entry.stat(follow_symlinks=False).st_mtime
                ):
                    found.append(Path(entry.path))
    return sorted(found)


def is_left_behind(name: str, changed: float) -> bool:
    """Whether a file of this name is one of those; `changed`: when it was, in seconds since 1970."""
    aside = ASIDE.fullmatch(name)
    return aside is not None and (ended(aside[1] or "") or time.time() - changed > DAY)


def set_aside(file: Path) -> Path:
    """Rename a damaged file so that nobody reads it again; -> its new name."""
    aside = file.with_name(f"{file.name}.corrupt")
    file.rename(aside)
    return aside


def _aside(file: Path) -> Path:
    return file.with_name(f".{file.name}.{mark()}-{uuid4().hex}")


def _make(folder: Path, made: list[Path]) -> None:
    """Make a folder and those above it; the new ones are added to `made`."""
    for each in [*reversed(folder.parents), folder]:
        if not each.is_dir():
            made.append(each)  # first, as nobody knows what an interrupt leaves undone
            try:
                each.mkdir()
            except FileExistsError:  # made by another process meanwhile, or no folder
                made.pop()
                if not each.is_dir():
                    raise


def _name(aside: Path, file: Path) -> None:
    """Give a whole file its name, unless something has that name."""
    try:
        _link(aside, file)
    except FileExistsError:
        raise Invalid(f"{file} is there already and is not written over; nothing was written") from None


def _link(aside: Path, file: Path) -> None:
    """The same, with a `FileExistsError` if something has it."""
    try:
        os.link(aside, file)
    except OSError as error:
        if error.errno not in LINKLESS:
            raise
        # A rename would write over what is there; an empty file of ours is all that it can find.
        handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        try:
            os.close(handle)
            os.rename(aside, file)
        except BaseException:
            file.unlink()
            raise


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNFLUSHABLE:
            raise
    finally:
        os.close(handle)


def _undo(asides: Mapping[Path, Path], ours: Mapping[Path, os.stat_result], made: list[Path]) -> list[Path]:
    """Remove what `write_new` made. -> what is still there, but for folders that others use by now."""
    left = []
    for file, aside in asides.items():
        for each in (file, aside):
            try:
                # By its identity, as another process may have a file of that name.
                if each is aside or (file in ours and os.path.samestat(each.lstat(), ours[file])):
                    each.unlink()
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError:
                left.append(each)
    for folder in reversed(made):
        with suppress(OSError):
            folder.rmdir()
    return left
