"""What lies in a folder of data: the layout, the annotation files, the images and the classes, as a study writes it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path as File
from statistics import median
from typing import Any, NamedTuple

from trainers.call import Invalid
from trainers.data.annotations import parse
from trainers.data.coco_names import COCO_NAMES

WHERE = ("--data",)
DEPTH = 3  # folders below the one that is named
LOOKED = 50  # images of an annotation file that are looked for in a folder
OTHERS = ("captions", "keypoints", "panoptic", "stuff", "image_info")  # of COCO's own files, which have no boxes for us
PARTS = {"train": ("train",), "val": ("val", "valid", "validation", "minival", "dev"), "test": ("test",)}
KINDS = "a COCO folder (images, annotations in JSON), VOC (VOC2007/ImageSets), Caltech (set00/), CityPersons"


class FoundData(NamedTuple):
    """A data set as a study writes it, and what is known of it."""

    written: dict[str, Any]
    classes: int
    image: tuple[int, int]  # height and width of a typical one, pixels
    said: list[str]  # what was found, for people
    is_coco: bool = False  # whether its classes are those on which published detectors were trained


def look(folder: File) -> FoundData:
    """What a folder holds. Raises `Invalid` at ("--data",) when it holds nothing that can be trained on as it is."""
    root = folder.expanduser()
    if not root.is_dir():
        raise Invalid(f"there is no folder {folder} (from {File.cwd()})", WHERE)
    for find in (_voc, _caltech, _citypersons, _coco):
        if (found := find(root, str(folder))) is not None:
            return found
    raise Invalid(f"{folder} holds nothing that is known here: {KINDS}; see *Data* in the README", WHERE)


def _voc(root: File, named: str) -> FoundData | None:
    devkit = root if any(root.glob("VOC[0-9A-Za-z]*/ImageSets")) else root / "VOCdevkit"
    lists = sorted(devkit.glob("VOC*/ImageSets/Main/*.txt"))
    parts = [f"{file.parts[-4].removeprefix('VOC')} {file.stem}" for file in lists if "_" not in file.stem]
    if not parts:
        return None
    said = [f"{len(parts)} lists of images in VOC's layout: {', '.join(parts)}"]
    args: dict[str, Any] = {"root": named}
    if not {"2007 trainval", "2012 trainval", "2007 test"} <= set(parts):
        args |= _voc_parts(parts)
    return FoundData({"VOC": args}, 20, (375, 500), said)


def _voc_parts(parts: list[str]) -> dict[str, Any]:
    """Who is trained on and who is measured on, of these lists."""
    by_year = {
        year: {one.split()[1] for one in parts if one.split()[0] == year}
        for year in dict.fromkeys(one.split()[0] for one in parts)
    }
    for year, there in by_year.items():
        if {"trainval", "test"} <= there:
            return {"train": [f"{year} trainval"], "val": f"{year} test"}
    for year, there in by_year.items():
        if {"train", "val"} <= there:
            return {"train": [f"{year} train"], "val": f"{year} val"}
    raise Invalid(f"of VOC's lists there are {', '.join(parts)}; needed are train and val, or trainval and test", WHERE)


def _caltech(root: File, named: str) -> FoundData | None:
    videos = any(root.glob("set[0-9][0-9]/V*.seq")) or any(root.glob("images/set[0-9][0-9]_V*.jpg"))
    if not videos or not (root / "annotations").is_dir():
        return None
    return FoundData({"Caltech": {"root": named}}, 1, (480, 640), ["videos or images of Caltech's pedestrians"])


def _citypersons(root: File, named: str) -> FoundData | None:
    if not (root / "leftImg8bit/train").is_dir() or not (root / "annotations/train.json").is_file():
        return None
    return FoundData({"CityPersons": {"root": named}}, 1, (1024, 2048), ["CityPersons in COCO's format"])


def _coco(root: File, named: str) -> FoundData | None:
    files = [file for file in _below(root) if file.suffix == ".json"]
    files = [file for file in files if not any(word in file.name for word in OTHERS)]
    if not files:
        return None
    chosen = {part: _of_part(part, [file.relative_to(root) for file in files]) for part in PARTS}
    train, val = chosen["train"], chosen["val"]
    if train is None or val is None:
        there = ", ".join(str(file.relative_to(root)) for file in files[:10])
        lacking = "for training" if train is None else "for validation"
        message = f"which annotations are {lacking}? Of {there} no name says it: name one with train, one with val"
        raise Invalid(f"{message}, or write the study by hand, as *Your own images* in the README does", WHERE)
    args: dict[str, Any] = {"root": named}
    defaults = {
        "train": "annotations/instances_train2017.json",
        "val": "annotations/instances_val2017.json",
        "train_images": "train2017",
        "val_images": "val2017",
    }
    said, classes, image = list[str](), list[str](), (0, 0)
    for part, listed in (("train", train), ("val", val), ("test", chosen["test"])):
        if listed is None:
            continue
        rows = _rows(root / listed, part)
        if rows is None:
            continue
        images = _images(root, listed, [row["file_name"] for row in rows["images"]])
        wanted = {part: listed.as_posix(), f"{part}_images": images}
        args |= {key: value for key, value in wanted.items() if defaults.get(key) != value}
        names = [str(one.get("name")) for one in rows["categories"]]
        number = len(rows["annotations"])
        said.append(f"{part}: {len(rows['images']):,} images, {number:,} boxes, {len(names)} classes, in {listed}")
        if part == "train":
            classes, image = names, _typical(rows["images"])
    known = set(classes) == set(COCO_NAMES)
    return FoundData({"COCO": args}, len(classes), image, said, is_coco=known)


def _below(root: File) -> Iterator[File]:
    """The files of a folder and of those in it, a few deep; folders of many images are not read to the end."""
    for folder, inside, names in os.walk(root):
        deep = len(File(folder).relative_to(root).parts)
        inside[:] = sorted(inside) if deep < DEPTH else []
        yield from (File(folder) / name for name in sorted(names))


def _of_part(part: str, files: list[File]) -> File | None:
    """The annotation file of a part: its name says so, or that of its folder; COCO's own come first."""

    def says(text: str) -> bool:
        words = re.split(r"[^a-z]+", text.lower())
        return any(word.startswith(PARTS[part][0]) or word in PARTS[part] for word in words)

    found = [file for file in files if says(file.name)] or [file for file in files if says(str(file.parent))]
    return min(found, key=lambda file: ("instances" not in file.name, len(file.parts), str(file)), default=None)


def _rows(file: File, part: str) -> dict[str, Any] | None:
    """What an annotation file says, if it is one of COCO's format; None for a test without annotations."""
    rows = parse(file, masks=False)
    lists = ("images", "annotations", "categories")
    if isinstance(rows, dict) and all(isinstance(rows.get(key), list) for key in lists) and rows["images"]:
        return rows
    if part == "test":
        return None
    raise Invalid(f"{file} has not COCO's format: a mapping with {', '.join(lists)}", WHERE)


def _images(root: File, listed: File, names: list[str]) -> str:
    """The folder of these images, from root on. Raises `Invalid` if there is none."""
    some = names[:: max(1, len(names) // LOOKED)]
    for folder in _candidates(root, listed):
        if all((root / folder / name).is_file() for name in some):
            return folder.as_posix()
    raise Invalid(f"the images of {root / listed} are in no folder of {root}, such as {some[0]}", WHERE)


def _candidates(root: File, listed: File) -> Iterable[File]:
    """Folders, those first that are called like the annotation file."""
    stem = listed.stem.removeprefix("instances_")
    folders = [File(folder).relative_to(root) for folder, _, _ in os.walk(root)]
    near = [folder for folder in folders if len(folder.parts) <= DEPTH]
    return sorted(near, key=lambda folder: (folder.name != stem, folder != listed.parent, folder.parts))


def _typical(images: list[dict[str, Any]]) -> tuple[int, int]:
    """Height and width in pixels."""
    return int(median(row["height"] for row in images)), int(median(row["width"] for row in images))
