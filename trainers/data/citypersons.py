"""CityPersons: pedestrians in Cityscapes' pictures, with annotations in COCO's format.

Zhang et al., "CityPersons: A Diverse Dataset for Pedestrian Detection", CVPR 2017, https://arxiv.org/abs/1702.05693
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from trainers.call import Call, Fraction, Invalid, NonNegative, alternatives
from trainers.data.annotations import parse, refuse, tables
from trainers.data.caltech import clear
from trainers.data.coco import check_measurable, located, split_of, stamp
from trainers.data.rules import FLAT, annotation_flaws, four, identity, number, shown, wrong_categories, wrong_images
from trainers.data.split import Metric, Split, fingerprint
from trainers.data.subsets import Empty, filled
from trainers.data.unread import Unseen

MISS_RATE = Call(name="MissRate", args={"family": "citypersons"})
NAMES = ("pedestrian",)
VISIBLE = ("vis_bbox", "bbox_vis", "visible")  # as one conversion or another calls the box of what is seen


class CityPersons:
    """Pedestrians in 2048 x 1024 pixels. `metric` judges detections, by default by CityPersons' log-average miss rate.

    train, val, test: annotation files; train_images, val_images, test_images: folders of images, each in the folder of
    its city or not; all relative to root. test: null for none; what is trained is measured there once, and nothing is
    selected by it. The files are those of the usual conversions: COCO's format with `vis_bbox` (or `bbox_vis`,
    or `vis_ratio` alone) and `ignore`. Pedestrians at least `height` pixels high of whose box at least the part
    `visible` is seen are trained on; others, riders, groups and whatever else there is are to be ignored in training.
    In validation all pedestrians stay, and the metric decides what of all that is neither to be found nor a mistake.
    empty: `keep` or `drop` the training images with nothing to find. Raises `Invalid` for what is missing or wrong.
    """

    def __init__(
        self,
        *,
        root: str,
        train: str = "annotations/train.json",
        val: str = "annotations/val.json",
        train_images: str = "leftImg8bit/train",
        val_images: str = "leftImg8bit/val",
        test: str | None = None,
        test_images: str = "leftImg8bit/test",
        height: NonNegative = 50.0,
        visible: Fraction = 0.65,
        empty: Empty = "keep",
        metric: Metric = MISS_RATE,
    ) -> None:
        folder = Path(root).expanduser()
        if not folder.is_dir():
            raise Invalid(f"there is no folder {root} (from {Path.cwd()})", ("root",))
        learnt, measured = located(folder, train, train_images, "train"), located(folder, val, val_images, "val")
        self.train = _split(*learnt, (height, visible), stamp(learnt[0]), empty)
        self.val = _split(*measured, (0.0, 0.0), stamp(measured[0]))
        check_measurable(self.val, folder / val)
        self.test: Split | None = None
        if test is not None:
            held_out = located(folder, test, test_images, "test")
            self.test = _split(*held_out, (0.0, 0.0), stamp(held_out[0]))
            check_measurable(self.test, folder / test, "test")
        self.classes = self.train.classes
        self.metric = Call.model_validate(metric)
        self.fingerprint = fingerprint(self.train, self.val, self.test)

    @staticmethod
    def names(**_: Any) -> tuple[str, ...]:
        """What `classes` is, without a file."""
        return NAMES

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
        folder = Path(root).expanduser()
        parts = [(train, train_images), (val, val_images), *([(test, test_images)] if test else [])]
        for listed, images in parts:
            yield listed
            for image in tables(parse(folder / listed), str(folder / listed))["images"]:
                yield os.path.join(images, _placed(image, folder / images))

    @staticmethod
    def unseen(**_: Any) -> Unseen:
        """What its training images are, if they are Cityscapes' own."""
        return Unseen(2_975, (1024, 2048), has_masks=False)


@lru_cache(maxsize=4)
def _split(path: Path, folder: Path, least: tuple[float, float], when: tuple[int, int], empty: Empty = "keep") -> Split:
    """Read once a process: many stages train on the same data. `when` tells a changed file from the old."""
    rows = tables(parse(path), str(path))
    pictures = [{**image, "file_name": _placed(image, folder)} for image in rows["images"]]
    pictures.sort(key=lambda image: image["id"] if identity(image) else 0)
    refuse((p.message for p in (*wrong_categories(rows["categories"]), *wrong_images(pictures))), str(path))
    names = {row["id"]: row["name"] for row in rows["categories"]}
    if NAMES[0] not in names.values():
        raise Invalid(f"{path}: category {alternatives(NAMES[0], names.values())}")
    refuse(_mistakes(rows["annotations"], {image["id"] for image in pictures}, set(names)), str(path))
    people = [_row(row, n, names, least) for n, row in enumerate(rows["annotations"], 1) if 0 not in row["bbox"][2:]]
    coco = {"images": pictures, "annotations": people, "categories": [{"id": 1, "name": NAMES[0]}]}
    split = split_of(coco, path, folder)
    return filled(split) if empty == "drop" else split


def _placed(image: dict[str, Any], folder: Path) -> Any:
    """The name of an image's file, which some conversions give without the folder of its city."""
    name = image.get("file_name", image.get("im_name"))
    if isinstance(name, str) and "/" not in name and (city := name.partition("_")[0]).isalpha():
        return f"{city}/{name}" if (folder / city).is_dir() else name
    return name


def _mistakes(rows: list[dict[str, Any]], pictures: set[int], known: set[int]) -> Iterator[str]:
    """What is wrong with the annotations. A whole pedestrian may go on behind the edge of the image."""
    sizes = dict.fromkeys(pictures)
    for row in rows:
        flaws = [text for kind, text in annotation_flaws(row, sizes, known) if kind != FLAT]
        seen = next((row[key] for key in VISIBLE if key in row), None)
        if seen is not None and not (four(seen) and min(seen[2:]) >= 0):
            flaws.append(f"the visible box {shown(seen)} is not [x, y, width, height] with four finite numbers")
        ratio = row.get("vis_ratio", 0)
        if seen is None and not (number(ratio) and 0 <= ratio <= 1):
            flaws.append(f"vis_ratio {shown(ratio)} is not a number of 0 to 1")
        yield from (f"annotation {shown(row.get('id'))}: {text}" for text in flaws)


def _row(row: dict[str, Any], identity: int, names: dict[int, str], least: tuple[float, float]) -> dict[str, Any]:
    """A pedestrian, or something that is to be ignored, as one; and what is seen of it."""
    x, y, width, height = row["bbox"]
    seen = next((row[key] for key in VISIBLE if key in row), None)
    if seen is None and "vis_ratio" in row:
        seen = [x, y, width * row["vis_ratio"], height]  # where is not said, only how much
    counts = names[row["category_id"]] == NAMES[0] and not row.get("ignore", 0) and clear(row["bbox"], seen, least)
    kept = {"id": identity, "image_id": row["image_id"], "category_id": 1, "bbox": [x, y, width, height]}
    kept |= {"area": width * height, "iscrowd": row.get("iscrowd", 0), "ignore": int(not counts)}
    return kept if seen is None else kept | {"visible": list(seen)}
