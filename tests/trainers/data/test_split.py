"""A split says what is in its images, and its fingerprint says whether two of them are the same."""

import copy
import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
