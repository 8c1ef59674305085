"""MATLAB's MAT files of version 5 as far as annotations need them: numbers, texts, cells and structs.

"MAT-File Format", The MathWorks, https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf

Nothing is built from a file but these, no deeper than somebody asks, and no size is believed before its bytes are
there. What is not asked for is stepped over: of a video's annotations every thirtieth frame is read.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from trainers.call import Invalid

LARGEST = 1 << 28  # bytes of a file or of what it unpacks to; the largest of Caltech's is a tenth of it
HEADER = 128

# Kinds of elements, and of the matrices among them.
MATRIX, COMPRESSED = 14, 15
CELL, STRUCT, CHAR = 1, 2, 4
STORED = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le", 18: "utf-32-le"}
NUMBERS = range(6, 16)  # double, single, and whole numbers of 8 to 64 bits

Struct = dict[str, memoryview]
Value = np.ndarray | str | list[memoryview] | list[Struct]  # numbers, a text, cells, structs


def load(path: Path) -> dict[str, memoryview]:
    """The variables of a file by name, each to be given to `value`. Raises `Invalid`, which names the file."""
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}") from None
    if len(raw) > LARGEST:
        raise Invalid(f"{path} has more than {LARGEST:,} bytes")
    if len(raw) < HEADER or raw[124:128] != b"\x00\x01IM":
        raise Invalid(f"{path} is not a MAT file of version 5 (little-endian); MATLAB writes one by save -v6")
    try:
        return dict(_variables(memoryview(raw)[HEADER:]))
    except Invalid as error:
        raise Invalid(f"{path} {error}") from None


def value(matrix: memoryview) -> Value:
    """What a matrix holds: numbers in their shape, a text, or cells or structs column by column. Raises `Invalid`."""
    if not matrix:
        return np.empty((0, 0))
    parts = _elements(matrix)
    kind, shape, _ = _head(parts)
    count = math.prod(shape)
    if kind == CELL:
        return _matrices(parts, count)
    if kind == STRUCT:
        return _structs(parts, count)
    stored, raw = next(parts, (None, memoryview(b"")))
    if kind == CHAR and (stored in TEXT or not count):
        return bytes(raw).decode(TEXT[stored], errors="replace") if count and stored else ""
    if kind in NUMBERS and (stored in STORED or not count):
        numbers = np.frombuffer(raw, STORED[stored]) if count and stored else np.empty(0)
        if numbers.size != count:
            raise Invalid(f"holds {numbers.size} numbers where {count} should be")
        return numbers.reshape(shape, order="F")
    raise Invalid("holds something else than numbers, texts, cells and structs")


def _variables(raw: memoryview) -> Iterator[tuple[str, memoryview]]:
    for kind, data in _elements(raw):
        if kind == COMPRESSED:
            kind, data = next(_elements(memoryview(_inflated(data))), (0, data))
        if kind == MATRIX:
            yield _head(_elements(data))[2], data


def _inflated(data: memoryview) -> bytes:
    try:
        plain = zlib.decompressobj().decompress(data, LARGEST + 1)
    except zlib.error as error:
        raise Invalid(f"cannot be unpacked: {error}") from None
    if len(plain) > LARGEST:
        raise Invalid(f"unpacks to more than {LARGEST:,} bytes")
    return plain


def _elements(raw: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Kind and bytes of each element of a row of them."""
    place = 0
    while place < len(raw):
        if len(raw) - place < 8:
            raise Invalid("is cut off")
        kind, size = struct.unpack_from("<II", raw, place)
        if kind >> 16:  # a small one: its size stands beside its kind, and its bytes in place of the size
            kind, size, start, length = kind & 0xFFFF, kind >> 16, place + 4, 8
            if size > 4:
                raise Invalid("is damaged: a small element of more than four bytes")
        else:
            start = place + 8
            length = 8 + (size if kind == COMPRESSED else -(-size // 8) * 8)
        if start + size > len(raw):
            raise Invalid("is cut off")
        yield kind, raw[start : start + size]
        place += length


def _head(parts: Iterator[tuple[int, memoryview]]) -> tuple[int, tuple[int, ...], str]:
    """Kind, shape and name of a matrix; `parts` goes on with what it holds."""
    (_, flags), (_, shape), (_, name) = (next(parts, (0, memoryview(b""))) for _ in range(3))
    if len(flags) < 8 or len(shape) < 8 or len(shape) % 4:
        raise Invalid("is damaged: a matrix without kind or shape")
    sides = struct.unpack(f"<{len(shape) // 4}i", shape)
    if min(sides) < 0:
        raise Invalid("is damaged: a matrix with a negative side")
    return flags[0], sides, bytes(name).decode("latin-1")


def _matrices(parts: Iterator[tuple[int, memoryview]], count: int) -> list[memoryview]:
    found = []
    for _ in range(count):
        kind, data = next(parts, (0, memoryview(b"")))
        if kind != MATRIX:
            raise Invalid("is cut off" if not kind else "is damaged: a cell that is no matrix")
        found.append(data)
    return found


def _structs(parts: Iterator[tuple[int, memoryview]], count: int) -> list[Struct]:
    (_, width), (_, names) = (next(parts, (0, memoryview(b""))) for _ in range(2))
    if len(width) != 4 or not (each := int.from_bytes(width, "little")) or len(names) % each:
        raise Invalid("is damaged: a struct without names")
    fields = [bytes(names[at : at + each]).split(b"\0")[0].decode("latin-1") for at in range(0, len(names), each)]
    if not fields:
        return []
    values = _matrices(parts, count * len(fields))
    return [dict(zip(fields, values[at : at + len(fields)], strict=True)) for at in range(0, len(values), len(fields))]
