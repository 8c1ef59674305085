"""Every mistake in a COCO file is refused by name, and what only looks odd is not."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.call import Invalid
from trainers.data.annotations import agree, check, load, unsafe

GOOD: dict[str, Any] = {
    "images": [
        {"id": 11, "file_name": "a/one.jpg", "width": 40, "height": 30},
        {"id": 12, "file_name": "two.jpg", "width": 40, "height": 30},
    ],
    "annotations": [
        {"id": 21, "image_id": 11, "category_id": 5, "bbox": [1, 2, 3.5, 4], "area": 14.0, "iscrowd": 0},
        {"id": 22, "image_id": 11, "category_id": 2**40, "bbox": [-1, 0, 42, 31]},
    ],
    "categories": [{"id": 5, "name": "cat"}, {"id": 2**40, "name": "dog"}],
}

Change = Callable[[dict[str, Any]], Any]


def first(key: str, **values: Any) -> Change:
    return lambda coco: coco[key][0].update(values)


def without(key: str, name: str) -> Change:
    return lambda coco: coco[key][0].pop(name)


MISTAKES: list[tuple[Change, str]] = [
    (lambda c: c.pop("images"), "no 'images'"),
    (lambda c: c.pop("annotations"), "no 'annotations'"),
    (lambda c: c.pop("categories"), "no 'categories'"),
    (lambda c: c.update(images={}), "'images' is not a list"),
    (lambda c: c.update(annotations=[1]), "'annotations' is not a list of dictionaries"),
    (lambda c: c.update(images=[], annotations=[]), "0 images"),
    (lambda c: c.update(categories=[], annotations=[]), "0 categories"),
    (first("images", id=12), "image id 12 is there 2 times"),
    (first("images", id="x"), "image number 1 in the list: id 'x' is not a whole number"),
    (first("images", id=True), "image number 1 in the list: id True"),
    (first("images", id=2**64), "image number 1 in the list"),
    (first("annotations", id=22), "annotation id 22 is there 2 times"),
    (without("annotations", "id"), "annotation number 1 in the list: id None"),
    (first("categories", id=2**40), "category id 1099511627776 is there 2 times"),
    (first("categories", name="dog"), "category name 'dog' is there 2 times"),
    (first("categories", name=""), "category 5 has no name"),
    (first("categories", name=3), "category 5 has no name"),
    (first("images", width=0), "image 11: width 0, height 30"),
    (first("images", height=-3), "image 11: width 40, height -3"),
    (first("images", width=40.5), "image 11: width 40.5"),
    (without("images", "height"), "image 11: width 40, height None"),
    (first("images", width=30_000, height=30_000), "image 11: 30000 x 30000 pixels are more than"),
    (first("images", file_name="two.jpg"), "file_name 'two.jpg' is there 2 times"),
    (first("images", file_name="/etc/passwd"), "image 11: file_name '/etc/passwd' leaves the folder"),
    (first("images", file_name="a/../../b.jpg"), "image 11: file_name 'a/../../b.jpg' leaves the folder"),
    (first("images", file_name="a\\b.jpg"), "has a backslash"),
    (first("images", file_name="https://a.org/b.jpg"), "is a web address"),
    (first("images", file_name="a\0.jpg"), "cannot be printed"),
    (first("images", file_name="a\u202e.jpg"), "cannot be printed"),
    (first("images", file_name="a\ud800.jpg"), "cannot be printed"),
    (first("images", file_name=""), "is not a name"),
    (without("images", "file_name"), "image 11: file_name None is not a name"),
    (first("annotations", image_id=99), "annotation 21: image_id 99 is no image"),
    (first("annotations", image_id=[11]), "annotation 21: image_id"),
    (first("annotations", category_id=99), "annotation 21: category_id 99 is no category"),
    (first("annotations", category_id={}), "annotation 21: category_id"),
    (without("annotations", "bbox"), "annotation 21: bbox None"),
    (first("annotations", bbox=[1, 2, 3]), "annotation 21: bbox .* four finite numbers"),
    (first("annotations", bbox=["1", 2, 3, 4]), "annotation 21: bbox .* four finite numbers"),
    (first("annotations", bbox=[1, 2, float("nan"), 4]), "annotation 21: bbox .* four finite numbers"),
    (first("annotations", bbox=[1, 2, float("inf"), 4]), "annotation 21: bbox .* four finite numbers"),
    (first("annotations", bbox=[1, 2, 10**400, 4]), "annotation 21: bbox .* four finite numbers"),
    (first("annotations", bbox=[1, 2, -3, 4]), "annotation 21: bbox .* negative width or height"),
    (first("annotations", bbox=[1, 2, 0, 4]), "annotation 21: bbox .* has no area"),
    (first("annotations", bbox=[1, 2, 3, 0.0]), "annotation 21: bbox .* has no area"),
    (first("annotations", bbox=[1, 2, 1e9, 4]), "annotation 21: bbox .* leaves image 11 of 40 x 30"),
    (first("annotations", bbox=[38.5, 2, 3, 4]), "annotation 21: bbox .* leaves image 11"),
    (first("annotations", bbox=[1, 28, 3, 4]), "annotation 21: bbox .* leaves image 11"),
    (first("annotations", bbox=[-1.5, 2, 3, 4]), "annotation 21: bbox .* leaves image 11"),
    (first("annotations", bbox=[1, -1.5, 3, 4]), "annotation 21: bbox .* leaves image 11"),
    (first("annotations", area=-1), "annotation 21: area -1"),
    (first("annotations", area=float("nan")), "annotation 21: area nan"),
    (first("annotations", area="14"), "annotation 21: area '14'"),
    (first("annotations", iscrowd=2), "annotation 21: iscrowd 2"),
]


def test_a_good_file_with_missing_area_and_crowd_and_a_pixel_of_overhang_passes() -> None:
    check(GOOD, "good.json")


@pytest.mark.parametrize(("change", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_mistake_is_refused_with_file_and_id(change: Change, message: str) -> None:
    coco = copy.deepcopy(GOOD)
    change(coco)
    with pytest.raises(Invalid, match=message) as error:
        check(coco, "train.json")
    assert "train.json" in str(error.value)


def boxed(*boxes: Any) -> dict[str, Any]:
    """A file with these boxes in images of 40 x 30."""
    rows = [{"id": n, "image_id": 11, "category_id": 5, "bbox": list(box)} for n, box in enumerate(boxes, start=1)]
    return {**GOOD, "annotations": rows}


IN_CORNERS = ([20, 10, 39, 29], [25, 3, 40, 30], [1, 2, 8, 9])
IN_SHARES = ([0.5, 0.5, 0.2, 0.1], [0, 0, 1, 1], [0.9, 0.1, 0.05, 1e-3])


def test_boxes_that_are_all_corners_are_told_first_and_once() -> None:
    with pytest.raises(Invalid, match=r"x\.json: as x, y, width, height 2 of 3 boxes leave their images.*") as error:
        check(boxed(*IN_CORNERS), "x.json")
    assert "annotation 1: [20, 10, 39, 29]; as x1, y1, x2, y2 none does. These look like corners" in str(error.value)
    assert str(error.value).count("look like corners") == 1 and "annotation 2: bbox" in str(error.value)


def test_boxes_that_are_all_shares_of_their_image_are_refused() -> None:
    with pytest.raises(Invalid, match=r"x\.json: all 3 boxes lie within 0..1, as annotation 1: .*look normalised"):
        check(boxed(*IN_SHARES), "x.json")


NOT_ALL = {
    "corners but for one": (*IN_CORNERS, [30, 2, 5, 9]),
    "large objects, one drawn over the edge": ([2, 2, 38, 20], [1, 3, 38, 26], [3, 1, 39, 28], [4, 4, 30, 25]),
    "corners of which one leaves": (*IN_CORNERS, [20, 20, 50, 29]),
    "two corners": IN_CORNERS[:2],
    "large objects, of which one leaves": (*[[1, 2, 30, 20]] * 4, [1, 2, 40, 30]),
}


@pytest.mark.parametrize("boxes", NOT_ALL.values(), ids=NOT_ALL)
def test_boxes_that_leave_their_images_are_no_corners_unless_all_are(boxes: Any) -> None:
    with pytest.raises(Invalid, match="leaves image 11") as error:
        check(boxed(*boxes), "x.json")
    assert "corners" not in str(error.value)


@pytest.mark.parametrize("boxes", [IN_SHARES[:2], (*IN_SHARES, [1, 2, 5, 6]), [[1, 2, 30, 20]] * 4])
def test_a_few_small_boxes_and_large_objects_are_none_of_it(boxes: Any) -> None:
    check(boxed(*boxes), "x.json")


def test_a_results_file_is_named_as_such() -> None:
    results = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]
    with pytest.raises(Invalid, match=r"r\.json holds results"):
        check(results, "r.json")


@pytest.mark.parametrize("thing", [[], [1], None, 3, "text"])
def test_anything_but_a_dictionary_is_refused(thing: object) -> None:
    with pytest.raises(Invalid, match="not in COCO's format"):
        check(thing, "x.json")


def test_ten_mistakes_are_listed_and_the_rest_counted() -> None:
    coco = copy.deepcopy(GOOD)
    coco["annotations"] = [{"id": n, "image_id": 0, "category_id": 5, "bbox": [1, 2, 3, 4]} for n in range(1, 35)]
    with pytest.raises(Invalid) as error:
        check(coco, "x.json")
    text = str(error.value)
    assert "annotation 10:" in text and "annotation 11:" not in text and "24 more, 34 in all" in text


def test_so_few_flat_boxes_as_coco_itself_has_are_no_mistake() -> None:
    coco = copy.deepcopy(GOOD)
    row = {"image_id": 11, "category_id": 5, "bbox": [1, 2, 3, 4]}
    coco["annotations"] = [{**row, "id": n} for n in range(100_000)]
    coco["annotations"][7]["bbox"] = [1, 2, 3, 0]
    check(coco, "x.json")
    coco["annotations"][8]["bbox"] = [1, 2, 0, 3]
    with pytest.raises(Invalid, match=r"annotation 7: .*annotation 8: "):
        check(coco, "x.json")


USED = {  # other keys may hold anything
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("image_id", "category_id", "bbox", "area", "iscrowd"),
    "categories": ("id", "name"),
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=3,
)


@given(
    st.sampled_from(["images", "annotations", "categories"]),
    st.sampled_from(["id", "file_name", "width", "image_id", "category_id", "bbox", "area", "iscrowd", "name"]),
    json_values,
)
def test_no_value_anywhere_ends_in_anything_but_a_refusal(key: str, name: str, value: Any) -> None:
    coco = copy.deepcopy(GOOD)
    coco[key][0][name] = value
    try:
        check(coco, "x.json")
    except Invalid:
        return
    kept = {kind: [{field: one.get(field) for field in USED[kind]} for one in coco[kind]] for kind in USED}
    assert json.loads(json.dumps(kept)) == kept  # what passed holds no NaN that counts; NaN would equal nothing


@given(st.text())
def test_a_name_that_passes_stays_in_its_folder(name: str) -> None:
    if not unsafe(name):
        assert Path("/images").joinpath(name).resolve().is_relative_to("/images")


def test_a_syntax_error_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text('{"images": [],\n "annotations": [,]}')
    with pytest.raises(Invalid, match=r"broken\.json is not JSON: line 2, column 18"):
        load(path)


@pytest.mark.parametrize("raw", [b"", b'{"images": [{"id"', b"\xff\xfe\xfd", b"<html></html>", b"[" * 200_000])
def test_what_is_not_json_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "raw.json"
    path.write_bytes(raw)
    with pytest.raises(Invalid, match=r"raw\.json is not JSON"):
        load(path)


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot read"):
        load(tmp_path)


def test_reading_sorts_images_by_id_and_drops_masks(tmp_path: Path) -> None:
    coco = copy.deepcopy(GOOD)
    coco["images"].reverse()
    coco["annotations"][0]["segmentation"] = [[1, 2, 3]]
    path = tmp_path / "good.json"
    path.write_text(json.dumps(coco))
    read = load(path)
    assert [image["id"] for image in read["images"]] == [11, 12]
    assert all("segmentation" not in row for row in read["annotations"])


def test_categories_of_training_and_validation_must_agree() -> None:
    other = copy.deepcopy(GOOD)
    other["categories"].reverse()
    agree(GOOD, other)
    other["categories"][1]["name"] = "mouse"
    with pytest.raises(Invalid, match="differ: id 5: cat and mouse"):
        agree(GOOD, other)
    other["categories"].pop()
    with pytest.raises(Invalid, match=r"id 5: cat and \(none\)"):
        agree(GOOD, other)
