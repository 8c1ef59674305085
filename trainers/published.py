"""Published weights: where they are, fetched once, and known by their content from then on.

Reading them is the part of `weights`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from trainers.atomic import digest, set_aside
from trainers.call import Invalid, Spec
from trainers.download import address, download, shown
from trainers.spec import Part
from trainers.store import Damaged, Store

HASHED = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # names of published files end with the first digits of their SHA-256


class Source(Spec):
    """A path or a URL, as in `weights: gfl_r101.pth`; or `weights: {file: ..., sha256: ..., part: backbone}`."""

    file: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{8,64}$")] | None = None  # its first digits, at least 8
    part: Part | None = None  # what to take; None: all that the file holds

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value

    @property
    def remote(self) -> bool:
        return "://" in self.file

    @property
    def place(self) -> str:
        """Where it is, wherever one looks from: the same relative path is another file in another folder."""
        return self.file if self.remote else str(Path(self.file).expanduser().absolute())

    def __str__(self) -> str:
        """As people may see it."""
        return shown(self.file) if self.remote else self.file


def fetch(source: Source, store: Store | None = None) -> tuple[Path, str]:
    """The file of a source, downloaded if it never was, and its SHA-256.

    Where it cannot be had, it is the copy that the store keeps of it, if it does. Raises `Invalid` when there is none,
    or when it has another SHA-256 than the source says; a downloaded one may not contradict its own name either.
    """
    try:
        file = _file(source)
    except Invalid:
        if (kept := _kept(source, store)) is None:
            raise
        return kept
    try:
        found = digest(file)
    except OSError as error:
        raise Invalid(f"{source} cannot be read: {error.strerror or error}", ("file",)) from None
    wanted = source.sha256 or _promised(source)
    if found.startswith(wanted):
        return file, found
    if source.remote:
        with suppress(FileNotFoundError):  # another process was quicker
            set_aside(file)
    raise Invalid(
        f"{source} has the SHA-256 {found}, not {wanted}...: it is damaged or another file; fetch it anew, or "
        f"write that sum to accept it",
        ("sha256",),
    )


def _file(source: Source) -> Path:
    """Where the file lies."""
    if source.remote:
        return download(source.file)
    file = Path(source.place)
    if not file.is_file():
        raise Invalid(f"there is no file {source} (from {Path.cwd()})", ("file",))
    return file


def _promised(source: Source) -> str:
    """The digits in the name of a URL's file, if they are some of a SHA-256; decimal ones may be a date."""
    named = HASHED.search(address(source.file).path) if source.remote else None
    return named[1] if named and not named[1].isdecimal() else ""


def _kept(source: Source, store: Store | None) -> tuple[Path, str] | None:
    """The store's copy of what the source was when it was last used, or of what it must be, and the SHA-256."""
    if store is None:
        return None
    wanted = source.sha256 or ""
    for sha256 in (store.known(source.place) or "", wanted):
        if len(sha256) == 64 and sha256.startswith(wanted):
            with suppress(Damaged):
                return store.published(sha256), sha256
    return None
