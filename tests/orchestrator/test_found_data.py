"""What lies in a folder of data is found, for `tapath init` and `tapath data check`, or it is said what is missing."""

from __future__ import annotations

import json
import shlex
from pathlib import Path as File
from typing import Any

import pytest

from orchestrator.found_data import look
from tests.orchestrator.commands import folder, run
from tests.orchestrator.data_folders import SAME, SMALL, began, put_coco, put_same, put_voc
from trainers.call import Invalid

__all__ = ["folder"]  # a fixture, for each test here


def test_a_coco_folder_is_found_with_its_files_images_and_classes() -> None:
    put_coco(File("cats"), ("annotations/cats_train.json", "pictures/train"), ("annotations/cats_valid.json", "val"))
    (File("cats/annotations") / "captions_train.json").write_text("{}")
    study = began("--data", "cats", *SMALL)
    assert study.data.args["train"] == "annotations/cats_train.json"
    assert study.data.args["train_images"] == "pictures/train"
    assert study.data.args["val"] == "annotations/cats_valid.json" and study.data.args["val_images"] == "val"
    assert "2 images, 2 boxes, 1 classes" in File("study.yaml").read_text()
    planned = run("plan", "study.yaml")
    assert planned.exit_code == 0, planned.output


def test_annotations_beside_their_images_are_told_by_their_folders() -> None:
    places = [(f"{part}/_annotations.coco.json", part) for part in ("train", "valid", "test")]
    put_coco(File("cats"), *places)
    found = look(File("cats"))
    assert found.written["COCO"] == {
        "root": "cats",
        "train": "train/_annotations.coco.json",
        "train_images": "train",
        "val": "valid/_annotations.coco.json",
        "val_images": "valid",
        "test": "test/_annotations.coco.json",
        "test_images": "test",
    }


def test_images_of_two_parts_may_have_the_same_names() -> None:
    put_coco(File("cats"), ("labels/val/cats.json", "valid/images"), ("labels/train/cats.json", "images/train"))
    found = look(File("cats")).written["COCO"]
    assert found["train_images"] == "images/train" and found["val_images"] == "valid/images"


def test_coco_itself_needs_no_names_and_takes_the_published_teacher() -> None:
    from trainers.data.coco_names import COCO_NAMES

    files = [(f"annotations/instances_{part}2017.json", f"{part}2017") for part in ("train", "val")]
    put_coco(File("coco"), *files, names=COCO_NAMES)
    study = began("--data", "coco", "--teacher", "r101", "--student", "r50")
    assert look(File("coco")).written == {"COCO": {"root": "coco"}}
    assert study.models["r101"].weights is not None and study.models["r101"].weights.part == "detector"


def test_a_published_teacher_of_other_classes_is_trained_on() -> None:
    put_coco(File("cats"), ("train.json", "train"), ("val.json", "val"))
    study = began("--data", "cats", "--teacher", "r101", "--student", "r50")
    assert study.models["r101"].weights is not None and study.models["r101"].weights.part == "without_classes"
    assert "trained on COCO: it is trained on, with these classes" in File("study.yaml").read_text()
    planned = run("plan", "study.yaml", "--no-data", "--json")
    assert planned.exit_code == 0, planned.output
    assert {one["epochs"] for one in json.loads(planned.stdout)["stages"]} == {12}  # what is measured only has 0
    assert study.recipe.resize is None  # the images are small


def test_annotations_of_which_no_name_says_what_they_are_for_are_named() -> None:
    put_coco(File("cats"), ("one.json", "one"), ("two.json", "two"))
    with pytest.raises(Invalid, match=r"for training\? Of one.json, two.json"):
        look(File("cats"))


def test_annotations_whose_images_are_not_there_are_named() -> None:
    put_coco(File("cats"), ("train.json", "train"), ("val.json", "val"))
    (File("cats/val") / "val_1.jpg").unlink()
    with pytest.raises(Invalid, match=r"the images of cats/val.json are in no folder"):
        look(File("cats"))


def spoilt(part: str, place: int, **values: Any) -> Any:
    def spoil(rows: Any) -> None:
        rows[part][place] = {**rows[part][place], **values}

    return spoil


SLIPS = {
    "no rows": (lambda rows: rows["images"].__setitem__(0, "1.jpg"), "'images' is not a list of dictionaries"),
    "categories that are names": (lambda rows: rows.update(categories=["cat"]), "'categories' is not a list of dict"),
    "no annotations": (lambda rows: rows.pop("annotations"), "has no 'annotations'"),
    "no images": (lambda rows: rows.update(images=[]), "has 0 images"),
    "no name": (spoilt("images", 0, file_name=None), "image 1: file_name None is not a name"),
    "a name that climbs": (spoilt("images", 0, file_name="../../x.jpg"), "leaves the folder of images"),
    "a width in quotes": (spoilt("images", 1, width="96"), "image 2: width '96', height 64 are not two positive whole"),
    "no sizes": (lambda rows: [row.pop("height") for row in rows["images"]], "width 96, height None are not"),
    "no name of a class": (spoilt("categories", 0, name=None), "category 1 has no name"),
}


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize(("slip", "said"), SLIPS.values(), ids=SLIPS)
def test_a_slip_in_annotations_is_named_with_what_lists_all(slip: Any, said: str, part: str, folder: File) -> None:
    put_coco(File("cats"), ("train.json", "train"), ("val.json", "val"))
    file = File("cats") / f"{part}.json"
    rows = json.loads(file.read_text())
    slip(rows)
    file.write_text(json.dumps(rows))
    ended = run("init", "--data", "cats", *SMALL)
    message = " ".join(ended.stderr.split())
    assert ended.exit_code == 2 and "not expected" not in message, ended.output
    assert f"error: --data: cats/{part}.json" in message and said in message and "`tapath data check`" in message
    assert not File("study.yaml").exists()


def test_a_test_without_annotations_is_left_out() -> None:
    put_coco(File("cats"), *((f"{part}.json", part) for part in ("train", "val", "test")))
    rows = json.loads(File("cats/test.json").read_text())
    for without in ({**rows, "annotations": []}, {"images": rows["images"]}, []):
        File("cats/test.json").write_text(json.dumps(without))
        assert "test" not in look(File("cats")).written["COCO"]


def test_linked_folders_are_looked_into_and_links_that_lead_in_a_circle_too() -> None:
    put_coco(File("far/disk"), ("annotations/train.json", "train"), ("annotations/val.json", "val"))
    File("coco").mkdir()
    for name in ("annotations", "train", "val"):
        (File("coco") / name).symlink_to(File("far/disk", name).resolve(), target_is_directory=True)
    File("far/disk/annotations/again").symlink_to(File("coco").resolve(), target_is_directory=True)
    File("coco/annotations/more").symlink_to(".", target_is_directory=True)
    wanted = {
        "train": "annotations/train.json",
        "train_images": "train",
        "val": "annotations/val.json",
        "val_images": "val",
    }
    assert look(File("coco")).written["COCO"] == {"root": "coco", **wanted}
    File("data").mkdir()
    File("data/coco").symlink_to(File("far/disk").resolve(), target_is_directory=True)
    assert look(File("data/coco")).written["COCO"] == {"root": "data/coco", **wanted}
    under = {key: f"coco/{value}" for key, value in wanted.items()}
    assert look(File("data")).written["COCO"] == {"root": "data", **under}


def test_one_annotation_file_is_to_be_split_and_can_then_be_planned() -> None:
    put_coco(File("my cats"), ("annotations/instances_default.json", "images"))
    ended = run("init", "--data", "my cats", *SMALL)
    command = "tapath data split 'my cats/annotations/instances_default.json'"
    assert ended.exit_code == 2 and f"`{command}`" in " ".join(ended.stderr.split())
    assert run(*shlex.split(command)[1:]).exit_code == 0
    study = began("--data", "my cats", *SMALL)
    for part in ("train", "val"):
        assert study.data.args[part] == f"annotations/instances_default_{part}.json"
        assert study.data.args[f"{part}_images"] == "images"
    planned = run("plan", "study.yaml")
    assert planned.exit_code == 0, planned.output


@pytest.mark.parametrize("listed", ["train/_annotations.coco.json", "annotations/train.json"])
def test_an_export_that_calls_all_of_it_training_is_to_be_split(listed: str) -> None:
    put_coco(File("cats"), (listed, "train"))
    with pytest.raises(Invalid, match=f"`tapath data split cats/{listed}` makes one to train on"):
        look(File("cats"))


WHOLE = ["train.json", "val.json", "train_val.json", "instances_train2017.json", "labels/trainval.json", "all.json"]


@pytest.mark.parametrize("listed", WHOLE)
def test_what_was_split_is_found_whatever_it_is_called(listed: str) -> None:
    put_coco(File("cats"), (listed, "images"))
    assert run("init", "--data", "cats", *SMALL).exit_code == 2, "there is one file"
    split = run("data", "split", f"cats/{listed}", "--val", "0.5")
    assert split.exit_code == 0, split.output
    study = began("--data", "cats", *SMALL)
    stem = listed.removesuffix(".json")
    assert study.data.args["train"] == f"{stem}_train.json" and study.data.args["val"] == f"{stem}_val.json"
    assert study.data.args["train_images"] == study.data.args["val_images"] == "images"
    assert run("data", "check", "cats").exit_code == 0


@pytest.mark.parametrize("listed", ["train/_annotations.coco.json", "annotations/train.json"])
def test_a_part_that_was_split_has_its_images_where_the_whole_has(listed: str) -> None:
    put_same(File("cats"), listed, "train")
    put_same(File("cats"), listed.replace("train", "val"), "val", width=80)
    assert run("data", "split", f"cats/{listed}").exit_code == 0
    File("cats", listed.replace("train", "val")).unlink()
    found = look(File("cats")).written["COCO"]
    assert found["train_images"] == found["val_images"] == "train" and "_val.json" in found["val"]


@pytest.mark.parametrize("there", [1, 5])
def test_images_that_are_missing_are_not_looked_for_in_another_part(there: int) -> None:
    put_same(File("cats"), "annotations/train.json", "train")
    put_same(File("cats"), "annotations/val.json", "val", there=there)
    with pytest.raises(Invalid, match=r"the images of cats/annotations/val\.json are in no folder of cats"):
        look(File("cats"))
    checked = run("data", "check", "cats", "--jobs", "1")
    assert checked.exit_code == 3 and f"missing image ({len(SAME) - there})" in checked.stdout, checked.output


def test_a_test_that_shares_images_with_training_is_none() -> None:
    put_same(File("cats"), "train/_annotations.coco.json", "train")
    put_same(File("cats"), "valid/_annotations.coco.json", "valid")
    put_same(File("cats"), "test/_annotations.coco.json", "test", there=0)
    with pytest.raises(Invalid, match=r"train/_annotations\.coco\.json and .*test/_annotations\.coco\.json share 6 im"):
        look(File("cats"))
    assert run("data", "check", "cats", "--jobs", "1").exit_code == 0, "which looks at the other two"


def test_masks_are_not_taken_for_the_images_whose_names_they_have() -> None:
    for part in ("train", "val"):
        put_same(File("cats"), f"labels/{part}.json", f"images/{part}")
        put_same(File("cats"), f"labels/{part}.json", f"annotations/{part}")
    assert look(File("cats")).written["COCO"]["train_images"] == "images/train"


def test_what_macos_leaves_beside_files_is_passed_over() -> None:
    put_coco(File("cats"), ("train.json", "train"), ("val.json", "val"))
    File("cats/._train.json").write_bytes(b"\0\5\x16\7")
    assert look(File("cats")).written["COCO"]["train"] == "train.json"


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + "/1.jpg"])
def test_a_name_that_no_file_can_have_is_missing(name: str) -> None:
    put_coco(File("cats"), ("train.json", "train"), ("val.json", "val"))
    rows = json.loads(File("cats/train.json").read_text())
    rows["images"][0]["file_name"] = name
    File("cats/train.json").write_text(json.dumps(rows))
    with pytest.raises(Invalid, match=r"the images of cats/train\.json are in no folder"):
        look(File("cats"))


def test_data_check_does_not_send_anybody_to_data_check() -> None:
    put_coco(File("cats"), ("train.json", "train"), ("val.json", "val"))
    File("cats/train.json").write_text('{"images": [], "annotations": []}')
    ended = run("data", "check", "cats")
    assert ended.exit_code == 2 and "has no 'categories'" in ended.stderr and "data check" not in ended.stderr


def test_one_file_that_is_called_for_both_parts_is_to_be_split() -> None:
    put_coco(File("cats"), ("train_val.json", "images"))
    with pytest.raises(Invalid, match=r"there is one annotation file; `tapath data split cats/train_val\.json`"):
        look(File("cats"))


def test_a_link_deep_below_hides_no_folder() -> None:
    put_coco(File("cats"), ("train.json", "z/images"), ("val.json", "z/images"))
    File("cats/a/b/c").mkdir(parents=True)
    File("cats/a/b/c/link").symlink_to(File("cats/z/images").absolute())
    assert look(File("cats")).written["COCO"]["train_images"] == "z/images"


def test_files_of_one_folder_that_share_images_are_no_training_and_validation() -> None:
    put_coco(File("cats"), ("train.json", "train"))
    File("cats/val.json").write_bytes(File("cats/train.json").read_bytes())
    with pytest.raises(Invalid, match=r"cats/train.json and cats/val.json share 2 images, such as train/train_1\.jpg"):
        look(File("cats"))


@pytest.mark.parametrize(
    ("lists", "wanted"),
    [
        ({"2007": ["trainval", "test"], "2012": ["trainval"]}, {}),
        ({"MINE": ["trainval", "test"]}, {"train": ["MINE trainval"], "val": "MINE test"}),
        ({"2012": ["train", "val", "trainval"]}, {"train": ["2012 train"], "val": "2012 val"}),
    ],
)
def test_voc_is_found_with_its_lists(lists: dict[str, list[str]], wanted: dict[str, Any]) -> None:
    for year, parts in lists.items():
        put_voc(File("voc/VOCdevkit"), year, *parts)
    assert look(File("voc")).written == {"VOC": {"root": "voc", **wanted}}


def test_a_study_on_voc_can_be_planned_with_its_data() -> None:
    put_voc(File("voc"), "2012", "train", "val")
    began("--data", "voc", *SMALL)
    planned = run("plan", "study.yaml")
    assert planned.exit_code == 0, planned.output


@pytest.mark.parametrize(
    ("names", "classes"),
    [(("vest", "helmet"), ["helmet", "vest"]), (("helmet", "cat"), ["cat", "helmet"]), (("dog", "cat"), None)],
)
def test_own_classes_in_vocs_layout_are_written_down(names: tuple[str, str], classes: list[str] | None) -> None:
    put_voc(File("site"), "MINE", "train", "val", names=names)
    study = began("--data", "site", *SMALL)
    assert study.data.args.get("classes") == classes
    assert (f"own classes: {', '.join(classes or ())}" in File("study.yaml").read_text()) == (classes is not None)
    planned = run("plan", "study.yaml")
    assert planned.exit_code == 0, planned.output


def test_annotations_of_vocs_layout_that_cannot_be_read_are_named() -> None:
    put_voc(File("site"), "MINE", "train", "val")
    File("site/VOCMINE/Annotations/val_1.xml").write_text("<html/>")
    ended = run("init", "--data", "site", *SMALL)
    assert ended.exit_code == 2 and "val_1.xml holds <html> instead of <annotation>" in " ".join(ended.stderr.split())


def test_pedestrians_are_found_by_their_layouts() -> None:
    for name in ("c/set00/V000.seq", "c/annotations/set00/V000.vbb", "p/annotations/train.json"):
        File(name).parent.mkdir(parents=True, exist_ok=True)
        File(name).write_text("")
    File("p/leftImg8bit/train").mkdir(parents=True)
    assert look(File("c")).written == {"Caltech": {"root": "c"}}
    assert look(File("p")).written == {"CityPersons": {"root": "p"}}


def test_an_empty_folder_is_refused_with_what_there_could_be() -> None:
    File("empty").mkdir()
    with pytest.raises(Invalid, match="empty holds nothing that is known here: a COCO folder"):
        look(File("empty"))
