"""Why a process died, as far as anybody can know: what Ray says of it, and what was known of its memory."""

from __future__ import annotations

import os
import re

from trainers import proc
from trainers.call import Spec

WITH_NODE = "died with its node"


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
    used, total = proc.memory()
    return Life(node=node, pid=os.getpid(), peak=proc.peak(), used=used, total=total, kills=proc.kills())


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
