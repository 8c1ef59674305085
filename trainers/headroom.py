"""How much memory this process has taken of a device, and how much is left: of a GPU, or of the machine."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch

from trainers import proc, usage

UNKNOWN = 1 << 62  # left, where the system does not say
FOR_ALL = (0, 0)  # the pool of what is not recorded


def used(device: torch.device) -> int:
    """Bytes that this process has now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return proc.resident()


def most(device: torch.device) -> int:
    """Bytes that it had, the most at once since a stage began; 0 where the system does not say."""
    return usage.peak(device)


def free(device: torch.device) -> int:
    """Bytes that it may still have, as long as nobody else takes them."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept - _set_apart(device)
    taken, total = proc.memory()
    return total - taken if total else UNKNOWN


def _set_apart(device: torch.device) -> int:
    """Bytes of a GPU that no tensor has, and that torch keeps for what is recorded there. To list all that it keeps
    takes a while, so this is not for every step."""
    index = torch.cuda.current_device() if device.index is None else device.index
    segments: list[dict[str, Any]] = []
    with suppress(RuntimeError):  # of an allocator that knows no segments
        segments = torch.cuda.memory_snapshot()
    return sum(
        segment["total_size"] - segment["allocated_size"]
        for segment in segments
        if segment.get("device", index) == index and segment.get("segment_pool_id", FOR_ALL) != FOR_ALL
    )
