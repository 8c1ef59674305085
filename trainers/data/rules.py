"""What annotations in COCO's format must be: rules that say what is wrong, for whoever refuses, reports or mends it."""

from __future__ import annotations

import reprlib
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from unicodedata import category

from PIL import Image

TOLERANCE = 1.0  # pixels that a box may reach out of its image: annotators' rounding
# COCO's own train2017 has two boxes without height (ids 918 and 2206849) among 860,001. So few are left out
# of training, as every trainer does; more than one in this many is a mistake.
FLAT_ONE_IN = 100_000
FLAT = "flat box"
SEVERAL = 3  # boxes from which on all of a file tell how it is written
CORNERS_ONE_IN = 4  # that leave their images if corners are read as sizes; three in four do where objects lie anywhere
FAR = 0.1  # of a side: who draws by hand misses by less
PIXELS = Image.MAX_IMAGE_PIXELS or 0  # the most that an image may have: Pillow's own limit against bombs
LARGEST = 2**63 - 1  # ids are held in 64 bits

Row = dict[str, Any]
Size = tuple[int, int]  # width, height
Flaw = tuple[str, str]  # kind, and what is wrong, to be said after the name of the row

_short = reprlib.Repr()  # what a file holds may be a gigabyte long, or nested deeper than `repr` can go
_short.maxstring = _short.maxother = 120


class Problem(NamedTuple):
    """Something that is wrong, or only odd, about one row of a file, or about the file as a whole."""

    kind: str
    id: object  # as it stands in the file; None if no row is meant
    message: str  # names the row


def about(what: str, row: Row, kind: str, text: str) -> Problem:
    """A problem of one row: what it is, an image, an annotation or a category, and what is to be said of it."""
    return Problem(kind, row.get("id"), f"{what} {shown(row.get('id'))}: {text}")


def wrong_categories(rows: list[Row]) -> Iterator[Problem]:
    """What is wrong with the categories, each alone and together."""
    yield from _identities(rows, "category")
    for row in rows:
        for kind, text in category_flaws(row):
            yield Problem(kind, row.get("id"), f"category {shown(row.get('id'))} {text}")
    for name, n in repeated(row.get("name") for row in rows):
        yield Problem("duplicate category name", None, f"category name {shown(name)} is there {n} times")


def wrong_images(rows: list[Row]) -> Iterator[Problem]:
    """What is wrong with the list of images. Their files are not looked at."""
    yield from _identities(rows, "image")
    for row in rows:
        for kind, text in image_flaws(row):
            yield about("image", row, kind, text)
    for name, n in repeated(row.get("file_name") for row in rows):
        yield Problem("duplicate file name", None, f"file_name {shown(name)} is there {n} times")


def wrong_annotations(coco: Mapping[str, list[Row]]) -> Iterator[Problem]:
    """What is wrong with the annotations: first with all of them; boxes without area come last, and only if many."""
    rows, flat = coco["annotations"], 0
    sizes, known = sizes_of(coco["images"]), {row["id"] for row in coco["categories"] if identity(row)}
    yield from misread(rows, sizes)
    yield from _identities(rows, "annotation")
    for row in rows:
        for kind, text in annotation_flaws(row, sizes, known):
            if kind == FLAT:
                flat += 1
            else:
                yield about("annotation", row, kind, text)
    if too_many(flat, len(rows)):
        yield from flat_boxes(coco)


def misread(rows: list[Row], sizes: Mapping[int, Size | None]) -> Iterator[Problem]:
    """Whether all boxes of a file are written in another way than x, y, width, height in pixels."""
    if (boxes := _if_all(rows, sizes, _in_shares)) and len(boxes) >= SEVERAL:
        row, _ = boxes[0]
        said = f"all {len(boxes):,} boxes lie within 0..1, as annotation {shown(row.get('id'))}: {shown(row['bbox'])}"
        yield Problem("normalised", None, f"{said}; they look normalised: multiply them by their image's sides")
    boxes = _if_all(rows, sizes, _as_corners)
    out = [row for row, size in boxes if not inside(row["bbox"], size, by=FAR)]
    if len(boxes) >= SEVERAL and len(out) * CORNERS_ONE_IN >= len(boxes):
        said = f"as x, y, width, height {len(out):,} of {len(boxes):,} boxes leave their images by far, as annotation "
        said += f"{shown(out[0].get('id'))}: {shown(out[0]['bbox'])}; as x1, y1, x2, y2 none does"
        yield Problem("corners", None, f"{said}. These look like corners: write x1, y1, x2 - x1, y2 - y1")


def _if_all(
    rows: list[Row], sizes: Mapping[int, Size | None], so: Callable[[list[float], Size], bool]
) -> list[tuple[Row, Size]]:
    """The boxes that can be compared with their images, if all of them are so; else none."""
    found = []
    for row in rows:
        size = sizes.get(row["image_id"]) if type(row.get("image_id")) is int else None
        if size is not None and four(row.get("bbox")):
            if not so(row["bbox"], size):
                return []
            found.append((row, size))
    return found


def _in_shares(bbox: list[float], size: Size) -> bool:
    return min(bbox) >= 0 and max(bbox) <= 1 < min(size)


def _as_corners(bbox: list[float], size: Size) -> bool:
    x1, y1, x2, y2 = bbox
    return x2 > x1 and y2 > y1 and inside([x1, y1, x2 - x1, y2 - y1], size)


def flat_boxes(coco: Mapping[str, list[Row]]) -> Iterator[Problem]:
    """The boxes without area, which are left out of training."""
    sizes = sizes_of(coco["images"])
    for row in coco["annotations"]:
        size = sizes.get(row["image_id"]) if type(row.get("image_id")) is int else None
        for kind, text in _box_flaws(row, size):
            if kind == FLAT:
                yield about("annotation", row, kind, text)


def too_many(flat: int, rows: int) -> bool:
    """Whether so many boxes without area are a mistake."""
    return flat * FLAT_ONE_IN > rows


def category_flaws(row: Row) -> Iterator[Flaw]:
    """What is wrong with one category but its id."""
    name = row.get("name")
    if not isinstance(name, str) or not name:
        yield "category name", "has no name"
    elif any("\ud800" <= letter <= "\udfff" for letter in name):
        yield "category name", f"has a name that is no text, {shown(name)}"


def image_flaws(row: Row) -> Iterator[Flaw]:
    """What is wrong with one row of the list of images but its id."""
    width, height = row.get("width"), row.get("height")
    if type(width) is not int or type(height) is not int or min(width, height) < 1:
        yield "image size", f"width {shown(width)}, height {shown(height)} are not two positive whole numbers"
    elif width * height > PIXELS:
        yield "image size", f"{shown(width)} x {shown(height)} pixels are more than {PIXELS:,}; scale it down"
    problem = unsafe(row.get("file_name"))
    if problem:
        yield "file name", f"file_name {shown(row.get('file_name'))} {problem}"


def annotation_flaws(row: Row, sizes: Mapping[int, Size | None], known: Collection[int]) -> Iterator[Flaw]:
    """What is wrong with one annotation but its id, given the sizes of the images and the ids of the categories.

    A missing area or iscrowd is no mistake. A box is not compared with an image whose size is None.
    """
    image, category = row.get("image_id"), row.get("category_id")
    size = None
    if type(image) is not int or image not in sizes:
        yield "unknown image", f"image_id {shown(image)} is no image of this file"
    else:
        size = sizes[image]
    if type(category) is not int or category not in known:
        yield "unknown category", f"category_id {shown(category)} is no category of this file"
    yield from _box_flaws(row, size)
    if "area" in row and not (number(row["area"]) and row["area"] >= 0):
        yield "area", f"area {shown(row['area'])} is not a number from 0"
    for key in ("iscrowd", "ignore"):
        if row.get(key, 0) not in (0, 1):
            yield key, f"{key} {shown(row[key])} is neither 0 nor 1"
    visible = row.get("visible", [0, 0, 0, 0])
    if not four(visible) or min(visible[2:]) < 0:
        yield "visible", f"visible {shown(visible)} is not [x, y, width, height] with four finite numbers"


def _box_flaws(row: Row, size: Size | None) -> Iterator[Flaw]:
    bbox: Any = row.get("bbox")
    image = row.get("image_id")
    if not four(bbox):
        yield "bbox", f"bbox {shown(bbox)} is not [x, y, width, height] with four finite numbers"
    elif bbox[2] < 0 or bbox[3] < 0:
        yield "negative box", f"bbox {shown(bbox)} has a negative width or height; COCO writes x, y, width, height"
    elif size is not None and not inside(bbox, size):
        yield "box outside", f"bbox {shown(bbox)} leaves image {image} of {size[0]} x {size[1]} pixels"
    elif bbox[2] == 0 or bbox[3] == 0:
        yield FLAT, f"bbox {shown(bbox)} has no area"


UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, format and half characters, line and paragraph separators


def unsafe(name: object) -> str:
    """What is wrong with a file name that comes from outside; empty if it stays in its folder."""
    if not isinstance(name, str) or not name:
        return "is not a name"
    if "://" in name:
        return "is a web address; download the images first"
    if "\\" in name:
        return "has a backslash; write /"
    if any(category(character) in UNSEEN for character in name):
        return "has a character that cannot be printed"
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return "leaves the folder of images; write it relative to that folder"
    return ""


def identity(row: Row) -> bool:
    """Whether a row has an id that can be used."""
    return type(row.get("id")) is int and abs(row["id"]) <= LARGEST


def repeated(values: Iterable[object]) -> Iterator[tuple[str, int]]:
    """The texts among these that are there more than once, and how often."""
    counts = Counter(value for value in values if isinstance(value, str))
    return ((value, n) for value, n in counts.items() if n > 1)


def sizes_of(rows: list[Row]) -> dict[int, Size | None]:
    """(width, height) by image id; None where it is wrong, or said in two ways."""
    sizes: dict[int, Size | None] = {}
    for row in filter(identity, rows):
        wrong = any(kind == "image size" for kind, _ in image_flaws(row))
        size = None if wrong else (row["width"], row["height"])
        sizes[row["id"]] = size if sizes.get(row["id"], size) == size else None
    return sizes


def number(value: object) -> bool:
    """Whether this is a finite number."""
    # Compared, not converted: JSON may hold whole numbers that no float can.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def four(bbox: Any) -> bool:
    """Whether these are four finite numbers."""
    return isinstance(bbox, list | tuple) and len(bbox) == 4 and all(number(side) for side in bbox)


def inside(bbox: list[float], size: Size, *, by: float = 0.0) -> bool:
    """Whether a box lies in an image, but for the tolerance, and for a part of a side on its right and below."""
    x, y, w, h = bbox
    right, bottom = (side * (1 + by) + TOLERANCE for side in size)
    return min(x, y) >= -TOLERANCE and x + w <= right and y + h <= bottom


def shown(value: object) -> str:
    """A value from a file as a short text without control characters."""
    return _short.repr(value)


def _identities(rows: list[Row], what: str) -> Iterator[Problem]:
    """Ids that are missing, no whole numbers, or there more than once."""
    for place, row in enumerate(rows):
        if not identity(row):
            said = f"{what} number {place + 1} in the list: id {shown(row.get('id'))} is not a whole number of 64 bits"
            yield Problem(f"{what} id", row.get("id"), said)
    counts = Counter(row["id"] for row in rows if type(row.get("id")) is int)
    if len(counts) < len(rows):
        for found, n in counts.items():
            if n > 1:
                yield Problem(f"duplicate {what} id", found, f"{what} id {shown(found)} is there {n} times")
