"""How batches come to a GPU: as bytes, from pinned memory, on a stream of their own, while the step before goes on.

The host is ahead of a GPU: when it asks for the next batch, what it has asked for before is still being computed. So a
copy that does not wait its turn behind that is done when its batch is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from trainers.data.assemble import COLOUR, Part
from trainers.data.views import Size
from trainers.outputs import Truth

Batch = tuple[Tensor, Truth]


class Lane(Protocol):
    """A way to a device beside what is computed there."""

    device: torch.device

    def ready(self, x: Tensor) -> Tensor:
        """The same in memory from which it is copied while the host goes on."""

    def beside(self) -> AbstractContextManager[Any]:
        """What is asked for within does not wait for what is computed."""

    def join(self, *tensors: Tensor) -> None:
        """What is computed from now on waits for all that came on this lane; it reads these tensors."""


class Stream:
    """A stream of a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # Before all others: the host waits for what little is computed here, and they keep the device full.
        self.stream = torch.cuda.Stream(device, priority=-1)

    def ready(self, x: Tensor) -> Tensor:
        return x.pin_memory()

    def beside(self) -> AbstractContextManager[Any]:
        return torch.cuda.stream(self.stream)

    def join(self, *tensors: Tensor) -> None:
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self.stream)
        for x in tensors:
            x.record_stream(computing)  # or its memory would be given away when the lane is through with it


def sent(part: Part, lane: Lane) -> Batch:
    """One worker's part of a batch on a device: what `Part.batch` makes on the CPU, to the bit.

    All boxes go in one copy, as do all labels; the images are bytes until they are there.
    """
    with lane.beside():
        pixels = _there(part.pixels, lane)
        # By a tensor: a GPU multiplies by the inverse of a number instead, which rounds differently.
        images = pixels.float().div_(torch.full((), 255.0, device=lane.device))
        if any(size != images.shape[2:] for size in part.sizes):
            images = torch.where(
                _real(part.sizes, images, lane), images, _there(torch.tensor(COLOUR), lane)[:, None, None]
            )
        boxes, labels = _split(part.boxes, lane), _split(part.labels, lane)
        ignored = _split(part.ignored, lane) if part.ignored else None
        masks = [_there(mask, lane) for mask in part.masks] or None
    lane.join(images, *boxes, *labels, *(ignored or ()), *(masks or ()))
    return images, Truth(boxes, labels, part.sizes, part.ids, part.scales, masks, ignored, lane)


def _real(sizes: Sequence[Size], images: Tensor, lane: Lane) -> Tensor:
    """Which pixels of images (B, 3, H, W) are no padding. -> (B, 1, H, W) bool."""
    size = _there(torch.tensor(sizes), lane)[:, :, None, None, None]  # (B, 2, 1, 1, 1)
    y, x = (torch.arange(side, device=images.device) for side in images.shape[2:])
    return (y[:, None] < size[:, 0]) & (x < size[:, 1])


def _there(x: Tensor, lane: Lane) -> Tensor:
    return lane.ready(x).to(lane.device, non_blocking=True)


def _split(arrays: Sequence[np.ndarray], lane: Lane) -> list[Tensor]:
    """Arrays of several images, copied as one. B of (N, ...) -> B of (N, ...)."""
    whole = _there(torch.from_numpy(np.concatenate(arrays)), lane)
    return list(whole.split([len(one) for one in arrays]))


@cache
def lane_to(device: torch.device) -> Lane | None:
    """The lane to a GPU; None where batches are needed on the CPU. There is one: memory that a stream has used is kept
    for that stream."""
    return Stream(device) if device.type == "cuda" else None
