"""What several detectors find in the same validation images, and which of these images are worth showing.

Half of those shown are always the same, spread evenly over the split. The others are those in which the detectors of a
pair differ most: how many objects one finds less how many wrong detections it makes (IoU .5, same class), against the
same of the other. What counts as a detection is the same for all: what scores at least as much as makes F1 highest over
all detectors and all images looked at. Looked at are up to `LOOKED` images, as many as there is time for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from trainers.data.split import Split
from trainers.data.subsets import these
from trainers.doubtful import doubtful
from trainers.evaluate import find
from trainers.matched import Box, best_threshold, matched, quality
from trainers.outputs import Network
from trainers.result import Result
from trainers.spec import Recipe
from trainers.store import Store
from trainers.teacher import restore
from trainers.thumbnails import data_uri

LOOKED = 200
TOGETHER, PACE = 16, 2.0  # images at once: at most so many, and as many as take about so many seconds

Found = list[list[Box]]  # of an image, by detector


def look(
    store: Store, data: Any, results: Sequence[Result], pairs: Sequence[tuple[int, int]], *, number: int, seconds: float
) -> dict[str, Any]:
    """What the detectors of these results find in `number` validation images, as plain data. The first is the teacher
    of the others; `pairs` of them are compared. After so many seconds no further image is looked at, but for the
    first.

    Corners are x1, y1, x2, y2 in pixels of the original image. Raises `Invalid` for an image that cannot be read, and
    `Damaged` for weights that are not whole.
    """
    split = these(data.val, visits(len(data.val)))
    device = free()
    detectors = [restore(store, result, device=device) for result in results]
    recipes = [result.stage.recipe.measuring() for result in results]
    began = time.monotonic()
    with threads(quicker(lambda: watch(detectors, recipes, these(split, [0]), device=device, seconds=0), device)):
        found = watch(detectors, recipes, split, device=device, seconds=seconds - (time.monotonic() - began))
        return _shown(data, split, detectors, recipes, found, pairs, number=number, device=device)


def _shown(
    data: Any,
    split: Split,
    detectors: Sequence[Network],
    recipes: Sequence[Recipe],
    found: Sequence[Found],
    pairs: Sequence[tuple[int, int]],
    *,
    number: int,
    device: torch.device,
) -> dict[str, Any]:
    objects = len(detectors) * sum(len(split.labels(index)) for index in range(len(found)))
    threshold = best_threshold((boxes for image in found for boxes in image), objects)
    shown = choose(found, pairs, threshold, number=number)
    images = [_image(split, index, found[index], differs) for index, differs in shown]
    chosen = these(split, [index for index, _ in shown])
    return {
        "looked": len(found),
        "of": len(data.val),
        "threshold": threshold,
        "classes": list(split.classes),
        "images": images,
        "edges": doubtful(detectors, recipes, chosen, threshold=threshold, device=device),
    }


def visits(count: int) -> list[int]:
    """The places of at most `LOOKED` images, spread evenly, in an order in which every beginning is spread evenly."""
    some = min(count, LOOKED)
    bits = (some - 1).bit_length()
    # Halves, then quarters, and so on: the numbers 0, 1, 2, ... with their bits in reverse.
    turned = (int(f"{number:0{bits}b}"[::-1], 2) for number in range(1 << bits))
    return list(dict.fromkeys((one * some >> bits) * count // some for one in turned))


def free() -> torch.device:
    """A GPU if there is one of which most memory is free, else the CPU."""
    if torch.cuda.is_available():
        left, whole = torch.cuda.mem_get_info()
        if left > whole / 2:
            return torch.device("cuda")
    return torch.device("cpu")


def quicker(work: Callable[[], object], device: torch.device) -> int:
    """With how many threads something is done sooner on a CPU: with as many as there are, or with one. Small networks
    on a busy machine take many times longer with several, as each waits for the slowest."""
    every = torch.get_num_threads()
    if device.type != "cpu" or every == 1:
        return every
    times = {}
    for number in (every, 1):
        with threads(number):
            started = time.monotonic()
            work()
            times[number] = time.monotonic() - started
    return min(times, key=times.__getitem__)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """So many threads for the length of the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def watch(
    detectors: Sequence[Network], recipes: Sequence[Recipe], split: Split, *, device: torch.device, seconds: float
) -> list[Found]:
    """What each detector finds in the images of a split, in order, until the time is over."""
    began = time.monotonic()
    made: list[Found] = []
    together = 1
    while len(made) < len(split):
        started = time.monotonic()
        part = these(split, range(len(made), min(len(made) + together, len(split))))
        each = [find(one, part, recipe, device=device) for one, recipe in zip(detectors, recipes, strict=True)]
        made += [[matched(own[name], part, index) for own in each] for index, name in enumerate(part.ids)]
        now = time.monotonic()
        if now - began > seconds:
            break
        together = min(TOGETHER, max(1, int(together * PACE / max(now - started, 1e-3))))
    return made


def choose(
    found: Sequence[Found], pairs: Sequence[tuple[int, int]], threshold: float, *, number: int
) -> list[tuple[int, bool]]:
    """Which images to show, and whether because the pairs differ there; these first, the most different on top."""

    def difference(index: int) -> int:
        good = [quality(boxes, threshold) for boxes in found[index]]
        return sum(abs(good[one] - good[other]) for one, other in pairs)

    fixed = number // 2
    differing = [index for index in range(fixed, len(found)) if difference(index)]
    differing = sorted(differing, key=difference, reverse=True)[: number - fixed]
    others = [index for index in range(len(found)) if index not in differing][: number - len(differing)]
    return [*((index, True) for index in differing), *((index, False) for index in others)]


def _image(split: Split, index: int, found: Found, differs: bool) -> dict[str, Any]:
    height, width = split.sizes[index]
    boxes, labels = split.boxes(index).tolist(), split.labels(index).tolist()
    return {
        "name": str(split.coco["images"][index]["file_name"]),
        "width": width,
        "height": height,
        "differs": differs,
        "uri": data_uri(split.read(index)),
        "truth": [[*map(_short, box), label] for box, label in zip(boxes, labels, strict=True)],
        "found": [
            [[*map(_short, box.corners), round(box.score, 3), box.label, box.object] for box in own] for own in found
        ],
    }


def _short(pixels: float) -> float:
    return round(pixels, 1)
