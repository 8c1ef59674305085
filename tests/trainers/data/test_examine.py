"""Every kind of broken image file is told by its kind, every odd one is only noted, and no process is lost."""

from __future__ import annotations

import os
import resource
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainers.data.folders import BROKEN, HEIGHT, ODD, RGB, WIDTH, bomb, encoded, png, turned
from trainers.data.coco import read_image
from trainers.data.examine import Task, examine

SIZE = (WIDTH, HEIGHT)


def look(folder: Path, raw: bytes, *, name: str = "x.png", size: tuple[int, int] | None = SIZE) -> object:
    (folder / name).write_bytes(raw)
    return examine(Task(folder, name, size))


def test_an_ordinary_image_is_right_and_nothing_is_said_of_it(tmp_path: Path) -> None:
    assert look(tmp_path, png()) == (None, (), SIZE)
    photograph = encoded(Image.fromarray(RGB), "JPEG", exif=turned(1))
    assert look(tmp_path, photograph, name="x.JPG") == (None, (), SIZE)


@pytest.mark.parametrize(("raw", "kind", "said"), BROKEN.values(), ids=BROKEN)
def test_it_is_told_what_is_wrong_with(tmp_path: Path, raw: bytes, kind: str, said: str) -> None:
    seen = look(tmp_path, raw)
    assert seen.flaw is not None and seen.flaw[0] == kind and said in seen.flaw[1], seen
    assert str(tmp_path) not in seen.flaw[1]


@pytest.mark.parametrize(("raw", "suffix", "kind"), ODD.values(), ids=ODD)
def test_it_is_noted_and_read_all_the_same(tmp_path: Path, raw: bytes, suffix: str, kind: str) -> None:
    seen = look(tmp_path, raw, name=f"x.{suffix}")
    assert seen.flaw is None and kind in [note[0] for note in seen.notes], seen
    assert read_image(tmp_path / f"x.{suffix}", size=SIZE).shape == (3, HEIGHT, WIDTH)


DARK = {  # pixels of sixteen bits, and what is said of them
    "twelve bits": (np.array([[0, 7, 4095]], np.uint16), "uses 12 of its 16 bits, of which 16 levels would be left"),
    "thirteen bits": (np.array([[0, 8191]], np.uint16), "uses 13 of its 16 bits, of which 32 levels would be left"),
    "twelve bits, kept as more": (np.array([[4095]], np.int32), "uses 12 of its 16 bits, of which 16 levels"),
    "eight bits": (np.array([[0, 200]], np.uint16), "uses 8 of its 16 bits, of which 1 level would be left"),
    "none, as of a black image": (np.zeros((1, 3), np.uint16), ""),
    "just enough": (np.array([[0, 8192]], np.uint16), ""),
    "eight bits, kept as more": (np.array([[0, 200]], np.int32), ""),
}


@pytest.mark.parametrize(
    ("pixels", "said", "suffix"),
    [
        pytest.param(*one, suffix, id=f"{name}, {suffix}")
        for name, one in DARK.items()
        for suffix in ("png", "tif")
        if suffix == "tif" or one[0].dtype == np.uint16  # PNG has no 32 bits
    ],
)
def test_sixteen_bits_of_which_few_are_used_are_a_problem(
    pixels: np.ndarray, said: str, suffix: str, tmp_path: Path
) -> None:
    raw = encoded(Image.fromarray(pixels), "PNG" if suffix == "png" else "TIFF")
    seen = look(tmp_path, raw, name=f"x.{suffix}", size=pixels.shape[::-1])
    assert "16 bits" in [note[0] for note in seen.notes] and bool(said) == bool(seen.flaw)
    assert not said or (seen.flaw[0] == "dark image" and said in seen.flaw[1] and "stretch it to 16" in seen.flaw[1])


def test_a_bomb_is_not_decoded(tmp_path: Path) -> None:
    raw = bomb()
    assert len(raw) < 200_000, "it is a tiny file"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for size in (SIZE, None, (30_000, 30_000)):
        assert look(tmp_path, raw, size=size).flaw[0] == "bomb"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, (
        "kilobytes; one bit a pixel are 112,500"
    )


def test_what_exif_says_is_noted_with_what_is_done(tmp_path: Path) -> None:
    raw = encoded(Image.fromarray(RGB), "JPEG", exif=turned(6))
    (as_stored,) = look(tmp_path, raw, name="x.jpg").notes
    assert as_stored[0] == "EXIF rotation" and "orientation 6" in as_stored[1] and "as stored" in as_stored[1]
    seen = look(tmp_path, raw, name="x.jpg", size=(HEIGHT, WIDTH))
    assert seen.flaw is None and "turned, as its annotations are" in seen.notes[0][1]


def test_without_a_size_any_is_right_and_found(tmp_path: Path) -> None:
    assert look(tmp_path, encoded(Image.new("RGB", (5, 4)), "PNG"), size=None) == (None, (), (5, 4))


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")  # whoever opens it waits for ever
    (tmp_path / "loop.png").symlink_to("loop.png")
    for name, said in (
        ("folder", "is no file"),
        ("pipe", "is no file"),
        ("loop", "levels of symbolic"),
        ("no", "No such"),
    ):
        kind, text = examine(Task(tmp_path, f"{name}.png", SIZE)).flaw
        assert kind == "unreadable image" and said in text


def test_a_link_out_of_the_folder_is_noted(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "x.png").write_bytes(png())
    (tmp_path / "in" / "x.png").symlink_to(tmp_path / "x.png")
    seen = examine(Task(tmp_path / "in", "x.png", SIZE))
    assert seen.flaw is None and [note[0] for note in seen.notes] == ["link"]


def test_a_file_without_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.png").write_bytes(png())

    def refuse(*_: object, **__: object) -> None:  # the administrator, who may run this, may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    kind, text = examine(Task(tmp_path, "x.png", SIZE)).flaw
    assert kind == "unreadable image" and "Permission denied" in text


def test_no_warning_of_the_decoder_reaches_the_screen(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        look(tmp_path, bomb(10_000), size=(10_000, 10_000))
