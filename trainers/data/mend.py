"""A clean copy of annotations: what is wrong goes, what can be read in two ways goes too, and all of it is said."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from itertools import count
from typing import Any

from trainers.call import Invalid
from trainers.data import masks
from trainers.data.examine import Seen
from trainers.data.mend_images import mended_images
from trainers.data.rules import (
    Flaw,
    Problem,
    Row,
    Size,
    about,
    annotation_flaws,
    category_flaws,
    identity,
    misread,
    shown,
    sizes_of,
)

Kept = tuple[list[Row], list[Problem]]  # rows, and what was done to the others


def mended(coco: Mapping[str, Any], seen: Mapping[int, Seen]) -> tuple[dict[str, Any], list[Problem]]:
    """What can be trained on, and what was changed or dropped to get there. All other keys stay as they are.

    seen: what the images are like, by place in the list; an image that is not there is dropped. Raises `Invalid`
    if no image or no category is left, and for boxes that are all written in another way, which is not guessed.
    """
    _check_written(coco["annotations"], coco["images"])
    try:
        categories, same, lost = _categories(coco["categories"])
        annotations = [_renamed(row, same) for row in coco["annotations"]]
        images, gone = mended_images(coco["images"], annotations, seen)
        rows, changed = _annotations(coco, annotations, images=images, categories=categories)
    except RecursionError:
        raise Invalid("the annotations are nested too deeply to be mended") from None
    for name, left in (("image", images), ("category", categories)):
        if not left:
            raise Invalid(f"nothing can be mended: no {name} is left")
    _check_written(rows, images)
    changes = sorted([*lost, *gone, *changed], key=lambda change: change.kind)
    return {**coco, "images": images, "annotations": rows, "categories": categories}, changes


def _check_written(rows: list[Row], images: list[Row]) -> None:
    for problem in misread(rows, sizes_of(images)):
        raise Invalid(f"nothing is guessed: {problem.message}")


def _categories(rows: list[Row]) -> tuple[list[Row], dict[int, int], list[Problem]]:
    """Categories with one id and one name each; which id means which other one; and what was done."""
    changes, names = [], defaultdict[int, set[str]](set)
    sound = []
    for row in rows:
        flaw = next(category_flaws(row), None) if identity(row) else ("category id", "has no id that is a whole number")
        if flaw:
            changes.append(about("category", row, flaw[0], f"{flaw[1]}: dropped"))
        else:
            sound.append(row)
            names[row["id"]].add(row["name"])
    kept: dict[int, Row] = {}
    by_name: dict[str, int] = {}
    same: dict[int, int] = {}
    for row in sound:
        if len(names[row["id"]]) > 1:
            said = "stands for several names: dropped, as nobody knows which is meant"
            changes.append(about("category", row, "duplicate category id", said))
        elif row["id"] in kept or row["id"] in same:
            changes.append(about("category", row, "duplicate category id", "is there again: dropped"))
        elif row["name"] in by_name:
            same[row["id"]] = by_name[row["name"]]
            said = f"has the name of category {same[row['id']]}: joined with it"
            changes.append(about("category", row, "duplicate category name", said))
        else:
            kept[row["id"]], by_name[row["name"]] = row, row["id"]
    return list(kept.values()), same, changes


def _renamed(row: Row, same: Mapping[int, int]) -> Row:
    category = row.get("category_id")
    return {**row, "category_id": same[category]} if type(category) is int and category in same else row


def _annotations(coco: Mapping[str, Any], rows: list[Row], *, images: list[Row], categories: list[Row]) -> Kept:
    """Annotations of what is left, with one id each."""
    sizes: dict[int, Size | None] = {row["id"]: (row["width"], row["height"]) for row in images}
    known = {row["id"] for row in categories}
    before = {row["id"] for row in coco["images"] if identity(row)}
    taken = {row["id"] for row in rows if identity(row)}
    fresh = (number for number in count(1) if number not in taken)
    kept, changes, firsts = [], [], dict[int, Row]()
    for row in rows:
        if identity(row) and firsts.setdefault(row["id"], row) is not row and row == firsts[row["id"]]:
            changes.append(about("annotation", row, "duplicate annotation id", "is there again: dropped"))
            continue
        if type(row.get("image_id")) is int and row["image_id"] in before and row["image_id"] not in sizes:
            said = f"dropped with image {row['image_id']}"
            changes.append(about("annotation", row, "with its image", said))
            continue
        right, flaws = _annotation(row, sizes, known)
        changes += [about("annotation", row, kind, said) for kind, said in flaws]
        if right is None:
            continue
        if not identity(row) or firsts[row["id"]] is not row:
            shared = identity(row)
            kind, why = ("duplicate annotation id", "shares its id") if shared else ("annotation id", "has no right id")
            right = {**right, "id": next(fresh)}
            changes.append(about("annotation", row, kind, f"{why}: it is {right['id']} now"))
        kept.append(right)
    return kept, changes


def _annotation(row: Row, sizes: Mapping[int, Size | None], known: Collection[int]) -> tuple[Row | None, list[Flaw]]:
    """One annotation as it can be kept, or None, and what was done to it."""
    right, changes = dict(row), []
    for kind, text in annotation_flaws(row, sizes, known):
        if kind == "box outside":
            size = sizes[row["image_id"]]
            assert size is not None, "only compared with a known size"
            right["bbox"] = _cut(row["bbox"], size)
            if not right.get("segmentation"):  # else it is the mask's
                right.pop("area", None)
            changes.append((kind, f"{text}: cut to {shown(right['bbox'])}"))
        elif kind in ("area", "visible") or (kind in ("iscrowd", "ignore") and row[kind] is None):
            right.pop(kind, None)
            changes.append((kind, f"{text}: left out"))
        else:
            return None, [(kind, f"{text}: dropped")]
    size, mask = sizes[right["image_id"]], right.get("segmentation")
    flaw = masks.wrong(mask, size[::-1]) if mask and size else ""
    if flaw:
        del right["segmentation"]
        changes.append(("mask", f"segmentation {shown(mask)} {flaw}: left out, the box is kept"))
    if any(annotation_flaws(right, sizes, known)):  # it was cut to the image, and lay outside altogether
        return None, [("box outside", f"bbox {shown(row['bbox'])} has no area in its image: dropped")]
    return right, changes


def _cut(bbox: list[float], size: Size) -> list[float]:
    x, y, w, h = bbox
    left, top = max(x, 0), max(y, 0)
    return [left, top, max(0, min(x + w, size[0]) - left), max(0, min(y + h, size[1]) - top)]
