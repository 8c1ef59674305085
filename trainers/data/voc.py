"""PASCAL VOC: the devkit's folders of 2007 and 2012, or a user's own in the same layout.

Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010,
http://host.robots.ox.ac.uk/pascal/VOC/
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from trainers.call import Call, Invalid, alternatives
from trainers.data.annotations import refuse
from trainers.data.coco import check_measurable, missing, read_listed, stamp
from trainers.data.images import size_of
from trainers.data.rules import unsafe
from trainers.data.split import Metric, Split, classes_of, fingerprint
from trainers.data.unread import Unseen
from trainers.data.voc_xml import Object, Sheet, names_in, read

VOC_AP = Call(name="VocAP")
VOC_NAMES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
SUFFIXES = (".jpg", ".jpeg", ".png")  # of two images of one name the first counts
BOTH_YEARS = ["2007 trainval", "2012 trainval"]  # "07+12"


class VOC:
    """VOC's 20 classes, or own ones, under `root`, the folder that holds VOC2007 and VOC2012, or the one above it.

    train, val, test: parts, each a year and the name of a file of ImageSets/Main, as `2007 trainval`; the default,
    known as 07+12, has 16,551 images to train on and 4,952 to measure on. test: null for none; what is trained is
    measured there once, and nothing is selected by it. An object marked as difficult is
    neither to be found nor a mistake, to training as to the metric; use_difficult: it is trained on. classes: the
    names that objects have, in the order of the labels, by default VOC's 20; any other name is refused.
    `metric` judges detections, by default by VOC's AP.

    VOC counts pixels from 1 and names the first and the last of a box. As in mmdetection, with which the papers'
    figures were measured, that becomes x = xmin - 1, y = ymin - 1, w = xmax - xmin, h = ymax - ymin: the last column
    and row are cut off. Raises `Invalid` for what is missing or wrong.
    """

    later = frozenset({"classes"})  # see `Call.complete`

    def __init__(
        self,
        *,
        root: str,
        train: list[str] = BOTH_YEARS,
        val: str = "2007 test",
        test: str | None = None,
        use_difficult: bool = False,
        classes: list[str] | None = None,
        metric: Metric = VOC_AP,
    ) -> None:
        names = _checked(self.names(classes=classes))
        self.train = _open(root, train, "train", names, use_difficult=use_difficult)
        self.val = _open(root, [val], "val", names)
        check_measurable(self.val, f"VOC{val}")
        self.test = None if test is None else _open(root, [test], "test", names)
        if self.test:
            check_measurable(self.test, f"VOC{test}", "test")
        self.classes = self.train.classes
        self.metric = Call.model_validate(metric)
        self.fingerprint = fingerprint(self.train, self.val, self.test)

    @staticmethod
    def names(*, classes: list[str] | None = None, **_: Any) -> tuple[str, ...]:
        """What `classes` is, without a file."""
        return VOC_NAMES if classes is None else tuple(classes)

    @staticmethod
    def files(*, root: str, train: list[str], val: str, test: str | None, **_: Any) -> Iterator[str]:
        """What is read for these arguments, from root on."""
        folder = Path(root).expanduser()
        devkit = _devkit(folder)
        for part in (*train, val, *([test] if test else [])):
            file = _list(devkit, part, "train")
            notes, pictures = _folders(devkit, file)
            yield str(file.relative_to(folder))
            names = _names(file)
            for name, picture in zip(names, _pictures(pictures, names), strict=True):
                yield str((notes / f"{name}.xml").relative_to(folder))
                yield str((pictures / picture).relative_to(folder))

    @staticmethod
    def unseen(**_: Any) -> Unseen:
        """What its training images are, if they are those of 07+12."""
        return Unseen(16_551, (375, 500), has_masks=False)


def named_in(*, root: str, train: list[str], val: str) -> set[str]:
    """The names of all objects in the annotations of these parts. Raises `Invalid`."""
    folder = Path(root).expanduser()
    found = set[str]()
    for file in VOC.files(root=root, train=train, val=val, test=None):
        if file.endswith(".xml"):
            try:
                found |= names_in(folder / file)
            except Invalid as error:
                raise Invalid(f"{folder / file} {error}") from None
    return found


def _checked(classes: tuple[str, ...]) -> tuple[str, ...]:
    wrong = not classes or len(set(classes)) < len(classes) or any(name != name.strip() or not name for name in classes)
    if wrong:
        raise Invalid(f"{list(classes)} are not one or more names, each once; leave it out for VOC's", ("classes",))
    return classes


def _open(root: str, parts: list[str], which: str, classes: tuple[str, ...], *, use_difficult: bool = False) -> Split:
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise Invalid(f"there is no folder {root} (from {Path.cwd()})", ("root",))
    if not parts or len(set(parts)) < len(parts):
        raise Invalid(f"{parts} are not one or more parts, each once, as 2007 trainval", (which,))
    folder = _devkit(folder).resolve()
    lists = tuple(_list(folder, part, which) for part in parts)
    watched = [path for file in lists for path in (file, *_folders(folder, file))]
    return _split(folder, lists, classes, use_difficult, tuple(stamp(path) for path in watched))


def _devkit(folder: Path) -> Path:
    """The folder of the years: this one, or the one in it that has VOC's own name."""
    inside = not any(folder.glob("VOC[0-9]*")) and (folder / "VOCdevkit").is_dir()
    return folder / "VOCdevkit" if inside else folder


def _list(devkit: Path, part: str, which: str) -> Path:
    """The file that lists a part's images. `Invalid` if it is not there, or one of the folders beside it."""
    match = re.fullmatch(r"(\w+) (\w[\w-]*)", part, re.ASCII)
    if not match:
        raise Invalid(f"{part!r} is no year and part with a space between, as 2007 trainval", (which,))
    year = devkit / f"VOC{match[1]}"
    if not year.is_dir():
        there = [folder.name.removeprefix("VOC") for folder in devkit.glob("VOC*")]
        raise Invalid(f"there is no folder {year}: {alternatives(match[1], there)}", (which,))
    path = year / "ImageSets" / "Main" / f"{match[2]}.txt"
    if not path.is_file():
        there = [file.stem for file in path.parent.glob("*.txt") if "_" not in file.stem]
        raise Invalid(f"there is no file {path}: {alternatives(match[2], there)}", (which,))
    for folder in _folders(devkit, path):
        if not folder.is_dir():
            raise Invalid(f"there is no folder {folder}", ("root",))
    return path


def _folders(devkit: Path, file: Path) -> tuple[Path, Path]:
    """Where the annotations and the images of a list are."""
    year = file.relative_to(devkit).parts[0]
    return devkit / year / "Annotations", devkit / year / "JPEGImages"


@lru_cache(maxsize=4)
def _split(
    devkit: Path,
    lists: tuple[Path, ...],
    classes: tuple[str, ...],
    use_difficult: bool,
    when: tuple[tuple[int, int], ...],
) -> Split:
    """Read once a process: many stages train on the same data. `when` tells changed lists and folders from the old."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for file in lists:
        for name, sheet in _sheets(devkit, file, classes):
            year = file.relative_to(devkit).parts[0]
            size = sheet.size or size_of(devkit / year / name, str(devkit / year / name))
            images.append({"id": len(images) + 1, "file_name": f"{year}/{name}", "width": size[0], "height": size[1]})
            for found in sheet.objects:
                category = classes.index(found.name) + 1
                annotations.append(_row(found, len(annotations) + 1, len(images), category, use_difficult))
    categories = [{"id": k, "name": name} for k, name in enumerate(classes, start=1)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    return Split(coco, classes_of(coco), partial(read_listed, images, devkit))


def _row(found: Object, identity: int, image: int, category: int, use_difficult: bool) -> dict[str, Any]:
    """An object as COCO has it, but with VOC's `difficult` as `ignore`."""
    x1, y1, x2, y2 = found.corners
    return {
        "id": identity,
        "image_id": image,
        "category_id": category,
        "bbox": [x1 - 1, y1 - 1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "ignore": int(found.difficult and not use_difficult),
    }


def _sheets(devkit: Path, file: Path, classes: tuple[str, ...]) -> list[tuple[str, Sheet]]:
    """The images that a file lists, from the year's folder on, and their annotations. Raises `Invalid`."""
    names = _names(file)
    notes, pictures = _folders(devkit, file)
    named = _pictures(pictures, names)
    rows = [{"file_name": picture} for picture in named]
    refuse((said for _, said in missing(rows, pictures)), f"images that {file} lists and that are not in {pictures}")
    rows = [{"file_name": f"{name}.xml"} for name in names]
    refuse((said for _, said in missing(rows, notes)), f"annotations of {file} that are not in {notes}")
    sheets, mistakes = [], []
    for name, picture in zip(names, named, strict=True):
        try:
            sheets.append((f"{pictures.name}/{picture}", read(notes / f"{name}.xml", classes)))
        except Invalid as error:
            mistakes.append(f"{name}.xml {error}")
    refuse(mistakes, str(notes))
    return sheets


def _pictures(folder: Path, names: list[str]) -> list[str]:
    """The file of each image in the folder: VOC's own are .jpg, and that is what one is called that is not there."""
    files = [Path(name) for name in os.listdir(folder)]
    known = [file for file in files if file.suffix.lower() in SUFFIXES]
    known.sort(key=lambda file: (-SUFFIXES.index(file.suffix.lower()), file.suffix))
    there = {file.stem: file.name for file in known}  # of one name the last counts
    return [there.get(name, f"{name}.jpg") for name in names]


def _names(file: Path) -> list[str]:
    """The names of images in a list, one a line."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise Invalid(f"cannot read {file}: {error}") from None
    names = {number: line.strip() for number, line in enumerate(lines, start=1) if line.strip()}
    if not names:
        raise Invalid(f"{file} lists no image")
    refuse(_mistakes(names), str(file))
    return list(names.values())


def _mistakes(names: dict[int, str]) -> Iterator[str]:
    """What is wrong with names by their lines."""
    seen: dict[str, int] = {}
    for number, name in names.items():
        problem = unsafe(name) or ("is more than a name; lists of one class are no parts" if " " in name else "")
        if problem:
            yield f"line {number}: {name!r:.80} {problem}"
        elif name in seen:
            yield f"line {number}: {name} is there already, in line {seen[name]}"
        seen.setdefault(name, number)
