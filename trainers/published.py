"""Published weights: where they are, fetched once, and known by their content from then on.

Reading them is the part of `weights`.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.error import URLError

from pydantic import Field, model_validator

from trainers.spec import Invalid, Spec
from trainers.store import digest, set_aside

HASHED = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # names of published files end with the first digits of their SHA-256


class Source(Spec):
    """A path or a URL, as in `weights: gfl_r101.pth`; or `weights: {file: ..., sha256: ..., part: backbone}`."""

    file: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{8,64}$")] | None = None  # its first digits, at least 8
    part: Literal["detector", "backbone"] | None = None  # what to take; None: all that the file holds

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value

    @property
    def remote(self) -> bool:
        return "://" in self.file


def fetch(source: Source) -> tuple[Path, str]:
    """The file of a source, downloaded if it never was, and its SHA-256.

    Raises `Invalid` when it is not there, cannot be had, or has another SHA-256 than the source says; a downloaded
    one may not contradict its own name either.
    """
    file = _download(source.file) if source.remote else Path(source.file).expanduser()
    if not file.is_file():
        raise Invalid(f"there is no file {source.file} (from {Path.cwd()})", ("file",))
    found = digest(file)
    named = HASHED.search(source.file) if source.remote else None
    wanted = source.sha256 or (named.group(1) if named else "")
    if found.startswith(wanted):
        return file, found
    if source.remote:
        set_aside(file)
    raise Invalid(
        f"{source.file} has the SHA-256 {found}, not {wanted}...: it is damaged or another file; fetch it anew, or "
        f"write that sum to accept it",
        ("sha256",),
    )


def _download(url: str) -> Path:
    """The copy of a URL in the user's cache."""
    from torch.hub import download_url_to_file  # slow to import, and most studies fetch nothing

    if not url.startswith(("https://", "http://", "file://")):
        raise Invalid(f"cannot fetch {url}: write a path, or a URL of http, https or file", ("file",))
    file = cache() / re.sub(r"[^\w.-]+", "_", url.partition("://")[2])
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            download_url_to_file(url, str(file), progress=sys.stderr.isatty())
        except (URLError, OSError) as error:
            raise Invalid(
                f"cannot fetch {url}: {error}; download it where there is a network and name the file", ("file",)
            ) from None
    return file


def cache() -> Path:
    """Where downloads are kept: $XDG_CACHE_HOME/tapath, or ~/.cache/tapath."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tapath"
