"""Pedestrians are read from true `.vbb` bytes and texts, on their pixels; a file with a mistake is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from tests.trainers.data.seq_files import SETS, SOMEBODY, coded, note, write_small, write_texts, write_vbb
from trainers.call import Invalid
from trainers.data import Caltech
from trainers.data.batches import Batches
from trainers.data.vbb import Video, pedestrian, read_text


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_small(tmp_path)
    return tmp_path


# Pixels


def drawn(root: Path, notes: str) -> Caltech:
    """A white rectangle in columns 7 to 12 and rows 3 to 20, counted from 0, of which columns 7 to 10 are seen.

    MATLAB counts these columns 8 to 13 and rows 4 to 21.
    """
    picture = np.zeros((24, 32, 3), dtype=np.uint8)
    picture[3:21, 7:13] = 255
    (root / "images").mkdir(parents=True)
    for name in ("set00_V000_I00000", "set06_V000_I00000"):
        (root / f"images/{name}.png").write_bytes(coded(picture, "PNG"))
        if notes == "vbb":
            one = {"label": "person", "pos": [8, 4, 6, 18], "posv": [8, 4, 4, 18], "occl": 1.0, "lock": 0.0}
            write_vbb(root / f"annotations/{name[:5]}/V000.vbb", [[one]])
        else:
            (root / "annotations").mkdir(exist_ok=True)
            text = "% bbGt version=3\nperson 8 4 6 18 1 8 4 4 18 0 0\n"
            (root / f"annotations/{name}.txt").write_text(text)
    return Caltech(root=str(root), **SETS, step_train=1, step_val=1)


@pytest.mark.parametrize("notes", ["vbb", "text"])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_the_box_that_is_trained_on_covers_exactly_the_pixels_that_were_annotated(
    tmp_path: Path, notes: str, flip: float
) -> None:
    data = drawn(tmp_path, notes)
    ((images, truth),) = Batches(data.train, batch=1, seed=0, flip=flip).epoch(0)
    rows, columns = (images[0] > 0.5).all(0).nonzero().T
    bright = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
    assert bright == ([32 - 13, 3, 32 - 7, 21] if flip else [7, 3, 13, 21])
    assert truth.boxes[0].tolist() == [bright]
    assert data.train.rows.visible.tolist() == [[7, 3, 4, 18]]
    assert torch.equal(data.val.boxes(0), data.train.boxes(0))


def test_four_zeros_in_the_file_mean_that_nothing_is_hidden_and_no_other_box_does() -> None:
    def visible(*box: float) -> tuple[float, ...] | None:
        one = pedestrian("person", (10.0, 10.0, 20.0, 50.0), box)
        assert one is not None and one.box == (9, 9, 20, 50)
        return one.visible

    assert visible() is None and visible(0, 0, 0, 0) is None
    assert visible(1, 1, 4, 5) == (0, 0, 4, 5) and visible(0, 0, 4, 5) == (-1, -1, 4, 5)
    assert visible(1, 1, 0, 0) == (0, 0, 0, 0)  # all of him is


# What a file may say


def test_texts_are_read_with_what_is_hidden_and_marked(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text(
        "% bbGt version=3\nperson 1 2 10 20 0 0 0 0 0 0 0\nperson 1 2 10 20 1 2 5 5 20 0 0\n"
        "people 1 2 10 20 0 0 0 0 0 0 0\nperson 1 2 10 20 0 0 0 0 0 1 0\n\nperson-fa 1 2 3 4 0 0 0 0 0 0 0\n"
    )
    assert [(one.visible, one.found) for one in read_text(path)] == [
        (None, True),
        ((1, 4, 5, 20), True),
        (None, False),
        (None, False),
    ]
    assert {one.box for one in read_text(path)} == {(0, 1, 10, 20)}
    path.write_text("% bbGt version=3\n")
    assert read_text(path) == []


TEXTS = [
    ("", "does not begin with `% bbGt version=3`"),
    ("person 1 2 3 4 0 0 0 0 0 0 0\n", "does not begin"),
    ("% bbGt version=2\n", "does not begin"),
    ("% bbGt version=3\nperson 1 2 3 4\n", "line 2 is no label and 11 numbers: 'person 1 2 3 4'"),
    ("% bbGt version=3\nperson 1 2 3 x 0 0 0 0 0 0 0\n", "line 2 is no label and 11 numbers"),
    ("% bbGt version=3\nperson 1 2 -3 4 0 0 0 0 0 0 0\n", "line 2: box 1, 2, -3, 4 is not x, y, width, height"),
    ("% bbGt version=3\nperson 1 2 nan 4 0 0 0 0 0 0 0\n", "line 2: box 1, 2, nan, 4 is not"),
    ("% bbGt version=3\npersn 1 2 3 4 0 0 0 0 0 0 0\n", r"line 2: label persn is not one of .*did you mean person\?"),
    ("% bbGt version=3\n" + " " * (1 << 20), "is longer than 1,048,576 bytes"),
]


@pytest.mark.parametrize(("text", "said"), TEXTS, ids=[said for _, said in TEXTS])
def test_a_text_with_a_mistake_is_refused_with_file_and_line(root: Path, text: str, said: str) -> None:
    write_texts(root, ".txt")
    (root / "annotations/set00_V000_I00005.txt").write_text(text)
    with pytest.raises(Invalid, match=said) as error:
        Caltech(root=str(root), **SETS)
    assert "set00_V000_I00005.txt" in str(error.value)


PEOPLE = [
    ({"label": "pedestrian"}, "label pedestrian is not one of ignore, people, person"),
    ({"label": ""}, r"label \(none\) is not one of"),
    ({"pos": [1, 2, -3, 4]}, "box 1, 2, -3, 4 is not x, y, width, height: finite"),
    ({"pos": [1, 2, 3, np.inf]}, "box 1, 2, 3, inf is not"),
    ({"pos": [1, 2, np.nan, 4]}, "box 1, 2, nan, 4 is not"),
    ({"pos": []}, "has no box"),
    ({"pos": [1, 2, 3]}, "pos is not 4 numbers"),
    ({"posv": [1, 2, -3, 4]}, "visible box 1, 2, -3, 4 is not"),
    ({"posv": [1, 2]}, "posv is not 4 numbers"),
]


@pytest.mark.parametrize(("change", "said"), PEOPLE, ids=[said for _, said in PEOPLE])
def test_a_mistake_in_a_vbb_is_refused_with_file_frame_and_object(root: Path, change: Any, said: str) -> None:
    write_vbb(note(root), [[SOMEBODY]] * 5 + [[SOMEBODY, SOMEBODY | change]] + [[SOMEBODY]] * 4)
    with pytest.raises(Invalid, match=said) as error:
        Caltech(root=str(root), **SETS)
    assert "set00/V000.vbb, frame 5: object 7: " in str(error.value)


def test_objects_without_label_or_fields_are_refused(root: Path) -> None:
    for number in (0.0, 12.0, 1.5):
        write_vbb(note(root), [[]] * 2 + [[SOMEBODY | {"id": number}]] + [[]] * 7)
        with pytest.raises(Invalid, match=rf"frame 2: object {number:g} is none of the 1 that have a label"):
            Caltech(root=str(root), **SETS)
    row = np.empty((1, 1), dtype=object)
    row[0, 0] = {"id": 1.0}
    write_vbb(note(root), [[SOMEBODY]], objLists=row)
    with pytest.raises(Invalid, match="frame 0: object 1: pos is not 4 numbers"):
        Caltech(root=str(root), **SETS, step_train=1)
    row[0, 0] = "nobody"
    write_vbb(note(root), [[SOMEBODY]], objLists=row)
    with pytest.raises(Invalid, match="frame 0: objLists holds no structs"):
        Caltech(root=str(root), **SETS, step_train=1)


def test_a_vbb_without_visible_boxes_is_one_in_which_nothing_is_hidden(root: Path) -> None:
    row = np.empty((1, 1), dtype=object)
    row[0, 0] = {"id": 1.0, "pos": np.array([[1.0, 2, 3, 14]])}
    write_vbb(note(root), [[SOMEBODY]], objLists=row)
    data = Caltech(root=str(root), **SETS, step_train=1)
    assert data.train.boxes(0).tolist() == [[0, 1, 3, 15]] and np.isnan(data.train.rows.visible).all()


NOBODY = np.empty((1, 1), dtype=object)
NOBODY[0, 0] = np.zeros((0, 0))
FILES: list[tuple[dict[str, Any] | bytes, str]] = [
    (b"no MAT file", r"V000\.vbb is not a MAT file of version 5"),
    ({"B": 1.0}, r"V000\.vbb has no variable A"),
    ({"A": 1.0}, r"V000\.vbb has a variable A that is no struct"),
    ({"A": {"nFrame": 1.0}}, r"V000\.vbb has no cells objLists"),
    ({"A": {"nFrame": 1.0, "objLists": NOBODY, "objLbl": 3.0}}, "has no cells objLbl"),
]


@pytest.mark.parametrize(("content", "said"), FILES, ids=[said for _, said in FILES])
def test_a_file_that_is_no_vbb_is_refused(root: Path, content: Any, said: str) -> None:
    if isinstance(content, bytes):
        note(root).write_bytes(content)
    else:
        with note(root).open("wb") as file:
            savemat(file, content)
    with pytest.raises(Invalid, match=said):
        Caltech(root=str(root), **SETS)


def test_a_number_of_frames_that_is_not_the_lists_is_refused(root: Path) -> None:
    write_vbb(note(root), [[SOMEBODY]] * 10, nFrame=11.0)
    with pytest.raises(Invalid, match=r"V000\.vbb says nFrame 11 and has objLists for 10 frames"):
        Caltech(root=str(root), **SETS)


def test_compressed_annotations_are_read_too(root: Path) -> None:
    before = Caltech(root=str(root), **SETS)
    write_vbb(note(root), [[SOMEBODY]] * 10, compress=True)
    assert Caltech(root=str(root), **SETS).fingerprint == before.fingerprint and len(Video(note(root))) == 10
