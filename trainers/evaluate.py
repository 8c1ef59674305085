"""What a detector finds in a split, and how good that is."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from trainers import build, memory, workers
from trainers.data.batches import Batch, in_order
from trainers.data.split import Split
from trainers.outputs import Detections, Network
from trainers.spec import Recipe

log = logging.getLogger(__name__)


@torch.no_grad()
def find(
    detector: Network,
    split: Split,
    recipe: Recipe,
    *,
    device: torch.device,
    loader_workers: int = 0,
    rank: int = 0,
    world: int = 1,
) -> dict[int, Detections]:
    """Detections by image id, in pixels of the original images; of `world` workers those in the batches of one.

    The detector is left in evaluation mode.
    """
    detector.eval()
    found: dict[int, Detections] = {}
    batches = Ahead(
        in_order(
            split,
            batch=recipe.batch,
            resize=recipe.resize,
            divisor=build.divisor(detector),
            loader_workers=loader_workers,
            rank=rank,
            world=world,
            device=device,
        )
    )
    at_once = recipe.batch  # images, as long as there is memory for so many
    for images, truth in batches:
        every: list[Detections] = []
        while len(every) < len(images):
            part = slice(len(every), len(every) + at_once)
            some = _look(detector, images[part].to(device, non_blocking=True), truth.sizes[part], recipe, batches)
            if some is None:
                at_once = _fewer(min(at_once, len(images)))
            else:
                every += some
        for one, image_id, scale in zip(every, truth.ids, truth.scales, strict=True):
            found[image_id] = original(one, scale)
    return found


class Ahead:
    """Batches, the next of which is made while the one before is computed with."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self.batches = batches
        self.made: list[Batch | None] = []

    def make(self) -> None:
        """Make the next, if it is not there yet."""
        if not self.made:
            self.made.append(next(self.batches, None))

    def __iter__(self) -> Iterator[Batch]:
        self.make()
        while (batch := self.made.pop()) is not None:
            yield batch
            self.make()


def _look(
    detector: Network, images: Tensor, sizes: Sequence[tuple[int, int]], recipe: Recipe, meanwhile: Ahead
) -> list[Detections] | None:
    """What is found in images (B, 3, H, W) on the device; None: it has no memory for so many at once."""

    def ask() -> Any:
        with precision(recipe, images.device):
            return detector(images)

    outputs = memory.if_room(ask)
    meanwhile.make()  # before anything that waits for the device
    return None if outputs is None else memory.if_room(lambda: fetched(detector.detect(outputs, sizes)))


def _fewer(images: int) -> int:
    """How many are looked at at once in the rest, after so many were too many. Raises `OutOfMemory`."""
    if images == 1:
        raise memory.OutOfMemory(
            "out of memory in validation, one image at once; what helps is a device with more memory, precision bf16 "
            "or smaller images (resize)"
        )
    log.warning("out of memory in validation with %d images at once; the rest of it with %d", images, -(-images // 2))
    return -(-images // 2)


def fetched(every: Sequence[Detections]) -> list[Detections]:
    """The same on the CPU, with boxes and scores in float32: those of all images in one copy."""
    boxes = torch.cat([one.boxes for one in every]).float()  # (N, 4)
    scores = torch.cat([one.scores for one in every]).float()
    labels = torch.cat([one.labels for one in every])
    # float32 has every integer up to 2 ** 24.
    packed = torch.cat([boxes, scores[:, None], labels[:, None].float()], dim=1).cpu()  # (N, 6)
    # Each in memory of its own: whoever sends one to another process would send the whole.
    return [
        Detections(part[:, :4].clone(), part[:, 4].clone(), part[:, 5].to(labels.dtype, copy=True))
        for part in packed.split([len(one.scores) for one in every])
    ]


def original(found: Detections, scale: tuple[float, float]) -> Detections:
    """The same detections in pixels of the image as it was before resizing."""
    return Detections(found.boxes / torch.tensor([*scale, *scale]), found.scores, found.labels)


def measure(
    detector: Network,
    data: Any,
    recipe: Recipe,
    *,
    device: torch.device,
    loader_workers: int = 0,
    split: Split | None = None,
) -> dict[str, float]:
    """What the metric of a data set says of a detector on its validation images, or on those of another split, such as
    AP, AP50 and AP75.

    All workers of a stage call it together. Each looks at its batches, the first judges what all have found, and every
    one is told the same figures. Where they run on the same kind of device, these do not depend on their number.
    """
    split = data.val if split is None else split
    workers.align(detector.buffers())  # batch norms have seen other images at each
    mine = find(
        detector,
        split,
        recipe,
        device=device,
        loader_workers=loader_workers,
        rank=workers.rank(),
        world=workers.count(),
    )
    parts = workers.gathered(mine)
    figures: dict[str, float] = {}
    if parts:
        figures = build.metric(data)(split, {image: one for part in parts for image, one in part.items()})
    return workers.told(figures)


def precision(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Automatic mixed precision as the recipe wants it; on a CPU there is none."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[recipe.precision]
    enabled = device.type == "cuda" and recipe.precision != "fp32"
    return torch.autocast(device.type, dtype=dtype if enabled else torch.bfloat16, enabled=enabled)
