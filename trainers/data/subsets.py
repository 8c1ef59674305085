"""Parts of a data set: some of its classes, or the images in which there is something to find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from trainers.call import Invalid, alternatives
from trainers.data.split import Split, classes_of

Empty = Literal["keep", "drop"]  # what becomes of training images in which nothing is to be found


def of_classes(coco: dict[str, Any], names: frozenset[str], source: Path) -> dict[str, Any]:
    """Without the categories that are not named, and what belongs to them. `Invalid` for a name that is not there."""
    known = classes_of(coco)
    unknown = [alternatives(name, known) for name in sorted(names.difference(known))]
    if unknown:
        raise Invalid(f"{source}: {'; '.join(unknown)}", ("classes",))
    categories = [row for row in coco["categories"] if row["name"] in names]
    ids = {row["id"] for row in categories}
    annotations = [row for row in coco["annotations"] if row["category_id"] in ids]
    return {**coco, "categories": categories, "annotations": annotations}


def filled(split: Split) -> Split:
    """The images in which there is something to find, with all their annotations. `Invalid` if there are none."""
    kept = [index for index in range(len(split)) if len(split.boxes(index))]
    if not kept:
        raise Invalid("no training image has an object to learn", ("empty",))
    return these(split, kept)


def these(split: Split, places: Sequence[int]) -> Split:
    """The images at these places, in this order, with all their annotations."""
    images = [split.coco["images"][index] for index in places]
    ids = {image["id"] for image in images}
    annotations = [row for row in split.coco["annotations"] if row["image_id"] in ids]
    coco = {**split.coco, "images": images, "annotations": annotations}
    return Split(coco, split.classes, partial(_picked, split.read, places), split.outlines)


def _picked(read: Callable[[int], Tensor], places: Sequence[int], index: int) -> Tensor:
    return read(places[index])
