"""Small data sets in PASCAL VOC's true format, for tests: a devkit's folders, XML files and JPEGs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainers.data import Digits
from trainers.data.split import Split
from trainers.data.voc import VOC_NAMES


def xml(objects: str, *, name: str = "000001", size: tuple[int, int] | None = (48, 32)) -> str:
    """A file as the devkit has it, around <object> elements."""
    said = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>" if size else ""
    return f"""<annotation>
    <folder>VOC2007</folder>
    <filename>{name}.jpg</filename>
    <source><database>The VOC2007 Database</database><annotation>PASCAL VOC2007</annotation></source>
    <owner><name>somebody</name></owner>
    {said}
    <segmented>0</segmented>
    {objects}
</annotation>
"""


def thing(name: str, corners: Sequence[object], *, difficult: object = 0) -> str:
    """An <object> element; corners are xmin, ymin, xmax, ymax, counted from 1."""
    x1, y1, x2, y2 = corners
    return f"""<object>
        <name>{name}</name>
        <pose>Left</pose>
        <truncated>1</truncated>
        <difficult>{difficult}</difficult>
        <bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>
        <part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part>
    </object>"""


def write_part(devkit: Path, year: str, part: str, pages: dict[str, str], pixels: Any = None) -> None:
    """Write a part of a year: its list, and for each name the XML file and a JPEG of 48 x 32 pixels or of these."""
    folder = devkit / f"VOC{year}"
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "ImageSets/Main" / f"{part}.txt").write_text("".join(f"{name}\n" for name in pages))
    rng = np.random.default_rng(0)
    for name, page in pages.items():
        (folder / "Annotations" / f"{name}.xml").write_text(page)
        picture = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8) if pixels is None else pixels[name]
        Image.fromarray(picture).save(folder / "JPEGImages" / f"{name}.jpg", quality=95)


def write_digits(devkit: Path, digits: Digits) -> None:
    """The demo's digits as VOC 2007 trainval, 2012 trainval and 2007 test: `zero` is an aeroplane, `one` a bicycle, ...

    Half of the training scenes go to either year.
    """
    half = len(digits.train) // 2
    parts = [
        ("2007", "trainval", digits.train, range(half)),
        ("2012", "trainval", digits.train, range(half, len(digits.train))),
        ("2007", "test", digits.val, range(len(digits.val))),
    ]
    for year, part, split, places in parts:
        names = {place: f"{part}_{place:06d}" for place in places}
        pages = {name: page_of(split, place, name) for place, name in names.items()}
        pixels = {name: split.read(place).permute(1, 2, 0).numpy() for place, name in names.items()}
        write_part(devkit, year, part, pages, pixels)


def page_of(split: Split, place: int, name: str) -> str:
    """The XML file of one image of another data set."""
    columns = zip(split.boxes(place).tolist(), split.labels(place).tolist(), strict=True)
    objects = [thing(VOC_NAMES[k], [x1 + 1, y1 + 1, x2 + 1, y2 + 1]) for (x1, y1, x2, y2), k in columns]
    height, width = split.sizes[place]
    return xml("\n".join(objects), name=name, size=(width, height))
