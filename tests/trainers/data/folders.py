"""A small folder in COCO's format, and image files of all the kinds that are broken or odd."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainers.data.inspection import Source

WIDTH, HEIGHT = 16, 12
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def made(folder: Path, *, images: int = 3, part: str = "train2017") -> Source:
    """Images 1, 2, ... named 1.png, 2.png, ... with an annotation each of ten times their number."""
    (folder / part).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    rows, boxes = [], []
    for one in range(1, images + 1):
        Image.fromarray(RGB).save(folder / part / f"{one}.png")
        rows.append({"id": one, "file_name": f"{one}.png", "width": WIDTH, "height": HEIGHT})
        boxes.append(
            {"id": 10 * one, "image_id": one, "category_id": 1, "bbox": [1, 2, 5, 6], "area": 30, "iscrowd": 0}
        )
    source = Source(folder / "annotations" / f"instances_{part}.json", folder / part)
    write(source, {"images": rows, "annotations": boxes, "categories": [{"id": 1, "name": "noise"}]})
    return source


def read(source: Source) -> Any:
    return json.loads(source.file.read_text())


def write(source: Source, coco: Any) -> None:
    source.file.write_text(json.dumps(coco))


def png(**options: Any) -> bytes:
    return encoded(Image.fromarray(RGB), "PNG", **options)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    raw = io.BytesIO()
    image.save(raw, form, **options)
    return raw.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def png_with_bad_pixels() -> bytes:
    data = bytearray(png())
    data[data.index(b"IDAT") + 6] ^= 0xFF
    return bytes(data)


def png_with_bad_checksum() -> bytes:
    """All pixels are there, and the checksum of their piece of the file is another one."""
    data = bytearray(png())
    start = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[start - 4 : start])
    data[start + 4 + length] ^= 0xFF
    return bytes(data)


def bomb(side: int = 30_000) -> bytes:
    """A true PNG of so many grey pixels a side, all black: a thousandth of their number in bytes."""
    squeeze = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    pixels = b"".join(squeeze.compress(row) for _ in range(side)) + squeeze.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pieces = ((b"IHDR", head), (b"IDAT", pixels), (b"IEND", b""))
    body = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in pieces)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


BROKEN: dict[str, tuple[bytes, str, str]] = {  # the file, the kind of problem, and part of what is said
    "an empty file": (b"", "empty image", "is an empty file"),
    "no image": (b"<html>404 not found</html>", "unreadable image", "is no image; known are JPEG, PNG"),
    "a program in PostScript": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n",
        "unreadable image",
        "is no image",
    ),
    "a JPEG that is cut off": (encoded(Image.fromarray(RGB), "JPEG")[:-90], "damaged image", "truncated"),
    "a PNG that is cut off": (png()[:-60], "damaged image", "cannot be read"),
    "a PNG with bad pixels": (png_with_bad_pixels(), "damaged image", "cannot be read"),
    "a PNG with a bad checksum": (png_with_bad_checksum(), "damaged image", "cannot be trusted"),
    "a bomb": (bomb(), "bomb", "pixels"),
    "a smaller bomb": (bomb(10_000), "bomb", "has 10000 x 10000 pixels"),
    "another size": (
        encoded(Image.new("RGB", (5, 4)), "PNG"),
        "other size",
        "has 5 x 4 pixels, its annotations say 16 x 12",
    ),
    "swapped sides": (encoded(Image.new("RGB", (12, 16)), "PNG"), "other size", "has 12 x 16 pixels"),
}

GREY = Image.fromarray(RGB[..., 0])
ODD: dict[str, tuple[bytes, str, str]] = {  # the file, its suffix, and the kind of note
    "grey": (encoded(GREY, "PNG"), "png", "grey"),
    "black and white": (encoded(GREY.convert("1"), "PNG"), "png", "grey"),
    "16 bits": (encoded(Image.fromarray(RGB[..., 0].astype(np.uint16) * 200), "PNG"), "png", "16 bits"),
    "floating point": (encoded(GREY.convert("F"), "TIFF"), "tif", "16 bits"),
    "CMYK": (encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG"), "jpg", "CMYK"),
    "a palette": (encoded(Image.fromarray(RGB).quantize(8), "PNG"), "png", "palette"),
    "transparency": (encoded(Image.fromarray(RGB).convert("RGBA"), "PNG"), "png", "alpha"),
    "grey with transparency": (encoded(GREY.convert("LA"), "PNG"), "png", "alpha"),
    "a transparent colour": (png(transparency=(1, 2, 3)), "png", "alpha"),
    "other colours": (encoded(Image.fromarray(RGB).convert("LAB"), "TIFF"), "tif", "other colours"),
    "an animation": (encoded(GREY, "GIF", save_all=True, append_images=[GREY.rotate(90)]), "gif", "animation"),
    "EXIF": (encoded(Image.fromarray(RGB), "JPEG", exif=turned(3)), "jpg", "EXIF rotation"),
    "an extension that lies": (png(), "jpg", "wrong extension"),
    "an extension that nobody knows": (png(), "data", "wrong extension"),
}
