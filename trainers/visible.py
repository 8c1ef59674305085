"""What another machine has written, and this one may not see yet.

A client of NFS looks at a listing that it remembers, by default for up to a minute (acdirmax in nfs(5)). So what is
known to be written is called missing only after that; what nobody knows of is not waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 70.0  # seconds
LOOK = 0.5


def awaited(look: Callable[[], T | None]) -> T | None:
    """What `look` finds as soon as it finds it; None if it does not for `PATIENCE` seconds."""
    late = time.monotonic() + PATIENCE
    while (found := look()) is None and time.monotonic() < late:
        time.sleep(min(LOOK, PATIENCE / 10))
    return found
