"""COCO: a folder of images with annotations in COCO's format, in the layout of COCO 2017.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, https://arxiv.org/abs/1405.0312
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from trainers.call import Call, Invalid
from trainers.data.annotations import agree, load, refuse
from trainers.data.coco_names import COCO_NAMES
from trainers.data.images import read_image
from trainers.data.masks import packed_in
from trainers.data.split import COCO_AP, Metric, Split, classes_of, fingerprint
from trainers.data.subsets import Empty, filled, of_classes
from trainers.data.unread import Unseen


class COCO:
    """Training, validation and perhaps test data under `root`. `metric` judges detections, by default by COCO's AP.

    train, val, test: annotation files; train_images, val_images, test_images: folders of images; all relative to root.
    test: null for none; what is trained is measured there once, and nothing is selected by it. classes: the
    names that count, all by default; annotations of others are left out, and labels follow the ids of the
    categories whatever the order here. empty: `keep` or `drop` the training images in which nothing is to be
    found, as the reference trainers do. Validation keeps them: whatever is found there is a mistake. Raises
    `Invalid` for what is missing or wrong.
    """

    def __init__(
        self,
        *,
        root: str,
        train: str = "annotations/instances_train2017.json",
        val: str = "annotations/instances_val2017.json",
        train_images: str = "train2017",
        val_images: str = "val2017",
        test: str | None = None,
        test_images: str = "test2017",
        classes: list[str] | None = None,
        empty: Empty = "keep",
        metric: Metric = COCO_AP,
    ) -> None:
        folder = Path(root).expanduser()
        if not folder.is_dir():
            raise Invalid(f"there is no folder {root} (from {Path.cwd()})", ("root",))
        if classes is not None and (not classes or len(set(classes)) < len(classes)):
            raise Invalid(f"{classes} are not one or more names, each once; null means all", ("classes",))
        wanted = None if classes is None else frozenset(classes)
        self.train = _open(folder, train, train_images, "train", classes=wanted, empty=empty)
        self.val = _open(folder, val, val_images, "val", classes=wanted)
        self.test = None if test is None else _open(folder, test, test_images, "test", classes=wanted)
        agree(self.train.coco, self.val.coco)
        check_measurable(self.val, folder / val)
        if self.test:
            agree(self.train.coco, self.test.coco, "test")
            check_measurable(self.test, folder / str(test), "test")
        self.classes = self.train.classes
        self.metric = Call.model_validate(metric)
        self.fingerprint = fingerprint(self.train, self.val, self.test)

    @staticmethod
    def names(*, classes: list[str] | None = None, **_: Any) -> tuple[str, ...]:
        """What `classes` is for these arguments, without a file: COCO's 80, or those of them that are named.

        Names that are not COCO's come last, as they are given: only their file knows their order.
        """
        if classes is None:
            return COCO_NAMES
        ours = tuple(name for name in COCO_NAMES if name in classes)
        return ours + tuple(name for name in classes if name not in ours)

    @staticmethod
    def files(
        *,
        root: str,
        train: str,
        val: str,
        train_images: str,
        val_images: str,
        test: str | None,
        test_images: str,
        **_: Any,
    ) -> Iterator[str]:
        """What is read for these arguments, from root on."""
        parts = [(train, train_images), (val, val_images), *([(test, test_images)] if test else [])]
        for listed, images in parts:
            yield listed
            for image in load(Path(root).expanduser() / listed)["images"]:
                yield os.path.join(images, image["file_name"])

    @staticmethod
    def unseen(*, empty: Empty = "keep", **_: Any) -> Unseen:
        """What its training images are, if they are COCO's of 2017."""
        return Unseen(118_287 if empty == "keep" else 117_266, (480, 640), has_masks=True)


def check_measurable(val: Split, source: object, which: str = "val") -> None:
    """Raise `Invalid` unless there is something to find in a validation or test set."""
    if (val.rows.crowd | val.rows.ignore).all():
        raise Invalid(f"{source} has no object to measure on, what is to be ignored left aside", (which,))


def _open(
    root: Path,
    annotations: str,
    images: str,
    which: str,
    *,
    classes: frozenset[str] | None = None,
    empty: Empty = "keep",
) -> Split:
    path, folder = located(root, annotations, images, which)
    return _split(path, folder, stamp(path), classes, empty)


def located(root: Path, annotations: str, images: str, which: str) -> tuple[Path, Path]:
    """An annotation file and its folder of images, or `Invalid` with the argument that names them."""
    path, folder = root / annotations, root / images
    if not path.is_file():
        raise Invalid(f"there is no annotation file {path}; name it by `{which}`, from {root}", (which,))
    if not folder.is_dir():
        key = f"{which}_images"
        raise Invalid(f"there is no folder of images {folder}; name it by `{key}`, from {root}", (key,))
    return path.resolve(), folder.resolve()


@lru_cache(maxsize=4)
def _split(
    path: Path, folder: Path, when: tuple[int, int], classes: frozenset[str] | None = None, empty: Empty = "keep"
) -> Split:
    """Read once a process: many stages train on the same data. `when` tells a changed file from the old."""
    coco = load(path)
    if classes is not None:
        coco = of_classes(coco, classes, path)
    split = split_of(coco, path, folder, outlines=partial(_outlines, path, when))
    return filled(split) if empty == "drop" else split


def split_of(coco: dict[str, Any], path: Path, folder: Path, outlines: Callable[[], dict[int, bytes]] = dict) -> Split:
    """Checked annotations of a file with the images of a folder; `Invalid` if some of these are missing."""
    refuse((said for _, said in missing(coco["images"], folder)), f"images of {path} that are not in {folder}")
    return Split(coco, classes_of(coco), partial(read_listed, coco["images"], folder), outlines)


def _outlines(path: Path, when: tuple[int, int]) -> dict[int, bytes]:
    """The masks, which `load` let go. Read again from the same file, or `Invalid` is raised."""
    if not path.is_file() or stamp(path) != when:
        raise Invalid(f"{path} changed while it was in use; start again")
    return packed_in(path.read_bytes())


def stamp(path: Path) -> tuple[int, int]:
    """When a file was last changed, and its size."""
    state = path.stat()
    return state.st_mtime_ns, state.st_size


def missing(images: Iterable[dict[str, Any]], folder: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Images without a file, and what to say of their names, which are safe.

    Each folder is listed once: 118,000 calls, one a file, are slow on a network.
    """
    listed: dict[str, set[str]] = {}
    folded: dict[str, dict[str, str]] = {}
    for image in images:
        parent, name = os.path.split(image["file_name"])
        if parent not in listed:
            listed[parent] = _names(folder / parent)
        if name not in listed[parent]:
            if parent not in folded:
                folded[parent] = {there.casefold(): there for there in listed[parent]}
            twin = folded[parent].get(name.casefold())
            yield image, image["file_name"] + (f" (there is {twin})" if twin else "")


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:  # no folder, not ours to read, or a name longer than any may be
        return set()


def read_listed(images: list[dict[str, Any]], folder: Path, index: int) -> Tensor:
    """The image of a folder that stands at this place in COCO's list. -> (3, H, W) uint8, RGB."""
    image = images[index]
    return read_image(folder / image["file_name"], size=(image["width"], image["height"]))
