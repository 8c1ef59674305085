"""`tapath data split`: two annotation files of one, that are nobody's yet, and what is refused before."""

from __future__ import annotations

import json
import os
from pathlib import Path as File
from typing import Any

import pytest

from tests.orchestrator.commands import folder, run
from tests.trainers.data.folders import made, read, write
from trainers.data import COCO
from trainers.data.inspection import Source

__all__ = ["folder"]  # a fixture, for each test here


@pytest.fixture
def source(folder: File) -> Source:
    return made(folder / "set", images=20, part="all")


def split(*words: object) -> dict[str, Any]:
    ended = run("data", "split", *map(str, words), "--json")
    assert ended.exit_code == 0, ended.output
    said: dict[str, Any] = json.loads(ended.stdout)
    return said


def test_two_files_come_of_one_which_can_be_trained_on(source: Source) -> None:
    before = source.file.read_bytes()
    ended = run("data", "split", "set/annotations/instances_all.json")
    assert ended.exit_code == 0, ended.output
    assert ended.stdout.splitlines() == [
        "set/annotations/instances_all_train.json: 16 images, 16 boxes",
        "set/annotations/instances_all_val.json: 4 images, 4 boxes",
        "next: tapath init --data with the folder that has these and the images",
    ]
    assert source.file.read_bytes() == before
    names = {part: f"annotations/instances_all_{part}.json" for part in ("train", "val")}
    data = COCO(root="set", **names, train_images="all", val_images="all")
    assert len(data.train) == 16 and len(data.val) == 4 and not set(data.train.ids) & set(data.val.ids)


def test_share_seed_and_place_can_be_said(source: Source) -> None:
    file = "set/annotations/instances_all.json"
    parts = [split(file, "--val", 0.5, "--seed", seed, "--out", f"out{seed}") for seed in (0, 1)]
    again = split(file, "--val", 0.5, "--out", "again/deep")
    assert [one["images"] for each in (*parts, again) for one in each["files"]] == [10] * 6
    first, second, third = (File(each["files"][1]["file"]).read_text() for each in (*parts, again))
    assert first == third != second and File("out0/instances_all_val.json").is_file()
    assert parts[0]["unmeasured"] == []


def test_classes_that_cannot_be_measured_are_named(source: Source) -> None:
    coco = read(source)
    coco["categories"].append({"id": 2, "name": "rare\x1b[2J"})
    coco["annotations"][3]["category_id"] = 2
    write(source, coco)
    ended = run("data", "split", "set/annotations/instances_all.json")
    assert "trained on and not measured, as no image of theirs could be spared: rare\\x1b[2J" in ended.stdout


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "a box outside": ({"bbox": [1, 2, 300, 4]}, "annotation 20: bbox [1, 2, 300, 4] leaves image 2"),
    "an unknown class": ({"category_id": 9}, "annotation 20: category_id 9 is no category of this file"),
    "a broken mask": ({"segmentation": [[1, 1, 5]]}, "annotation 20: segmentation"),
}


@pytest.mark.parametrize(("values", "said"), MISTAKES.values(), ids=MISTAKES)
def test_what_data_check_refuses_is_not_split(values: dict[str, Any], said: str, source: Source) -> None:
    coco = read(source)
    coco["annotations"][1].update(values)
    write(source, coco)
    ended = run("data", "split", "set/annotations/instances_all.json")
    message = " ".join(ended.stderr.split())
    assert ended.exit_code == 2 and said in message and "`tapath data check` lists all of it" in message
    assert os.listdir("set/annotations") == ["instances_all.json"]


def test_masks_and_keys_that_nobody_knows_are_kept(source: Source) -> None:
    coco = read(source)
    coco["info"] = {"year": 2024}
    for row in coco["annotations"]:
        row.update(segmentation=[[1, 1, 5, 1, 5, 5]], attributes={"occluded": True})
    write(source, coco)
    parts = [json.loads(File(one["file"]).read_text()) for one in split(source.file)["files"]]
    assert (
        sorted((row for part in parts for row in part["annotations"]), key=lambda row: row["id"]) == coco["annotations"]
    )
    assert all(part["info"] == coco["info"] and part["categories"] == coco["categories"] for part in parts)


def test_nothing_is_written_over_and_bad_words_end_with_2(source: Source) -> None:
    file = "set/annotations/instances_all.json"
    split(file, "--out", "out")
    before = {path: path.read_bytes() for path in File("out").iterdir()}
    for words, said in (
        ((file, "--out", "out"), "out/instances_all_train.json is there already and is not written over"),
        ((file, "--val", "0"), "'--val'"),
        ((file, "--val", "1"), "'--val'"),
        ((file, "--out", file), "--out"),
        (("nowhere.json",), "nowhere.json"),
        (("set/all/1.png",), "is not JSON"),
    ):
        ended = run("data", "split", *words)
        assert ended.exit_code == 2 and said in " ".join(ended.stderr.split()), ended.output
    assert {path: path.read_bytes() for path in File("out").iterdir()} == before


def test_one_image_of_each_class_cannot_be_split(source: Source) -> None:
    coco = read(source)
    write(source, {**coco, "images": coco["images"][:1], "annotations": coco["annotations"][:1]})
    ended = run("data", "split", "set/annotations/instances_all.json")
    assert ended.exit_code == 2 and "no class has objects in two images" in " ".join(ended.stderr.split())
