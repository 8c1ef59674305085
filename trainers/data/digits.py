"""Digits: handwritten digits of all sizes on textured scenes, drawn in a second and learnt in a minute.

The digits are the test set of Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
Learning Repository, 1998, https://doi.org/10.24432/C50P49, as scikit-learn ships them: 1,797 pictures of 8 x
8 pixels. Blown up, faded to one side and laid on texture they have edges that are hard to place, which is
what localization distillation is about.
"""

from __future__ import annotations

import json
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from trainers.call import Call, Index, Invalid
from trainers.data.masks import encode, packed
from trainers.data.split import COCO_AP, Metric, Split, classes_of, fingerprint
from trainers.data.unread import Unseen

# Part of every file name, so that scenes drawn otherwise are other data.
VERSION = 1
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HELD_OUT = 0.25  # of the handwriting is seen in validation only

DIGIT = (14 / 64, 38 / 64)  # side of a digit, in sides of the scene
FAINTEST = 0.35  # how much of its ink a digit may lose from one end to the other
INK = 64  # of 255: where ink is seen, for the box and the mask
TEXTURE, NOISE = 0.06, 0.02  # standard deviations of the background, where white is 1
OVERLAP = 0.1  # the most that two boxes share, in parts of the smaller one


class Digits:
    """Scenes of one to three digits. `metric` judges detections, by default by COCO's AP.

    classes: the first so many digits; train, val, test: number of scenes; size: their side in pixels. A scene
    depends on classes, size, seed and its place only, and training and validation show different handwriting. The
    scenes of the test, of which there are none by default, are others than those of validation, in its handwriting.
    """

    def __init__(
        self,
        *,
        classes: Annotated[int, Field(ge=1, le=10)] = 3,
        train: Annotated[int, Field(ge=1, le=10_000)] = 600,
        val: Annotated[int, Field(ge=1, le=10_000)] = 200,
        size: Annotated[int, Field(ge=32, le=256)] = 64,
        seed: Index = 0,
        test: Annotated[int, Field(ge=0, le=10_000)] = 0,
        metric: Metric = COCO_AP,
    ) -> None:
        self.train, self.val, self.test, self.fingerprint = _draw(classes, train, val, test, size, seed)
        self.classes = self.train.classes
        self.metric = Call.model_validate(metric)

    @staticmethod
    def names(*, classes: int = 3, **_: Any) -> tuple[str, ...]:
        """What `classes` is for these arguments."""
        return NAMES[:classes]

    @staticmethod
    def unseen(*, train: int, size: int, **_: Any) -> Unseen:
        """What its training images will be."""
        return Unseen(train, (size, size), has_masks=True)


@lru_cache(maxsize=4)
def _draw(
    classes: int, train: int, val: int, test: int, size: int, seed: int
) -> tuple[Split, Split, Split | None, str]:
    """Drawn once a process: many stages train on the same scenes."""
    handwriting = _handwriting(classes, seed)
    parts = [("train", train), ("val", val), ("test", test)]
    learnt, measured, *tested = (
        _split(name, [samples[min(part, 1)] for samples in handwriting], count, size=size, seed=(seed, part))
        for part, (name, count) in enumerate(parts)
        if count
    )
    last = tested[0] if tested else None
    return learnt, measured, last, fingerprint(learnt, measured, last)


def _handwriting(classes: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each class the samples of training and of validation. -> (M, 8, 8) uint8 each, 0..240."""
    rows = np.loadtxt(_file(), delimiter=",", dtype=np.uint8)  # 64 pixels of 0..16, and which digit they show
    images, shown = rows[:, :-1].reshape(-1, 8, 8), rows[:, -1]
    pools = []
    for digit in range(classes):
        samples = images[shown == digit] * np.uint8(15)
        samples = samples[np.random.default_rng((seed, digit)).permutation(len(samples))]
        held = round(HELD_OUT * len(samples))
        pools.append((samples[held:], samples[:held]))
    return pools


def _file() -> Path:
    """The handwriting inside scikit-learn, which itself takes two seconds to import."""
    package = find_spec("sklearn")
    assert package is not None and package.submodule_search_locations, "tapath requires scikit-learn"
    return Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"


def _split(name: str, handwriting: list[np.ndarray], count: int, *, size: int, seed: tuple[int, int]) -> Split:
    pictures = np.empty((count, size, size, 3), dtype=np.uint8)
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        rng = np.random.default_rng((*seed, index))
        pictures[index], objects = scene(rng, handwriting, size=size)
        for digit, (x1, y1, x2, y2), mask in objects:
            width, height = x2 - x1, y2 - y1
            row: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": index + 1,
                "category_id": digit + 1,
            }
            # The area stays that of the box: it is part of the fingerprint.
            row |= {"bbox": [x1, y1, width, height], "area": width * height, "iscrowd": 0}
            row["segmentation"] = encode(mask)
            annotations.append(row)
    images = [
        {"id": i + 1, "file_name": f"digits-{VERSION}/{name}/{i + 1:06d}.png", "width": size, "height": size}
        for i in range(count)
    ]
    categories = [{"id": k + 1, "name": NAMES[k]} for k in range(len(handwriting))]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    planes = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
    return Split(coco, classes_of(coco), planes.__getitem__, partial(packed, annotations))


Box = tuple[int, int, int, int]
Object = tuple[int, Box, np.ndarray]  # label, box, and the mask of what is seen of it, (size, size) bool


def scene(rng: np.random.Generator, handwriting: list[np.ndarray], *, size: int) -> tuple[np.ndarray, list[Object]]:
    """One to three digits on texture. -> (size, size, 3) uint8, and its objects."""
    picture = _background(rng, size)
    objects: list[Object] = []
    for _ in range(rng.integers(1, 4)):
        label = int(rng.integers(len(handwriting)))
        ink, box = _digit(rng, handwriting[label], size)
        place = _place(rng, ink.shape, box, [taken for _, taken, _ in objects], size)
        if place is None:
            continue
        x, y = place
        height, width = ink.shape
        alpha = _fade(rng, ink)[:, :, None]
        colour = rng.uniform(0.7, 1.0, 3).astype(np.float32)
        window = picture[y : y + height, x : x + width]
        window += alpha * (colour - window)
        mask = np.zeros((size, size), dtype=bool)
        mask[y : y + height, x : x + width] = ink >= INK
        objects.append((label, (x + box[0], y + box[1], x + box[2], y + box[3]), mask))
    picture += rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(NOISE)
    return (picture.clip(0, 1) * 255 + 0.5).astype(np.uint8), objects


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A dark colour with soft blotches. -> (size, size, 3) float32, 0..1"""
    coarse = rng.standard_normal((8, 8), dtype=np.float32) * np.float32(TEXTURE)
    blotches = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
    return rng.uniform(0.1, 0.35, 3).astype(np.float32) + blotches[:, :, None]


def _digit(rng: np.random.Generator, samples: np.ndarray, size: int) -> tuple[np.ndarray, Box]:
    """A digit of some size. -> (H, W) uint8 ink without empty rim, and the box around what is seen of it."""
    # An empty rim lets the ink run out softly where the handwriting touches the edge of its picture.
    sample = np.pad(samples[rng.integers(len(samples))], 1)
    height = rng.uniform(*DIGIT) * size * len(sample) / samples.shape[1]
    width = height * rng.uniform(0.85, 1.15)
    ink = np.asarray(Image.fromarray(sample).resize((round(width), round(height)), Image.Resampling.BICUBIC))
    left, top, right, bottom = _around(ink > 0)
    ink = ink[top:bottom, left:right]
    return ink, _around(ink >= INK)


def _around(seen: np.ndarray) -> Box:
    """The smallest box that holds all that is True. (H, W) bool"""
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _fade(rng: np.random.Generator, ink: np.ndarray) -> np.ndarray:
    """Ink that weakens towards one side. -> (H, W) float32, 0..1"""
    height, width = ink.shape
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    along = (np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y) / np.float32(np.sqrt(2))  # -1..1
    weakest = rng.uniform(FAINTEST, 1.0)
    strength = 1 - (1 - np.float32(weakest)) * (along + 1) / 2
    return ink.astype(np.float32) / 255 * strength


def _place(
    rng: np.random.Generator, shape: tuple[int, ...], box: Box, taken: list[Box], size: int
) -> tuple[int, int] | None:
    """A corner at which the digit hides no other, or None if there is no room."""
    for x, y in rng.integers(0, (size - shape[1] + 1, size - shape[0] + 1), size=(20, 2)).tolist():
        if all(_shared((x + box[0], y + box[1], x + box[2], y + box[3]), other) <= OVERLAP for other in taken):
            return x, y
    return None


def _shared(a: Box, b: Box) -> float:
    """Intersection in parts of the smaller box."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(width, 0) * max(height, 0) / smaller


def write(digits: Digits, folder: Path) -> None:
    """Write images and annotations so that `{COCO: {root: folder}}` is the same data, to the fingerprint; with test
    scenes `{COCO: {root: folder, test: annotations/instances_test2017.json}}`.

    Raises `Invalid` if there is anything in the folder already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise Invalid(f"{folder} is not empty; name a new folder")
    (folder / "annotations").mkdir(parents=True)
    parts = (("train2017", digits.train), ("val2017", digits.val), ("test2017", digits.test))
    for name, split in ((name, split) for name, split in parts if split):
        for index, image in enumerate(split.coco["images"]):
            path = folder / name / image["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(split.read(index).permute(1, 2, 0).numpy()).save(path)
        (folder / "annotations" / f"instances_{name}.json").write_text(json.dumps(split.coco))
