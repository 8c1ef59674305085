"""`tapath init`: what it writes can be planned, proposes assistants by size, and says what lies in a folder of data."""

from __future__ import annotations

import json
import os
import shlex
from functools import partial
from itertools import cycle
from pathlib import Path as File
from typing import Any

import pytest
from PIL import Image

from orchestrator import beginning, exporting, proposed, schema, yamlfile
from orchestrator.found_data import look
from orchestrator.ladder import LADDER, TORCHVISION, TRAINED, between
from orchestrator.study import Study, load
from tests.orchestrator.commands import folder, run
from tests.orchestrator.studies import TAPATH
from tests.orchestrator.terminals import Tty
from trainers import pair
from trainers.call import Invalid

__all__ = ["folder"]  # a fixture, for each test here

ROOT = File(__file__).parents[2]
SMALL = ("--teacher", "tiny16", "--student", "tiny8")


def began(*words: str) -> Study:
    """The study that `tapath init` writes; it could be planned without its data, or there would be none."""
    ended = run("init", *words)
    assert ended.exit_code == 0, ended.output
    return load("study.yaml")


def put_coco(root: File, *places: tuple[str, str], names: tuple[str, ...] = ("cat",)) -> None:
    """Annotation files with a folder of two images for each."""
    for listed, images in places:
        rows: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
        rows["categories"] = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
        for i in (1, 2):
            file = root / images / f"{File(listed).stem}_{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (96, 64)).save(file)
            rows["images"].append({"id": i, "file_name": file.name, "width": 96, "height": 64})
            rows["annotations"].append({"id": i, "image_id": i, "category_id": 1, "bbox": [8, 8, 40, 40]})
        (root / listed).parent.mkdir(parents=True, exist_ok=True)
        (root / listed).write_text(json.dumps(rows))


def put_voc(root: File, year: str, *lists: str, names: tuple[str, ...] = ("cat",)) -> None:
    """Lists of one image each, the first with an object of the first name, and so on, around."""
    for name, part in zip(cycle(names), lists, strict=False):
        base = root / f"VOC{year}"
        for inside in ("ImageSets/Main", "Annotations", "JPEGImages"):
            (base / inside).mkdir(parents=True, exist_ok=True)
        (base / f"ImageSets/Main/{part}.txt").write_text(f"{part}_1\n")
        (base / f"ImageSets/Main/cat_{part}.txt").write_text(f"{part}_1 1\n")
        Image.new("RGB", (96, 64)).save(base / f"JPEGImages/{part}_1.jpg")
        box = "<bndbox><xmin>9</xmin><ymin>9</ymin><xmax>49</xmax><ymax>49</ymax></bndbox>"
        size = "<size><width>96</width><height>64</height><depth>3</depth></size>"
        found = f"<object><name>{name}</name><difficult>0</difficult>{box}</object>"
        (base / f"Annotations/{part}_1.xml").write_text(f"<annotation>{size}{found}</annotation>")


def test_without_a_terminal_nothing_is_asked_and_the_study_can_be_planned() -> None:
    study = began()
    assert study.data.name == "Digits" and len(study.models) > 2
    planned = run("plan", "study.yaml")
    assert planned.exit_code == 0 and "4 paths" in planned.stdout
    assert File(schema.FILE).read_text() == schema.text()
    assert File("study.yaml").read_text().startswith(f"{schema.LINE}{schema.FILE}\n")


def test_between_r101_and_r18_it_proposes_those_of_sizes_in_between_and_says_why() -> None:
    study = began("--teacher", "r101", "--student", "r18", "--gpus", "2")
    assert list(study.models) == ["r101", "r50", "r34", "r18"]
    text = File("study.yaml").read_text()
    assert "# an assistant, as its size lies between r101's and r34's" in text
    assert "# the student: 19.4 M parameters" in text
    given = {name: one.weights for name, one in study.models.items() if one.weights}
    assert given["r101"].part == "detector" and "gfl_r101_fpn" in given["r101"].file
    assert given["r18"].part == "backbone" and study.resources.gpus == 1


@pytest.mark.parametrize(
    "words",
    [
        ("--detector", "RetinaNet", "--teacher", "x101_64x4d", "--student", "r50", "--gpus", "8"),
        ("--detector", "FasterRCNN", "--teacher", "swin_s", "--student", "r18", "--gpus", "0"),
        ("--teacher", "mobilenet_v3_large", "--student", "mobilenet_v3_small", "--teacher-weights", "none"),
        ("--teacher", "r50", "--student", "r18", "--teacher-weights", "weights/mine.pth"),
    ],
    ids=["RetinaNet", "Swin", "MobileNet", "own weights"],
)
def test_whatever_is_wanted_can_be_planned(words: tuple[str, ...]) -> None:
    assert len(began(*words).models) >= 2


@pytest.mark.parametrize("teacher", [(), ("--teacher", "tiny16", "--student", "tiny8")], ids=["digits", "named"])
def test_weights_of_a_teacher_that_takes_none_are_refused(teacher: tuple[str, ...]) -> None:
    for weights in ("weights/mine.pth", "published"):
        ended = run("init", *teacher, "--teacher-weights", weights)
        assert ended.exit_code == 2 and f"error: --teacher-weights: {weights}: tiny" in ended.stderr
        assert "such as r101" in ended.stderr and not File("study.yaml").exists()
    assert began(*teacher, "--teacher-weights", "none").data.name == "Digits"


def test_a_file_that_is_there_is_not_written_over() -> None:
    File("study.yaml").write_text("mine")
    ended = run("init")
    assert ended.exit_code == 2 and "--force" in ended.stderr
    assert File("study.yaml").read_text() == "mine" and not File(schema.FILE).exists()
    assert began("--force").data.name == "Digits"


def test_another_file_is_written_where_it_is_named_and_the_study_is_called_so() -> None:
    assert run("init", "deep/my cats.yaml").exit_code == 0
    assert load("deep/my cats.yaml").name == "my_cats"


def test_what_is_not_told_is_asked() -> None:
    asked = []

    def answer(question: str, default: Any, **_: Any) -> Any:
        asked.append(question)
        return "tiny8" if question.startswith("Student") else default

    said = beginning.write(File("study.yaml"), {"teacher": "tiny24"}, ask=answer, force=False)
    assert [question.split()[0] for question in asked] == ["The", "Student's", "Detector", "GPUs"]
    assert list(load("study.yaml").models) == ["tiny24", "tiny16", "tiny8"] and "wrote study.yaml" in said


def test_on_a_terminal_it_asks_one_thing_after_another_and_once_more_what_cannot_be(folder: File) -> None:
    typed = {
        "The folder of the data": [""],
        "Teacher's backbone [tiny24]": [""],
        "Student's backbone [tiny5]": ["tiny8"],
        "Detector [GFL]": [""],
        "GPUs [": ["two", "0"],
    }
    with Tty(100, 30) as tty:
        command = tty.run(folder, TAPATH, "init")
        for question, answers in typed.items():
            for times, answer in enumerate(answers, start=1):
                tty.until(partial(waits, question, times))
                os.write(tty.master, f"{answer}\n".encode())
        assert command.wait(240) == 0, tty.lines()
        screen = tty.until(lambda lines: "next: tapath plan study.yaml" in lines)
    assert "Error: 'two' is not a valid integer." in screen and "wrote study.yaml" in screen
    study = load("study.yaml")
    assert list(study.models) == ["tiny24", "tiny16", "tiny8"] and study.data.name == "Digits"


def waits(question: str, times: int, lines: list[str]) -> bool:
    """Whether the last line of a screen asks this, and so often it was asked by now."""
    said = [line for line in lines if line]
    return sum(line.startswith(question) for line in said) == times and said[-1].endswith(":")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--teacher", "r10l"), "r10l is not one of"),
        (("--teacher", "r18", "--student", "r50"), "no less than r18's"),
        (("--teacher", "r18", "--student", "r18"), "no less than r18's"),
        (("--detector", "GFM"), "did you mean GFL"),
        (("--data", "nowhere"), "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(folder: File, words: tuple[str, ...], part: str) -> None:
    ended = run("init", *words)
    assert ended.exit_code == 2 and part in ended.stderr
    assert list(folder.iterdir()) == []


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


def test_of_many_assistants_those_stay_that_leave_the_most_even_steps() -> None:
    names = list(between("x101_64x4d", "r18", "RetinaNet", (128, 128), 3))
    assert names[0] == "x101_64x4d" and names[-1] == "r18" and len(names) == 5


def test_every_published_file_is_one_that_a_study_names() -> None:
    text = "".join(file.read_text() for file in (ROOT / "search_spaces").rglob("*.yaml"))
    files = [*(one.weights for one in LADDER.values() if one.weights), *TRAINED.values()]
    assert [file for file in files if file not in text] == []


def test_what_torchvision_has_trained_lies_where_it_says() -> None:
    from torchvision import models

    known = {one.url for name in models.list_models(module=models) for one in models.get_model_weights(name)}
    ours = {one.weights for one in LADDER.values() if one.weights.startswith(TORCHVISION)}
    assert len(ours) > 10 and ours <= known


def test_every_backbone_but_those_for_small_images_starts_from_imagenet_and_keeps_its_norms() -> None:
    assert [name for name, one in LADDER.items() if not one.weights] == [n for n in LADDER if n.startswith("tiny")]
    study = began("--teacher", "mobilenet_v3_large", "--student", "mobilenet_v3_small")
    assert all(one.weights and one.weights.part == "backbone" for one in study.models.values())
    assert {(one.recipe.freeze, one.recipe.fixed_norm) for one in study.models.values()} == {(1, True)}
    assert "from nothing" not in File("study.yaml").read_text()


def test_of_a_teacher_from_nothing_all_learns_and_the_others_keep_what_imagenet_taught_them() -> None:
    study = began("--teacher", "r50", "--student", "r18", "--teacher-weights", "none")
    assert study.models["r50"].weights is None
    kept = {name: (one.recipe.freeze, one.recipe.fixed_norm) for name, one in study.models.items()}
    assert kept == {"r50": (0, False), "r34": (1, True), "r18": (1, True)}


@pytest.mark.parametrize("weights", ["published", "none"])
def test_a_transformer_learns_at_its_own_rate_and_the_others_at_theirs(weights: str) -> None:
    study = began("--teacher", "swin_t", "--student", "r18", "--teacher-weights", weights)
    rates = {name: (one.recipe.optimizer.name, one.recipe.lr, one.recipe.freeze) for name, one in study.models.items()}
    assert rates.pop("swin_t") == ("AdamW", 0.0001, 0 if weights == "none" else 1)
    assert {*rates.values()} == {("SGD", 0.01, 1)}


def test_of_few_images_the_warm_up_is_a_tenth_of_all_steps() -> None:
    put_coco(File("cats"), ("train.json", "train"), ("val.json", "val"))
    study = began("--data", "cats", "--teacher", "r101", "--student", "r50")
    assert (study.recipe.epochs, study.recipe.warmup) == (12, 1)  # of 12 steps
    assert "of so few images that is 12 steps" in File("study.yaml").read_text()


@pytest.mark.parametrize(("steps", "warmup"), [(0, None), (13, 15), (416, 499), (417, None), (7400, None)])
def test_the_warm_up_is_only_written_where_it_is_shorter_than_usual(steps: int, warmup: int | None) -> None:
    lines = proposed.recipe(wanted(steps=steps))
    assert [line for line in lines if "warmup" in line] == [
        f"  warmup: {warmup} # steps: a tenth of all; unless said it is 500" for _ in range(warmup is not None)
    ]
    assert any("steps, of COCO's" in line for line in lines) is (warmup is not None)


def wanted(*, steps: int = 0, gpus: int = 0) -> proposed.Wanted:
    return proposed.Wanted(beginning.DIGITS, "GFL", "r101", "r18", "published", gpus, steps)


@pytest.mark.parametrize(
    ("here", "cores", "named", "share"),
    [(2, 16, 2, 4), (2, 6, 2, 3), (2, 6, 1, 4), (4, 2, 4, 1), (0, 2, 8, 4)],
    ids=["enough", "shared", "one of them", "few", "of another machine"],
)
def test_stages_on_gpus_share_the_cores_that_there_are(
    monkeypatch: pytest.MonkeyPatch, here: int, cores: int, named: int, share: int
) -> None:
    monkeypatch.setattr(proposed, "gpus", lambda: here)
    monkeypatch.setattr(proposed, "cores", lambda: cores)
    line = f"resources: {{gpus: 1, cpus: {share}, loader_workers: {share}, micro_batch: 4}}"
    assert proposed.rest(wanted(gpus=named))[-1] == line


def test_without_a_gpu_a_large_model_has_all_cores_and_it_is_said_how_long_that_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proposed, "cores", lambda: 6)
    words = ("--teacher", "r50", "--student", "r18")
    ended = run("init", *words, "--gpus", "0")
    assert ended.exit_code == 0 and f"warning: {proposed.SLOW}" in ended.stdout
    assert load("study.yaml").resources.cpus == 6 and proposed.SLOW in File("study.yaml").read_text()
    for others in ((*words, "--gpus", "1"), ("--gpus", "0")):  # the latter are digits
        quick = run("init", "--force", *others)
        assert quick.exit_code == 0 and "very long" not in quick.stdout
    assert load("study.yaml").resources.cpus == 1


def test_gpus_are_counted_as_linux_lists_them_or_as_torch_sees_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pair, "gpus", lambda: 3)
    for listed, known in (0, 3), (2, 2):
        monkeypatch.setattr(proposed, "num_gpus", lambda listed=listed: listed)
        assert proposed.gpus() == known


def test_what_to_type_next_can_be_pasted() -> None:
    ended = run("init", "my st.yaml")
    assert ended.exit_code == 0 and "next: tapath plan 'my st.yaml'" in ended.stdout, ended.output
    made = {"format": "torch", "files": ["ex two/model.pt2", "ex two/detect.py"]}
    assert "python 'ex two/detect.py' IMAGE" in exporting.text(made)


@pytest.mark.parametrize("name", ["a, b: #c", "plain", "two words", "nan", "it's {x}"])
def test_the_line_for_a_study_can_be_pasted_whatever_the_folder_is_called(name: str) -> None:
    ended = run("data", "digits", name, "--train", "2", "--val", "2")
    line = ended.stdout.splitlines()[-1].removeprefix("use it with  ")
    assert yamlfile.parse(line, "line").tree == {"data": {"COCO": {"root": name}}}
    root = yamlfile.parse(run("data", "check", name).stdout.splitlines()[-1].partition(": ")[2], "line").tree
    assert root["data"]["COCO"]["root"] == str(File(name).resolve())
