"""Batches of images: the same for the same seed, whatever the number of workers and of loader processes.

The order and the mirroring depend on (seed, epoch, image) alone, and the padding on the whole batch, so that
n workers together see what one would see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.augment import Resize, lengths
from trainers.call import Invalid
from trainers.data.processes import ahead
from trainers.data.split import Split
from trainers.outputs import Truth

COLOUR = (0.485, 0.456, 0.406)  # ImageNet's mean, which normalisation turns into 0; for the padding

Batch = tuple[Tensor, Truth]  # images (B, 3, H, W) float32 of 0..1, and what is in them


class Plan(NamedTuple):
    """What one worker's part of a batch is made of."""

    images: list[int]  # B positions in the split
    mirrored: list[bool]  # B
    size: tuple[int, int]  # height and width of the padded batch


class Batches:
    """Training batches, epoch by epoch; every one is full.

    batch counts images over all `world` workers, of which this is number `rank`: it gets every world-th image
    of each batch. flip is how often an image is mirrored. The last batch of an epoch is filled up from the
    epoch's beginning. Height and width are padded to multiples of divisor. With `masks` the truth has the masks
    of the objects, if the split has them. Raises `Invalid` if a batch is too small for all workers.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch: int,
        seed: int,
        flip: float = 0.0,
        resize: Resize | None = None,
        divisor: int = 32,
        rank: int = 0,
        world: int = 1,
        loader_workers: int = 0,
        masks: bool = False,
    ) -> None:
        if batch < world:
            raise Invalid(f"a batch of {batch} cannot be shared by {world} workers; take at most {batch} workers")
        self.split, self.batch, self.seed, self.flip = split, batch, seed, flip
        self.resize, self.divisor, self.rank, self.world = resize, divisor, rank, world
        self.loader_workers = loader_workers
        self.masks = masks and split.has_masks  # reads them now, so that loader processes need not each

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.split) // self.batch)

    def epoch(self, n: int) -> Iterator[Batch]:
        """The batches of epoch n, counted from 0."""
        rng = np.random.default_rng((self.seed, n))
        order = np.resize(rng.permutation(len(self.split)), self.steps * self.batch)
        # Drawn for all images at once: the i-th number is image i's, wherever the order puts it.
        mirrored = rng.random(len(self.split)) < self.flip
        plans = []
        for whole in order.reshape(self.steps, self.batch).tolist():
            mine = whole[self.rank :: self.world]
            size = padded(self.split, whole, resize=self.resize, divisor=self.divisor)
            plans.append(Plan(mine, mirrored[mine].tolist(), size))
        return load(self.split, plans, resize=self.resize, loader_workers=self.loader_workers, masks=self.masks)


def in_order(
    split: Split,
    *,
    batch: int,
    resize: Resize | None = None,
    divisor: int = 32,
    rank: int = 0,
    world: int = 1,
    loader_workers: int = 0,
) -> Iterator[Batch]:
    """Each image once, in the split's order and never mirrored: for measuring.

    The last batch may be smaller, and of a small one a worker may get nothing: workers can have different
    numbers of batches.
    """
    plans = []
    for start in range(0, len(split), batch):
        whole = list(range(start, min(start + batch, len(split))))
        if mine := whole[rank::world]:
            size = padded(split, whole, resize=resize, divisor=divisor)
            plans.append(Plan(mine, [False] * len(mine), size))
    return load(split, plans, resize=resize, loader_workers=loader_workers)


def padded(split: Split, images: Sequence[int], *, resize: Resize | None, divisor: int) -> tuple[int, int]:
    """The height and width that hold all these images, in multiples of divisor."""
    sizes = [resized(split.sizes[index], resize) for index in images]
    height, width = (-(-max(sides) // divisor) * divisor for sides in zip(*sizes, strict=True))
    return height, width


def resized(size: tuple[int, int], resize: Resize | None) -> tuple[int, int]:
    """(height, width) scaled until the short side is right, or the long side as long as it may be."""
    if resize is None:
        return size
    short, most = lengths(resize.short)[1], resize.long
    scale = min(short / min(size), most / max(size))
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return height, width


def load(
    split: Split, plans: list[Plan], *, resize: Resize | None, loader_workers: int, masks: bool = False
) -> Iterator[Batch]:
    """The batches of these plans, made here or ahead by so many processes."""
    work = partial(assemble, split, resize=resize, masks=masks)
    return ahead(work, plans, processes=loader_workers) if loader_workers else map(work, plans)


def assemble(split: Split, plan: Plan, *, resize: Resize | None, masks: bool = False) -> Batch:
    """Read, resize and mirror the images of a plan, and pad them at the right and at the bottom."""
    images = torch.tensor(COLOUR).view(1, 3, 1, 1).repeat(len(plan.images), 1, *plan.size)
    drawn: list[Tensor] = []
    truth = Truth(boxes=[], labels=[], sizes=[], ids=[], scales=[], masks=drawn if masks else None)
    for canvas, index, mirrored in zip(images, plan.images, plan.mirrored, strict=True):
        image, boxes = split.read(index), split.boxes(index)
        size = resized(split.sizes[index], resize)
        scale = (size[1] / split.sizes[index][1], size[0] / split.sizes[index][0])
        if size != split.sizes[index]:
            image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
            boxes = boxes * torch.tensor([*scale, *scale])
        if mirrored:
            image, boxes = mirror(image, boxes)
        torch.div(image, 255, out=canvas[:, : size[0], : size[1]])
        truth.boxes.append(boxes)
        truth.labels.append(split.labels(index))
        truth.sizes.append(size)
        truth.ids.append(split.ids[index])
        truth.scales.append(scale)
        if masks:
            drawn.append(mask(split, index, size=size, mirrored=mirrored, padded=plan.size))
    return images, truth


def mask(split: Split, index: int, *, size: tuple[int, int], mirrored: bool, padded: tuple[int, int]) -> Tensor:
    """The masks of an image of `masks`, treated as the image is. -> (N, H, W) bool of the padded batch."""
    masks = split.masks(index)
    assert masks is not None, "only asked of a split that has masks"
    if size != split.sizes[index]:
        # Each pixel becomes what the original shows at its middle.
        y, x = (
            ((torch.arange(new) + 0.5) * (old / new)).long() for new, old in zip(size, masks.shape[1:], strict=True)
        )
        masks = masks[:, y[:, None], x]
    if mirrored:
        masks = masks.flip(-1)
    return F.pad(masks, (0, padded[1] - size[1], 0, padded[0] - size[0]))


def mirror(image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Left becomes right. (3, H, W) and (N, 4) -> the same shapes."""
    x1, y1, x2, y2 = boxes.unbind(1)
    width = image.shape[-1]
    return image.flip(-1), torch.stack([width - x2, y1, width - x1, y2], dim=1)
