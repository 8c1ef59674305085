"""One image file looked at from all sides: whether training could read it, and what is odd about it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from trainers.call import Invalid
from trainers.data.images import FORMATS, ORIENTATION, OtherSize, is_deep, read_image
from trainers.data.rules import PIXELS, Flaw, Size

BRIGHT = 1 << 13  # of sixteen bits: an image that stays below keeps a 32nd of the levels, and is almost black

COLOURS = {  # by Pillow's mode
    "1": ("grey", "is black and white, read as three equal colours"),
    "L": ("grey", "is grey, read as three equal colours"),
    "LA": ("alpha", "is grey with transparency, which is left out"),
    "P": ("palette", "has a palette, read as the colours that it stands for"),
    "PA": ("palette", "has a palette with transparency, which is left out"),
    "RGBA": ("alpha", "has transparency, which is left out"),
    "CMYK": ("CMYK", "is in CMYK, read as RGB"),
    "F": ("16 bits", "has floating point pixels, read as whole numbers up to 255"),
}


class Task(NamedTuple):
    """An image to look at. Its name is safe."""

    folder: Path
    name: str
    size: Size | None  # as its annotations have it, if they have any


class Seen(NamedTuple):
    """What was found: why it cannot be trained on, if it cannot; what is odd; and its size, if that could be read."""

    flaw: Flaw | None
    notes: tuple[Flaw, ...] = ()
    size: Size | None = None


def examine(task: Task) -> Seen:
    """Read the whole image. Raises nothing."""
    path = task.folder / task.name
    try:
        state = path.stat()
    except OSError as error:
        return Seen(("unreadable image", f"cannot be read: {error.strerror}"))
    if not S_ISREG(state.st_mode):  # reading a pipe would wait for ever
        return Seen(("unreadable image", "is no file"))
    if not state.st_size:
        return Seen(("empty image", "is an empty file"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _open(path, task)


def _open(path: Path, task: Task) -> Seen:
    try:
        with Image.open(path, formats=FORMATS) as image:
            size, form = image.size, image.format
            notes = tuple(_notes(image, path, task))
    except Image.DecompressionBombError:
        return Seen(("bomb", f"has more than {2 * PIXELS:,} pixels"))
    except Exception as error:
        text = "is no image" if isinstance(error, UnidentifiedImageError) else f"cannot be read: {error}"
        return Seen(("unreadable image", f"{text}; known are {', '.join(FORMATS)}"))
    if size[0] * size[1] > PIXELS:
        return Seen(("bomb", f"has {size[0]} x {size[1]} pixels, more than {PIXELS:,}"), notes, size)
    return Seen(_flaw(path, task.size or size, form), notes, size)


def _flaw(path: Path, size: Size, form: str | None) -> Flaw | None:
    try:
        read_image(path, size=size)
    except OtherSize as error:
        return "other size", _after(path, error)
    except Invalid as error:
        return "damaged image", _after(path, error)
    if form == "PNG":  # its decoder passes over the checksums
        try:
            with Image.open(path, formats=FORMATS) as image:
                image.verify()
        except Exception as error:
            return "damaged image", f"cannot be trusted: {error}"
    return _dark(path)


def _dark(path: Path) -> Flaw | None:
    """Whether an image that was read has sixteen bits and uses few of them, as cameras of twelve bits write it."""
    with Image.open(path, formats=FORMATS) as image:
        if not image.mode.startswith("I"):
            return None
        largest, mode = int(np.asarray(image).max(initial=0)), image.mode
    if largest >= BRIGHT or largest == 0 or not is_deep(mode, largest):
        return None
    used, levels = max(largest, 0).bit_length(), (max(largest, 0) >> 8) + 1
    left = f"{levels} level{'s' if levels > 1 else ''} would be left"
    return "dark image", f"uses {used} of its 16 bits, of which {left}; stretch it to 16 or 8 bits"


def _after(path: Path, error: Invalid) -> str:
    """What an error says of the path, without the path, which is named already."""
    return str(error).replace(f"cannot read the image {path}:", "cannot be read:").removeprefix(f"{path} ")


def _notes(image: Image.Image, path: Path, task: Task) -> Iterator[Flaw]:
    """What is odd and no obstacle."""
    if image.mode.startswith("I"):
        yield "16 bits", "has 16 bits a colour, of which the upper eight are read"
    elif image.mode in COLOURS:
        yield COLOURS[image.mode]
    elif image.mode != "RGB":
        yield "other colours", f"is in {image.mode}, read as RGB"
    if "transparency" in image.info and "A" not in image.mode:
        yield "alpha", "has a transparent colour, which is drawn like any other"
    with suppress(Exception):  # a later picture may be broken: only the first counts
        if getattr(image, "n_frames", 1) > 1:
            yield "animation", "has several pictures, of which the first is read"
    with suppress(Exception):
        turned = image.getexif().get(ORIENTATION, 1)
        if turned in range(2, 9):
            how = "as stored" if task.size in (None, image.size) else "turned, as its annotations are"
            yield "EXIF rotation", f"is to be turned, says its EXIF (orientation {turned}); it is read {how}"
    form = "JPEG" if image.format == "MPO" else image.format
    if Image.registered_extensions().get(path.suffix.lower()) != form:
        yield "wrong extension", f"is a {form} by its content"
    if not path.resolve().is_relative_to(task.folder.resolve()):
        yield "link", f"is a link to {str(path.resolve())!r}, outside the folder"
