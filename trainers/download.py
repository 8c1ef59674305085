"""Files from the network, kept whole in the user's cache or not at all.

No message shows what may be secret in an address: a user, a password, a query.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from functools import partial
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from trainers.atomic import write
from trainers.call import Invalid

PROTOCOLS = ("https", "http", "file")
SILENCE = 60  # seconds without a byte
LONG = 5  # seconds, after which somebody may wonder
BLOCK = 1 << 20  # bytes
SAFE = "/%:@!$&'()*+,;=~"  # in an address as it is, whatever is encoded there already


def download(url: str) -> Path:
    """The copy of a URL in the cache, fetched if it is not there. Raises `Invalid` when it cannot be had or kept."""
    if address(url).scheme not in PROTOCOLS:
        raise Invalid(f"cannot fetch {shown(url)}: write a path, or a URL of http, https or file", ("file",))
    file = place(url)
    try:
        if not file.is_file():
            write(file, partial(receive, url))
    except OSError as error:
        message = f"cannot keep {shown(url)} in {cache()}: {error.strerror or error}"
        raise Invalid(f"{message}; free space there, or set XDG_CACHE_HOME to another folder", ("file",)) from None
    return file


def cache() -> Path:
    """Where downloads are kept: $XDG_CACHE_HOME/tapath, or ~/.cache/tapath."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tapath"


def place(url: str) -> Path:
    """Where the copy is: each URL has its own, under a name that tells people what it is."""
    name = re.sub(r"[^\w.-]+", "_", address(url).path, flags=re.ASCII).strip("_")
    return cache() / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name[-60:]}"


def shown(url: str) -> str:
    """The address without what may be secret in it."""
    parts = address(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def address(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # whose text may have anything of the address in it
        raise Invalid("this is no URL; write a path, or a URL of http, https or file", ("file",)) from None


def receive(url: str, aside: Path) -> None:
    """Write what is behind a URL to a file. Raises `Invalid` as `blocks` does, and `OSError` of the file alone."""
    with open(aside, "wb") as handle:
        for block in blocks(url):
            handle.write(block)


def blocks(url: str) -> Iterator[bytes]:
    """What is behind a URL, bit by bit. Raises `Invalid` when it cannot be had, or ends before it should."""
    try:
        with urlopen(request(url), timeout=SILENCE) as response:
            length, got, started = response.headers.get("Content-Length", ""), 0, time.monotonic()
            while block := response.read(BLOCK):
                got += len(block)
                yield block
                if time.monotonic() > started + LONG:
                    started = float("inf")
                    sys.stderr.write(f"fetching {shown(url)} ...\n")
    except (OSError, HTTPException, ValueError) as error:
        raise Invalid(
            f"cannot fetch {shown(url)}: {reason(error)}; download it where there is a network and name the file",
            ("file",),
        ) from None
    if length.isdecimal() and got != int(length):
        raise Invalid(f"cannot fetch {shown(url)}: it ended after {got} of {length} bytes; try again", ("file",))


def request(url: str) -> Request:
    """Its user and password go to the server that it names and to no other that it may refer to."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    query = "" if parts.scheme == "file" else quote(parts.query, safe=f"{SAFE}?")
    asked = Request(urlunsplit((parts.scheme, host, quote(parts.path, safe=SAFE), query, "")))
    if user:
        asked.add_unredirected_header("Authorization", f"Basic {b64encode(unquote(user).encode()).decode()}")
    return asked


def reason(error: Exception) -> str:
    """What went wrong, without the address, which texts of errors may have in them."""
    if isinstance(error, HTTPError):
        return f"the server answers {error.code}"
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, OSError):
        return cause.strerror or str(cause) or type(cause).__name__
    if isinstance(error, URLError):
        return str(cause)
    return f"the answer or the address is malformed ({type(error).__name__})"
