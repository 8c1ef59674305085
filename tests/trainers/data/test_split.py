"""A split says what is in its images, and its fingerprint says whether two of them are the same."""

import copy
import hashlib
import random
import struct
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.call import Invalid
from trainers.data.masks import packed
from trainers.data.split import Split, classes_of, fingerprint


def annotated(*rows: dict[str, Any]) -> dict[str, Any]:
    """Two images of 20 x 10 pixels and two categories with a hole between their ids."""
    images = [{"id": i, "file_name": f"{i}.png", "width": 20, "height": 10} for i in (3, 7)]
    categories = [{"id": 90, "name": "zebra"}, {"id": 2, "name": "ant"}]
    return {"images": images, "categories": categories, "annotations": [dict(row) for row in rows]}


def row(identity: int, image: int = 3, category: int = 2, bbox: tuple[float, ...] = (1, 2, 3, 4), **more: Any) -> Any:
    return {"id": identity, "image_id": image, "category_id": category, "bbox": list(bbox), **more}


def split_of(coco: dict[str, Any]) -> Split:
    return Split(coco, classes_of(coco), lambda index: torch.zeros(3, 10, 20, dtype=torch.uint8))


def test_labels_count_the_sorted_category_ids() -> None:
    split = split_of(annotated(row(1, category=90), row(2, category=2), row(3, image=7, category=90)))
    assert split.classes == ("ant", "zebra")
    assert split.labels(0).tolist() == [0, 1] and split.labels(1).tolist() == [1]
    assert split.labels(0).dtype == torch.int64
    assert split.ids == [3, 7] and split.sizes == [(10, 20), (10, 20)] and len(split) == 2


def test_boxes_are_corners_cut_to_the_image_and_never_crowds_or_flat() -> None:
    split = split_of(
        annotated(
            row(1, bbox=(-1, 2, 5, 4)),
            row(2, bbox=(18, 8, 3, 2.5)),
            row(3, iscrowd=1),
            row(4, bbox=(5, 5, 3, 0)),
            row(5, bbox=(20, 0, 1, 1)),
        )
    )
    assert split.boxes(0).tolist() == [[0, 2, 4, 6], [18, 8, 20, 10]]
    assert split.boxes(0).dtype == torch.float32


def test_crowds_and_what_else_is_to_be_ignored_are_corners_cut_to_the_image() -> None:
    split = split_of(
        annotated(
            row(1),
            row(2, bbox=(-1, 2, 5, 4), iscrowd=1),
            row(3, bbox=(18, 8, 3, 2.5), ignore=1),
            row(4, bbox=(20, 0, 1, 1), ignore=1),
            row(5, image=7, bbox=(2, 2, 2, 2), iscrowd=1),
        )
    )
    assert split.has_ignored
    assert split.ignored(0).tolist() == [[0, 2, 4, 6], [18, 8, 20, 10]] and split.ignored(0).dtype == torch.float32
    assert split.ignored(1).tolist() == [[2, 2, 4, 4]]
    nothing = split_of(annotated(row(1)))
    assert not nothing.has_ignored and nothing.ignored(0).shape == (0, 4)


def test_an_image_without_boxes_has_empty_tensors() -> None:
    split = split_of(annotated(row(1)))
    assert split.boxes(1).shape == (0, 4) and split.labels(1).shape == (0,)
    nothing = split_of(annotated())
    assert nothing.boxes(0).shape == (0, 4) and nothing.rows.bbox.shape == (0, 4)


def test_changing_the_boxes_that_were_given_out_changes_nothing() -> None:
    split = split_of(annotated(row(1)))
    split.boxes(0).mul_(100)
    split.labels(0).add_(1)
    assert split.boxes(0).tolist() == [[1, 2, 4, 6]] and split.labels(0).tolist() == [0]


def test_a_missing_area_is_width_times_height_and_a_given_one_is_kept() -> None:
    rows = split_of(annotated(row(1), row(2, image=7, area=5.5))).rows
    assert rows.area.tolist() == [12, 5.5] and not rows.crowd.any()


def with_masks(coco: dict[str, Any]) -> Split:
    return Split(coco, classes_of(coco), split_of(coco).read, lambda: packed(coco["annotations"]))


def runs(pixel: int) -> dict[str, Any]:
    """A mask of one pixel, counted down the columns."""
    return {"size": [10, 20], "counts": [pixel, 1, 199 - pixel]}


def test_masks_come_in_the_order_of_the_boxes_whatever_the_order_of_the_file() -> None:
    table = [
        row(1, bbox=(9, 2, 3, 4), segmentation=runs(1)),
        row(2, iscrowd=1, segmentation=runs(2)),
        row(3, image=7, segmentation=runs(3)),
        row(4, category=90, segmentation=runs(4)),
        row(5, bbox=(0, 2, 3, 4), segmentation=runs(5)),
        row(6, bbox=(3, 3, 0, 4), segmentation=runs(6)),
    ]
    split = with_masks(annotated(*table))
    assert split.has_masks
    first, second = split.masks(0), split.masks(1)
    assert first is not None and second is not None
    assert first.shape == (3, 10, 20) and first.dtype == torch.bool
    by_corner = {(x, label): n for n, (x, label) in enumerate([(0, 0), (9, 0), (1, 1)])}
    boxes = zip(split.boxes(0)[:, 0].int().tolist(), split.labels(0).tolist(), strict=True)
    assert [by_corner[box] for box in boxes] == [0, 1, 2]
    assert [mask.T.flatten().nonzero().item() for mask in first] == [5, 1, 4]
    assert [mask.T.flatten().nonzero().item() for mask in second] == [3]


def test_an_image_without_boxes_has_masks_of_no_object() -> None:
    masks = with_masks(annotated(row(1, segmentation=runs(0)))).masks(1)
    assert masks is not None and masks.shape == (0, 10, 20) and masks.dtype == torch.bool


@pytest.mark.parametrize("table", [[], [row(1)], [row(1, segmentation=runs(0)), row(2, segmentation=[])]])
def test_a_split_has_masks_only_if_all_its_objects_have_one(table: Any) -> None:
    split = with_masks(annotated(*table))
    assert not split.has_masks and split.masks(0) is None and split.masks(1) is None


def test_crowds_and_flat_boxes_need_no_mask() -> None:
    assert with_masks(annotated(row(1, segmentation=runs(0)), row(2, iscrowd=1), row(3, bbox=(1, 1, 0, 2)))).has_masks


def test_masks_are_read_once_and_only_if_somebody_asks() -> None:
    coco, asked = annotated(row(1, segmentation=runs(0))), []

    def outlines() -> dict[int, bytes]:
        asked.append(1)
        return packed(coco["annotations"])

    split = Split(coco, classes_of(coco), split_of(coco).read, outlines)
    split.boxes(0), split.labels(0), split.rows
    assert not asked
    split.masks(0), split.masks(1), split.has_masks
    assert len(asked) == 1


def test_whole_numbers_written_as_fractions_have_the_same_digest_and_every_number_counts() -> None:
    polygon = [1, 1, 4, 1, 4, 3]
    same = [polygon, [float(number) for number in polygon]]
    other = [[1, 1, 4, 1, 4, 3.0000001], [1, 1, 4, 1, 4, 3, 1, 3]]
    digests = [with_masks(annotated(row(1, segmentation=[points]))).masks_digest for points in same + other]
    assert digests[0] == digests[1] and len(set(digests)) == 3
    assert digests[0] == hashlib.sha256(struct.pack("<8d", 1, 6, *polygon) + b"\n").hexdigest()


def test_a_mask_that_cannot_be_drawn_is_named_by_annotation_and_image() -> None:
    split = with_masks(annotated(row(1, segmentation=[[1, 2, 3]]), row(9, image=7, segmentation=runs(0))))
    with pytest.raises(Invalid, match=r"annotation 1 of image 3: \[\[1, 2, 3\]\] is no mask of 20 x 10 pixels"):
        split.masks(0)
    assert split.masks(1) is not None


whole = st.integers(0, 9)
rows = st.lists(
    st.builds(
        row,
        st.just(0),
        st.sampled_from([3, 7]),
        st.sampled_from([2, 90]),
        st.tuples(whole, whole, whole, whole),
    )
)


@settings(deadline=None)
@given(rows, st.randoms(use_true_random=False))
def test_order_ids_extra_keys_and_number_types_of_annotations_do_not_matter(table: Any, rng: random.Random) -> None:
    other = copy.deepcopy(table)
    rng.shuffle(other)
    for identity, each in enumerate(other):
        each |= {"id": identity + 50, "segmentation": [], "bbox": [float(side) for side in each["bbox"]]}
        each |= {"area": each["bbox"][2] * each["bbox"][3], "iscrowd": False}
    one, two = split_of(annotated(*table)), split_of(annotated(*other))
    assert fingerprint(one, one) == fingerprint(two, two)
    for index in range(2):  # and so the training is the same, box by box
        assert torch.equal(one.boxes(index), two.boxes(index))
        assert torch.equal(one.labels(index), two.labels(index))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["images"][0].update(id=4) or c["annotations"][0].update(image_id=4),
        lambda c: c["images"][0].update(file_name="other.png"),
        lambda c: c["images"][0].update(width=21),
        lambda c: c["images"][0].update(height=11),
        lambda c: c["images"].pop(),
        lambda c: c["images"].reverse(),
        lambda c: c["annotations"][0].update(image_id=7),
        lambda c: c["annotations"][0].update(category_id=90),
        lambda c: c["annotations"][0]["bbox"].__setitem__(0, 1.0000001),
        lambda c: c["annotations"][0].update(area=11),
        lambda c: c["annotations"][0].update(iscrowd=1),
        lambda c: c["annotations"].append(dict(c["annotations"][0], id=9)),
        lambda c: c["categories"][0].update(name="horse"),
        lambda c: c["categories"][0].update(id=91),
    ],
)
def test_whatever_training_or_measuring_reads_changes_the_fingerprint(change: Any) -> None:
    coco = annotated(row(1))
    changed = copy.deepcopy(coco)
    change(changed)
    old, new = split_of(coco), split_of(changed)
    assert len({fingerprint(old, old), fingerprint(new, old), fingerprint(old, new), fingerprint(new, new)}) == 4


def test_a_known_fingerprint_stays_as_it_is() -> None:
    split = split_of(annotated(row(1), row(2, image=7, category=90, bbox=(0.5, -0.0, 3, 4), iscrowd=1)))
    assert fingerprint(split, split) == "8eae9da123c460eab98f8440d7c62b4189068c8ea2ced3e35ac31c8c3f91ef55"
