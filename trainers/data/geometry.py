"""Image, boxes and masks through a view, together: resized, cut and mirrored by torchvision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxes, Image, Mask, wrap

from trainers.data.views import View

ROUNDING = 1e-3  # pixels by which a box is not smaller


def seen(
    view: View, image: Tensor, boxes: Tensor, masks: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """(3, H, W) uint8, (N, 4) and (M, H, W) bool -> the same of the view, and which boxes are left, (N,) bool.

    M <= N: the masks are those of the first boxes.

    A box is gone if less than a pixel is left of a side that was cut. The image may keep its colours together in
    memory, as decoders have them: resizing is four times as fast then.
    """
    kept = torch.ones(len(boxes), dtype=torch.bool)
    canvas = (image.shape[-2], image.shape[-1])
    things: list[Any] = [Image(image), BoundingBoxes(boxes, format="XYXY", canvas_size=canvas)]
    things += [] if masks is None else [Mask(masks)]

    def each(change: Callable[..., Any], *knobs: Any) -> None:
        things[:] = [change(thing, *knobs) for thing in things]

    if view.window is not None:
        each(_resize, view.first)
        before = _sides(things[1])
        each(F.crop, *view.window)
        left = _sides(things[1])
        kept = ((left >= 1) | (left >= before - ROUNDING)).all(1)
        things[1:] = [wrap(thing[kept[: len(thing)]], like=thing) for thing in things[1:]]
    each(_resize, view.size)
    things[1] = F.clamp_bounding_boxes(things[1])  # rounded, it may be a little larger than its image
    if view.mirrored:
        each(F.horizontal_flip)
    image, boxes, *drawn = (thing.as_subclass(Tensor) for thing in things)
    return image, boxes, drawn[0] if drawn else None, kept


def _sides(boxes: Tensor) -> Tensor:
    """(N, 4) -> (N, 2): width and height."""
    return boxes.as_subclass(Tensor)[:, 2:] - boxes.as_subclass(Tensor)[:, :2]


def _resize(thing: Any, size: tuple[int, int]) -> Any:
    if thing.shape[-2:] == size and not isinstance(thing, BoundingBoxes):
        return thing
    if not isinstance(thing, Mask):
        return F.resize(thing, list(size), antialias=True)
    # Each pixel becomes what the original shows at its middle; torchvision's own choice for masks is its corner.
    small = F.resize_image(thing.view(torch.uint8), list(size), InterpolationMode.NEAREST_EXACT)
    return Mask(small.view(torch.bool))
