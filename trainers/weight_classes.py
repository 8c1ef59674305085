"""Which rows of published weights are those of the data's classes.

They are found by name where a file names its classes, as mmdetection's do. Where it names none, torchvision's 91 rows
and mmdetection's 80 are COCO's in COCO's order, if all classes of the data are COCO's; all else goes by number.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from torch import Tensor

from trainers.call import Invalid
from trainers.weight_names import CLASS_ROWS, DETECTION, MMDETECTION

COCO = 80  # classes
COCO_SLOTS = 91  # torchvision's classes are COCO's ids, of which ten between 1 and 90 are not in use, and a background
COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_IDS = [i for i in range(1, COCO_SLOTS) if i not in COCO_GAPS]
ELSE = "to take only its backbone, write part: backbone"
ANEW = "to train it on with other classes, write part: without_classes"


class Classes(NamedTuple):
    """What is known of the classes of a file and of the data that it is wanted for."""

    published: str  # the format
    number: int  # of the data
    wanted: tuple[str, ...] | None  # the data's names
    named: tuple[str, ...] | None  # the file's names


def has_classes(name: str) -> bool:
    """Whether a tensor of this name, as we call it, has rows for classes."""
    return any(re.fullmatch(pattern, name) for pattern, *_ in CLASS_ROWS)


def with_classes(name: str, value: Tensor, own: Tensor, classes: Classes) -> Tensor:
    """A tensor with the rows of the data's classes, in their order; the network's tensor of this name is `own`.

    Raises `Invalid` when the file has other classes, or another number of them.
    """
    found = next((row for row in CLASS_ROWS if re.fullmatch(row[0], name)), None)
    if found is None or value.dim() != own.dim() or value.shape[1:] != own.shape[1:]:
        return value
    _, background, numbers = found
    anchors = len(own) // ((classes.number + background) * numbers)
    if anchors == 0 or len(value) % (anchors * numbers):  # of another detector
        return value
    slots = len(value) // (anchors * numbers)
    chosen = rows(slots, background, classes)
    if chosen == list(range(slots)):
        return value
    return value.unflatten(0, (anchors, slots, numbers))[:, chosen].flatten(0, 2)


def rows(slots: int, background: int, classes: Classes) -> list[int]:
    """Where the file has the background and the data's classes."""
    first, number = list(range(background)), classes.number
    names = slot_names(slots, background, classes)
    if names is not None and classes.wanted is not None:
        if strange := [name for name in classes.wanted if name not in names]:
            whose = "its own" if classes.named else "those of COCO"
            raise Invalid(f"these weights know no class {strange[0]!r}: their classes are {whose}; {ANEW}; {ELSE}")
        return first + [names.index(name) for name in classes.wanted]
    if classes.published == DETECTION and slots == COCO_SLOTS and number == COCO:
        return first + COCO_IDS
    if slots != number + background:
        raise Invalid(f"these weights are for {slots - background} classes, and the data has {number}; {ANEW}; {ELSE}")
    return list(range(slots))


def slot_names(slots: int, background: int, classes: Classes) -> tuple[str, ...] | None:
    """The names of a file's rows, the background's empty, where they are known."""
    if classes.named is not None:
        if len(classes.named) + background != slots:
            raise Invalid(
                f"these weights are for {slots - background} classes, and their file names {len(classes.named)}; {ELSE}"
            )
        return ("",) * background + classes.named
    if classes.wanted is None:
        return None
    if classes.published == DETECTION and slots == COCO_SLOTS:
        return categories() if classes.number == COCO or set(classes.wanted) <= set(categories()) else None
    if classes.published == MMDETECTION and slots - background == COCO:
        coco = tuple(categories()[i] for i in COCO_IDS)
        return ("",) * background + coco if set(classes.wanted) <= set(coco) else None
    return None


@cache
def categories() -> tuple[str, ...]:
    """The names of COCO's classes by their ids, as torchvision has them."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights  # seconds to import

    return tuple(FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"])
