"""What a detector finds in a split, and how good that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from trainers import build, workers
from trainers.data.batches import in_order
from trainers.data.split import Split
from trainers.outputs import Detections, Network
from trainers.spec import Recipe


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
    batches = in_order(
        split,
        batch=recipe.batch,
        resize=recipe.resize,
        divisor=build.divisor(detector),
        loader_workers=loader_workers,
        rank=rank,
        world=world,
        device=device,
    )
    batch = next(batches, None)
    while batch is not None:
        images, truth = batch
        with precision(recipe, device):
            outputs = detector(images.to(device, non_blocking=True))
        batch = next(batches, None)  # comes while that is computed, for which the host is to wait now
        every = fetched(detector.detect(outputs, truth.sizes))
        for one, image_id, scale in zip(every, truth.ids, truth.scales, strict=True):
            found[image_id] = original(one, scale)
    return found


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
