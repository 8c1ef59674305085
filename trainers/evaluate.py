"""What a detector finds in a split, and how good that is."""

from __future__ import annotations

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
    )
    for images, truth in batches:
        with precision(recipe, device):
            outputs = detector(images.to(device, non_blocking=True))
        for one, image_id, scale in zip(detector.detect(outputs, truth.sizes), truth.ids, truth.scales, strict=True):
            found[image_id] = original(one, scale)
    return found


def original(found: Detections, scale: tuple[float, float]) -> Detections:
    """The same detections in pixels of the image as it was before resizing, on the CPU."""
    factor = torch.tensor([*scale, *scale])
    return Detections(found.boxes.float().cpu() / factor, found.scores.float().cpu(), found.labels.cpu())


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
