"""COCO: a folder of images with annotations in COCO's format, in the layout of COCO 2017.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, https://arxiv.org/abs/1405.0312
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from trainers.call import Call, Invalid
from trainers.data.annotations import agree, load, refuse
from trainers.data.masks import packed
from trainers.data.split import COCO_AP, Metric, Split, classes_of, fingerprint

# What photographs come in. Others are refused: Pillow hands PostScript to another program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")


class COCO:
    """Training and validation data under `root`. `metric` judges detections, by default by COCO's AP.

    train, val: annotation files; train_images, val_images: folders of images; all relative to root. Raises
    `Invalid` for what is missing or wrong.
    """

    def __init__(
        self,
        *,
        root: str,
        train: str = "annotations/instances_train2017.json",
        val: str = "annotations/instances_val2017.json",
        train_images: str = "train2017",
        val_images: str = "val2017",
        metric: Metric = COCO_AP,
    ) -> None:
        folder = Path(root).expanduser()
        if not folder.is_dir():
            raise Invalid(f"there is no folder {root} (from {Path.cwd()})", ("root",))
        self.train = _open(folder, train, train_images, "train")
        self.val = _open(folder, val, val_images, "val")
        agree(self.train.coco, self.val.coco)
        if (self.val.rows.crowd | self.val.rows.ignore).all():
            raise Invalid(f"{folder / val} has no object to measure on, crowds left aside", ("val",))
        self.classes = self.train.classes
        self.metric = Call.model_validate(metric)
        self.fingerprint = fingerprint(self.train, self.val)


def _open(root: Path, annotations: str, images: str, which: str) -> Split:
    path, folder = root / annotations, root / images
    if not path.is_file():
        raise Invalid(f"there is no annotation file {path}; name it by `{which}`, from {root}", (which,))
    if not folder.is_dir():
        key = f"{which}_images"
        raise Invalid(f"there is no folder of images {folder}; name it by `{key}`, from {root}", (key,))
    return _split(path.resolve(), folder.resolve(), _stamp(path))


@lru_cache(maxsize=4)
def _split(path: Path, folder: Path, stamp: tuple[int, int]) -> Split:
    """Read once a process: many stages train on the same data. `stamp` tells a changed file from the old."""
    coco = load(path)
    refuse(_missing(coco["images"], folder), f"images of {path} that are not in {folder}")
    return Split(coco, classes_of(coco), partial(_read, coco["images"], folder), partial(_outlines, path, stamp))


def _outlines(path: Path, stamp: tuple[int, int]) -> dict[int, bytes]:
    """The masks, which `load` let go. Read again from the same file, or `Invalid` is raised."""
    if not path.is_file() or _stamp(path) != stamp:
        raise Invalid(f"{path} changed while it was in use; start again")
    return packed(json.loads(path.read_bytes())["annotations"])


def _stamp(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_mtime_ns, state.st_size


def _missing(images: list[dict[str, Any]], folder: Path) -> Iterator[str]:
    """Names without a file. Each folder is listed once: 118,000 calls, one a file, are slow on a network."""
    listed: dict[str, set[str]] = {}
    folded: dict[str, dict[str, str]] = {}
    for image in images:
        parent, name = os.path.split(image["file_name"])
        if parent not in listed:
            listed[parent] = _names(folder / parent)
        if name not in listed[parent]:
            if parent not in folded:
                folded[parent] = {there.casefold(): there for there in listed[parent]}
            twin = folded[parent].get(name.casefold())
            yield image["file_name"] + (f" (there is {twin})" if twin else "")


def _names(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.is_dir() else set()


def _read(images: list[dict[str, Any]], folder: Path, index: int) -> Tensor:
    image = images[index]
    return read_image(folder / image["file_name"], size=(image["width"], image["height"]))


def read_image(path: Path, *, size: tuple[int, int]) -> Tensor:
    """Decode an image of (width, height), whatever its colours. -> (3, H, W) uint8, RGB.

    The colours of a pixel lie together in memory. It is turned by its EXIF orientation only if its size is
    right in no other way: COCO's boxes are drawn on
    the pixels as they are stored. The size is compared before anything is decoded. Raises `Invalid`.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            turned = image.size != size and image.size == size[::-1] and _quarter(image)
            if image.size != size and not turned:
                found, said = (" x ".join(map(str, sides)) for sides in (image.size, size))
                raise Invalid(f"{path} has {found} pixels, its annotations say {said}")
            colours = np.array(_rgb(ImageOps.exif_transpose(image) if turned else image))
    except Invalid:
        raise
    except Exception as error:  # fed with noise, decoders raise anything, from OSError to TypeError
        raise Invalid(f"cannot read the image {path}: {error}") from None
    return torch.from_numpy(colours).permute(2, 0, 1)


def _quarter(image: Image.Image) -> bool:
    """Whether EXIF says that the camera was held upright: orientations 5 to 8 swap the sides."""
    return image.getexif().get(0x0112, 1) in (5, 6, 7, 8)


def _rgb(image: Image.Image) -> Image.Image:
    """Eight bits and three colours; of an animation the first picture. Of sixteen bits the upper eight."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it
