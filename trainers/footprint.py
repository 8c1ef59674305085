"""What using a trained model takes: its size, and its time for one image."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from itertools import cycle, islice
from statistics import median

import torch
from torch import Tensor

from trainers import build
from trainers.call import Spec
from trainers.data.batches import in_order
from trainers.data.split import Split
from trainers.evaluate import precision
from trainers.outputs import Network
from trainers.spec import Recipe

log = logging.getLogger(__name__)

IMAGES = 4  # that are looked at in turn: how many objects there are makes a difference
LEAST, MOST, ENOUGH = 3, 20, 1.0  # passes, and the seconds after which they suffice


class Footprint(Spec):
    """Of one model, as it is used: what was there in training alone is left out."""

    parameters: int
    # From an image in memory to its boxes, in the recipe's size and precision, one at a time; the median. It is of the
    # device and the threads of the training, and of what else ran there.
    latency_ms: float


def footprint(detector: Network, split: Split, recipe: Recipe, *, device: torch.device) -> Footprint:
    """Measure a detector on the first images of a split. It is left in evaluation mode."""
    times: list[float] = []
    for seconds in passes(detector, split, recipe, device=device):
        times.append(seconds)
        if len(times) >= LEAST and (len(times) == MOST or sum(times) >= ENOUGH):
            break
    return Footprint(parameters=build.parameters(detector), latency_ms=1000 * median(times))


def passes(detector: Network, split: Split, recipe: Recipe, *, device: torch.device, batch: int = 1) -> Iterator[float]:
    """Seconds of one pass after another, without end, each from a batch in memory to its boxes: of the first images of
    a split in turn, after one pass of each that does not count. The detector is left in evaluation mode."""
    detector.eval()
    prepared = in_order(split, batch=batch, resize=recipe.resize, divisor=build.divisor(detector))
    images = [(images.to(device), truth.sizes) for images, truth in islice(prepared, IMAGES)]
    for one in images:
        _pass(detector, *one, recipe, device)  # the first of a size may choose algorithms
    for one in cycle(images):
        yield _pass(detector, *one, recipe, device)


def takes(detector: Network, split: Split, recipe: Recipe, *, device: torch.device) -> Footprint | None:
    """The same; None if it cannot be measured now, as on a device that others have filled: a training is not lost for
    that."""
    try:
        return footprint(detector, split, recipe, device=device)
    except RuntimeError as error:
        log.warning("how long the model takes for an image is not known: %s", error)
        return None


@torch.no_grad()
def _pass(
    detector: Network, images: Tensor, sizes: list[tuple[int, int]], recipe: Recipe, device: torch.device
) -> float:
    """Seconds from an image to what is found in it."""
    _wait(device)
    started = time.perf_counter()
    with precision(recipe, device):
        outputs = detector(images)
    detector.detect(outputs, sizes)
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
