"""Masks of objects in COCO's notation: polygons, or run lengths that count pixels column by column.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, https://arxiv.org/abs/1405.0312
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from trainers.call import Invalid

Size = tuple[int, int]  # height, width


def packed(annotations: Iterable[dict[str, Any]]) -> dict[int, bytes]:
    """The masks by annotation id, as JSON: COCO's take a gigabyte less than as lists of numbers."""
    return {row["id"]: json.dumps(row["segmentation"]).encode() for row in annotations if row.get("segmentation")}


def encode(mask: np.ndarray) -> dict[str, Any]:
    """(H, W) bool -> run lengths, ready for JSON."""
    runs = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode("ascii")}


def decode(pack: bytes, size: Size) -> Tensor:
    """One mask as `packed` gave it. -> (H, W) bool. Raises `Invalid` for what is no mask of an image of this size.

    All is checked before pycocotools sees it, which would write beyond its memory or not fill it.
    """
    mask = json.loads(pack)
    try:
        filled = _polygons(mask, size) if isinstance(mask, list) else _runs(mask, size)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError):
        said = pack[:80].decode()
        raise Invalid(f"{said} is no mask of {size[1]} x {size[0]} pixels, neither polygons nor run lengths") from None
    return torch.from_numpy(filled)


def _polygons(polygons: list[Any], size: Size) -> np.ndarray:
    """The union of polygons x1, y1, x2, y2, ..., cut to the image corner by corner."""
    inside = []
    for polygon in polygons:
        points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
        if len(points) < 3 or not np.isfinite(points).all():
            raise ValueError
        inside.append(points.clip(0, (size[1], size[0])).flatten().tolist())
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(inside, *size))).astype(bool)


def _runs(mask: dict[str, Any], size: Size) -> np.ndarray:
    """Pixels off, pixels on, pixels off, ... down the first column, then the next."""
    counts = mask["counts"]
    if isinstance(counts, str):
        counts = _unpacked(counts)
    if tuple(mask["size"]) != size or min(counts) < 0 or sum(counts) != size[0] * size[1]:
        raise ValueError
    on = np.arange(len(counts)) % 2 == 1
    return np.ascontiguousarray(np.repeat(on, counts).reshape(size, order="F"))


def _unpacked(text: str) -> list[int]:
    """COCO's compressed counts: six bits a character, the lowest five digits first; from the fourth number on, only
    what a number has more than the one before the last."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:  # more characters of this number follow
            continue
        if bits & 16:  # it is negative
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError
    return counts
