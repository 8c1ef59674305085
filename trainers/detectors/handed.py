"""Small lists of numbers that the host knows and a device needs, handed over without waiting for the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def handed(numbers: Sequence[Any], device: torch.device, *, dtype: torch.dtype | None = None) -> Tensor:
    """The numbers as a tensor on a device; `dtype` as in `torch.tensor`.

    `torch.tensor(numbers, device=...)` would have the host wait until a GPU has done all that it was asked for before.
    From pinned memory the copy takes its turn there, and torch keeps that memory until it has been read.
    """
    made = torch.tensor(numbers, dtype=dtype)
    if device.type == "cuda":
        made = made.pin_memory()
    return made.to(device, non_blocking=True)
