"""Masks come out as they were drawn, and what is no mask is refused before it can do harm."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from trainers.call import Invalid
from trainers.data.masks import decode, encode, pack, packed, packed_in, wrong, wrong_pack

SIZE = (6, 8)  # height, width


def drawn(mask: Any, size: tuple[int, int] = SIZE) -> torch.Tensor:
    return decode(pack(mask), size)


def pixels(*rows: str) -> list[list[bool]]:
    return [[c == "#" for c in row] for row in rows]


def test_a_polygon_fills_what_it_surrounds() -> None:
    corner = pixels("........", ".###....", ".###....", "........", "........", "........")
    assert drawn([[1, 1, 4, 1, 4, 3, 1, 3]]).tolist() == corner


def test_several_polygons_are_one_mask() -> None:
    both = pixels("##......", "##......", "........", "........", "......##", "......##")
    assert drawn([[0, 0, 2, 0, 2, 2, 0, 2], [6, 4, 8, 4, 8, 6, 6, 6]]).tolist() == both


def test_a_polygon_that_leaves_the_image_is_cut() -> None:
    assert drawn([[-3, -2, 1e9, -2, 1e9, 1e300, -3, 99]]).all()


def test_run_lengths_go_down_the_columns() -> None:
    mask = drawn({"size": [6, 8], "counts": [2, 3, 43]})
    assert mask.dtype == torch.bool
    assert mask.tolist() == pixels("........", "........", "#.......", "#.......", "#.......", "........")
    assert drawn({"size": [6, 8], "counts": [0, 48]}).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.5, 0.98, 0, 1]))
def test_what_is_encoded_comes_back_and_is_cocos_own_notation(height: int, width: int, seed: int, part: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < part
    runs = encode(mask)
    assert np.array_equal(drawn(runs, (height, width)).numpy(), mask)
    assert np.array_equal(coco_mask.decode(json.loads(json.dumps(runs))), mask)


NOT_MASKS: list[Any] = [
    3,
    "text",
    {},
    True,
    [[1, 2, 3, 4]],
    [[1, 2, 3, 4, 5]],
    [[1, 2, 3, 4, 5, float("nan")]],
    [[1, 2, 3, 4, 5, 10**400]],
    [[1, 2, 3, 4, 5, "x"]],
    [[1, 2, 3, 4, 5, None]],
    [[]],
    [3, 4],
    [{"size": [6, 8], "counts": [48]}],
    {"size": [6, 8]},
    {"size": [8, 6], "counts": [48]},
    {"size": 48, "counts": [48]},
    {"size": [6, 8], "counts": []},
    {"size": [6, 8], "counts": ""},
    {"size": [6, 8], "counts": None},
    {"size": [6, 8], "counts": [47]},
    {"size": [6, 8], "counts": [2, 10**30]},
    {"size": [6, 8], "counts": [50, -2]},
    {"size": [6, 8], "counts": [1.5, 46.5]},
    {"size": [6, 8], "counts": ["4", "8"]},
    {"size": [6, 8], "counts": "0"},
    {"size": [6, 8], "counts": "o"},
    {"size": [6, 8], "counts": "\x00"},
    {"size": [6, 8], "counts": "\U0001f600"},
]


@pytest.mark.parametrize("thing", NOT_MASKS, ids=lambda thing: ascii(thing)[:40])
def test_what_is_no_mask_of_this_size_is_refused(thing: Any) -> None:
    with pytest.raises(Invalid, match="is no mask of 8 x 6 pixels"):
        drawn(thing)


@pytest.mark.parametrize("thing", [*NOT_MASKS, []], ids=lambda thing: ascii(thing)[:40])
def test_packing_hides_nothing_that_is_wrong(thing: Any) -> None:
    assert wrong_pack(pack(thing), SIZE) == wrong(thing, SIZE) != ""


side = st.integers(-3, 12) | st.floats(-3, 12) | st.sampled_from([1e300, -1.7e308, 1.7e308])
polygons = st.lists(st.lists(st.tuples(side, side), min_size=3, max_size=6), min_size=1, max_size=4)


@settings(deadline=None)
@given(polygons)
def test_packed_polygons_are_drawn_as_they_would_be_from_their_text(corners: Any) -> None:
    mask = [[number for corner in polygon for number in corner] for polygon in corners]
    assert wrong(mask, SIZE) == wrong_pack(pack(mask), SIZE) == ""
    assert torch.equal(drawn(mask), decode(json.dumps(mask).encode(), SIZE))


def test_packed_polygons_are_their_numbers_and_whole_ones_are_no_different() -> None:
    whole = pack([[1, 1, 4, 1, 4, 3], [5, 0, 8, 0, 8, 2, 5, 2]])
    numbers = [2, 6, 8, 1, 1, 4, 1, 4, 3, 5, 0, 8, 0, 8, 2, 5, 2]
    assert np.frombuffer(whole, "<f8").tolist() == numbers
    assert pack([[1.0, 1.0, 4.0, 1.0, 4.0, 3.0], [5.0, 0.0, 8.0, 0.0, 8.0, 2.0, 5.0, 2.0]]) == whole


@settings(deadline=None)
@given(st.text(st.characters(min_codepoint=45, max_codepoint=114), max_size=12))
def test_no_text_ends_in_anything_but_a_mask_or_a_refusal(text: str) -> None:
    try:
        mask = drawn({"size": [6, 8], "counts": text})
    except Invalid:
        return
    assert mask.shape == SIZE and np.array_equal(coco_mask.decode({"size": [6, 8], "counts": text}), mask.numpy())


def test_only_annotations_with_a_mask_are_packed() -> None:
    rows = [{"id": 1}, {"id": 2, "segmentation": []}, {"id": 3, "segmentation": [[1, 1, 4, 1, 4, 3]]}]
    assert list(packed(rows)) == [3]


def test_the_masks_of_a_file_are_those_of_its_annotations() -> None:
    rows = [
        {"id": 1, "image_id": 1},
        {"id": 2, "segmentation": []},
        {"id": 3, "segmentation": [[1, 1, 4, 1, 4, 3]], "attributes": {"id": 8, "segmentation": [[1, 1, 4, 1, 4, 3]]}},
        {"id": 4, "segmentation": {"size": [6, 8], "counts": [48]}},
        {"id": 5, "segmentation": [[1, 2, 3]]},
    ]
    images = [{"id": 9, "segmentation": [[1, 1, 4, 1, 4, 3]]}]
    found = packed_in(json.dumps({"images": images, "annotations": rows}).encode())
    assert found == packed(rows) and list(found) == [3, 4, 5]
