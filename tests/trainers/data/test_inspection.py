"""A whole data set is read once: each mistake in its files comes back by kind and id, whatever the images do."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainers.data.folders import BROKEN, HEIGHT, ODD, WIDTH, made, png, read, write
from trainers.call import Invalid
from trainers.data import coco as coco_module
from trainers.data import inspection
from trainers.data.annotations import load
from trainers.data.examine import Task, examine
from trainers.data.inspection import Findings, Source, inspect, together

Change = Callable[[dict[str, Any]], Any]


def found(source: Source, *, jobs: int = 1) -> Findings:
    (only,) = inspect([source], jobs=jobs)
    return only


def told(problems: list[Any]) -> list[tuple[str, Any]]:
    return [(problem.kind, problem.id) for problem in problems]


def row(part: str, place: int, **values: Any) -> Change:
    return lambda coco: coco[part][place].update(values)


def box(*bbox: Any) -> Change:
    return row("annotations", 1, bbox=list(bbox))


def again(part: str, place: int, **values: Any) -> Change:
    return lambda coco: coco[part].append({**coco[part][place], **values})


MISTAKES: dict[str, tuple[Change, list[tuple[str, Any]]]] = {
    "duplicate image ids": (
        again("images", 1, file_name="3.png"),
        [("duplicate file name", None), ("duplicate image id", 2)],
    ),
    "duplicate annotation ids": (again("annotations", 1), [("duplicate annotation id", 20)]),
    "duplicate category ids": (again("categories", 0, name="dog"), [("duplicate category id", 1)]),
    "an id that is text": (row("annotations", 1, id="20"), [("annotation id", "20")]),
    "an unknown image": (row("annotations", 1, image_id=99), [("unknown image", 20)]),
    "an unknown category": (row("annotations", 1, category_id=0), [("unknown category", 20)]),
    "three numbers": (box(1, 2, 3), [("bbox", 20)]),
    "text": (box("1", "2", "3", "4"), [("bbox", 20)]),
    "NaN": (box(1, 2, float("nan"), 4), [("bbox", 20)]),
    "infinity": (box(1, 2, float("inf"), 4), [("bbox", 20)]),
    "a negative width": (box(9, 2, -3, 4), [("negative box", 20)]),
    "no area": (box(1, 2, 3, 0), [("flat box", 20)]),
    "outside": (box(14, 2, 9, 4), [("box outside", 20)]),
    "far outside": (box(1, 2, 1e9, 4), [("box outside", 20)]),
    "a wrong area": (row("annotations", 1, area=-1), [("area", 20)]),
    "a wrong iscrowd": (row("annotations", 1, iscrowd="no"), [("iscrowd", 20)]),
    "a wrong ignore": (row("annotations", 1, ignore=[]), [("ignore", 20)]),
    "a wrong visible": (row("annotations", 1, visible="half"), [("visible", 20)]),
    "an odd polygon": (row("annotations", 1, segmentation=[[1, 1, 5, 1, 5]]), [("mask", 20)]),
    "broken run lengths": (row("annotations", 1, segmentation={"size": [12, 16], "counts": [1, 2]}), [("mask", 20)]),
    "broken compressed run lengths": (
        row("annotations", 1, segmentation={"size": [12, 16], "counts": "0P`"}),
        [("mask", 20)],
    ),
    "names that repeat": (again("categories", 0, id=2), [("duplicate category name", None)]),
    "no name": (row("categories", 0, name=""), [("category name", 1)]),
    "half a letter": (row("categories", 0, name="\ud800"), [("category name", 1)]),
    "files that repeat": (row("images", 1, file_name="3.png"), [("duplicate file name", None)]),
    "no size": (row("images", 1, width=None), [("image size", 2)]),
    "an absolute name": (row("images", 1, file_name="/etc/passwd"), [("file name", 2)]),
    "a name that climbs": (row("images", 1, file_name="../train2017/2.png"), [("file name", 2)]),
    "a backslash": (row("images", 1, file_name="a\\2.png"), [("file name", 2)]),
    "a web address": (row("images", 1, file_name="https://example.org/2.png"), [("file name", 2)]),
    "another case": (row("images", 1, file_name="2.PNG"), [("missing image", 2)]),
    "a missing image": (row("images", 1, file_name="4.png"), [("missing image", 2)]),
    "a name longer than any": (row("images", 1, file_name="x" * 5000 + "/2.png"), [("missing image", 2)]),
    "another size": (row("images", 1, width=17), [("other size", 2)]),
    "three mistakes in one row": (
        row("annotations", 1, image_id=0, category_id=0, bbox=[]),
        [("bbox", 20), ("unknown category", 20), ("unknown image", 20)],
    ),
}


@pytest.mark.parametrize(("change", "problems"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_by_kind_and_id(tmp_path: Path, change: Change, problems: list[tuple[str, Any]]) -> None:
    source = made(tmp_path)
    coco = read(source)
    change(coco)
    write(source, coco)
    assert told(found(source).problems) == problems


def test_a_good_folder_has_no_problems_and_nothing_is_noted(tmp_path: Path) -> None:
    whole = found(made(tmp_path))
    assert (whole.problems, whole.notes, len(whole.seen)) == ([], [], 3)


HOPELESS = {
    "not JSON": ("<html>", "is not JSON: line 1"),
    "cut off": ('{"images": [{"id": 1', "is not JSON"),
    "a key twice": ('{"images": [], "images": [1]}', "the key 'images' is there twice"),
    "nested": ("[" * 100_000, "is not JSON"),
    "no dictionary": ("3", "is not in COCO's format"),
    "a results file": ('[{"image_id": 1, "score": 0.5}]', "holds results"),
    "no annotations": ('{"images": [], "categories": []}', "has no 'annotations'"),
    "0 images": ('{"images": [], "annotations": [], "categories": [{}]}', "has 0 images"),
}


@pytest.mark.parametrize(("text", "said"), HOPELESS.values(), ids=HOPELESS)
def test_a_file_in_another_format_is_told_as_training_tells_it_and_the_other_file_is_read(
    tmp_path: Path, text: str, said: str
) -> None:
    bad, good = made(tmp_path), made(tmp_path, part="val2017")
    bad.file.write_text(text)
    first, second = inspect([bad, good], jobs=1)
    assert told(first.problems) == [("annotation file", None)] and first.coco is None
    assert said in first.problems[0].message
    with pytest.raises(Invalid) as error:
        load(bad.file)
    assert str(error.value) == first.problems[0].message
    assert second.problems == [] and together(first, second) == []


def test_what_can_be_filled_in_or_left_out_is_a_note(tmp_path: Path) -> None:
    source = made(tmp_path)
    coco = read(source)
    coco["annotations"].pop()
    del coco["annotations"][0]["area"], coco["annotations"][1]["iscrowd"]
    coco["categories"] = [{"id": 1, "name": "noise"}, {"id": 2**40, "name": "more"}]
    coco["images"].pop(1)
    coco["annotations"].pop(1)
    coco["annotations"].append({"id": 5, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "area": 4})
    write(source, coco)
    whole = found(source)
    assert whole.problems == []
    assert [note.message for note in whole.notes] == [
        "category ids other than 1 to 2, which is no matter: 1, 1099511627776",
        "annotations without area, taken to be width times height: 1",
        "images without annotations, which are kept: 1 (3)",
        "annotations without iscrowd, taken to be 0: 1",
        f"images in {source.folder} that no file names: 1",
    ]


def test_as_few_flat_boxes_as_coco_has_are_a_note(tmp_path: Path) -> None:
    source = made(tmp_path)
    coco = read(source)
    one = coco["annotations"][0]
    coco["annotations"] = [{**one, "id": n} for n in range(100_000)]
    coco["annotations"][7]["bbox"] = [1, 2, 3, 0]
    write(source, coco)
    whole = found(source)
    assert whole.problems == [] and ("flat box", 7) in told(whole.notes)


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_image_is_read_and_told_whatever_the_number_of_processes(tmp_path: Path, jobs: int) -> None:
    source = made(tmp_path, images=40)
    coco = read(source)
    files = {5 + n: raw for n, (raw, *_) in enumerate(BROKEN.values())}
    files |= {20 + n: raw for n, (raw, *_) in enumerate(ODD.values())}
    for one, raw in files.items():
        (source.folder / f"{one}.png").write_bytes(raw)
    write(source, coco)
    whole = found(source, jobs=jobs)
    tasks = [Task(source.folder, image["file_name"], (WIDTH, HEIGHT)) for image in coco["images"]]
    assert whole.seen == {place: examine(task) for place, task in enumerate(tasks)}
    kinds = [(kind, 5 + n) for n, (_, kind, _) in enumerate(BROKEN.values())]
    assert told(whole.problems) == sorted(kinds, key=lambda pair: pair[0])
    assert {("CMYK", 20 + list(ODD).index("CMYK")), ("animation", 20 + list(ODD).index("an animation"))} <= set(
        told(whole.notes)
    )
    assert all(f"({problem.id}.png)" in problem.message for problem in whole.problems)


@pytest.mark.parametrize(
    "name", ["../secret.png", "a/../../secret.png", "{}/secret.png", "..", "file:///{}/secret.png"]
)
def test_nothing_outside_the_folder_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    source = made(tmp_path / "set", images=2)
    os.mkfifo(tmp_path / "secret.png")
    coco = read(source)
    coco["images"][0]["file_name"] = name.format(tmp_path)
    write(source, coco)
    looked = []
    monkeypatch.setattr(inspection, "each", lambda work, items, **_: map(work, looked.extend(items) or items))
    listed = []
    true = os.listdir
    monkeypatch.setattr(coco_module.os, "listdir", lambda folder: listed.append(Path(folder)) or true(folder))
    assert told(found(source).problems) == [("file name", 1)]
    assert [task.name for task in looked] == ["2.png"]
    assert all(folder.resolve() == source.folder.resolve() for folder in listed)


def spoils(name: str, fate: Callable[[], object]) -> Callable[[Task], Any]:
    """`examine`, but for the images whose name begins so."""

    def look(task: Task) -> Any:
        return fate() if task.name.startswith(name) else examine(task)

    return look


def crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("fate", "said"),
    [(crash, "made its decoder crash"), (lambda: time.sleep(3600), "takes more than 2 seconds")],
    ids=["crash", "hang"],
)
def test_images_that_take_their_decoder_along_are_named_and_the_others_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fate: Callable[[], object], said: str
) -> None:
    source = made(tmp_path, images=12)
    monkeypatch.setattr(inspection, "examine", spoils("1", fate) if fate is crash else spoils("3", fate))
    monkeypatch.setattr(inspection, "PATIENCE", 2.0)
    whole = found(source, jobs=2)
    assert told(whole.problems) == [("crash", one) for one in ([1, 10, 11, 12] if fate is crash else [3])]
    assert all(said in problem.message for problem in whole.problems)
    assert len(whole.seen) == 12


def test_files_that_do_not_belong_together_are_told(tmp_path: Path) -> None:
    train, val = made(tmp_path), made(tmp_path, part="val2017")
    coco = read(val)
    coco["categories"][0]["name"] = "other"
    coco["annotations"] = [{**one, "iscrowd": 1} for one in coco["annotations"]]
    write(val, coco)
    both = inspect([train, val], jobs=1)
    assert told(together(*both)) == [("categories differ", None), ("nothing to measure", None)]
    assert "id 1: noise and other" in together(*both)[0].message
    assert together(both[0], both[0]) == []


def test_one_folder_for_both_files_is_counted_once(tmp_path: Path) -> None:
    train = made(tmp_path)
    val = Source(tmp_path / "val.json", train.folder)
    coco = read(train)
    write(val, {**coco, "images": coco["images"][2:], "annotations": coco["annotations"][2:]})
    write(train, {**coco, "images": coco["images"][:1], "annotations": coco["annotations"][:1]})
    (train.folder / "more").mkdir()
    (train.folder / "more" / "4.JPG").write_bytes(png())
    (train.folder / "readme.txt").write_text("no image")
    for one in inspect([train, val], jobs=1):
        assert [note.message for note in one.notes] == [f"images in {train.folder} that no file names: 2"]


def test_a_report_can_be_watched(tmp_path: Path) -> None:
    totals = []

    def watch(things: Any, total: int) -> Any:
        totals.append(total)
        return things

    inspect([made(tmp_path), made(tmp_path, part="val2017", images=2)], jobs=1, watch=watch)
    assert totals == [5]


def test_problems_hold_what_json_can_hold(tmp_path: Path) -> None:
    source = made(tmp_path)
    coco = read(source)
    coco["images"][0]["id"] = {"deep": [[[[[[[[[[1]]]]]]]]]]}
    write(source, coco)
    assert json.dumps([problem.message for problem in found(source).problems])
