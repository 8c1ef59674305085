"""`tapath data check`: what it prints, how it ends, and that it writes nothing but new files."""

from __future__ import annotations

import errno
import json
import os
import shlex
from pathlib import Path as File
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from orchestrator.cli import main
from tests.trainers.data.folders import made, read, write
from tests.trainers.data.voc_files import write_digits
from trainers.data import COCO, Digits


@pytest.fixture(autouse=True)
def folder(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> File:
    """The folder in which the commands run, with a good data set `set`."""
    monkeypatch.chdir(tmp_path)
    made(tmp_path / "set")
    made(tmp_path / "set", part="val2017", images=2)
    return tmp_path


def check(words: str) -> Result:
    ended = CliRunner().invoke(main, ["data", "check", *shlex.split(words), "--jobs", "1"])
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended


def spoil(folder: File, part: str = "train2017", **values: Any) -> None:
    """Change annotation 20."""
    file = folder / "set" / "annotations" / f"instances_{part}.json"
    coco = json.loads(file.read_text())
    coco["annotations"][1].update(values)
    file.write_text(json.dumps(coco))


def everything(folder: File) -> dict[File, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_good_folder_ends_with_0_and_the_line_for_the_study(folder: File) -> None:
    before = everything(folder)
    ended = check("set")
    assert ended.exit_code == 0
    lines = ended.stdout.splitlines()
    assert lines[0] == "set/annotations/instances_train2017.json: 3 images, 3 annotations, 1 categories"
    assert lines[-1].startswith("no problems: data: {COCO: {root: ")
    line = yaml.safe_load(lines[-1].removeprefix("no problems: "))
    assert COCO(**line["data"]["COCO"]).fingerprint == COCO(root="set").fingerprint
    assert everything(folder) == before


def test_files_of_other_names_are_found_as_for_a_new_study(folder: File) -> None:
    (folder / "set" / "annotations").rename(folder / "set" / "labels")
    for part in ("train", "val"):
        (folder / "set" / "labels" / f"instances_{part}2017.json").rename(folder / "set" / "labels" / f"{part}.json")
        (folder / "set" / f"{part}2017").rename(folder / "set" / part)
    ended = check("set")
    assert ended.exit_code == 0, ended.output
    assert ended.stdout.splitlines()[0].startswith("set/labels/train.json: 3 images")
    args = yaml.safe_load(ended.stdout.splitlines()[-1].removeprefix("no problems: "))["data"]["COCO"]
    assert {key: args[key] for key in ("val", "val_images")} == {"val": "labels/val.json", "val_images": "val"}
    (folder / "set" / "train" / "2.png").write_bytes(b"broken")
    assert check("set").exit_code == 3


def test_files_of_other_names_are_found_whatever_is_wrong_with_them(folder: File) -> None:
    for part in ("train", "val"):
        (folder / "set" / "annotations" / f"instances_{part}2017.json").rename(folder / "set" / f"{part}.json")
        (folder / "set" / f"{part}2017").rename(folder / "set" / part)
    file = folder / "set" / "train.json"
    rows = json.loads(file.read_text())
    rows["images"][0] |= {"width": "96"}
    rows["images"].append({"id": 99, "file_name": "../up.png", "width": 9, "height": 9})
    rows["categories"][0] = {"id": 1, "name": None}
    file.write_text(json.dumps(rows))
    (folder / "set" / "train" / "2.png").unlink()
    ended = check("set")
    assert ended.exit_code == 3, ended.output
    for part in ("width '96', height", "'../up.png' leaves the folder", "category 1 has no name", "2.png"):
        assert part in ended.stdout


def test_all_images_may_lie_in_one_folder_that_is_called_like_neither_part(folder: File) -> None:
    (folder / "set" / "labels").mkdir()
    (folder / "set" / "pictures").mkdir()
    for part in ("train", "val"):
        file = folder / "set" / "annotations" / f"instances_{part}2017.json"
        rows = json.loads(file.read_text())
        for one in rows["images"]:
            image = folder / "set" / f"{part}2017" / one["file_name"]
            one["file_name"] = f"{part}_{image.name}"
            image.rename(folder / "set" / "pictures" / one["file_name"])
        file.rename(folder / "set" / "labels" / f"{part}.json").write_text(json.dumps(rows))
    ended = check("set")
    assert ended.exit_code == 0, ended.output
    args = yaml.safe_load(ended.stdout.splitlines()[-1].removeprefix("no problems: "))["data"]["COCO"]
    assert args["train_images"] == args["val_images"] == "pictures"


def test_what_cannot_be_found_is_to_be_named_and_other_layouts_are_not_checked(folder: File) -> None:
    (folder / "empty").mkdir()
    ended = check("empty")
    assert ended.exit_code == 2 and "empty holds nothing that is known here" in ended.stderr
    assert "or name the files by --train, --val, --train-images and --val-images" in ended.stderr
    write_digits(folder / "voc", Digits(train=2, val=1))
    ended = check("voc")
    assert ended.exit_code == 2 and "voc holds VOC, and only annotations in COCO's format are checked" in ended.stderr


def test_notes_alone_end_with_0(folder: File) -> None:
    (folder / "set" / "train2017" / "4.png").touch()
    ended = check("set")
    assert ended.exit_code == 0
    assert "  notes, no obstacle\n    unnamed images (1)\n" in ended.stdout


def test_problems_end_with_3_and_say_what_would_do(folder: File) -> None:
    spoil(folder, bbox=[1, 2, 3], iscrowd=7)
    spoil(folder, "val2017", image_id=99)
    ended = check("set")
    assert ended.exit_code == 3
    for part in (
        "  problems\n    bbox (1)\n      annotation 20: bbox [1, 2, 3] is not [x, y, width, height]",
        "    iscrowd (1)\n      annotation 20: iscrowd 7 is neither 0 nor 1",
        "    unknown image (1)\n      annotation 20: image_id 99 is no image of this file",
    ):
        assert part in ended.stdout
    assert ended.stdout.splitlines()[-1] == "3 problems; write a clean copy of the annotations with  --fix OUT"


def test_five_of_a_kind_are_shown_and_json_has_them_all(folder: File) -> None:
    file = folder / "set" / "annotations" / "instances_train2017.json"
    coco = json.loads(file.read_text())
    coco["annotations"] = [{**coco["annotations"][0], "id": n, "image_id": 99} for n in range(8)]
    file.write_text(json.dumps(coco))
    text = check("set").stdout
    assert "unknown image (8)" in text and "annotation 4:" in text and "annotation 5:" not in text
    assert "and 3 more (--json lists all)" in text
    ended = check("set --json")
    report = json.loads(ended.stdout)
    assert (ended.exit_code, report["code"]) == (3, 3)
    assert [(p["file"], p["kind"], p["id"]) for p in report["problems"]] == [
        ("set/annotations/instances_train2017.json", "unknown image", n) for n in range(8)
    ]
    assert report["files"][0] == {
        "file": "set/annotations/instances_train2017.json",
        "images": 3,
        "annotations": 8,
        "categories": 1,
    }
    assert [note["kind"] for note in report["notes"]] == ["no boxes"]
    assert report["copies"] == report["left"] == []


def test_fix_writes_a_clean_copy_and_ends_with_0(folder: File) -> None:
    spoil(folder, bbox=[1, 2, 300, 4], image_id=1)
    (folder / "set" / "train2017" / "3.png").write_bytes(b"")
    before = everything(folder)
    ended = check("set --fix out/clean")
    assert ended.exit_code == 0
    train = folder / "out" / "clean" / "annotations" / "instances_train2017.json"
    assert "out/clean/annotations/instances_train2017.json: written, with 3 changes" in ended.stdout
    assert "annotation 20: bbox [1, 2, 300, 4] leaves image 1 of 16 x 12 pixels: cut to [1, 2, 15, 4]" in ended.stdout
    assert "out/clean/annotations/instances_val2017.json: written, nothing changed" in ended.stdout
    said = ended.stdout.splitlines()[-1]
    assert said.startswith("the clean copy has no problems: data: ")
    data = COCO(**yaml.safe_load(said.partition(": ")[2])["data"]["COCO"])
    assert data.train.ids == [1, 2] and data.val.ids == [1, 2]
    assert {file: raw for file, raw in everything(folder).items() if file in before} == before
    again = check(f"set --train {train} --val ../out/clean/annotations/instances_val2017.json")
    assert again.exit_code == 0 and "no problems" in again.stdout


def test_fix_as_json_lists_all_changes_by_file(folder: File) -> None:
    spoil(folder, bbox=[1, 2, 0, 4])
    report = json.loads(check("set --fix out --json").stdout)
    train, val = report["copies"]
    assert val["changes"] == []
    assert train["file"] == "out/annotations/instances_train2017.json"
    assert train["changes"] == [
        {"kind": "flat box", "id": 20, "message": "annotation 20: bbox [1, 2, 0, 4] has no area: dropped"}
    ]
    assert report["code"] == 0 and len(report["problems"]) == 1


def test_fix_never_writes_over_a_file_and_says_so_before_it_reads(folder: File) -> None:
    spoil(folder, bbox=[])
    (folder / "out" / "annotations").mkdir(parents=True)
    (folder / "out" / "annotations" / "instances_val2017.json").symlink_to("nowhere")
    before = everything(folder)
    for out in ("out", "set"):
        ended = check(f"set --fix {out}")
        assert ended.exit_code == 2 and "is there already and is not written over" in ended.stderr
    assert everything(folder) == before


@pytest.mark.parametrize("moment", [1, 2])
def test_a_full_disk_leaves_neither_copy_and_says_which_could_not_be_written(
    folder: File, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    spoil(folder, bbox=[1, 2, 0, 4])
    before = everything(folder)
    real, written = json.dump, []

    def dump(coco: Any, stream: Any) -> None:
        written.append(coco)
        real(coco, stream)
        if len(written) == moment:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(json, "dump", dump)
    ended = check("set --fix out")
    part = ("train", "val")[moment - 1]
    said = f"cannot write out/annotations/instances_{part}2017.json: No space left on device; nothing was written"
    assert ended.exit_code == 2 and said in " ".join(ended.stderr.split())
    assert everything(folder) == before and not (folder / "out").exists()
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert check("set --fix out").exit_code == 0


def test_a_copy_that_comes_up_meanwhile_is_not_written_over(folder: File, monkeypatch: pytest.MonkeyPatch) -> None:
    real, theirs = json.dump, folder / "out" / "annotations" / "instances_val2017.json"

    def dump(coco: Any, stream: Any) -> None:
        real(coco, stream)
        theirs.write_text("theirs")

    monkeypatch.setattr(json, "dump", dump)
    ended = check("set --fix out")
    assert ended.exit_code == 2 and f"{theirs.relative_to(folder)} is there already" in " ".join(ended.stderr.split())
    assert os.listdir(theirs.parent) == [theirs.name] and theirs.read_text() == "theirs"


def test_what_no_copy_can_do_away_with_ends_with_3(folder: File) -> None:
    file = folder / "set" / "annotations" / "instances_val2017.json"
    text = file.read_text()
    file.write_text(text.replace("noise", "other"))
    ended = check("set --fix out")
    assert ended.exit_code == 3 and "id 1: noise and other" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "1 problem needs a person"
    file.write_text(text[:50])
    ended = check("set --fix other")
    assert ended.exit_code == 3 and ended.stdout.splitlines()[-1] == "1 problem needs a person; nothing was written"
    file.write_text(text.replace("noise", ""))
    ended = check("set --fix other")
    assert ended.exit_code == 3 and "nothing can be mended: no category is left" in ended.stdout
    assert not (folder / "other").exists()


def test_corners_are_told_once_and_not_mended(folder: File) -> None:
    file = folder / "set" / "annotations" / "instances_train2017.json"
    coco = json.loads(file.read_text())
    for row in coco["annotations"]:
        row["bbox"] = [9, 4, 15, 11]
    file.write_text(json.dumps(coco))
    ended = check("set")
    assert ended.exit_code == 3 and "    corners (1)\n      as x, y, width, height 3 of 3 boxes leave" in ended.stdout
    ended = check("set --fix out")
    assert ended.exit_code == 3 and "look like corners: write x1, y1, x2 - x1, y2 - y1" in ended.stdout
    assert "  still wrong\n    no clean copy (1)\n" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "1 problem needs a person; nothing was written"
    assert not (folder / "out").exists()


def test_one_annotation_file_with_its_images(folder: File) -> None:
    spoil(folder, category_id=5)
    words = "set/annotations/instances_train2017.json --images set/train2017"
    ended = check(words)
    assert ended.exit_code == 3 and "val2017" not in ended.stdout
    ended = check(f"{words} --fix clean.json")
    assert ended.exit_code == 0
    assert ended.stdout.splitlines()[-1] == "the clean copy has no problems: clean.json can be trained on"
    assert [row["id"] for row in json.loads((folder / "clean.json").read_text())["annotations"]] == [10, 30]


def test_one_file_for_both_is_reported_and_written_once(folder: File) -> None:
    name = "annotations/instances_train2017.json"
    words = f"set --val {name} --val-images train2017"
    ended = check(f"{words} --fix out")
    assert ended.exit_code == 0 and ended.stdout.count("3 images") == 1
    assert [file.name for file in (folder / "out").rglob("*.json")] == ["instances_train2017.json"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("nowhere", "nowhere"),
        ("set --train other.json", "there is no annotation file set/other.json; name it by --train"),
        ("set --val-images other", "there is no folder of images set/other; name it by --val-images"),
        ("set --images set/train2017", "--images goes with one annotation file"),
        ("set/annotations/instances_train2017.json", "FILE --images FOLDER"),
        ("set/annotations/instances_train2017.json --images other", "there is no folder of images other"),
        ("set --jobs 0", "0 is not in the range"),
        ("set --fix set/train2017/1.png/out", "cannot write"),
    ],
)
def test_bad_input_ends_with_2(folder: File, words: str, said: str) -> None:
    ended = CliRunner().invoke(main, ["data", "check", *shlex.split(words)])
    assert ended.exit_code == 2 and said in ended.stderr, ended.output
    assert "Traceback" not in ended.output


def test_two_files_of_one_name_from_elsewhere_do_not_become_one_copy(folder: File) -> None:
    for part in ("train", "val"):
        (folder / part).mkdir()
        os.link(folder / "set" / "annotations" / f"instances_{part}2017.json", folder / part / "a.json")
    ended = check("set --train ../train/a.json --val ../val/a.json --fix out")
    assert ended.exit_code == 2 and "both annotation files would be out/a.json" in ended.stderr


def test_what_stands_in_a_file_cannot_steer_the_terminal(folder: File) -> None:
    source = made(folder / "hostile")
    made(folder / "hostile", part="val2017")
    coco = read(source)
    coco["categories"][0]["name"] = "\x1b[2J\x07red\nno problems"
    coco["images"][0]["id"] = "\x1b[31m"
    coco["images"][1]["file_name"] = "\x1b]0;title\x07.png"
    write(source, coco)
    out = check("hostile").stdout
    assert "\x1b" not in out and "\x07" not in out and "\nno problems" not in out
