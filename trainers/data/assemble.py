"""One batch: images read, seen as their recipe has it, and laid on one canvas; what cannot be read is replaced."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.call import Invalid
from trainers.data.canvases import Canvases
from trainers.data.geometry import seen
from trainers.data.sampling import Sample
from trainers.data.split import Split
from trainers.data.views import Chance, Look, Size, canvas
from trainers.outputs import Truth

COLOUR = (0.485, 0.456, 0.406)  # ImageNet's mean, which normalisation turns into 0; for the padding


class Bad(NamedTuple):
    """An image that could not be read: why, and the id of the image in its place."""

    reason: str
    instead: int


class Part(NamedTuple):
    """One worker's part of a batch as it comes from another process: bytes, and few tensors, which are a file each."""

    pixels: Tensor  # (B, 3, H, W) uint8, anything in the padding
    boxes: list[np.ndarray]
    labels: list[np.ndarray]
    sizes: list[Size]
    ids: list[int]
    scales: list[tuple[float, float]]
    masks: list[Tensor]  # empty if nobody wants them
    ignored: list[np.ndarray]  # empty if nobody wants them
    bad: dict[int, Bad]  # by id

    def batch(self, canvases: Canvases) -> tuple[Tensor, Truth]:
        """Images (B, 3, H, W) float32 of 0..1, with the padding's colour at the right and at the bottom, and truth."""
        images = canvases.empty(tuple(self.pixels.shape))
        images.copy_(self.pixels).div_(255)  # in two passes over all: dividing bytes takes twice as long
        for place, (height, width) in zip(images, self.sizes, strict=True):
            for channel, colour in zip(place, COLOUR, strict=True):
                channel[height:] = colour
                channel[:height, width:] = colour
        boxes, labels, ignored = (
            [torch.from_numpy(x) for x in column] for column in (self.boxes, self.labels, self.ignored)
        )
        return images, Truth(boxes, labels, self.sizes, self.ids, self.scales, self.masks or None, ignored or None)


class Desk(NamedTuple):
    """Where batches are put together, one as the other."""

    split: Split
    look: Look
    divisor: int  # height and width are padded to multiples of it
    rank: int  # this worker gets every world-th image of a batch, from this one on
    world: int
    masks: bool  # whether the truth has them
    ignored: bool  # whether the truth says what is to be ignored
    spare: int | None  # how many images may be bad; None: a bad one is raised as what it is
    shared: bool = False  # in memory that another process can take over without copying it

    def assemble(self, sample: Sample) -> Part:
        """This worker's part of a batch.

        The canvas is that of the whole batch. A bad image is replaced by the next of the split that fits on it, so
        what replaces it does not depend on who does it. Raises `Invalid` if there are more bad ones than spare.
        """
        sizes = self.split.sizes
        whole = [
            self.look.at(sizes[index], chance) for index, chance in zip(sample.images, sample.chances, strict=True)
        ]
        room = canvas([view.size for view in whole], self.divisor)
        mine = slice(self.rank, None, self.world)
        part = Part(_pixels(len(whole[mine]), room, shared=self.shared), [], [], [], [], [], [], [], {})
        for place, index, chance in zip(part.pixels, sample.images[mine], sample.chances[mine], strict=True):
            index, image = self._read(index, chance, room, part.bad)
            view = self.look.at(sizes[index], chance)
            masks = self.split.masks(index) if self.masks else None
            labels, every = self.split.labels(index), [self.split.boxes(index)]
            if self.ignored:
                every.append(self.split.ignored(index))
            image, boxes, masks, kept = seen(view, image, torch.cat(every), masks)
            place[:, : view.size[0], : view.size[1]] = image
            labels = labels[kept[: len(labels)]]
            part.boxes.append(boxes[: len(labels)].numpy())
            part.labels.append(labels.numpy())
            if self.ignored:
                part.ignored.append(boxes[len(labels) :].numpy())
            part.sizes.append(view.size)
            part.ids.append(self.split.ids[index])
            part.scales.append(view.scale(sizes[index]))
            if masks is not None:
                part.masks.append(F.pad(masks, (0, room[1] - view.size[1], 0, room[0] - view.size[0])))
        return part

    def _read(self, index: int, chance: Chance, room: Size, bad: dict[int, Bad]) -> tuple[int, Tensor]:
        """The image, or the next one that fits in the room and can be read; and where it is. Notes what cannot."""
        if self.spare is None:
            return index, self.split.read(index)
        reasons: dict[int, str] = {}
        for candidate in self._candidates(index, chance, room):
            try:
                image = self.split.read(candidate)
            except Invalid as error:
                reasons[self.split.ids[candidate]] = str(error)
                if len(reasons) > self.spare:
                    raise too_many(reasons, self.spare) from None
                continue
            bad |= {identity: Bad(reason, self.split.ids[candidate]) for identity, reason in reasons.items()}
            return candidate, image
        raise Invalid(f"{'; '.join(reasons.values())}; no other image of the split fits in its place")

    def _candidates(self, index: int, chance: Chance, room: Size) -> Iterator[int]:
        yield index
        sizes = self.split.sizes
        for step in range(1, len(self.split)):
            other = (index + step) % len(self.split)
            height, width = self.look.at(sizes[other], chance).size
            if height <= room[0] and width <= room[1]:
                yield other


def too_many(reasons: dict[int, str], spare: int) -> Invalid:
    """The end of a training with more bad images than that, which are all listed."""
    listed = "; ".join(f"image {identity}: {reason}" for identity, reason in sorted(reasons.items()))
    images = "image" if len(reasons) == 1 else "images"
    return Invalid(
        f"{len(reasons)} training {images} cannot be read, and resources.bad_images is {spare}. "
        f"Mend them, or take them out of the annotations: {listed}"
    )


def _pixels(count: int, room: Size, *, shared: bool) -> Tensor:
    """(B, 3, H, W) uint8 of anything."""
    shape = (count, 3, *room)
    if not shared:
        return torch.empty(shape, dtype=torch.uint8)
    # As torch's own loader makes its batches: a tensor that is moved to shared memory later is written twice.
    storage = torch.UntypedStorage._new_shared(math.prod(shape))
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)
