"""The contract of every data set that the package offers; a new one needs an example here, and no more."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainers.data import citypersons_files, seq_files, voc_files
from trainers import build, data
from trainers.call import Call, Invalid, offers
from trainers.data.digits import Digits, write
from trainers.data.split import Split
from trainers.outputs import Detections
from trainers.staging import copied

DIGITS = {"classes": 2, "train": 6, "val": 4, "size": 48}
LARGE = DIGITS | {"size": 256}  # so that digits are as high as pedestrians that count


def drawn(args: dict[str, Any] = DIGITS) -> Digits:
    return Call(name="Digits", args=args).complete(data).of(data)


def folder(tmp_path: Path) -> dict[str, Any]:
    write(drawn(), tmp_path / "set")
    return {"root": str(tmp_path / "set"), "classes": ["zero", "one"]}


def devkit(tmp_path: Path) -> dict[str, Any]:
    voc_files.write_digits(tmp_path, drawn())
    return {"root": str(tmp_path)}


def videos(tmp_path: Path) -> dict[str, Any]:
    seq_files.write_digits(tmp_path, drawn(LARGE))
    return {"root": str(tmp_path), "train": [0], "val": [6], "step_train": 1, "step_val": 1}


def cities(tmp_path: Path) -> dict[str, Any]:
    citypersons_files.write_digits(tmp_path, drawn(LARGE))
    return {"root": str(tmp_path)}


EXAMPLES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "Digits": lambda tmp_path: DIGITS,
    "COCO": folder,
    "VOC": devkit,
    "Caltech": videos,
    "CityPersons": cities,
}


# What names a second split to measure on, here the first one again where there is no other.
TESTED: dict[str, dict[str, Any]] = {
    "Digits": {"test": 3},
    "COCO": {"test": "annotations/instances_val2017.json", "test_images": "val2017"},
    "VOC": {"test": "2007 test"},
    "Caltech": {"test": [6]},
    "CityPersons": {"test": "annotations/val.json", "test_images": "leftImg8bit/val"},
}


@pytest.fixture(params=sorted(offers(data)))
def call(request: pytest.FixtureRequest, tmp_path: Path) -> Call:
    return Call(name=request.param, args=EXAMPLES[request.param](tmp_path)).complete(data)


@pytest.fixture
def example(call: Call) -> Any:
    return call.of(data)


def splits(example: Any) -> tuple[Split, ...]:
    return example.train, example.val


def test_it_says_what_it_holds(example: Any) -> None:
    assert re.fullmatch("[0-9a-f]{64}", example.fingerprint)
    assert example.classes and len(set(example.classes)) == len(example.classes)
    for split in splits(example):
        assert split.classes == example.classes
        assert len(split) == len(set(split.ids)) > 0


def test_its_images_are_of_the_size_that_it_says_and_the_same_each_time(example: Any) -> None:
    for split in splits(example):
        for index in range(len(split)):
            image = split.read(index)
            assert image.dtype == torch.uint8 and tuple(image.shape) == (3, *split.sizes[index])
            assert torch.equal(image, split.read(index))


def test_its_boxes_lie_in_their_images_and_its_labels_among_its_classes(example: Any) -> None:
    for split in splits(example):
        assert sum(len(split.boxes(index)) for index in range(len(split))) > 0
        for index, (height, width) in enumerate(split.sizes):
            boxes, labels = split.boxes(index), split.labels(index)
            assert boxes.shape == (len(labels), 4) and boxes.dtype == torch.float32 and labels.dtype == torch.int64
            assert (boxes[:, 2:] > boxes[:, :2]).all() and (boxes >= 0).all()
            assert (boxes <= torch.tensor([width, height, width, height])).all()
            assert ((labels >= 0) & (labels < len(example.classes))).all()


def test_its_classes_are_known_without_its_files(call: Call, example: Any) -> None:
    assert offers(data)[call.name].names(**call.args | {"root": "/nowhere"}) == example.classes


def test_the_files_that_it_names_are_all_that_it_reads(call: Call, example: Any, tmp_path: Path) -> None:
    if "root" not in call.args:
        assert not hasattr(offers(data)[call.name], "files"), "it is drawn"
        return
    args = call.args | TESTED[call.name]
    names = list(offers(data)[call.name].files(**args))
    for name in dict.fromkeys(names):
        copied(Path(call.args["root"]) / name, tmp_path / "elsewhere" / name)
    there = Call(name=call.name, args=args).of(data)
    here = Call(name=call.name, args=args | {"root": str(tmp_path / "elsewhere")}).of(data)
    assert here.fingerprint == there.fingerprint
    for split, other in zip((*splits(here), here.test), (*splits(there), there.test), strict=True):
        assert all(torch.equal(split.read(i), other.read(i)) for i in range(len(other)))


def test_its_score_is_the_best_there_is_for_whoever_finds_everything(example: Any) -> None:
    found = {
        image: Detections(split.boxes(i), torch.ones(len(split.boxes(i))), split.labels(i))
        for split in [example.val]
        for i, image in enumerate(split.ids)
    }
    metric = build.metric(example)
    best = 0.0 if metric.score.startswith("-") else 1.0  # nothing is missed, or all is found
    assert metric(example.val, found)[metric.score] == pytest.approx(best, abs=1e-9)
    assert metric(example.val, {})[metric.score] == pytest.approx(best - 1)


def test_it_has_a_test_split_if_one_is_named_and_then_it_is_other_data(call: Call, example: Any) -> None:
    tested = Call(name=call.name, args=call.args | TESTED[call.name]).complete(data).of(data)
    assert example.test is None and len(tested.test) > 0 and tested.test.classes == tested.classes
    assert tested.fingerprint != example.fingerprint
    assert build.score_name(tested) == build.score_name(example)
    for split, other in zip(splits(tested), splits(example), strict=True):
        assert split.ids == other.ids and all(torch.equal(split.read(i), other.read(i)) for i in range(len(split)))


def test_a_test_that_is_not_there_is_refused_at_its_argument(call: Call) -> None:
    wrong: dict[str, Any] = {"Digits": -1, "Caltech": [99], "VOC": "2007 none"}
    with pytest.raises(Invalid) as refusal:
        args = call.args | {"test": wrong.get(call.name, "nowhere.json")}
        Call(name=call.name, args=args).complete(data).of(data)
    assert "test" in refusal.value.where
