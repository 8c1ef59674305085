"""Image files, decoded whatever they are made of, and no larger than they say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from PIL.Image import Transpose
from torch import Tensor

from trainers.call import Invalid
from trainers.data.rules import PIXELS

# What photographs come in. Others are refused: Pillow hands PostScript to another program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
ORIENTATION = 0x0112  # in EXIF
TURNS = {  # what makes an image upright, by its orientation
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
QUARTERS = (5, 6, 7, 8)  # orientations that swap the sides


class OtherSize(Invalid):
    """An image has other sides than its annotations say."""


def read_image(path: Path, *, size: tuple[int, int]) -> Tensor:
    """Decode an image file of (width, height), whatever its colours. -> (3, H, W) uint8, RGB. Raises `Invalid`."""
    _no_pipe(path)
    return decode(path, str(path), size=size)


def read_photo(path: Path, *, as_stored: bool = False, source: str = "") -> Tensor:
    """Decode an image file that no annotations describe. -> (3, H, W) uint8, RGB. Raises `Invalid`.

    It is turned and mirrored as the camera noted in EXIF, so that it is upright as in any viewer; or not, `as_stored`.
    Pillow itself turns TIFF, whatever is said. `source` names it in errors, in place of its path.
    """
    _no_pipe(path)
    source = source or str(path)
    with _opened(path, source) as image:
        _check_pixels(image.size, source)
        return _tensor(image if as_stored else upright(image))


def decode(file: Path | BinaryIO, source: str, *, size: tuple[int, int]) -> Tensor:
    """An image of (width, height), whatever its colours; `source` names it. -> (3, H, W) uint8, RGB.

    It is turned by its EXIF orientation only if its size is right in no other way: COCO's boxes are drawn on the
    pixels as they are stored. The size is compared before anything is decoded. Raises `Invalid`.
    """
    with _opened(file, source) as image:
        turned = image.size != size and image.size == size[::-1] and _noted(image) in QUARTERS
        if image.size != size and not turned:
            found, said = (" x ".join(map(str, sides)) for sides in (image.size, size))
            raise OtherSize(f"{source} has {found} pixels, its annotations say {said}")
        return _tensor(upright(image) if turned else image)


def size_of(file: Path | BinaryIO, source: str) -> tuple[int, int]:
    """(width, height) in pixels, from an image's header. Raises `Invalid` for what is no image, or too large a one."""
    with _opened(file, source) as image:
        size = image.size
        _check_pixels(size, source)
    return size


def upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation has it."""
    image.load()  # TIFF is turned here, and does not say so any more
    method = TURNS.get(_noted(image))
    return image if method is None else image.transpose(method)


@contextmanager
def _opened(file: Path | BinaryIO, source: str) -> Iterator[Image.Image]:
    """An image while it is decoded; whatever decoders raise is `Invalid`."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            image.filename = ""  # by its name Pillow maps TIFF into memory, and garbles what it then turns
            yield image
    except Invalid:
        raise
    except Exception as error:  # fed with noise, decoders raise anything, from OSError to TypeError
        raise Invalid(f"cannot read the image {source}: {error}") from None


def _no_pipe(path: Path) -> None:
    """Raise `Invalid` for what is no file: reading a pipe would wait for ever."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise Invalid(f"cannot read the image {path}: it is no file")


def _check_pixels(size: tuple[int, int], source: str) -> None:
    width, height = size
    if width * height > PIXELS:
        raise Invalid(f"{source}: {width} x {height} pixels are more than {PIXELS:,}; scale it down")


def _noted(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, or none that can be read."""
    noted = 1
    with suppress(Exception):  # what changes no pixel need not be right
        noted = image.getexif().get(ORIENTATION, 1)
    return noted


def _tensor(image: Image.Image) -> Tensor:
    """The pixels. (3, H, W), of which the colours of one lie together in memory."""
    return torch.from_numpy(np.array(_rgb(image))).permute(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    """Eight bits and three colours; of an animation the first picture. Of sixteen bits the upper eight."""
    if image.mode.startswith("I"):
        pixels = np.asarray(image).astype(np.int64)
        if is_deep(image.mode, pixels.max(initial=0)):
            pixels >>= 8
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


def is_deep(mode: str, largest: int) -> bool:
    """Whether pixels of one of Pillow's modes of whole numbers have sixteen bits, by the largest of them.

    Pillow opens some of sixteen bits as 32; that it does with eight as well.
    """
    return mode != "I" or largest > 255
