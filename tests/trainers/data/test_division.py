"""One set of annotations becomes two by a rule: the same ones for the same seed, each class in both if it can be."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.call import Invalid
from trainers.data.division import divided


def coco(*images: Iterable[int], **more: Any) -> dict[str, Any]:
    """Images with objects of these classes."""
    rows = [{"id": n, "file_name": f"{n}.jpg", "width": 9, "height": 9} for n, _ in enumerate(images, start=1)]
    named = [(n, one) for n, classes in enumerate(images, start=1) for one in classes]
    boxes = [{"id": i, "image_id": n, "category_id": one, "bbox": [0, 0, 9, 9]} for i, (n, one) in enumerate(named)]
    kinds = [{"id": n, "name": f"c{n}"} for n in range(1, 6)]
    return {"info": {"year": 2024}, "images": rows, "annotations": boxes, "categories": kinds, **more}


def ids(made: dict[str, Any]) -> list[int]:
    return [row["id"] for row in made["images"]]


def classes(made: dict[str, Any]) -> set[int]:
    return {row["category_id"] for row in made["annotations"]}


def test_each_image_goes_to_one_part_with_its_annotations_and_all_else_stays() -> None:
    whole = coco(*[[1, 1, 2]] * 50, [])
    before = copy.deepcopy(whole)
    made = divided(whole, share=0.2, seed=0)
    assert whole == before
    assert sorted(ids(made.train) + ids(made.val)) == list(range(1, 52)) and len(ids(made.val)) == 10
    for part in (made.train, made.val):
        assert {row["image_id"] for row in part["annotations"]} <= set(ids(part))
        assert part["info"] == whole["info"] and part["categories"] == whole["categories"]
    assert len(made.train["annotations"]) + len(made.val["annotations"]) == len(whole["annotations"])
    assert made.unmeasured == []


def test_the_same_seed_is_the_same_division_whatever_the_ids_and_the_order() -> None:
    whole = coco(*[[1]] * 40)
    first = divided(whole, share=0.25, seed=0)
    assert ids(first.val) == ids(divided(whole, share=0.25, seed=0).val)
    assert ids(first.val) != ids(divided(whole, share=0.25, seed=1).val)
    random.Random(0).shuffle(whole["images"])
    for row in [*whole["images"], *whole["annotations"]]:
        row["id"] = row["id"] if "bbox" in row else row["id"] + 1000
        if "bbox" in row:
            row["image_id"] += 1000
    again = divided(whole, share=0.25, seed=0)
    assert {row["file_name"] for row in again.val["images"]} == {row["file_name"] for row in first.val["images"]}


@pytest.mark.parametrize("seed", range(20))
def test_a_rare_class_is_in_both(seed: int) -> None:
    made = divided(coco(*[[1]] * 200, [2], [2], [1, 3], [3]), share=0.1, seed=seed)
    assert classes(made.train) == classes(made.val) == {1, 2, 3} and len(ids(made.val)) == 20


@pytest.mark.parametrize("seed", range(20))
def test_a_class_in_one_image_alone_is_trained_on_and_told(seed: int) -> None:
    made = divided(coco(*[[1]] * 5, [1, 4], [2]), share=0.9, seed=seed)
    assert classes(made.train) == {1, 2, 4} and classes(made.val) == {1}
    assert made.unmeasured == ["c2", "c4"] and len(ids(made.val)) == 5, "each class keeps an image to train on"


def test_more_go_to_validation_where_its_classes_need_them() -> None:
    made = divided(coco(*[[n] for n in (1, 2, 3, 4, 5)] * 2), share=0.1, seed=0)
    assert len(ids(made.val)) == 5 and classes(made.val) == {1, 2, 3, 4, 5}


def test_crowds_and_what_is_to_be_ignored_count_for_no_class() -> None:
    whole = coco([1], [1], [2], [2])
    whole["annotations"][2]["iscrowd"] = whole["annotations"][3]["ignore"] = 1
    made = divided(whole, share=0.25, seed=0)
    assert len(ids(made.val)) == 1 and ids(made.val)[0] in (1, 2)


@pytest.mark.parametrize("images", [[[1]], [[1], [2], [3]], [[], []]])
def test_where_no_class_can_be_shared_nothing_is_divided(images: list[list[int]]) -> None:
    with pytest.raises(Invalid, match="no class has objects in two images"):
        divided(coco(*images), share=0.5, seed=0)


@given(st.lists(st.sets(st.integers(1, 5)), min_size=2, max_size=30), st.floats(0.01, 0.99), st.integers(-5, 5))
def test_whatever_there_is_every_class_is_trained_on_and_each_part_has_an_image(
    images: list[set[int]], share: float, seed: int
) -> None:
    whole = coco(*images)
    try:
        made = divided(whole, share=share, seed=seed)
    except Invalid:
        counts = [sum(one in image for image in images) for one in range(1, 6)]
        stuck = all(any(counts[one - 1] == 1 for one in image) for image in images if image)
        assert max(counts) < 2 or stuck, "no image could be spared"
        return
    assert classes(made.train) == classes(whole) and made.train["images"] and classes(made.val)
    missing = {row["id"] for row in whole["categories"] if row["name"] in made.unmeasured}
    assert classes(made.val) == classes(whole) - missing
    assert sorted(ids(made.train) + ids(made.val)) == ids(whole)
