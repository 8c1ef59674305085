"""How much memory this process has taken of a device, and how much is left: of a GPU, or of the machine."""

from __future__ import annotations

from contextlib import suppress

import torch

from trainers import deaths, usage

UNKNOWN = 1 << 62  # left, where the system does not say


def used(device: torch.device) -> int:
    """Bytes that this process has now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    with suppress(OSError):
        return deaths.field((deaths.PROC / "self/status").read_text(), "VmRSS") * 1024
    return 0


def most(device: torch.device) -> int:
    """Bytes that it had, the most at once since a stage began; 0 where the system does not say."""
    with suppress(OSError, ValueError):
        return usage.peak(device)
    return 0


def free(device: torch.device) -> int:
    """Bytes that it may still have, as long as nobody else takes them."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    taken, total = deaths.memory()
    return total - taken if total else UNKNOWN
