"""What lies in a folder of data: the layout, the annotation files, the images and the classes, as a study writes it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path as File
from statistics import median
from typing import Any, NamedTuple

from trainers.call import Invalid
from trainers.data.annotations import lists_of, parse, tables, unsafe
from trainers.data.coco_names import COCO_NAMES
from trainers.data.voc import BOTH_YEARS, VOC_NAMES, named_in

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


def look(folder: File, *, slips: bool = False) -> FoundData:
    """What a folder holds. Raises `Invalid` at ("--data",) when it holds nothing that can be trained on as it is.

    `slips`: annotations in COCO's format may have mistakes, and images may be missing; it is only found where they are.
    """
    root = folder.expanduser()
    if not root.is_dir():
        raise Invalid(f"there is no folder {folder} (from {File.cwd()})", WHERE)
    for find in (_voc, _caltech, _citypersons, partial(_coco, slips=slips)):
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
    if not {*BOTH_YEARS, "2007 test"} <= set(parts):
        args |= _voc_parts(parts)
    try:
        classes = named_in(root=str(root), train=args.get("train", BOTH_YEARS), val=args.get("val", "2007 test"))
    except Invalid as error:
        raise Invalid(str(error), WHERE) from None
    if not classes <= set(VOC_NAMES):
        args["classes"] = sorted(classes)
        said.append(f"own classes: {', '.join(args['classes'])}")
    return FoundData({"VOC": args}, len(args.get("classes", VOC_NAMES)), (375, 500), said)


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


def _coco(root: File, named: str, *, slips: bool) -> FoundData | None:
    files = [folder / name for folder, names in _below(root) for name in names if re.fullmatch(r"[^.].*\.json", name)]
    files = [file for file in files if not any(word in file.name for word in OTHERS)]
    files = _unsplit(files)
    if not files:
        return None
    chosen = {part: _of_part(part, files) for part in PARTS}
    train, val = chosen["train"], chosen["val"]
    if train is None or val is None:
        raise Invalid(_unsaid(files, named, lacks_train=train is None), WHERE)
    args: dict[str, Any] = {"root": named}
    defaults = {
        "train": "annotations/instances_train2017.json",
        "val": "annotations/instances_val2017.json",
        "train_images": "train2017",
        "val_images": "val2017",
    }
    said, classes, image, paths = list[str](), list[str](), (0, 0), dict[str, set[str]]()
    for part, listed in (("train", train), ("val", val), ("test", chosen["test"])):
        if listed is None or (slips and part == "test"):
            continue
        rows = _rows(root / listed, part, slips=slips)
        if rows is None:
            continue
        images = _images(root, listed, part, [row["file_name"] for row in rows["images"]], slips=slips)
        paths[part] = {os.path.normpath(os.path.join(images, row["file_name"])) for row in rows["images"]}
        wanted = {part: listed.as_posix(), f"{part}_images": images}
        args |= {key: value for key, value in wanted.items() if defaults.get(key) != value}
        names = [str(one.get("name")) for one in rows["categories"]]
        number = len(rows["annotations"])
        said.append(
            f"{part}: {len(rows['images']):,} images, {number:,} boxes, {len(names)} classes, in {listed} and {images}"
        )
        if part == "train" and not slips:
            classes, image = names, _typical(rows["images"])
    for other, listed in (("val", val), ("test", chosen["test"])):
        if listed is not None and (both := paths["train"] & paths.get(other, set())) and not slips:
            message = f"{root / train} and {root / listed} share {len(both):,} images, such as {min(both)}"
            raise Invalid(f"{message}; move the one away that is not meant, or write the study by hand", WHERE)
    known = set(classes) == set(COCO_NAMES)
    return FoundData({"COCO": args}, len(classes), image, said, is_coco=known)


def _unsplit(files: list[File]) -> list[File]:
    """Those that are not there in two parts as well, as `tapath data split` writes them."""
    names = {file.name for file in files}
    return [file for file in files if not {f"{file.stem}_train.json", f"{file.stem}_val.json"} <= names]


def _unsaid(files: list[File], named: str, *, lacks_train: bool) -> str:
    """What to do where no name says what the annotations are for."""
    by_hand = "or write the study by hand, as *Your own images* in the README does"
    if len(files) == 1:
        command = f"tapath data split {shlex.quote(str(File(named) / files[0]))}"
        return f"there is one annotation file; `{command}` makes one to train on and one to measure on of it, {by_hand}"
    there, lacking = ", ".join(map(str, files[:10])), "for training" if lacks_train else "for validation"
    return (
        f"which annotations are {lacking}? Of {there} no name says it: name one with train, one with val, or have "
        f"`tapath data split` make two of one, {by_hand}"
    )


def _below(root: File) -> Iterator[tuple[File, list[str]]]:
    """Folders from root on and the files in them, a few deep, also linked ones, each once: links may make a circle."""
    seen = {os.path.realpath(root)}
    for here, inside, names in os.walk(root, followlinks=True):
        folder = File(here).relative_to(root)
        # Of two names of one folder the one that is no link comes last, and counts.
        links_first = sorted(inside, key=lambda name: (not os.path.islink(os.path.join(here, name)), name))
        fresh = {os.path.realpath(os.path.join(here, name)): name for name in links_first}
        inside[:] = sorted(name for place, name in fresh.items() if place not in seen)
        if len(folder.parts) >= DEPTH:
            inside.clear()
        seen |= {os.path.realpath(os.path.join(here, name)) for name in inside}
        yield folder, sorted(names)


def _of_part(part: str, files: list[File]) -> File | None:
    """The annotation file of a part: its name says so, or that of its folder; COCO's own come first."""
    own = [file for file in files if _part(file.name) == part]
    found = own or [file for file in files if not _part(file.name) and _part(str(file.parent)) == part]
    return min(found, key=lambda file: ("instances" not in file.name, len(file.parts), str(file)), default=None)


def _part(text: str) -> str:
    """The part that a name is of, by its last word that says one; empty if none does."""
    for word in reversed(re.split(r"[^a-z]+", text.lower())):
        for part, words in PARTS.items():
            if word.startswith(words[0]) or word in words:
                return part
    return ""


def _rows(file: File, part: str, *, slips: bool) -> dict[str, Any] | None:
    """What an annotation file says, if it is right but for its annotations; None for a test without annotations.

    With `slips` it is enough that there are images with names.
    """
    coco = parse(file, masks=False)
    if part == "test" and not (isinstance(coco, dict) and coco.get("annotations")):
        return None
    try:
        if not slips:
            return lists_of(coco, str(file))
        rows = tables(coco, str(file))
        return {**rows, "images": [row for row in rows["images"] if not unsafe(row.get("file_name"))]}
    except Invalid as error:
        if slips:
            raise
        raise Invalid(f"{error}; `tapath data check` lists all that is wrong with it", WHERE) from None


def _images(root: File, listed: File, part: str, names: list[str], *, slips: bool) -> str:
    """The folder of these images, from root on; with `slips` that of most. Raises `Invalid` if there is none.

    Images of two parts may have the same names: another part's folder is none where the part's own has some of them.
    """
    some = names[:: max(1, len(names) // LOOKED)]
    whole = _split_from(root, listed)
    part = part if whole == listed else _part(whole.name) or _part(str(whole.parent))
    found = dict[File, int]()
    for folder in _candidates(root, whole, part):
        own_has_some = any(there for other, there in found.items() if _part(str(other)) == part)
        if own_has_some and _is_anothers(folder, part):
            break
        found[folder] = sum(os.path.isfile(root / folder / name) for name in some)
        if found[folder] == len(some):
            return folder.as_posix()
    best = max(found, key=found.__getitem__)
    if slips and found[best]:
        return best.as_posix()
    raise Invalid(f"the images of {root / listed} are in no folder of {root}, such as {', '.join(some[:1])}", WHERE)


def _split_from(root: File, listed: File) -> File:
    """The annotation file of which `tapath data split` has made this one, or this one if it is not there."""
    whole = listed.with_name(re.sub(r"_(train|val)$", "", listed.stem) + listed.suffix)
    return whole if (root / whole).is_file() else listed


def _candidates(root: File, listed: File, part: str) -> Iterable[File]:
    """Folders, those first that are called like the annotation file, like its part or images (masks may have the names
    of their images), and those of other parts last."""
    stem = listed.stem.removeprefix("instances_")

    def rank(folder: File) -> tuple[Any, ...]:
        own, called = _part(str(folder)) == part != "", "image" in str(folder).lower()
        return (
            _is_anothers(folder, part),
            folder.name != stem,
            not own,
            not called,
            folder != listed.parent,
            folder.parts,
        )

    return sorted((folder for folder, _ in _below(root)), key=rank)


def _is_anothers(folder: File, part: str) -> bool:
    """Whether a folder is called like another part; where a part is not known, none is."""
    return bool(part) and _part(str(folder)) not in (part, "")


def _typical(images: list[dict[str, Any]]) -> tuple[int, int]:
    """Height and width in pixels."""
    return int(median(row["height"] for row in images)), int(median(row["width"] for row in images))
