"""Norpix's `.seq` video as the Caltech pedestrian benchmark uses it: a header, and one compressed image after another.

The layout is the one that the benchmark's own tools read, https://github.com/pdollar/toolbox, videos/seqReaderPlugin.m:
1,024 bytes of header; for each frame four bytes that count themselves and the image, the image, eight bytes of time,
and in some files eight more.
"""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from trainers.call import Invalid
from trainers.data.coco import decode
from trainers.data.rules import PIXELS

HEADER = 1024
MAGIC = 0xFEED
NAME = "Norpix seq".encode("utf-16-le")
SUFFIXES = {102: "jpg", 201: "jpg", 1: "png", 2: "png"}  # by the header's image format
TIME = 8  # bytes behind an image; twice as many where the first four of the second half are 0


class Frame(NamedTuple):
    """Where an image lies in a file."""

    path: Path
    number: int  # from 0
    offset: int  # bytes
    length: int  # bytes


class Video(NamedTuple):
    """What a file holds."""

    size: tuple[int, int]  # width, height
    suffix: str
    claimed: int  # frames that the header says; some headers are wrong, and 0 says nothing
    frames: list[Frame]  # those that are there whole
    end: str  # why there are no more of them


def index(path: Path) -> Video:
    """Find the frames of a file by following their lengths, without reading them. Raises `Invalid`."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}") from None
    try:
        size, suffix, claimed = _header(os.pread(file, HEADER, 0), path)
        frames, end = _follow(file, os.fstat(file).st_size, path)
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}") from None
    finally:
        os.close(file)
    return Video(size, suffix, claimed, frames, end)


def read(frame: Frame, *, size: tuple[int, int]) -> Tensor:
    """Decode a frame of (width, height). -> (3, H, W) uint8, RGB. Raises `Invalid`.

    The file is opened each time, so that processes that were forked share no place in it.
    """
    try:
        with frame.path.open("rb", buffering=0) as file:
            raw = os.pread(file.fileno(), frame.length, frame.offset)
    except OSError as error:
        raise Invalid(f"cannot read {frame.path}: {error.strerror}") from None
    return decode(io.BytesIO(raw), f"{frame.path}, frame {frame.number}", size=size)


def _header(raw: bytes, path: Path) -> tuple[tuple[int, int], str, int]:
    """Size, suffix and number of frames."""
    if len(raw) < HEADER:
        raise Invalid(f"{path} has {len(raw)} bytes, fewer than the header of a .seq video")
    magic, name = struct.unpack_from("<I20s", raw)
    if magic != MAGIC or name != NAME:
        raise Invalid(f"{path} does not begin as a .seq video does, with 0xFEED and `Norpix seq`")
    _, length = struct.unpack_from("<iI", raw, 28)
    width, height, _, depth, _, kind, claimed = struct.unpack_from("<7I", raw, 548)
    if length != HEADER:
        raise Invalid(f"{path} has a header of {length} bytes; only those of {HEADER} are known")
    if kind not in SUFFIXES or depth != 8:
        raise Invalid(f"{path} holds images of format {kind} and {depth} bits, no JPEG or PNG of 8 bits")
    if not 0 < width * height <= PIXELS:
        raise Invalid(f"{path} has frames of {width} x {height} pixels, not 1 to {PIXELS:,} of them")
    return (width, height), SUFFIXES[kind], claimed


def _follow(file: int, total: int, path: Path) -> tuple[list[Frame], str]:
    """The frames in a file of so many bytes, and why they end."""
    frames: list[Frame] = []
    place, gap = HEADER, TIME
    while place + 4 <= total:
        (length,) = struct.unpack("<I", os.pread(file, 4, place))
        if length <= 4 or place + length > total:
            return frames, f"frame {len(frames)} should have {length} bytes, and {total - place} are left"
        frames.append(Frame(path, len(frames), place + 4, length - 4))
        place += length
        if len(frames) == 1 and os.pread(file, 4, place + TIME) == bytes(4):
            gap = 2 * TIME
        place += gap
    return frames, "the file ends there"
