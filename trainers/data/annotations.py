"""Annotations in COCO's format, read and checked: mistakes are named by file and id, before training."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from trainers.call import Invalid

SHOWN = 10  # mistakes listed before the rest is only counted
TOLERANCE = 1.0  # pixels that a box may reach out of its image: annotators' rounding
# COCO's own train2017 has two boxes without height (ids 918 and 2206849) among 860,001. So few are left out
# of training, as every trainer does; more than one in this many is a mistake.
FLAT_ONE_IN = 100_000
PIXELS = Image.MAX_IMAGE_PIXELS or 0  # the most that an image may have: Pillow's own limit against bombs
LARGEST = 2**63 - 1  # ids are held in 64 bits


def load(path: Path) -> dict[str, Any]:
    """Read and check one file. Its images come back by rising id; masks, which nobody reads, are let go."""
    try:
        coco = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise Invalid(f"{path} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{path} is not JSON: {error}") from None
    check(coco, str(path))
    for row in coco["annotations"]:
        row.pop("segmentation", None)
    return {**coco, "images": sorted(coco["images"], key=lambda image: image["id"])}


def check(coco: object, source: str) -> None:
    """Raise `Invalid` unless this is a set of annotations that can be trained on.

    Missing area and iscrowd are no mistakes, nor are images without boxes and category ids with holes.
    """
    if isinstance(coco, list) and coco and isinstance(coco[0], dict) and "score" in coco[0]:
        raise Invalid(f"{source} holds results (a list of detections with scores); give the annotations they belong to")
    if not isinstance(coco, dict):
        raise Invalid(f"{source} is not in COCO's format: a {type(coco).__name__} instead of a dictionary")
    for key in ("images", "annotations", "categories"):
        if key not in coco:
            raise Invalid(f"{source} has no {key!r}; COCO's format needs images, annotations and categories")
        if not isinstance(coco[key], list) or not all(isinstance(row, dict) for row in coco[key]):
            raise Invalid(f"{source}: {key!r} is not a list of dictionaries")
    for key in ("images", "categories"):
        if not coco[key]:
            raise Invalid(f"{source} has 0 {key}")
    # Annotations refer to the other two, so they are looked at only when those are right.
    refuse([*_categories(coco["categories"]), *_images(coco["images"])], source)
    refuse(_annotations(coco), source)


def agree(train: dict[str, Any], val: dict[str, Any]) -> None:
    """Raise `Invalid` unless both splits have the same categories."""
    ours, theirs = ({c["id"]: c["name"] for c in coco["categories"]} for coco in (train, val))
    different = sorted(i for i in ours.keys() | theirs.keys() if ours.get(i) != theirs.get(i))
    shown = [f"id {i}: {ours.get(i, '(none)')} and {theirs.get(i, '(none)')}" for i in different]
    refuse(shown, "the categories of training and validation differ")


def refuse(mistakes: Iterable[str], source: str) -> None:
    """Raise `Invalid` with the first few mistakes and their number, if there are any."""
    rest = iter(mistakes)
    shown = list(islice(rest, SHOWN))
    if not shown:
        return
    total = len(shown) + sum(1 for _ in rest)
    more = f"; and {total - len(shown)} more, {total} in all" if total > len(shown) else ""
    raise Invalid(f"{source}: {'; '.join(shown)}{more}")


def _categories(categories: list[dict[str, Any]]) -> Iterator[str]:
    yield from _identities(categories, "category")
    for row in categories:
        if not isinstance(row.get("name"), str) or not row["name"]:
            yield f"category {row.get('id')} has no name"
    names = [row["name"] for row in categories if isinstance(row.get("name"), str)]
    yield from (f"category name {name!r} is there {n} times" for name, n in Counter(names).items() if n > 1)


def _images(images: list[dict[str, Any]]) -> Iterator[str]:
    yield from _identities(images, "image")
    for row in images:
        identity, width, height = row.get("id"), row.get("width"), row.get("height")
        if type(width) is not int or type(height) is not int or min(width, height) < 1:
            yield f"image {identity}: width {width!r}, height {height!r} are not two positive whole numbers"
        elif width * height > PIXELS:
            yield f"image {identity}: {width} x {height} pixels are more than {PIXELS:,}; scale it down"
        problem = unsafe(row.get("file_name"))
        if problem:
            yield f"image {identity}: file_name {row.get('file_name')!r} {problem}"
    names = Counter(row["file_name"] for row in images if isinstance(row.get("file_name"), str))
    yield from (f"file_name {name!r} is there {n} times" for name, n in names.items() if n > 1)


def unsafe(name: object) -> str:
    """What is wrong with a file name that comes from outside; empty if it stays in its folder."""
    if not isinstance(name, str) or not name:
        return "is not a name"
    if "://" in name:
        return "is a web address; download the images first"
    if "\\" in name:
        return "has a backslash; write /"
    if not name.isprintable():
        return "has a character that cannot be printed"
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return "leaves the folder of images; write it relative to that folder"
    return ""


def _identities(rows: list[dict[str, Any]], what: str) -> Iterator[str]:
    """Ids that are missing, no whole numbers, or there more than once."""
    for place, row in enumerate(rows):
        identity = row.get("id")
        if type(identity) is not int or abs(identity) > LARGEST:
            yield f"{what} number {place + 1} in the list: id {identity!r} is not a whole number of 64 bits"
    counts = Counter(row["id"] for row in rows if type(row.get("id")) is int)
    if len(counts) < len(rows):
        yield from (f"{what} id {identity} is there {n} times" for identity, n in counts.items() if n > 1)


def _annotations(coco: dict[str, Any]) -> Iterator[str]:
    yield from _identities(coco["annotations"], "annotation")
    sizes = {row["id"]: (row["width"], row["height"]) for row in coco["images"]}
    categories = {row["id"] for row in coco["categories"]}
    flat = []
    for row in coco["annotations"]:
        image, category, bbox = row.get("image_id"), row.get("category_id"), row.get("bbox")
        wrong = ""
        if type(image) is not int or image not in sizes:
            wrong = f"image_id {image!r} is no image of this file"
        elif type(category) is not int or category not in categories:
            wrong = f"category_id {category!r} is no category of this file"
        elif not _four(bbox):
            wrong = f"bbox {bbox!r:.80} is not [x, y, width, height] with four finite numbers"
        elif bbox[2] < 0 or bbox[3] < 0:
            wrong = f"bbox {bbox} has a negative width or height; COCO writes x, y, width, height"
        elif not _inside(bbox, sizes[image]):
            wrong = f"bbox {bbox} leaves image {image} of {sizes[image][0]} x {sizes[image][1]} pixels"
        elif "area" in row and not (_number(row["area"]) and row["area"] >= 0):
            wrong = f"area {row['area']!r} is not a number from 0"
        elif row.get("iscrowd", 0) not in (0, 1):
            wrong = f"iscrowd {row['iscrowd']!r} is neither 0 nor 1"
        elif bbox[2] == 0 or bbox[3] == 0:
            flat.append(f"annotation {row.get('id')}: bbox {bbox} has no area")
        if wrong:
            yield f"annotation {row.get('id')}: {wrong}"
    if len(flat) * FLAT_ONE_IN > len(coco["annotations"]):
        yield from flat


def _number(value: object) -> bool:
    # Compared, not converted: JSON may hold whole numbers that no float can.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _four(bbox: object) -> bool:
    return isinstance(bbox, list | tuple) and len(bbox) == 4 and all(_number(side) for side in bbox)


def _inside(bbox: list[float], size: tuple[int, int]) -> bool:
    x, y, w, h = bbox
    right, bottom = size[0] + TOLERANCE, size[1] + TOLERANCE
    return min(x, y) >= -TOLERANCE and x + w <= right and y + h <= bottom
