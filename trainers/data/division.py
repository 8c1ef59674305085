"""One set of annotations as two, to train on and to measure on, by images: the same ones for the same seed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from trainers.call import Invalid

Coco = dict[str, Any]


class Division(NamedTuple):
    """Two sets with all categories each, and what could not be shared out."""

    train: Coco
    val: Coco
    unmeasured: list[str]  # classes with objects that validation lacks, by their ids


def divided(coco: Mapping[str, Any], *, share: float, seed: int) -> Division:
    """About `share` (0..1) of the images for validation, at least one. All else stays as it is in the file.

    Images come in an order that the seed and their file names draw, so that ids and the order of the file make no
    difference. Class by class, the rarest first, the first image of each that validation lacks goes there; then the
    first of all, until they are enough. An image that is the last of a class to train on stays: so a class with one
    image alone is trained on, and not measured. Crowds and what is to be ignored count for no class. The annotations
    are right. Raises `Invalid` if no image with an object can be spared.
    """
    order = sorted((row["id"] for row in coco["images"]), key=_draws(coco, seed).__getitem__)
    images: dict[int, set[int]] = defaultdict(set)  # of a class
    classes: dict[int, set[int]] = defaultdict(set)  # of an image
    for row in coco["annotations"]:
        if not row.get("iscrowd", 0) and not row.get("ignore", 0):
            images[row["category_id"]].add(row["image_id"])
            classes[row["image_id"]].add(row["category_id"])
    left, chosen = {one: len(there) for one, there in images.items()}, set[int]()

    def take(image: int) -> bool:
        """Move an image, if it can be spared."""
        if image in chosen or any(left[one] == 1 for one in classes[image]):
            return False
        chosen.add(image)
        left.update((one, left[one] - 1) for one in classes[image])
        return True

    for one in sorted(images, key=lambda one: (len(images[one]), one)):
        if not images[one] & chosen:
            next((image for image in order if image in images[one] and take(image)), None)
    if not chosen:
        raise Invalid("no image can be spared for validation: no class has objects in two images")
    wanted = min(max(1, round(share * len(order))), len(order) - 1)
    for image in order:
        if len(chosen) < wanted:
            take(image)
    names = {row["id"]: row["name"] for row in coco["categories"]}
    lacking = [names[one] for one in sorted(images) if not images[one] & chosen]
    return Division(_part(coco, set(order) - chosen), _part(coco, chosen), lacking)


def _draws(coco: Mapping[str, Any], seed: int) -> dict[int, str]:
    """What orders the images, by id."""
    texts = {row["id"]: f"{seed} {row['file_name']}" for row in coco["images"]}
    return {one: hashlib.sha256(text.encode()).hexdigest() for one, text in texts.items()}


def _part(coco: Mapping[str, Any], ids: set[int]) -> Coco:
    images = [row for row in coco["images"] if row["id"] in ids]
    return {**coco, "images": images, "annotations": [row for row in coco["annotations"] if row["image_id"] in ids]}
