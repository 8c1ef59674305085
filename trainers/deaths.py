"""Why a process died, as far as anybody can know: what Ray says of it, and what was known of its memory."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from trainers.call import Spec

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
WITH_NODE = "died with its node"
UNLIMITED = 1 << 60  # what the first version of control groups has for no limit is more than that


class Life(Spec):
    """A process and its node when it last gave a sign of life; memory in bytes."""

    node: str  # by Ray's id
    pid: int
    peak: int  # of the process, the most at once since its stage began
    used: int  # of the node, or of the container that is the node
    total: int  # that the node has
    kills: int  # of processes by the kernel, for lack of memory, since the node began


def life(node: str) -> Life:
    """Of this process, now."""
    used, total = memory()
    return Life(node=node, pid=os.getpid(), peak=_peak(), used=used, total=total, kills=kills())


def why(said: str, last: Life | None, killed: int | None = None) -> str:
    """What became of a process, to follow its name. `said`: by Ray; `last`: what was known of it; `killed`: how many
    processes of its node the kernel has killed for memory by now, if anybody could ask."""
    if "low on memory" in said:
        return f"was ended by Ray, for its node had too little memory left{_figures(last)}"
    if last is not None and killed is not None and killed > last.kills:
        return f"was killed by the kernel, for its node had no memory left{_figures(last)}"
    if "creation task" in said:
        return f"could not begin: {said.strip().splitlines()[-1].strip()}"
    if re.search(r"node .*(died|dead|terminated|preempted|drained)", said, re.IGNORECASE | re.DOTALL):
        return WITH_NODE
    return "died"


def advice(why: str) -> str:
    """What somebody can do about such a death, if anything is known to help."""
    helps = "say in resources.memory what a stage takes, so that fewer share a node, or have fewer loader_workers"
    return helps if "memory left" in why else ""


def _figures(last: Life | None) -> str:
    if last is None:
        return ""
    peak, used, total = (f"{amount / 2**30:.3g}" for amount in (last.peak, last.used, last.total))
    return f": it had taken {peak} GiB, and {used} of {total} GiB of the node were in use when it was last heard of"


def memory() -> tuple[int, int]:
    """How much memory this machine, or the container that we are in, uses and has; 0 where it does not say."""
    used = total = 0
    with suppress(OSError):
        text = (PROC / "meminfo").read_text()
        total, free = (field(text, name) * 1024 for name in ("MemTotal", "MemAvailable"))
        used = total - free
    names = ("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")
    for limit, usage in names:  # the second and the first version of control groups
        with suppress(OSError, ValueError):
            most = int((CGROUP / limit).read_text())
            if most < min(total or UNLIMITED, UNLIMITED):
                return int((CGROUP / usage).read_text()), most
    return used, total


def kills() -> int:
    """How many processes of this machine or container the kernel has killed for lack of memory."""
    count = 0
    for file in (PROC / "vmstat", CGROUP / "memory.events", CGROUP / "memory/memory.oom_control"):
        with suppress(OSError):
            count = max(count, field(file.read_text(), "oom_kill"))
    return count


def _peak() -> int:
    with suppress(OSError):
        return field((PROC / "self/status").read_text(), "VmHWM") * 1024
    return 0


def field(text: str, name: str) -> int:
    """The number behind a name at the beginning of a line."""
    found = re.search(rf"^{name}:?\s+(\d+)", text, flags=re.MULTILINE)
    return int(found[1]) if found else 0
