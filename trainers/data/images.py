"""Image files, decoded whatever they are made of, and no larger than they say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from trainers.call import Invalid
from trainers.data.rules import PIXELS

# What photographs come in. Others are refused: Pillow hands PostScript to another program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")


class OtherSize(Invalid):
    """An image has other sides than its annotations say."""


def read_image(path: Path, *, size: tuple[int, int]) -> Tensor:
    """Decode an image file of (width, height), whatever its colours. -> (3, H, W) uint8, RGB. Raises `Invalid`."""
    if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe would wait for ever
        raise Invalid(f"cannot read the image {path}: it is no file")
    return decode(path, str(path), size=size)


def decode(file: Path | BinaryIO, source: str, *, size: tuple[int, int]) -> Tensor:
    """An image of (width, height), whatever its colours; `source` names it. -> (3, H, W) uint8, RGB.

    The colours of a pixel lie together in memory. It is turned by its EXIF orientation only if its size is right in
    no other way: COCO's boxes are drawn on the pixels as they are stored. The size is compared before anything is
    decoded. Raises `Invalid`.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            turned = image.size != size and image.size == size[::-1] and _quarter(image)
            if image.size != size and not turned:
                found, said = (" x ".join(map(str, sides)) for sides in (image.size, size))
                raise OtherSize(f"{source} has {found} pixels, its annotations say {said}")
            colours = np.array(_rgb(ImageOps.exif_transpose(image) if turned else image))
    except Invalid:
        raise
    except Exception as error:  # fed with noise, decoders raise anything, from OSError to TypeError
        raise Invalid(f"cannot read the image {source}: {error}") from None
    return torch.from_numpy(colours).permute(2, 0, 1)


def size_of(file: Path | BinaryIO, source: str) -> tuple[int, int]:
    """(width, height) in pixels, from an image's header. Raises `Invalid` for what is no image, or too large a one."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            width, height = image.size
    except Exception as error:  # as above
        raise Invalid(f"cannot read the image {source}: {error}") from None
    if width * height > PIXELS:
        raise Invalid(f"{source}: {width} x {height} pixels are more than {PIXELS:,}; scale it down")
    return width, height


def _quarter(image: Image.Image) -> bool:
    """Whether EXIF says that the camera was held upright: orientations 5 to 8 swap the sides."""
    return image.getexif().get(0x0112, 1) in (5, 6, 7, 8)


def _rgb(image: Image.Image) -> Image.Image:
    """Eight bits and three colours; of an animation the first picture. Of sixteen bits the upper eight."""
    if image.mode.startswith("I"):
        pixels = np.asarray(image).astype(np.int64)
        # Pillow opens some of sixteen bits as 32; that it does with eight as well.
        if image.mode != "I" or pixels.max(initial=0) > 255:
            pixels >>= 8
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it
