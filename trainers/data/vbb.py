"""Pedestrians as the Caltech benchmark's annotations have them: `.vbb`, one a video, or text, one an image.

The layouts are those of the benchmark's own tools, https://github.com/pdollar/toolbox (detector/bbGt.m for text).
A `.vbb` is a MAT file with a struct A: labels by object, and for each frame the objects in it with their boxes.

MATLAB counts pixels from 1 in both: the tools cut a box x, y, w, h of whole numbers out of an image as its columns x to
x + w - 1 (detector/bbApply.m). What is read here is counted from 0, as boxes are everywhere else in this package.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trainers.call import Invalid, alternatives
from trainers.data.matlab import Struct, load, value

LABELS = {  # and whether one of it is to be found; the others are neither to be found nor a mistake
    "person": True,
    "people": False,  # a group
    "person?": False,
    "ignore": False,
}
UNUSED = ("person-fa",)  # in the published files; the benchmark takes no notice of these
FIRST_LINE = "% bbGt version=3"
FIELDS = 12  # of a line: label, box, occluded, visible box, ignored, angle
LARGEST = 1 << 20  # bytes of a text

Box = tuple[float, ...]  # x, y, w, h


class Pedestrian(NamedTuple):
    """Somebody in an image. A box at 0, 0 begins in the image's upper left corner."""

    box: Box  # pixels, counted from 0
    visible: Box | None  # of it; None where nothing hides it
    found: bool  # whether it is to be found


class Video:
    """The annotations of a video. Raises `Invalid`, which names the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        variables = load(path)
        try:
            if "A" not in variables:
                raise Invalid("has no variable A, in which annotations are")
            rows = value(variables["A"])
            if not isinstance(rows, list) or len(rows) != 1 or not isinstance(rows[0], dict):
                raise Invalid("has a variable A that is no struct")
            self._frames, self._labels = (_cells(rows[0], name) for name in ("objLists", "objLbl"))
            (frames,) = _numbers(rows[0], "nFrame", 1)
            if frames != len(self._frames):
                raise Invalid(f"says nFrame {frames:g} and has objLists for {len(self._frames)} frames")
        except Invalid as error:
            raise Invalid(f"{path} {error}") from None

    def __len__(self) -> int:
        """Frames."""
        return len(self._frames)

    def pedestrians(self, frame: int) -> list[Pedestrian]:
        """Whoever is in a frame, counted from 0. Raises `Invalid`, which does not name the file."""
        rows = value(self._frames[frame])
        if isinstance(rows, np.ndarray) and not rows.size:
            return []
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise Invalid("objLists holds no structs")
        found = [self._pedestrian(row) for row in rows if isinstance(row, dict)]
        return [one for one in found if one]

    def _pedestrian(self, row: Struct) -> Pedestrian | None:
        (number,) = _numbers(row, "id", 1)
        if not number.is_integer() or not 1 <= number <= len(self._labels):
            raise Invalid(f"object {number:g} is none of the {len(self._labels)} that have a label")
        label = value(self._labels[int(number) - 1])
        try:
            visible = _numbers(row, "posv", 4) if "posv" in row else ()
            return pedestrian(label if isinstance(label, str) else "", _numbers(row, "pos", 4), visible)
        except Invalid as error:
            raise Invalid(f"object {number:g}: {error}") from None


def pedestrian(label: str, box: Box, visible: Box, *, ignored: bool = False) -> Pedestrian | None:
    """One row; None for what the benchmark does not use, and for a box without area. Raises `Invalid`.

    Both boxes are as the file has them, counted from 1; the answer's are counted from 0. Whether something is hidden is
    said by the visible box alone, as in the benchmark's evaluation: it is all 0 in the file if not.
    """
    if label in UNUSED:
        return None
    if label not in LABELS:
        raise Invalid(f"label {alternatives(label[:40] or '(none)', [*LABELS, *UNUSED])}")
    if len(box) != 4:
        raise Invalid("has no box")
    for name, sides in (("box", box), ("visible box", visible)):
        if not all(math.isfinite(side) for side in sides) or any(side < 0 for side in sides[2:]):
            said = ", ".join(f"{side:g}" for side in sides)
            raise Invalid(f"{name} {said} is not x, y, width, height: finite, with no negative width or height")
    if 0 in box[2:]:
        return None
    return Pedestrian(_from_zero(box), _from_zero(visible) if any(visible) else None, LABELS[label] and not ignored)


def _from_zero(box: Box) -> Box:
    """The same pixels, counted from 0 where MATLAB counts from 1."""
    x, y, width, height = box
    return x - 1, y - 1, width, height


def read_text(path: Path) -> list[Pedestrian]:
    """The pedestrians of one image. Raises `Invalid`, which does not name the file."""
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        raise Invalid(f"cannot be read: {error.strerror}") from None
    lines = raw.decode("ascii", errors="replace").splitlines()
    if len(raw) > LARGEST or not lines or lines[0].strip() != FIRST_LINE:
        raise Invalid(f"does not begin with `{FIRST_LINE}`, or is longer than {LARGEST:,} bytes")
    found = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        label, *words = line.split()
        try:
            numbers = [float(word) for word in words]
        except ValueError:
            numbers = []
        if len(numbers) != FIELDS - 1:
            raise Invalid(f"line {number} is no label and {FIELDS - 1} numbers: {line!r:.80}")
        try:
            found.append(pedestrian(label, tuple(numbers[:4]), tuple(numbers[5:9]), ignored=numbers[9] != 0))
        except Invalid as error:
            raise Invalid(f"line {number}: {error}") from None
    return [one for one in found if one]


def _cells(row: Struct, name: str) -> list[memoryview]:
    cells: Any = value(row[name]) if name in row else None
    if not isinstance(cells, list) or not all(isinstance(cell, memoryview) for cell in cells):
        raise Invalid(f"has no cells {name}")
    return cells


def _numbers(row: Struct, name: str, count: int) -> tuple[float, ...]:
    """So many numbers of a struct's field, or none of several if it is empty."""
    numbers = value(row[name]) if name in row else None
    if not isinstance(numbers, np.ndarray) or numbers.size not in ((count,) if count == 1 else (0, count)):
        raise Invalid(f"{name} is not {count} {'number' if count == 1 else 'numbers'}")
    return tuple(float(number) for number in numbers.ravel())
