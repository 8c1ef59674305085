"""What Linux says of memory: of this process, and of the machine or the container that we are in."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60  # what the first version of control groups has for no limit is more than that


def memory() -> tuple[int, int]:
    """How much memory this machine, or the container that we are in, uses and has; 0 where it does not say.

    What files are cached in is not used: it is given up where somebody needs it.
    """
    used = total = 0
    with suppress(OSError):
        text = (PROC / "meminfo").read_text()
        total, free = (field(text, name) * 1024 for name in ("MemTotal", "MemAvailable"))
        used = total - free
    names = (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    )
    for limit, usage, stat, cached in names:  # the second and the first version of control groups
        with suppress(OSError, ValueError):
            most = int((CGROUP / limit).read_text())
            if most < min(total or UNLIMITED, UNLIMITED):
                now, cache = int((CGROUP / usage).read_text()), 0
                with suppress(OSError):
                    cache = field((CGROUP / stat).read_text(), cached)
                return max(0, now - cache), most
    return used, total


def kills() -> int:
    """How many processes of this machine or container the kernel has killed for lack of memory."""
    count = 0
    for file in (PROC / "vmstat", CGROUP / "memory.events", CGROUP / "memory/memory.oom_control"):
        with suppress(OSError):
            count = max(count, field(file.read_text(), "oom_kill"))
    return count


def resident() -> int:
    """Bytes that this process has in memory now; 0 where nobody says."""
    return _own("VmRSS")


def peak() -> int:
    """The most at once, since it began or since that was counted anew; 0 where nobody says."""
    return _own("VmHWM")


def _own(name: str) -> int:
    with suppress(OSError):
        return field((PROC / "self/status").read_text(), name) * 1024
    return 0


def field(text: str, name: str) -> int:
    """The number behind a name at the beginning of a line."""
    found = re.search(rf"^{name}:?\s+(\d+)", text, flags=re.MULTILINE)
    return int(found[1]) if found else 0
