"""Masks of objects in COCO's notation: polygons, or run lengths that count pixels column by column.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, https://arxiv.org/abs/1405.0312
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable
from math import isfinite
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from trainers.call import Invalid

Size = tuple[int, int]  # height, width


def packed(annotations: Iterable[dict[str, Any]]) -> dict[int, bytes]:
    """The masks by annotation id, each as `pack` makes it."""
    return {row["id"]: pack(row["segmentation"]) for row in annotations if row.get("segmentation")}


def packed_in(text: bytes) -> dict[int, bytes]:
    """The same of a whole file, which was checked before. Each mask is packed as it is met, as all of COCO's take
    gigabytes as lists of numbers."""

    def met(row: dict[str, Any]) -> dict[str, Any]:
        mask = row.get("segmentation")
        return {"id": row.get("id"), "segmentation": pack(mask)} if mask else row

    rows = json.loads(text, object_hook=met)["annotations"]
    return {row["id"]: row["segmentation"] for row in rows if row.get("segmentation")}


def pack(mask: Any) -> bytes:
    """Right polygons as float64, anything else as JSON, which never begins with a zero byte as those do.

    The numbers are how many polygons there are, how many coordinates each has, and these: x1, y1, x2, y2, ...
    """
    if isinstance(mask, list) and mask:
        try:
            numbers = array("d", [len(mask), *map(len, mask)])
            right = all(number >= 6 and number % 2 == 0 for number in numbers[1:])
            for polygon in mask:
                numbers.fromlist(polygon)
            if right and isfinite(sum(numbers)):  # the sum of anything that is not finite is not
                return np.asarray(numbers, dtype="<f8").tobytes()
        except (TypeError, OverflowError):
            pass
    return json.dumps(mask).encode()


def encode(mask: np.ndarray) -> dict[str, Any]:
    """(H, W) bool -> run lengths, ready for JSON."""
    runs = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode("ascii")}


def decode(outline: bytes, size: Size) -> Tensor:
    """One mask as `pack` gave it. -> (H, W) bool. Raises `Invalid` for what is no mask of an image of this size."""
    if _is_polygons(outline):
        return torch.from_numpy(_filled(_corners(outline), size))
    mask = json.loads(outline)
    flaw = wrong(mask, size)
    if flaw:
        raise Invalid(f"{outline[:80].decode()} {flaw}")
    return torch.from_numpy(_filled(_points(mask), size) if isinstance(mask, list) else _spread(mask, size))


def wrong_pack(outline: bytes, size: Size) -> str:
    """What `wrong` says of the mask as `pack` gave it."""
    return "" if _is_polygons(outline) else wrong(json.loads(outline), size)


def wrong(mask: Any, size: Size) -> str:
    """What keeps this from being a mask of an image of this size, or nothing. Nothing is drawn.

    All is checked before pycocotools sees it, which would write beyond its memory or not fill it.
    """
    try:
        if isinstance(mask, list):
            fits = bool(mask) and all(len(points) >= 3 and np.isfinite(points).all() for points in _points(mask))
        else:
            counts = _counts(mask)
            right = all(type(count) is int and count >= 0 for count in counts)
            fits = right and tuple(mask["size"]) == size and sum(counts) == size[0] * size[1]
    except (ValueError, TypeError, KeyError, IndexError, OverflowError):
        fits = False
    return "" if fits else f"is no mask of {size[1]} x {size[0]} pixels, neither polygons nor run lengths"


def _is_polygons(outline: bytes) -> bool:
    return outline[0] == 0  # a small whole number as float64 begins with zeros


def _corners(outline: bytes) -> list[np.ndarray]:
    """The corners x, y of each polygon. -> (N, 2) float64 each"""
    numbers = np.frombuffer(outline, dtype="<f8")
    count = int(numbers[0])
    ends = numbers[1 : count + 1].astype(np.int64).cumsum()
    return [points.reshape(-1, 2) for points in np.split(numbers[count + 1 :], ends[:-1])]


def _points(polygons: list[Any]) -> list[np.ndarray]:
    """The corners x, y of each polygon. -> (N, 2) float64 each"""
    return [np.array(polygon, dtype=np.float64).reshape(-1, 2) for polygon in polygons]


def _filled(polygons: list[np.ndarray], size: Size) -> np.ndarray:
    """The union of polygons, each (N, 2), cut to the image corner by corner."""
    inside = [points.clip(0, (size[1], size[0])).flatten().tolist() for points in polygons]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(inside, *size))).astype(bool)


def _counts(mask: dict[str, Any]) -> list[int]:
    counts = mask["counts"]
    return _unpacked(counts) if isinstance(counts, str) else counts


def _spread(mask: dict[str, Any], size: Size) -> np.ndarray:
    """Pixels off, pixels on, pixels off, ... down the first column, then the next."""
    counts = _counts(mask)
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
