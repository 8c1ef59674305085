"""One batch: images read, seen as their recipe has it, and laid on one canvas; what cannot be read is replaced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from trainers.call import Invalid
from trainers.data.geometry import seen
from trainers.data.sampling import Sample
from trainers.data.split import Split
from trainers.data.views import Chance, Look, Size, View, canvas
from trainers.outputs import Truth

COLOUR = (0.485, 0.456, 0.406)  # ImageNet's mean, which normalisation turns into 0; for the padding

Batch = tuple[Tensor, Truth]  # images (B, 3, H, W) float32 of 0..1, and what is in them


class Bad(NamedTuple):
    """An image that could not be read: why, and the id of the image in its place."""

    reason: str
    instead: int


class Desk(NamedTuple):
    """Where batches are put together, one as the other."""

    split: Split
    look: Look
    divisor: int  # height and width are padded to multiples of it
    rank: int  # this worker gets every world-th image of a batch, from this one on
    world: int
    masks: bool  # whether the truth has them
    spare: int | None  # how many images may be bad; None: a bad one is raised as what it is
    shared: bool = False  # in memory that another process can take over without copying it

    def assemble(self, sample: Sample) -> tuple[Tensor, Truth, dict[int, Bad]]:
        """This worker's part of a batch, padded at the right and at the bottom, and its bad images by id.

        The canvas is that of the whole batch. A bad image is replaced by the next of the split that fits on it, so
        what replaces it does not depend on who does it. Raises `Invalid` if there are more bad ones than spare.
        """
        sizes = self.split.sizes
        whole = [
            self.look.at(sizes[index], chance) for index, chance in zip(sample.images, sample.chances, strict=True)
        ]
        room = canvas([view.size for view in whole], self.divisor)
        mine = slice(self.rank, None, self.world)
        images = _empty((len(whole[mine]), 3, *room), shared=self.shared)
        drawn: list[Tensor] = []
        truth = Truth(boxes=[], labels=[], sizes=[], ids=[], scales=[], masks=drawn if self.masks else None)
        bad: dict[int, Bad] = {}
        for place, index, chance in zip(images, sample.images[mine], sample.chances[mine], strict=True):
            index, image = self._read(index, chance, room, bad)
            view = self.look.at(sizes[index], chance)
            masks = self.split.masks(index) if self.masks else None
            image, boxes, masks, kept = seen(view, image, self.split.boxes(index), masks)
            _lay(image, place)
            truth.boxes.append(boxes)
            truth.labels.append(self.split.labels(index)[kept])
            truth.sizes.append(view.size)
            truth.ids.append(self.split.ids[index])
            truth.scales.append(view.scale(sizes[index]))
            if masks is not None:
                right, bottom = room[1] - view.size[1], room[0] - view.size[0]
                drawn.append(torch.nn.functional.pad(masks, (0, right, 0, bottom)))
        return images, truth, bad

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
    return Invalid(
        f"{len(reasons)} training images cannot be read, and resources.bad_images is {spare}. Mend them, or take them "
        f"out of the annotations: {listed}"
    )


def _empty(shape: tuple[int, ...], *, shared: bool) -> Tensor:
    """A tensor of anything."""
    if not shared:
        return torch.empty(shape)
    count = torch.Size(shape).numel()
    # As torch's own loader makes its batches: a tensor that is moved to shared memory later is written twice.
    storage = torch.UntypedStorage._new_shared(count * torch.float32.itemsize)
    return torch.empty(0).set_(storage).view(shape)


def _lay(image: Tensor, place: Tensor) -> None:
    """Put (3, h, w) uint8 into the upper left of (3, H, W) float32, as 0..1, and the padding's colour around it."""
    height, width = image.shape[1:]
    torch.div(image, 255, out=place[:, :height, :width])
    for channel, colour in zip(place, COLOUR, strict=True):
        channel[height:] = colour
        channel[:height, width:] = colour
