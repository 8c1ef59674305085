"""The batches on which a worker trains, and what is said about them: made once for all who train on the same ones."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainers import build, workers
from trainers.asked import Asked
from trainers.clock import Clock
from trainers.data.batches import CPU, Batch, Batches
from trainers.order import Order
from trainers.outputs import Network, Outputs
from trainers.speed import next_batch

log = logging.getLogger(__name__)
Guide = Callable[[Tensor], Outputs]

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


@dataclass
class Made:
    """Something that was made once, for all who ask for it."""

    value: Any
    seconds: float  # that it took
    clocks: list[Clock]  # of those who have asked for it, each of whom has paid his part


class Feed:
    """Batches on a device, for several students who look at them in turn, each by a share.

    A batch is made when the first asks for it, and kept until another one is asked for; so is what a guide says of it.
    Whoever asks for batches in an order of his own gets the right ones, and shares nothing.
    """

    def __init__(
        self,
        batches: Batches,
        *,
        device: torch.device,
        more_come: Callable[[], bool] = lambda: False,
        all_forget: Callable[[], None] = lambda: None,
    ) -> None:
        """`more_come`: whether somebody who may share has not begun. `all_forget`: has every feed there is `forget`."""
        self.batches, self.device, self.more_come, self.all_forget = batches, device, more_come, all_forget
        self.shares: list[Share] = []
        batches.say = self._say
        self._source: Iterator[Batch] = iter(())
        self._next: tuple[int, int] | None = None  # the epoch and the step of what is made next
        self._at: tuple[int, int] | None = None  # of the batch that is kept
        self._kept: dict[Any, Made] = {}  # that batch, and what was said of it

    def share(self, clock: Clock, say: Callable[[str], None]) -> Share:
        """For one more student, whose clock goes while he takes his turn, and who is told of images that are bad."""
        self.shares.append(Share(self, clock, say))
        return self.shares[-1]

    def leave(self, clock: Clock) -> None:
        """The student with this clock needs no more. With the last, the processes go that load images."""
        self.shares = [one for one in self.shares if one.clock is not clock]
        if not self.shares:
            self._source, self._next, self._at, self._kept = iter(()), None, None, {}

    def batch(self, epoch: int, step: int, clock: Clock) -> Batch:
        """The batch of a step of an epoch, both counted from 0."""
        if self._at != (epoch, step):
            self._at, self._kept = None, {}
            if self._next != (epoch, step):
                self._source = self.batches.epoch(epoch, start=step)
            self._next = None  # should this fail
            next_batch(self.device, self.all_forget)
            self._once("batch", self._make, clock)
            self._at, self._next = (epoch, step), (epoch, step + 1)
            if step + 1 == self.batches.steps:
                next(self._source, None)  # lets the processes go that have made them
        batch: Batch = self._once("batch", self._make, clock)
        return batch

    def said(self, guide: Asked, images: Tensor, clock: Clock) -> Outputs:
        """What a guide says of images (B, 3, H, W): of the batch that is kept, or of a part of it, only once."""
        batch = self._kept.get("batch")
        # Alone nobody would ask again, and memory would be taken until the next batch.
        alone = len(self.shares) == 1 and not self.more_come()
        if alone or batch is None or not _of(images, batch.value[0]):
            return guide(images)
        precision = torch.is_autocast_enabled(images.device.type), torch.get_autocast_dtype(images.device.type)
        which = (id(guide), guide.towers, images.data_ptr(), images.shape, images.stride(), precision)
        whole = guide.whole or (True, *which) in self._kept  # as for somebody who has left meanwhile
        answer: Outputs = self._once((whole, *which), lambda: guide(images), clock)
        return answer

    def forget(self) -> None:
        """Keep nothing that was said: somebody needs the memory."""
        self._kept = {which: made for which, made in self._kept.items() if which == "batch"}

    def _make(self) -> Batch:
        images, truth = next(self._source)
        return images.to(self.device, non_blocking=True), truth.to(self.device)

    def _once(self, which: Any, make: Callable[[], Any], clock: Clock) -> Any:
        """What is kept, made now if it is not there. Its time is split evenly among all who have asked so far."""
        made = self._kept.get(which)
        if made is None:
            started = time.perf_counter()
            value = make()
            made = self._kept[which] = Made(value, time.perf_counter() - started, [clock])
        elif clock not in made.clocks:
            count = len(made.clocks)
            for other in made.clocks:
                other.count(made.seconds / (count + 1) - made.seconds / count)
            made.clocks.append(clock)
            clock.count(made.seconds / (count + 1))
        return made.value

    def _say(self, text: str) -> None:
        for one in self.shares:
            one.say(text)


class Share:
    """One student's share of a feed."""

    def __init__(self, feed: Feed, clock: Clock, say: Callable[[str], None]) -> None:
        self.feed, self.clock, self.say = feed, clock, say

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return self.feed.batches.steps

    @property
    def seed(self) -> int:
        return self.feed.batches.seed

    def epoch(self, n: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch n, counted from 0, without the first `start` of them."""
        for step in range(start, self.steps):
            yield self.feed.batch(n, step, self.clock)

    def asked(self, guide: Asked) -> Guide:
        """A guide of whom others may have asked the same."""
        return lambda images: self.feed.said(guide, images, self.clock)

    def forget(self) -> None:
        """Keep nothing that was said."""
        self.feed.forget()


def _of(images: Tensor, batch: Tensor) -> bool:
    """Whether images are some of a batch: in the very same memory."""
    return images.untyped_storage().data_ptr() == batch.untyped_storage().data_ptr()
