"""Small data sets in the Caltech benchmark's true formats, for tests: `.seq` videos and `.vbb` annotations."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from trainers.data import Digits

Object = dict[str, Any]  # label, pos, and perhaps posv, occl, with the numbers that the file gets


def coded(picture: np.ndarray, kind: str = "JPEG") -> bytes:
    """(H, W, 3) uint8 -> a JPEG, or another kind of file."""
    raw = io.BytesIO()
    Image.fromarray(picture).save(raw, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return raw.getvalue()


def seq_header(size: tuple[int, int], frames: int, *, kind: int = 201, **fields: int) -> bytes:
    """The 1,024 bytes of a video of (width, height)."""
    name = "Norpix seq".encode("utf-16-le") + bytes(4)
    start = struct.pack("<I24siI", fields.get("magic", 0xFEED), name, 3, fields.get("header", 1024))
    text = "a test".encode("utf-16-le").ljust(512, b"\0")
    plane = size[0] * size[1] * 3
    numbers = (*size, 24, fields.get("depth", 8), plane, kind, frames, 0, plane + 8)
    return (start + text + struct.pack("<9Id", *numbers, 30.0)).ljust(1024, b"\0")


def seq_bytes(images: Sequence[bytes], size: tuple[int, int], *, extra: int = 8, **header: Any) -> bytes:
    """A video: each image behind its length, which counts itself, and before its time and perhaps eight bytes more."""
    raw = seq_header(size, **{"frames": len(images), **header})
    for number, image in enumerate(images):
        time = struct.pack("<IHH", 1_180_000_000 + number, number % 1000, 0)
        raw += struct.pack("<I", len(image) + 4) + image + time + bytes(extra - 8)
    return raw


def person(x: float, y: float, w: float, h: float, *, label: str = "person", posv: Any = None, **more: Any) -> Object:
    """Somebody in a frame; posv is the part of the box that is seen, if it is not all.

    Pixels are counted from 0 here, and from 1 in the object, as MATLAB does.
    """
    seen = [0.0] * 4 if posv is None else [posv[0] + 1, posv[1] + 1, *posv[2:]]
    pos = [x + 1, y + 1, w, h]
    return {"label": label, "pos": pos, "posv": seen, "occl": float(posv is not None), "lock": 0.0, **more}


def write_vbb(path: Path, frames: Sequence[Sequence[Object]], *, compress: bool = False, **fields: Any) -> None:
    """Write the annotations of a video with a frame for each list of objects, as the benchmark's tools save it."""
    labels = [one["label"] for here in frames for one in here]
    lists = np.empty((1, len(frames)), dtype=object)
    number = 0
    for frame, here in enumerate(frames):
        rows = np.zeros((1, len(here)), dtype=[(name, object) for name in ("id", "pos", "occl", "lock", "posv")])
        for place, one in enumerate(here):
            number += 1
            pos, posv = (np.array(one[name], dtype=np.float64).reshape(1, -1) for name in ("pos", "posv"))
            rows[0, place] = (float(one.get("id", number)), pos, one["occl"], one["lock"], posv)
        lists[0, frame] = rows if here else np.zeros((0, 0))
    names = np.empty((1, len(labels)), dtype=object)
    names[0, :] = labels
    ones = np.ones((1, len(labels)))
    whole = {
        "nFrame": float(len(frames)),
        "objLists": lists,
        "maxObj": float(len(labels)),
        "objInit": ones,
        "objLbl": names,
        "objStr": ones,
        "objEnd": ones * len(frames),
        "objHide": ones * 0,
        "altered": False,
        "log": 734_000.5,
        "logLen": 1.0,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # scipy puts .mat behind a name that it is given
    with path.open("wb") as file:
        savemat(file, {"A": whole | fields, "vers": 1.4}, do_compression=compress)


def write_clip(root: Path, number: int, video: int, images: Sequence[bytes], size: tuple[int, int]) -> Path:
    """Write a video where the benchmark has it."""
    path = root / f"set{number:02d}" / f"V{video:03d}.seq"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(seq_bytes(images, size))
    return path


SIZE = (32, 24)
SOMEBODY = person(5, 4, 6, 15)
SETS: dict[str, Any] = {"train": [0], "val": [6], "height": 10.0}  # the arguments for what `write_small` writes
CLIPS = ((0, 0, 10), (6, 1, 60))  # its sets, videos and numbers of frames


def write_grey(root: Path, number: int, video: int, frames: Sequence[Sequence[Object]]) -> None:
    """Write a video in which every frame is brighter than the one before, and who is in each."""
    pictures = [coded(np.full((24, 32, 3), min(4 * place, 255), dtype=np.uint8)) for place in range(len(frames))]
    write_clip(root, number, video, pictures, SIZE)
    write_vbb(root / f"annotations/set{number:02d}/V{video:03d}.vbb", frames)


def write_small(root: Path) -> None:
    """Write a training video of 10 frames and one of 60 for the test, with somebody in each."""
    for number, video, frames in CLIPS:
        write_grey(root, number, video, [[SOMEBODY]] * frames)


def note(root: Path) -> Path:
    """Where the annotations of its training video are."""
    return root / "annotations/set00/V000.vbb"


def write_texts(root: Path, ending: str, *, flat: bool = True) -> None:
    """Put texts that say the same in place of its .vbb files."""
    for number, video, frames in CLIPS:
        (root / f"annotations/set{number:02d}/V{video:03d}.vbb").unlink()
        for frame in range(frames):
            prefix = f"set{number:02d}_V{video:03d}_" if flat else f"set{number:02d}/V{video:03d}/"
            path = root / "annotations" / f"{prefix}I{frame:05d}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("% bbGt version=3\nperson 6 5 6 15 0 0 0 0 0 0 0\n")


def write_digits(root: Path, digits: Digits) -> None:
    """The demo's digits, each a person, as videos of the sets 0 (training) and 6 (validation).

    `{root: ..., train: [0], val: [6], step_train: 1, step_val: 1, height: 0}` reads them all.
    """
    for number, split in ((0, digits.train), (6, digits.val)):
        pictures = [coded(split.read(place).permute(1, 2, 0).numpy()) for place in range(len(split))]
        write_clip(root, number, 0, pictures, split.sizes[0][::-1])
        frames = [
            [person(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in split.boxes(place).tolist()]
            for place in range(len(split))
        ]
        write_vbb(root / f"annotations/set{number:02d}/V000.vbb", frames)
