"""One image's annotations as PASCAL VOC writes them: an XML file, read without trusting it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from trainers.call import Invalid, alternatives
from trainers.data.rules import PIXELS, TOLERANCE

LARGEST = 1 << 20  # bytes; VOC's own have a few thousand
CORNERS = ("xmin", "ymin", "xmax", "ymax")

Corners = tuple[float, float, float, float]


class Object(NamedTuple):
    """Something that is annotated in an image."""

    name: str
    corners: Corners  # xmin, ymin, xmax, ymax: the first and the last pixels, counted from 1
    difficult: bool


class Sheet(NamedTuple):
    """What a file says."""

    size: tuple[int, int] | None  # width, height; None if it does not say
    objects: list[Object]


def read(path: Path, classes: Collection[str]) -> Sheet:
    """One file. Raises `Invalid`, which says everything that is wrong with it, but not its name."""
    root = _parsed(path)
    size, objects, mistakes = _size(root), [], []
    for number, element in enumerate(root.findall("object"), start=1):
        found = _object(element, classes)
        wrong = [found] if isinstance(found, str) else list(_misplaced(found.corners, size))
        mistakes += [f"object {number} {text}" for text in wrong]
        if isinstance(found, Object):
            objects.append(found)
    if mistakes:
        raise Invalid(", ".join(mistakes))
    return Sheet(size, objects)


def names_in(path: Path) -> set[str]:
    """The names of a file's objects, whatever else is in it. Raises `Invalid` if it cannot be read."""
    return {name for element in _parsed(path).findall("object") if (name := _name(element))}


def _name(element: ElementTree.Element) -> str:
    return (element.findtext("name") or "").strip()


def _parsed(path: Path) -> ElementTree.Element:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        raise Invalid(f"cannot be read: {error.strerror}") from None
    if len(raw) > LARGEST:
        raise Invalid(f"has more than {LARGEST:,} bytes, which no annotations of one image need")
    # What is parsed is the text that was looked at: no encoding can hide a declaration from this.
    text = raw.decode("utf-8-sig", errors="replace")
    if any(word in text.upper() for word in ("<!DOCTYPE", "<!ENTITY")):
        raise Invalid("declares a document type or entities, which annotations do not need; remove that")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise Invalid(f"is not XML: {error}") from None
    if root.tag != "annotation":
        raise Invalid(f"holds <{root.tag:.40}> instead of <annotation>")
    return root


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Width and height; None if one is missing or 0, as some programs write it."""
    width, height = (_number(root.findtext(f"size/{side}", "0")) for side in ("width", "height"))
    if width is None or height is None or not (width.is_integer() and height.is_integer() and min(width, height) >= 0):
        said = ", ".join(repr(root.findtext(f"size/{side}")) for side in ("width", "height"))
        raise Invalid(f"has the size {said:.80}, not two whole numbers of pixels")
    if width * height > PIXELS:
        raise Invalid(f"has the size {width:.0f} x {height:.0f}: more than {PIXELS:,} pixels; scale the image down")
    return (int(width), int(height)) if width and height else None


def _object(element: ElementTree.Element, classes: Collection[str]) -> Object | str:
    """An object, or what is wrong with it."""
    name = _name(element)
    if name not in classes:
        known = alternatives(name[:40] or "(no name)", classes)
        return f"has no name that is known: {known}; own names are the knob `classes`"
    written = [element.findtext(f"bndbox/{corner}") for corner in CORNERS]
    x1, y1, x2, y2 = (None if text is None else _number(text) for text in written)
    if x1 is None or y1 is None or x2 is None or y2 is None:
        said = ", ".join(f"{corner} {text!r:.40}" for corner, text in zip(CORNERS, written, strict=True))
        return f"({name}) has a bndbox that is no four finite numbers: {said}"
    if x2 <= x1 or y2 <= y1:
        return f"({name}) has reversed corners or no area: x from {x1:g} to {x2:g}, y from {y1:g} to {y2:g}"
    difficult = (element.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        return f"({name}) has difficult {difficult!r:.40}, neither 0 nor 1"
    return Object(name, (x1, y1, x2, y2), difficult == "1")


def _misplaced(corners: Corners, size: tuple[int, int] | None) -> Iterator[str]:
    """Whether a box leaves its image."""
    if size is None:
        return
    x1, y1, x2, y2 = corners
    if min(x1, y1) < 1 - TOLERANCE or x2 > size[0] + TOLERANCE or y2 > size[1] + TOLERANCE:
        yield f"leaves the image of {size[0]} x {size[1]} pixels: x from {x1:g} to {x2:g}, y from {y1:g} to {y2:g}"


def _number(text: str) -> float | None:
    """A finite number, or None. Some of VOC's corners have fractions."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
