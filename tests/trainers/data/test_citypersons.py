"""CityPersons is read as the usual conversions have it: who counts, what is seen, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.trainers.data.citypersons_files import CATEGORIES, somebody, write_annotations
from trainers.call import Invalid
from trainers.data import CityPersons

SIZE = {"width": 200, "height": 100}
ULM = "ulm_000000_000019_leftImg8bit.png"
TALL = [10, 5, 30, 80]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One image to train on, two to measure on, in the folders of their cities."""
    rng = np.random.default_rng(0)
    for part, cities in (("train", ["ulm"]), ("val", ["ulm", "munster"])):
        for city in cities:
            folder = tmp_path / "leftImg8bit" / part / city
            folder.mkdir(parents=True)
            pixels = rng.integers(0, 256, (100, 200, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / ULM.replace("ulm", city))
        images = [{"id": n, "im_name": ULM.replace("ulm", city), **SIZE} for n, city in enumerate(cities, start=1)]
        write_annotations(tmp_path / f"annotations/{part}.json", images, [somebody(1, 1, TALL)])
    return tmp_path


def rewrite(root: Path, rows: list[dict[str, Any]], part: str = "train", **image: Any) -> None:
    write_annotations(root / f"annotations/{part}.json", [{"id": 1, "im_name": ULM, **SIZE, **image}], rows)


def test_pedestrians_are_the_class_and_images_are_found_in_the_folders_of_their_cities(root: Path) -> None:
    data = CityPersons(root=str(root))
    assert data.classes == CityPersons.names() == ("pedestrian",)
    assert [image["file_name"] for image in data.val.coco["images"]] == [
        f"ulm/{ULM}",
        f"munster/{ULM}".replace("/ulm", "/munster"),
    ]
    assert data.train.boxes(0).tolist() == [[10, 5, 40, 85]] and data.val.read(1).shape == (3, 100, 200)
    assert data.metric.name == "MissRate" and data.metric.args == {"family": "citypersons"}


def test_names_with_folders_and_images_without_them_are_taken_as_they_are(root: Path) -> None:
    before = CityPersons(root=str(root))
    rewrite(root, [somebody(1, 1, TALL)], im_name="unused.png", file_name=f"ulm/{ULM}")
    assert CityPersons(root=str(root)).fingerprint == before.fingerprint
    (root / "plain").mkdir()
    (root / "leftImg8bit/train/ulm" / ULM).rename(root / "plain" / ULM)
    rewrite(root, [somebody(1, 1, TALL)])
    data = CityPersons(root=str(root), train_images="plain")
    assert data.train.coco["images"][0]["file_name"] == ULM and torch.equal(data.train.read(0), data.train.read(0))


CROWD = [
    somebody(1, 1, [1, 0, 30, 80]),
    somebody(2, 1, [2, 0, 30, 49]),  # too small
    somebody(3, 1, [3, 0, 30, 80], vis_bbox=[3, 0, 30, 52]),  # .65 of it is seen
    somebody(4, 1, [4, 0, 30, 80], vis_bbox=[4, 0, 30, 51]),  # less is seen
    somebody(5, 1, [5, 0, 30, 80], ignore=1),
    somebody(6, 1, [6, 0, 30, 80], category=2),
    somebody(7, 1, [7, 0, 30, 80], category=0, ignore=0),
    somebody(8, 1, [8, 0, 30, 0]),
]


def test_who_is_trained_on_is_high_and_visible_enough_and_no_other_kind(root: Path) -> None:
    rewrite(root, CROWD)
    rows = CityPersons(root=str(root)).train.rows
    assert rows.bbox[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert rows.ignore.tolist() == [False, True, False, True, True, True, True]
    assert rows.visible[3].tolist() == [4, 0, 30, 51]
    assert set(rows.category.tolist()) == {1}
    rows = CityPersons(root=str(root), height=0.0, visible=0.0).train.rows
    assert rows.ignore.tolist() == [False] * 4 + [True] * 3


def test_in_validation_every_pedestrian_stays(root: Path) -> None:
    rewrite(root, CROWD, "val")
    data = CityPersons(root=str(root))
    assert data.val.rows.ignore.tolist() == [False] * 4 + [True] * 3


def test_images_with_nobody_to_learn_can_be_dropped(root: Path) -> None:
    images = [{"id": n, "file_name": f"ulm/{n}.png", **SIZE} for n in (1, 2)]
    for image in images:
        (root / "leftImg8bit/train/ulm" / ULM).with_name(f"{image['id']}.png").write_bytes(b"")
    rows = [somebody(1, 1, [1, 1, 9, 9]), somebody(2, 2, TALL)]
    write_annotations(root / "annotations/train.json", images, rows)
    assert CityPersons(root=str(root)).train.ids == [1, 2]
    assert CityPersons(root=str(root), empty="drop").train.ids == [2]


def test_the_visible_box_has_other_names_too_or_only_its_part_is_given(root: Path) -> None:
    whole = somebody(1, 1, TALL, vis_bbox=[10, 5, 15, 80], vis_ratio=0.5)
    rewrite(root, [whole])
    before = CityPersons(root=str(root))
    for name in ("bbox_vis", "visible"):
        other = dict(whole)
        other[name] = other.pop("vis_bbox")
        rewrite(root, [other])
        assert CityPersons(root=str(root)).fingerprint == before.fingerprint
    ratio = {key: value for key, value in whole.items() if key != "vis_bbox"}
    rewrite(root, [ratio])
    assert CityPersons(root=str(root)).train.rows.visible.tolist() == [[10, 5, 15, 80]]
    rewrite(root, [{key: value for key, value in ratio.items() if key != "vis_ratio"}])
    data = CityPersons(root=str(root))
    assert np.isnan(data.train.rows.visible).all() and len(data.train.boxes(0)) == 1


def test_whole_pedestrians_go_on_behind_the_edge_of_the_image(root: Path) -> None:
    rewrite(root, [somebody(1, 1, [-30, 20, 60, 150], vis_bbox=[0, 20, 30, 80])])
    data = CityPersons(root=str(root), visible=0.0)
    assert data.train.boxes(0).tolist() == [[0, 20, 30, 100]] and data.train.rows.bbox.tolist() == [[-30, 20, 60, 150]]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"vis_bbox": [1, 2, 3]}, r"annotation 7: the visible box \[1, 2, 3\] is not"),
    ({"vis_bbox": "x"}, "annotation 7: the visible box 'x' is not"),
    ({"vis_bbox": [1, 2, 3, -4]}, "annotation 7: the visible box .* is not"),
    ({"vis_bbox": None, "vis_ratio": 1.5}, "annotation 7: vis_ratio 1.5 is not a number of 0 to 1"),
    ({"vis_bbox": None, "vis_ratio": None}, "annotation 7: vis_ratio None is not"),
    ({"bbox": [1, 2, -3, 4]}, "annotation 7: bbox .* has a negative width"),
    ({"bbox": [1, 2, float("nan"), 4]}, "annotation 7: bbox .* four finite numbers"),
    ({"bbox": None}, "annotation 7: bbox None is not"),
    ({"ignore": 2}, "annotation 7: ignore 2 is neither 0 nor 1"),
    ({"image_id": 5}, "annotation 7: image_id 5 is no image"),
    ({"category_id": 9}, "annotation 7: category_id 9 is no category"),
]


@pytest.mark.parametrize(("change", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_mistake_is_refused_with_file_and_id(root: Path, change: dict[str, Any], said: str) -> None:
    rewrite(root, [somebody(1, 1, TALL), somebody(7, 1, TALL) | change])
    with pytest.raises(Invalid, match=rf"train\.json: {said}"):
        CityPersons(root=str(root))


NAMES = [
    ({"im_name": "../../secret.png"}, "leaves the folder"),
    ({"im_name": "/etc/passwd"}, "leaves the folder"),
    ({"im_name": None}, "is not a name"),
    ({"im_name": "bonn_1.png"}, r"images of .*train\.json that are not in .*: bonn_1\.png"),
    ({"im_name": "ulm_1.png"}, r"images of .*train\.json that are not in .*: ulm/ulm_1\.png"),
    ({"id": "x"}, "image number 1 in the list: id 'x'"),
    ({"width": 0}, "image 1: width 0"),
]


@pytest.mark.parametrize(("change", "said"), NAMES, ids=[said for _, said in NAMES])
def test_a_wrong_image_is_refused(root: Path, change: dict[str, Any], said: str) -> None:
    rewrite(root, [], **change)
    with pytest.raises(Invalid, match=said):
        CityPersons(root=str(root))


def test_files_without_pedestrians_or_of_another_kind_are_refused(root: Path) -> None:
    path = root / "annotations/train.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | {"categories": CATEGORIES[1:]}))
    with pytest.raises(Invalid, match=r"train\.json: category pedestrian is not one of ignore region, other person"):
        CityPersons(root=str(root))
    path.write_text(json.dumps(whole["annotations"]))
    with pytest.raises(Invalid, match=r"train\.json is not in COCO's format: a list"):
        CityPersons(root=str(root))
    path.unlink()
    with pytest.raises(Invalid, match=r"no annotation file .*train\.json; name it by `train`"):
        CityPersons(root=str(root))
    with pytest.raises(Invalid, match="there is no folder"):
        CityPersons(root=str(root / "nowhere"))


def test_a_validation_set_with_nobody_is_refused(root: Path) -> None:
    rewrite(root, CROWD[4:], "val")
    with pytest.raises(Invalid, match=r"val\.json has no object to measure on"):
        CityPersons(root=str(root))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
keys = st.sampled_from(
    ["id", "image_id", "category_id", "bbox", "vis_bbox", "bbox_vis", "vis_ratio", "ignore", "iscrowd"]
)


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(["images", "annotations", "categories"]), keys | st.sampled_from(["im_name", "name"]), json_values
)
def test_no_value_anywhere_ends_in_anything_but_a_refusal(
    tmp_path_factory: Any, table: str, key: str, value: Any
) -> None:
    root = tmp_path_factory.getbasetemp() / "cities"
    for part in ("train", "val"):
        (root / "leftImg8bit" / part / "ulm").mkdir(parents=True, exist_ok=True)
        (root / "leftImg8bit" / part / "ulm" / ULM).write_bytes(b"")
        rewrite(root, [somebody(1, 1, TALL)], part)
    path = root / "annotations/train.json"
    whole = json.loads(path.read_text())
    whole[table][0][key] = value
    path.write_text(json.dumps(whole))
    try:
        data = CityPersons(root=str(root))
    except Invalid:
        return
    assert data.classes == ("pedestrian",) and np.isfinite(data.train.rows.bbox).all()
