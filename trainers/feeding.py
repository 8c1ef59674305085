"""The batches on which a worker trains, and what is said about them: made once for all who train on the same ones."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from trainers import build, workers
from trainers.clock import Clock
from trainers.data.batches import CPU, Batch, Batches
from trainers.order import Order
from trainers.outputs import Network, Outputs

log = logging.getLogger(__name__)

# A loader process may hang twice until its stage fails, which is to be known before the stage itself counts as hung.
LOADERS = 3


def batches(
    order: Order,
    data: Any,
    student: Network,
    say: Callable[[str], None] = log.warning,
    *,
    device: torch.device = CPU,
) -> Batches:
    """The training batches of this worker, for a device."""
    recipe = order.stage.recipe
    return Batches(
        data.train,
        batch=recipe.batch,
        seed=order.stage.seed,
        flip=recipe.flip,
        resize=recipe.resize,
        crop=recipe.crop,
        group=recipe.group,
        divisor=build.divisor(student),
        rank=workers.rank(),
        world=workers.count(),
        loader_workers=order.loader_workers,
        patience=order.silence / LOADERS,
        masks=getattr(student, "needs_masks", False),
        ignore=recipe.ignore,
        bad_images=order.bad_images,
        say=say,
        device=device,
    )


class Feed:
    """Batches on a device, for one student or for several who look at them in turn.

    Each batch is made when the first asks for it, and kept until another one is asked for; so is what a guide says of
    it. Whoever asks for batches in an order of his own gets the right ones, and shares nothing. Who shares does not
    change what is in a batch that he got. The time that something takes is split among the `clocks` of all who share.
    """

    def __init__(self, batches: Batches, *, device: torch.device) -> None:
        self.batches, self.device = batches, device
        self.clocks: list[Clock] = []
        self._made: Iterator[Batch] = iter(())
        self._next: tuple[int, int] | None = None  # the epoch and the step of what is made next
        self._at: tuple[int, int] | None = None  # of the batch that is kept
        self._batch: Batch | None = None
        self._said: dict[Any, Outputs] = {}  # of it

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return self.batches.steps

    @property
    def seed(self) -> int:
        return self.batches.seed

    def epoch(self, n: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch n, counted from 0, without the first `start` of them."""
        for step in range(start, self.steps):
            yield self._get(n, step)

    def _get(self, epoch: int, step: int) -> Batch:
        if self._at != (epoch, step):
            self._batch, self._at, self._said = None, None, {}
            if self._next != (epoch, step):
                self._made = self.batches.epoch(epoch, start=step)
            self._next = None  # should this fail
            with self._paid():
                images, truth = next(self._made)
                self._batch = images.to(self.device, non_blocking=True), truth.to(self.device)
            self._at, self._next = (epoch, step), (epoch, step + 1)
            if step + 1 == self.steps:
                next(self._made, None)  # lets the processes go that have made them
        assert self._batch is not None
        return self._batch

    def asked(self, guide: Callable[[Tensor], Outputs]) -> Callable[[Tensor], Outputs]:
        """What a guide says of images (B, 3, H, W): of a batch of ours, or of the same part of one, only once."""

        def said(images: Tensor) -> Outputs:
            if (
                self._batch is None
                or images.untyped_storage().data_ptr() != self._batch[0].untyped_storage().data_ptr()
            ):
                return guide(images)
            precision = torch.is_autocast_enabled(images.device.type), torch.get_autocast_dtype(images.device.type)
            which = (id(guide), images.data_ptr(), images.shape, images.stride(), precision)
            if which not in self._said:
                with self._paid():
                    self._said[which] = guide(images)
            return self._said[which]

        return said

    @contextmanager
    def _paid(self) -> Iterator[None]:
        """What happens inside is for all who share: each has his part of the time."""
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        for clock in self.clocks if len(self.clocks) > 1 else ():
            clock.count(seconds / len(self.clocks) - (0.0 if clock.stands else seconds))
