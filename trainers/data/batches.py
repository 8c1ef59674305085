"""Batches of images: the same for the same seed, whatever the number of workers and of loader processes.

The order and what chance does depend on (seed, epoch, image) alone, and the padding on the whole batch, so that
n workers together see what one would see.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainers.augment import Crop, Resize
from trainers.call import Invalid
from trainers.data.canvases import Canvases
from trainers.data.processes import PATIENCE, ahead
from trainers.data.sampling import Sample, groups, samples, steps
from trainers.data.split import Split
from trainers.data.views import Chance, Look
from trainers.outputs import Truth

if TYPE_CHECKING:
    from trainers.data.assemble import Bad

CPU = torch.device("cpu")
log = logging.getLogger(__name__)

Batch = tuple[Tensor, Truth]  # images (B, 3, H, W) float32 of 0..1, and what is in them


class Batches:
    """Training batches, epoch by epoch; every one is full.

    batch counts images over all `world` workers, of which this is number `rank`: it gets every world-th image
    of each batch. resize, crop, flip and group are those of a recipe. The last batch of an epoch, or of each group, is
    filled up from its beginning. Height and width are padded to multiples of divisor. With `masks` the truth has the
    masks of the objects, if the split has them, and with `ignore` what is to be ignored, if any image has such.

    A batch is on the CPU, but where `device` is a GPU it is there already. A loader process that has made no batch for
    `patience` seconds hangs. An image that cannot be read is replaced by another, and `say` is told once. Raises
    `Invalid` when more than `bad_images` different ones of this worker could not be read, and if a batch is too small
    for all workers.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch: int,
        seed: int,
        flip: float = 0.0,
        resize: Resize | None = None,
        crop: Crop | None = None,
        group: bool = False,
        divisor: int = 32,
        rank: int = 0,
        world: int = 1,
        loader_workers: int = 0,
        patience: float = PATIENCE,
        masks: bool = False,
        ignore: bool = False,
        bad_images: int = 0,
        say: Callable[[str], None] = log.warning,
        device: torch.device = CPU,
    ) -> None:
        if batch < world:
            raise Invalid(f"a batch of {batch} cannot be shared by {world} workers; take at most {batch} workers")
        self.split, self.batch, self.seed = split, batch, seed
        self.look = Look(resize, crop, flip)
        self.grouped, self.groups = group, groups(split.sizes, group=group)
        self.divisor, self.rank, self.world, self.loader_workers = divisor, rank, world, loader_workers
        self.masks = masks and split.has_masks  # reads them now, so that loader processes need not each
        self.ignored = ignore and split.has_ignored
        self.bad_images, self.patience, self.say, self.device = bad_images, patience, say, device
        self.bad: dict[int, str] = {}  # why, by the id of each image that could not be read

    @property
    def kind(self) -> tuple[object, ...]:
        """What makes them the same as others: equal ones of the same images are the same in every epoch."""
        order = (self.batch, self.seed, self.grouped, self.rank, self.world)
        return (id(self.split), *order, self.look, self.divisor, self.masks, self.ignored, self.bad_images)

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return steps(self.groups, self.batch)

    def epoch(self, n: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch n, counted from 0, without the first `start` of them."""
        plan = list(samples(self.groups, batch=self.batch, seed=self.seed, epoch=n))[start:]
        loaded = _load(
            self.split,
            plan,
            look=self.look,
            divisor=self.divisor,
            rank=self.rank,
            world=self.world,
            masks=self.masks,
            ignored=self.ignored,
            spare=self.bad_images,
            loader_workers=self.loader_workers,
            patience=self.patience,
            device=self.device,
        )
        for batch, bad in loaded:
            self._note(bad)
            yield batch

    def forget(self) -> None:
        """Nothing: what was made is not kept. See `trainers.feeding.Share`."""

    def _note(self, bad: dict[int, Bad]) -> None:
        """Count bad images where all their batches come by in order, so that the number of processes tells nothing."""
        from trainers.data.assemble import too_many

        for identity, (reason, instead) in bad.items():
            if identity not in self.bad:
                self.bad[identity] = reason
                self.say(f"image {identity} is left out, image {instead} takes its place: {reason}")
        if len(self.bad) > self.bad_images:
            raise too_many(self.bad, self.bad_images)


def in_order(
    split: Split,
    *,
    batch: int,
    resize: Resize | None = None,
    divisor: int = 32,
    rank: int = 0,
    world: int = 1,
    loader_workers: int = 0,
    device: torch.device = CPU,
) -> Iterator[Batch]:
    """Each image once, in the split's order, as large as it may be resized and not otherwise changed: for measuring.

    The last batch may be smaller. Of `world` workers each gets every world-th batch, as a whole: what a network says
    of an image can depend, in its last bits, on how many there are with it, and so does not depend on the workers.
    One may get a batch less than another, or none. An image that cannot be read is an error. A batch is on the CPU, but
    where `device` is a GPU it is there already.
    """
    wholes = [range(start, min(start + batch, len(split))) for start in range(rank * batch, len(split), world * batch)]
    loaded = _load(
        split,
        [Sample(list(whole), [Chance()] * len(whole)) for whole in wholes],
        look=Look(resize).measuring,
        divisor=divisor,
        rank=0,
        world=1,
        masks=False,
        ignored=False,
        spare=None,
        loader_workers=loader_workers,
        device=device,
    )
    return (batch for batch, _ in loaded)


def _load(
    split: Split,
    plan: Sequence[Sample],
    *,
    look: Look,
    divisor: int,
    rank: int,
    world: int,
    masks: bool,
    ignored: bool,
    spare: int | None,
    loader_workers: int,
    patience: float = PATIENCE,
    device: torch.device = CPU,
) -> Iterator[tuple[Batch, dict[int, Bad]]]:
    """The batches of this plan, made here or ahead by so many processes, and the bad images of each."""
    # It brings torchvision, for which a plan of a study need not wait; and none of the processes has to load it again.
    from trainers.data.assemble import Desk
    from trainers.data.lanes import lane_to, sent

    if len(split):
        split.labels(0)  # is indexed now, so that no process has to do it for itself
    desk = Desk(split, look, divisor, rank, world, masks, ignored, spare, shared=loader_workers > 0)
    if loader_workers:
        parts = ahead(desk.assemble, plan, processes=loader_workers, patience=patience)
    else:
        parts = map(desk.assemble, plan)
    lane = lane_to(device)
    if lane is not None:
        return ((sent(part, lane), part.bad) for part in parts)
    canvases = Canvases()
    return ((part.batch(canvases), part.bad) for part in parts)
