"""Where the files of a store lie: what a folder and a bucket both can do.

Files have names with `/` in them, such as `0123456789abcdef/result.json`, the same wherever the place is. What goes
wrong is an `OSError`: a `FileNotFoundError` where there is no such file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, Protocol


class Found(NamedTuple):
    """What is known of a file unread."""

    size: int  # bytes
    changed: float  # seconds since 1970
    version: str  # another for other content; empty where only reading tells


class Place(Protocol):
    """Files that are there whole or not at all, for every process that knows the address."""

    pause: float  # seconds to wait between two looks at what others do

    @property
    def root(self) -> Path | str:
        """As it was named: a path, or an address."""

    @property
    def address(self) -> str:
        """The same from whichever folder one looks."""

    def file(self, name: str) -> Path | str:
        """What a file is called outside of the place."""

    def find(self, pattern: str) -> Mapping[str, Found]:
        """The files whose names match, in order; `*` and `[0-9]` match within one part of a name."""

    def look(self, name: str) -> Found | None:
        """What is known of a file; None if there is none."""

    def read(self, name: str) -> bytes:
        """All of a small file."""

    def read_all(self, names: Iterable[str]) -> Iterable[tuple[str, bytes]]:
        """All of many small files, in their order; those that are gone or cannot be read are passed over."""

    def copy(self, name: str) -> AbstractContextManager[Path]:
        """A file of this machine with the same content, while the block lasts. It may be the very file: read only."""

    def lasting_copy(self, name: str) -> Path:
        """The same, while the process lasts."""

    def draft(self, name: str) -> AbstractContextManager[Path]:
        """A path of our own to write a file at, which is gone when the block ends."""

    def settle(self, draft: Path, name: str, *, guard: Callable[[], object] = bool) -> None:
        """Make a draft the file of this name, whole, whatever had the name before. `guard` is called in the last
        moment; if that raises, all is as it was."""

    def create(self, name: str, text: str) -> bool:
        """Make a file that is not there; -> whether we did. Of many that try at once one does."""

    def swap(self, name: str, old: bytes, text: str) -> bool:
        """Write over a file if it still is the old; -> whether we did."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def tidy(self, folder: str) -> None:
        """Remove from a folder what processes that were killed have half written."""

    def set_aside(self, name: str) -> Path | str:
        """Rename a damaged file so that nobody reads it again; -> what it is called then, outside of the place."""

    def confine(self, name: str) -> None:
        """Raise `Invalid` where a name leads out of the place, as a symbolic link may."""

    def reachable(self) -> None:
        """Raise `Invalid` at ("resources", "store") soon when nothing can be asked here. What is asked without this is
        asked again for about a minute, and then is an `OSError`."""

    def writable(self) -> None:
        """Raise `Invalid` at ("resources", "store") when nothing can be stored here, or not safely."""

    def glimpse(self) -> Place:
        """The same place as it was at one moment, if looking at each file would take much longer."""


def matches(name: str, pattern: str) -> bool:
    """Whether `find` would find it."""
    names, parts = name.split("/"), pattern.split("/")
    return len(names) == len(parts) and all(map(fnmatchcase, names, parts))


def write(place: Place, name: str, text: str, *, guard: Callable[[], object] = bool) -> None:
    """Have a small file of this name with this text."""
    with place.draft(name) as draft:
        draft.write_text(text)
        place.settle(draft, name, guard=guard)
