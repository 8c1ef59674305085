"""Memory for batches that is used again: that of a fresh batch costs as much as all that is written into it."""

from __future__ import annotations

import math
import sys

import numpy as np
import torch
from torch import Tensor

KEPT = 2  # canvases: whoever asks for a batch usually still holds the one before


def _idle() -> int:
    """References to memory that no tensor uses, as this Python counts them where the loop below looks."""
    for memory in [np.empty(1)]:
        return sys.getrefcount(memory)
    raise AssertionError("a list of one has one")


IDLE = _idle()


class Canvases:
    """Gives tensors of float32. The memory of one is given again when no tensor, nor any view of one, uses it."""

    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """A tensor that holds anything."""
        count = math.prod(shape)
        for memory in self.kept:
            if memory.size >= count and sys.getrefcount(memory) <= IDLE:
                break
        else:
            memory = np.empty(count, dtype=np.float32)
            self.kept = [memory, *self.kept][:KEPT]
        return torch.from_numpy(memory)[:count].view(shape)  # a tensor of numpy's memory holds a reference to it
