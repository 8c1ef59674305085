"""A clean copy keeps what is right, says what it changed, drops what can be read in two ways, and is accepted."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.trainers.data.folders import BROKEN, HEIGHT, ODD, WIDTH, made, read, write
from trainers.call import Invalid
from trainers.data import COCO
from trainers.data.annotations import load
from trainers.data.inspection import Source, inspect
from trainers.data.mend import mended

Change = Callable[[dict[str, Any]], Any]


def mend(source: Source) -> tuple[dict[str, Any], list[tuple[str, Any, str]]]:
    """The clean copy, which has no problems and which training accepts; and what was changed."""
    (found,) = inspect([source], jobs=1)
    assert found.coco is not None
    before = copy.deepcopy(found.coco)
    clean, changes = mended(found.coco, found.seen)
    assert found.coco == before, "the original is left as it is"
    copied = Source(source.file.with_name("clean.json"), source.folder)
    write(copied, clean)
    (again,) = inspect([copied], jobs=1)
    assert again.problems == []
    load(copied.file)
    return clean, [(kind, identity, said.partition(": ")[2]) for kind, identity, said in changes]


def changed(source: Source, change: Change) -> tuple[dict[str, Any], list[tuple[str, Any, str]]]:
    coco = read(source)
    change(coco)
    write(source, coco)
    return mend(source)


def ids(clean: dict[str, Any]) -> tuple[list[int], list[int]]:
    return [row["id"] for row in clean["images"]], [row["id"] for row in clean["annotations"]]


def box(*bbox: Any, **more: Any) -> Change:
    return lambda coco: coco["annotations"][1].update(bbox=list(bbox), **more)


def test_a_good_file_is_copied_as_it_is_with_everything_that_nobody_knows(tmp_path: Path) -> None:
    source = made(tmp_path)
    coco = read(source) | {"info": {"year": 2024}, "licenses": [{"id": 1}], "extra": [None]}
    coco["images"][0]["coco_url"] = "http://example.org/1.png"
    coco["annotations"][0]["attributes"] = {"occluded": True}
    write(source, coco)
    assert mend(source) == (coco, [])


def test_a_box_that_leaves_its_image_is_cut_to_it(tmp_path: Path) -> None:
    clean, changes = changed(made(tmp_path), box(-3, 8, 9.5, 30))
    row = clean["annotations"][1]
    assert row["bbox"] == [0, 8, 6.5, 4] and "area" not in row
    assert changes == [
        ("box outside", 20, "bbox [-3, 8, 9.5, 30] leaves image 2 of 16 x 12 pixels: cut to [0, 8, 6.5, 4]")
    ]


def test_the_area_of_a_mask_outlives_the_cut_of_its_box(tmp_path: Path) -> None:
    mask = {"size": [12, 16], "counts": [0, 30, 162]}
    clean, _ = changed(made(tmp_path), box(-3, 8, 9.5, 30, area=30, segmentation=mask))
    assert clean["annotations"][1]["area"] == 30


@pytest.mark.parametrize("bbox", [(20, 2, 5, 5), (1, -9, 5, 5), (1e300, 1e300, 1e300, 1e300), (-9, 1, 9, 4)])
def test_a_box_that_lies_outside_is_dropped(tmp_path: Path, bbox: tuple[float, ...]) -> None:
    clean, changes = changed(made(tmp_path), box(*bbox))
    assert ids(clean) == ([1, 2, 3], [10, 30])
    ((kind, identity, said),) = changes
    assert identity == 20 and kind == "box outside" and "has no area in its image: dropped" in said


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (box(1, 2, 0, 5), "flat box"),
        (box(1, 2, -3, 5), "negative box"),
        (box(1, 2, 3), "bbox"),
        (lambda coco: coco["annotations"][1].update(image_id=99), "unknown image"),
        (lambda coco: coco["annotations"][1].update(category_id=99), "unknown category"),
        (lambda coco: coco["annotations"][1].update(iscrowd="yes"), "iscrowd"),
        (lambda coco: coco["annotations"][1].update(ignore=2), "ignore"),
    ],
)
def test_an_annotation_that_says_nothing_clear_is_dropped(tmp_path: Path, change: Change, kind: str) -> None:
    clean, changes = changed(made(tmp_path), change)
    assert ids(clean) == ([1, 2, 3], [10, 30])
    assert [(change[0], change[1]) for change in changes] == [(kind, 20)] and changes[0][2].endswith(": dropped")


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("area", None, "area"),
        ("area", -1, "area"),
        ("iscrowd", None, "iscrowd"),
        ("ignore", None, "ignore"),
        ("visible", [1, 2], "visible"),
        ("segmentation", [[1, 2, 3]], "mask"),
    ],
)
def test_what_can_do_without_is_left_out(tmp_path: Path, key: str, value: Any, kind: str) -> None:
    clean, changes = changed(made(tmp_path), lambda coco: coco["annotations"][1].update({key: value}))
    assert ids(clean)[1] == [10, 20, 30] and key not in clean["annotations"][1]
    assert changes[0][:2] == (kind, 20) and "left out" in changes[0][2]


def test_annotations_that_share_an_id_get_one_each_and_copies_go(tmp_path: Path) -> None:
    def share(coco: dict[str, Any]) -> None:
        coco["annotations"][1]["id"] = 10
        coco["annotations"][2]["id"] = "x"
        coco["annotations"].append(copy.deepcopy(coco["annotations"][0]))
        coco["annotations"].append({**coco["annotations"][0], "id": 2})

    clean, changes = changed(made(tmp_path), share)
    assert ids(clean)[1] == [10, 1, 3, 2]
    assert changes == [
        ("annotation id", "x", "has no right id: it is 3 now"),
        ("duplicate annotation id", 10, "shares its id: it is 1 now"),
        ("duplicate annotation id", 10, "is there again: dropped"),
    ]


def test_of_images_that_are_there_twice_one_is_kept_and_of_contradicting_ones_none(tmp_path: Path) -> None:
    def twice(coco: dict[str, Any]) -> None:
        coco["images"].append({**coco["images"][0], "license": 4})
        coco["images"].append({**coco["images"][1], "file_name": "3.png"})

    clean, changes = changed(made(tmp_path), twice)
    assert ids(clean) == ([1, 3], [10, 30])
    assert [(change[0], change[1]) for change in changes] == [
        *[("duplicate image id", one) for one in (2, 1, 2)],
        ("with its image", 20),
    ]


@pytest.mark.parametrize(
    ("boxes", "kept"),
    [
        ({}, [1, 3]),  # nobody says anything of it
        ({2: [1, 1, 2, 2]}, [2, 3]),  # only one says something
        ({1: [1, 1, 2, 2], 2: [1, 1, 2, 2]}, [1, 3]),  # both say the same
        ({1: [1, 1, 2, 2], 2: [1, 1, 3, 3]}, [3]),
    ],
)
def test_of_several_images_with_one_file_that_one_is_kept_which_is_not_contradicted(
    tmp_path: Path, boxes: dict[int, list[int]], kept: list[int]
) -> None:
    def twins(coco: dict[str, Any]) -> None:
        coco["images"][1]["file_name"] = "1.png"
        coco["annotations"] = [
            {"id": one, "image_id": one, "category_id": 1, "bbox": bbox} for one, bbox in boxes.items()
        ]

    clean, changes = changed(made(tmp_path), twins)
    assert ids(clean) == (kept, [one for one in boxes if one in kept])
    assert {change[0] for change in changes} <= {"duplicate file name", "with its image"}


def test_categories_of_one_name_are_joined_and_one_of_two_names_goes_with_its_annotations(tmp_path: Path) -> None:
    def confuse(coco: dict[str, Any]) -> None:
        names = [(1, "noise"), (2, "noise"), (3, "cat"), (3, "dog"), (4, "bird"), (4, "bird"), (5, ""), ("6", "six")]
        coco["categories"] = [{"id": identity, "name": name} for identity, name in names]
        for place, category in enumerate([2, 3, 4]):
            coco["annotations"][place]["category_id"] = category

    clean, changes = changed(made(tmp_path), confuse)
    assert clean["categories"] == [{"id": 1, "name": "noise"}, {"id": 4, "name": "bird"}]
    assert [(row["id"], row["category_id"]) for row in clean["annotations"]] == [(10, 1), (30, 4)]
    assert [(change[0], change[1]) for change in changes] == [
        ("category id", "6"),
        ("category name", 5),
        ("duplicate category id", 3),
        ("duplicate category id", 3),
        ("duplicate category id", 4),
        ("duplicate category name", 2),
        ("unknown category", 20),
    ]


@pytest.mark.parametrize(
    ("said", "bbox", "kept"),
    [
        ({"width": 17}, [1, 2, 5, 6], True),
        ({"width": None}, [1, 2, 5, 6], True),
        ({"width": 10**6, "height": 10**6}, [1, 2, 5, 6], True),
        ({"width": 50}, [30, 2, 5, 6], False),  # a box is outside
        ({"width": 32, "height": 24}, [1, 2, 5, 6], False),  # the image was scaled since
        ({"width": 12, "height": 16}, [1, 2, 5, 6], False),  # or turned
    ],
)
def test_an_image_gets_its_true_size_if_its_boxes_do_not_speak_against_it(
    tmp_path: Path, said: dict[str, Any], bbox: list[int], kept: bool
) -> None:
    def size(coco: dict[str, Any]) -> None:
        coco["images"][1].update(said)
        coco["annotations"][1]["bbox"] = bbox

    clean, changes = changed(made(tmp_path), size)
    assert ids(clean) == (([1, 2, 3], [10, 20, 30]) if kept else ([1, 3], [10, 30]))
    if kept:
        assert (clean["images"][1]["width"], clean["images"][1]["height"]) == (WIDTH, HEIGHT)
        assert changes[0][2].endswith("set to 16 x 12")
    else:
        assert "dropped, as its annotations may be meant for another size" in changes[0][2]


def test_without_annotations_nothing_speaks_against_the_true_size(tmp_path: Path) -> None:
    def size(coco: dict[str, Any]) -> None:
        coco["images"][1].update(width=32, height=24)
        del coco["annotations"][1]

    assert ids(changed(made(tmp_path), size)[0]) == ([1, 2, 3], [10, 30])


def test_a_mask_of_another_size_speaks_against_the_true_one(tmp_path: Path) -> None:
    def size(coco: dict[str, Any]) -> None:
        coco["images"][1].update(width=20)
        coco["annotations"][1]["segmentation"] = {"size": [12, 20], "counts": [240]}

    assert ids(changed(made(tmp_path), size)[0]) == ([1, 3], [10, 30])


@pytest.mark.parametrize("name", ["../train2017/2.png", "/etc/passwd", "a\\b.png", "http://a/b.png", "gone.png", 7])
def test_an_image_that_cannot_be_named_or_found_goes_with_its_annotations(tmp_path: Path, name: Any) -> None:
    clean, changes = changed(made(tmp_path), lambda coco: coco["images"][1].update(file_name=name))
    assert ids(clean) == ([1, 3], [10, 30])
    assert changes[1] == ("with its image", 20, "dropped with image 2")
    assert changes[0][:2] == ("missing image" if name == "gone.png" else "file name", 2)


def test_images_that_cannot_be_read_go_and_odd_ones_stay_and_the_data_set_is_accepted(tmp_path: Path) -> None:
    source = made(tmp_path, images=2 + len(BROKEN) + len(ODD))
    for n, (raw, *_) in enumerate([*BROKEN.values(), *ODD.values()], start=2):
        (source.folder / f"{n}.png").write_bytes(raw)
    clean, changes = mend(source)
    last = 2 + len(BROKEN) + len(ODD)
    # Nothing speaks against the true size of the one that is smaller, but its box; nor is a turned one trusted.
    assert ids(clean)[0] == [1, *range(2 + len(BROKEN), last + 1)]
    assert len(changes) == 2 * len(BROKEN)
    file = source.file.with_name("clean.json")
    data = COCO(root=str(tmp_path), train=str(file), val=str(file), train_images="train2017", val_images="train2017")
    assert data.train.ids == ids(clean)[0]
    assert all(data.train.read(index).shape == (3, HEIGHT, WIDTH) for index in range(len(data.train)))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda coco: [image.update(file_name="..") for image in coco["images"]], "image"),
        (lambda coco: coco["categories"][0].update(name=None), "category"),
    ],
)
def test_where_nothing_would_be_left_nothing_is_mended(tmp_path: Path, change: Change, what: str) -> None:
    with pytest.raises(Invalid, match=f"no {what} is left"):
        changed(made(tmp_path), change)


@pytest.mark.parametrize(
    ("bbox", "said"),
    [([9, 4, 15, 11], "nothing is guessed: .* look like corners"), ([0.1, 0.2, 0.5, 0.5], "look normalised")],
)
def test_boxes_that_are_all_written_in_another_way_are_not_guessed(
    tmp_path: Path, bbox: list[float], said: str
) -> None:
    with pytest.raises(Invalid, match=said):
        changed(made(tmp_path), lambda coco: [row.update(bbox=bbox) for row in coco["annotations"]])


def test_boxes_that_are_all_shares_once_others_have_gone_are_not_guessed_either(tmp_path: Path) -> None:
    source = made(tmp_path, images=4)
    (source.folder / "4.png").write_bytes(b"")
    with pytest.raises(Invalid, match=r"all 3 boxes lie within 0\.\.1"):
        changed(source, lambda coco: [row.update(bbox=[0, 0, 1, 1]) for row in coco["annotations"][:3]])


def test_two_splits_with_the_same_categories_have_the_same_afterwards(tmp_path: Path) -> None:
    train, val = made(tmp_path), made(tmp_path, part="val2017")
    for source, used in ((train, 2), (val, 1)):
        coco = read(source)
        coco["categories"] = [{"id": 1, "name": "fish"}, {"id": 2, "name": "fish"}, {"id": 3, "name": "crab"}]
        for row in coco["annotations"]:
            row["category_id"] = used
        write(source, coco)
        write(source, mend(source)[0])
    assert COCO(root=str(tmp_path)).classes == ("fish", "crab")


def test_a_photograph_with_turned_sides_is_no_mistake(tmp_path: Path) -> None:
    source = made(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (HEIGHT, WIDTH)).save(source.folder / "2.png", exif=exif)
    assert mend(source) == (read(source), [])
    assert json.loads(source.file.read_text())["images"][1]["width"] == WIDTH


def test_a_turned_photograph_of_no_stated_size_goes_if_it_has_boxes(tmp_path: Path) -> None:
    """Nobody knows whether they were drawn before or after it was turned."""
    source = made(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, WIDTH)).save(source.folder / "2.png", exif=exif)

    def unsaid(coco: dict[str, Any]) -> None:
        del coco["images"][1]["width"]

    assert ids(changed(source, unsaid)[0]) == ([1, 3], [10, 30])
