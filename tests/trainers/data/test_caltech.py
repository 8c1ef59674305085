"""The Caltech benchmark is read from where its files lie: which frames, and which pedestrians are trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainers.data.seq_files import (
    CLIPS,
    SETS,
    SIZE,
    SOMEBODY,
    coded,
    note,
    person,
    seq_bytes,
    write_digits,
    write_grey,
    write_small,
    write_texts,
    write_vbb,
)
from trainers.call import Invalid
from trainers.data import Caltech, Digits
from trainers.data.batches import Batches

JPEG = coded(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_small(tmp_path)
    return tmp_path


def names(split: Any) -> list[str]:
    return [image["file_name"] for image in split.coco["images"]]


def test_of_thirty_frames_the_last_is_taken_as_in_the_benchmarks_test(root: Path) -> None:
    data = Caltech(root=str(root), **SETS)
    assert names(data.val) == ["set06_V001_I00029.jpg", "set06_V001_I00059.jpg"]
    assert names(data.train) == [f"set00_V000_I{number:05d}.jpg" for number in (2, 5, 8)]
    assert data.val.ids == [600_100_029, 600_100_059]
    assert [round(float(data.val.read(place).float().mean())) for place in (0, 1)] == [4 * 29, 4 * 59]
    assert data.classes == Caltech.names() == ("person",) and data.metric.name == "MissRate"


@pytest.mark.parametrize(
    ("frames", "step", "taken"), [(29, 30, []), (30, 30, [29]), (59, 30, [29]), (7, 1, [*range(7)])]
)
def test_the_last_frame_counts_only_if_it_is_there(root: Path, frames: int, step: int, taken: list[int]) -> None:
    write_grey(root, 7, 0, [[SOMEBODY]] * frames)
    data = Caltech(root=str(root), **SETS | {"val": [6, 7]}, step_val=step)
    seventh = [name for name in names(data.val) if name.startswith("set07")]
    assert seventh == [f"set07_V000_I{number:05d}.jpg" for number in taken]


def test_each_frame_has_its_own_pedestrians(root: Path) -> None:
    write_grey(root, 0, 0, [[person(place + 1, 2, 5, 12)] * (place % 3) for place in range(10)])
    data = Caltech(root=str(root), **SETS, step_train=2)
    assert [data.train.boxes(place).tolist() for place in range(5)] == [
        [[2, 2, 7, 14]],
        [],
        [[6, 2, 11, 14]] * 2,
        [[8, 2, 13, 14]],
        [],
    ]


def test_sets_and_videos_come_in_order_and_some_sets_can_be_chosen(root: Path) -> None:
    for number, video in ((1, 4), (0, 12), (0, 3)):
        write_grey(root, number, video, [[SOMEBODY]] * 3)
    data = Caltech(root=str(root), **SETS | {"train": [1, 0]})
    first = ["set01_V004", *["set00_V000"] * 3]
    assert [name[:10] for name in names(data.train)] == [*first, "set00_V003", "set00_V012"]
    for sets in ([], [0, 0]):
        with pytest.raises(Invalid, match="one or more numbers of sets, each once"):
            Caltech(root=str(root), **SETS | {"train": sets})
    with pytest.raises(Invalid, match=r"has no set05: no set05/V000\.seq"):
        Caltech(root=str(root), **SETS | {"train": [5]})
    with pytest.raises(Invalid, match="there is no folder"):
        Caltech(root=str(root / "nowhere"))


CROWD = [
    person(1, 2, 10, 20),
    person(2, 2, 4, 9.5),  # too small
    person(3, 2, 10, 20, posv=[3, 2, 10, 13]),  # .65 of it is seen
    person(4, 2, 10, 20, posv=[4, 2, 10, 12.9]),  # less is seen
    person(5, 2, 10, 20) | {"occl": 1.0},  # and four zeros for what is seen: nothing is hidden
    person(6, 2, 10, 20, label="people"),
    person(7, 2, 10, 20, label="person?"),
    person(8, 2, 10, 20, label="ignore"),
    person(9, 2, 10, 20, label="person-fa"),
    person(10, 2, 10, 0),
]


def test_who_is_trained_on_is_high_and_visible_enough_and_the_others_are_ignored(root: Path) -> None:
    write_grey(root, 0, 0, [CROWD])
    data = Caltech(root=str(root), **SETS, step_train=1)
    rows = data.train.rows
    assert rows.bbox[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert rows.ignore.tolist() == [False, True, False, True, False, True, True, True]
    assert data.train.boxes(0).tolist() == [[x, 2, x + 10, 22] for x in (1, 3, 5)]
    assert np.isnan(rows.visible).all(axis=1).tolist() == [True, True, False, False, True, True, True, True]
    assert rows.visible[3].tolist() == [4, 2, 10, 12.9]
    everybody = Caltech(root=str(root), **SETS | {"height": 0.0}, visible=0.0, step_train=1)
    assert everybody.train.rows.ignore.tolist() == [False] * 5 + [True] * 3
    assert everybody.fingerprint != data.fingerprint


def test_in_validation_every_person_stays(root: Path) -> None:
    write_grey(root, 6, 0, [CROWD])
    data = Caltech(root=str(root), **SETS | {"height": 1000.0}, step_val=1)
    assert data.val.rows.ignore[: len(CROWD) - 2].tolist() == [False] * 5 + [True] * 3


def test_the_defaults_are_the_benchmarks(root: Path) -> None:
    for number in range(11):
        write_grey(root, number, 0, [[person(2, 1, 10, 49.5), person(2, 1, 10, 50.5)]] * 30)
    data = Caltech(root=str(root))
    assert (len(data.train), len(data.val)) == (6 * 10, 5 + 2)  # two of the longer video
    assert data.train.rows.ignore.tolist() == [True, False] * 60 and not data.val.rows.ignore.any()


def test_boxes_may_leave_the_image_and_are_cut_for_training_only(root: Path) -> None:
    write_grey(root, 0, 0, [[person(-4, -2.5, 10, 50)]])
    data = Caltech(root=str(root), **SETS, step_train=1)
    assert data.train.boxes(0).tolist() == [[0, 0, 6, 24]] and data.train.rows.bbox[0].tolist() == [-4, -2.5, 10, 50]


def extract(root: Path, *, flat: bool, suffix: str = "jpg", step: int = 1) -> None:
    """Take every step-th frame out of the videos, as the benchmark's tools do, and remove these."""
    for number, video, frames in CLIPS:
        film = root / f"set{number:02d}/V{video:03d}.seq"
        for frame in range(step - 1, frames, step):
            prefix = f"set{number:02d}_V{video:03d}_" if flat else f"set{number:02d}/V{video:03d}/"
            path = root / "images" / f"{prefix}I{frame:05d}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = np.full((24, 32, 3), min(4 * frame, 255), dtype=np.uint8)
            path.write_bytes(coded(picture, "JPEG" if suffix == "jpg" else "PNG"))
        film.unlink()


@pytest.mark.parametrize("flat", [True, False])
def test_images_that_were_taken_out_are_the_same_data(root: Path, flat: bool) -> None:
    films = Caltech(root=str(root), **SETS)
    pixels = [films.val.read(place) for place in range(2)]
    extract(root, flat=flat)
    images = Caltech(root=str(root), **SETS)
    assert images.fingerprint == films.fingerprint
    assert all(torch.equal(images.val.read(place), pixels[place]) for place in range(2))


def test_films_may_lie_in_a_folder_videos(root: Path) -> None:
    before = Caltech(root=str(root), **SETS)
    (root / "videos").mkdir()
    for name in ("set00", "set06"):
        (root / name).rename(root / "videos" / name)
    after = Caltech(root=str(root), **SETS)
    assert after.fingerprint == before.fingerprint and torch.equal(after.val.read(1), after.val.read(1))


def test_images_of_another_step_are_refused_if_some_are_missing(root: Path) -> None:
    extract(root, flat=True, step=5, suffix="png")
    with pytest.raises(Invalid, match=r"there is no image set00_V000_I00002; name the step"):
        Caltech(root=str(root), **SETS)
    assert names(Caltech(root=str(root), **SETS, step_train=5).train) == [
        "set00_V000_I00004.png",
        "set00_V000_I00009.png",
    ]


def test_a_frame_that_is_there_twice_is_refused(root: Path) -> None:
    extract(root, flat=True)
    (root / "images/set00_V000_I00002.png").write_bytes(b"")
    with pytest.raises(Invalid, match=r"I00002\.jpg and .*I00002\.png are the same frame"):
        Caltech(root=str(root), **SETS)


@pytest.mark.parametrize(("ending", "flat"), [(".txt", True), (".jpg.txt", True), (".txt", False)])
@pytest.mark.parametrize("films", [True, False])
def test_texts_say_the_same(root: Path, ending: str, flat: bool, films: bool) -> None:
    before = Caltech(root=str(root), **SETS)
    write_texts(root, ending, flat=flat)
    if not films:
        extract(root, flat=True)
    assert Caltech(root=str(root), **SETS).fingerprint == before.fingerprint


def test_images_and_texts_must_be_about_the_same_frames(root: Path) -> None:
    write_texts(root, ".txt")
    extract(root, flat=True)
    (root / "annotations/set00_V000_I00005.txt").unlink()
    with pytest.raises(Invalid, match=r"there is no text about set00_V000_I00005$"):
        Caltech(root=str(root), **SETS)
    (root / "images/set00_V000_I00005.jpg").unlink()
    assert names(Caltech(root=str(root), **SETS).train) == [f"set00_V000_I0000{number}.jpg" for number in (2, 8)]
    (root / "images/set00_V000_I00008.jpg").unlink()
    with pytest.raises(Invalid, match="there is no image set00_V000_I00008"):
        Caltech(root=str(root), **SETS)
    with pytest.raises(Invalid, match="no frame to take: one of 11 is taken"):
        Caltech(root=str(root), **SETS, step_train=11)


def test_frames_that_are_not_taken_may_hold_anything(root: Path) -> None:
    write_vbb(note(root), [[SOMEBODY | {"label": "dog"}]] * 2 + [[SOMEBODY]] + [[]] * 7)
    assert len(Caltech(root=str(root), **SETS).train.boxes(0)) == 1


def test_missing_annotations_are_named(root: Path) -> None:
    note(root).unlink()
    with pytest.raises(Invalid, match=r"there is no .*set00/V000\.vbb, nor texts as .*set00_V000_I00029\.txt"):
        Caltech(root=str(root), **SETS)


def test_a_video_with_fewer_frames_than_are_annotated_is_refused_and_a_wrong_count_in_its_header_is_not(
    root: Path,
) -> None:
    film, before = root / "set00/V000.seq", Caltech(root=str(root), **SETS)
    raw = film.read_bytes()
    film.write_bytes(raw[:572] + bytes([200, 0, 0, 0]) + raw[576:])
    assert Caltech(root=str(root), **SETS).fingerprint == before.fingerprint
    film.write_bytes(raw[:-30])  # frame 9 is cut off, and not taken
    assert Caltech(root=str(root), **SETS).fingerprint == before.fingerprint
    with pytest.raises(Invalid, match=r"V000\.seq holds 9 whole frames of 10, and .*V000\.vbb is about 10: frame 9"):
        Caltech(root=str(root), **SETS, step_train=5)
    film.write_bytes(b"x" * 2000)
    with pytest.raises(Invalid, match=r"V000\.seq does not begin as a \.seq video does"):
        Caltech(root=str(root), **SETS)


def test_the_same_files_are_read_once_and_changed_ones_again(root: Path) -> None:
    one = Caltech(root=str(root), **SETS)
    assert Caltech(root=str(root), **SETS).train is one.train
    (root / "set00/V000.seq").write_bytes(seq_bytes([JPEG] * 11, SIZE))
    write_vbb(note(root), [[SOMEBODY]] * 11)
    again = Caltech(root=str(root), **SETS)
    assert again.train is not one.train and again.val is one.val


def test_a_test_with_nobody_in_it_is_refused(root: Path) -> None:
    write_grey(root, 6, 1, [[person(1, 1, 9, 19, label="people")]] * 30)
    with pytest.raises(Invalid, match="sets 6 has no object to measure on"):
        Caltech(root=str(root), **SETS)


def test_the_digits_written_as_videos_are_the_same_scenes(tmp_path: Path) -> None:
    digits = Digits(train=4, val=3)
    write_digits(tmp_path, digits)
    data = Caltech(root=str(tmp_path), train=[0], val=[6], step_train=1, step_val=1, height=0.0)
    for ours, theirs in ((data.train, digits.train), (data.val, digits.val)):
        assert len(ours) == len(theirs)
        for index in range(len(ours)):
            assert sorted(ours.boxes(index).tolist()) == sorted(theirs.boxes(index).tolist())
            assert (ours.read(index).float() - theirs.read(index)).abs().mean() < 8  # JPEG


def test_loader_processes_read_the_same_batches_from_a_video(tmp_path: Path) -> None:
    write_digits(tmp_path, Digits(train=8, val=1))
    data = Caltech(root=str(tmp_path), train=[0], val=[6], step_train=1, step_val=1, height=0.0)
    alone, by_two = (
        list(Batches(data.train, batch=4, seed=0, flip=0.5, loader_workers=workers).epoch(0)) for workers in (0, 2)
    )
    assert len(alone) == len(by_two) == 2
    assert all(torch.equal(one[0], other[0]) for one, other in zip(alone, by_two, strict=True))
