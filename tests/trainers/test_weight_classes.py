"""The rows of published weights go to the classes of their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trainers import backbones, detectors, weights
from trainers.call import Invalid
from trainers.weight_classes import COCO_IDS, Classes, categories, with_classes
from trainers.weight_names import DETECTION, MMDETECTION, TAPATH

COCO = tuple(categories()[i] for i in COCO_IDS)
CLS = "head.cls.bias"
ANIMALS = ("cat", "dog", "cow")


def picked(
    number: int,
    wanted: tuple[str, ...] | None = None,
    named: tuple[str, ...] | None = None,
    *,
    of: int,
    published: str = MMDETECTION,
) -> list[int]:
    """Which rows, of so many, a network of so many classes gets."""
    found = with_classes(CLS, torch.arange(of), torch.empty(number), Classes(published, number, wanted, named))
    return found.tolist()


def test_rows_are_put_in_the_order_of_the_datas_names() -> None:
    assert picked(3, ("cow", "cat", "dog"), ANIMALS, of=3) == [2, 0, 1]
    assert picked(3, ANIMALS, ANIMALS, of=3) == [0, 1, 2]


def test_some_of_the_files_classes_may_be_wanted() -> None:
    assert picked(1, ("dog",), ANIMALS, of=3) == [1]


def test_a_class_that_the_file_does_not_name_is_refused_by_its_name() -> None:
    with pytest.raises(Invalid, match=r"know no class 'horse': .*part: backbone"):
        picked(3, ("cow", "horse", "dog"), ANIMALS, of=3)


def test_as_many_names_as_rows_are_wanted() -> None:
    with pytest.raises(Invalid, match="are for 4 classes, and their file names 3"):
        picked(3, ANIMALS, ANIMALS, of=4)


def test_without_names_of_the_data_rows_go_by_number() -> None:
    assert picked(3, None, ANIMALS, of=3) == [0, 1, 2]
    with pytest.raises(Invalid, match="for 3 classes, and the data has 2"):
        picked(2, None, ANIMALS, of=3)


def test_eighty_nameless_classes_of_mmdetection_are_cocos_if_the_datas_are() -> None:
    order = tuple(sorted(COCO))
    assert order != COCO
    assert picked(80, order, of=80) == [COCO.index(name) for name in order]
    assert picked(2, ("dog", "person"), of=80) == [COCO.index("dog"), 0]
    assert picked(80, COCO, of=80) == list(range(80))


@pytest.mark.parametrize("wanted", [tuple(f"c{i}" for i in range(80)), (*COCO[:0:-1], "my own")])
def test_eighty_classes_of_other_data_go_by_number(wanted: tuple[str, ...]) -> None:
    assert picked(80, wanted, of=80) == list(range(80))


def test_our_own_weights_are_of_the_datas_order() -> None:
    assert picked(80, tuple(sorted(COCO)), of=80, published=TAPATH) == list(range(80))


def test_some_classes_of_coco_are_picked_from_torchvisions() -> None:
    assert picked(2, ("dog", "person"), of=91, published=DETECTION) == [18, 1]
    assert picked(91, tuple(f"c{i}" for i in range(91)), of=91, published=DETECTION) == list(range(91))


@pytest.mark.parametrize(
    ("name", "rows", "own", "expected"),
    [
        ("roi_heads.box_predictor.cls_score.bias", 4, 3, [0, 3, 1]),
        ("roi_heads.box_predictor.bbox_pred.bias", 16, 12, [0, 1, 2, 3, 12, 13, 14, 15, 4, 5, 6, 7]),
        ("roi_heads.mask_predictor.mask_fcn_logits.bias", 4, 3, [0, 3, 1]),
        ("head.classification_head.cls_logits.bias", 6, 4, [2, 0, 5, 3]),  # two anchors
    ],
)
def test_the_background_stays_first_and_anchors_stay_apart(name: str, rows: int, own: int, expected: list[int]) -> None:
    classes = Classes(MMDETECTION, 2, ("cow", "cat"), ANIMALS)
    assert with_classes(name, torch.arange(rows), torch.empty(own), classes).tolist() == expected


@pytest.mark.parametrize("value", [torch.tensor(1.0), torch.ones(3, 2), torch.ones(4)])
def test_what_cannot_be_rows_of_classes_is_left_for_the_comparison_of_shapes(value: Tensor) -> None:
    classes = Classes(MMDETECTION, 1, ("cow",), ANIMALS)
    own = torch.empty(4) if value.dim() == 1 else torch.empty(3)
    name = "roi_heads.box_predictor.bbox_pred.bias" if value.dim() == 1 else CLS  # boxes of no class in particular
    assert with_classes(name, value, own, classes) is value


@pytest.mark.parametrize(
    "meta",
    [
        {"CLASSES": ANIMALS},
        {"CLASSES": list(ANIMALS)},
        {"dataset_meta": {"CLASSES": ANIMALS, "palette": [(1, 2, 3)]}},
        {"dataset_meta": {"classes": ANIMALS}, "CLASSES": None},
    ],
)
def test_a_file_of_mmdetection_says_what_its_classes_are(tmp_path: Path, meta: dict[str, Any]) -> None:
    network = detectors.FasterRCNN(backbones.TinyResNet(width=8), 3, channels=16)
    state = network.state_dict()
    predictor = "roi_heads.box_predictor.cls_score.bias"
    state[predictor] = torch.tensor([9.0, 0.0, 1.0, 2.0])
    torch.save({"meta": meta, "state_dict": state}, tmp_path / "x.pth")
    weights.load(tmp_path / "x.pth", network, classes=("dog", "cow", "cat"))
    assert network.state_dict()[predictor].tolist() == [9, 1, 2, 0]
    with pytest.raises(Invalid, match="know no class 'fish'"):
        weights.load(tmp_path / "x.pth", network, classes=("dog", "cow", "fish"))
    weights.load(tmp_path / "x.pth", network, classes=("dog", "cow", "fish"), part="backbone")
