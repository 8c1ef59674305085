"""Caltech pedestrians: the benchmark from its published videos, or from images that were taken out of them.

Dollar et al., "Pedestrian Detection: An Evaluation of the State of the Art", PAMI 2012,
https://doi.org/10.1109/TPAMI.2011.155
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from trainers.call import Call, Count, Fraction, Index, Invalid, NonNegative
from trainers.data.annotations import refuse
from trainers.data.caltech_files import Clip, clips, frames_of
from trainers.data.coco import check_measurable, stamp
from trainers.data.split import Metric, Split, classes_of, fingerprint
from trainers.data.unread import Unseen
from trainers.data.vbb import Pedestrian

MISS_RATE = Call(name="MissRate")
TRAIN, TEST = [0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10]
NAMES = ("person",)


class Caltech:
    """Pedestrians in 640 x 480 pixels, from the benchmark's sets of videos. `metric` judges detections, by default by
    the log-average miss rate.

    root holds the published files, setNN/VNNN.seq (or videos/setNN/VNNN.seq) and annotations/setNN/VNNN.vbb; or
    images/ with setNN_VNNN_INNNNN.jpg (or setNN/VNNN/INNNNN.jpg, or png) and in annotations/ the same .vbb, or texts
    named as the images (setNN_VNNN_INNNNN.txt or .jpg.txt).

    train, val, test: numbers of sets; test: null for none; what is trained is measured there once, and nothing is
    selected by it. step_train, step_val (of val and test): every so manieth frame is taken; of 30 these are the frames
    29, 59, 89, ... counted from 0, as in the benchmark's test. Persons who are at least `height` pixels high and of
    whose box at least the part `visible` is seen are trained on; other persons, groups, doubtful cases and marked
    regions are to be ignored in training. In validation all persons stay, and the metric decides what of all that is
    neither to be found nor a mistake.

    The files count pixels from 1. The boxes are counted from 0, as the detections are that are compared with them.
    Raises `Invalid` for what is missing or wrong.
    """

    def __init__(
        self,
        *,
        root: str,
        train: list[Index] = TRAIN,
        val: list[Index] = TEST,
        test: list[Index] | None = None,
        step_train: Count = 3,
        step_val: Count = 30,
        height: NonNegative = 50.0,
        visible: Fraction = 0.65,
        metric: Metric = MISS_RATE,
    ) -> None:
        folder = Path(root).expanduser()
        if not folder.is_dir():
            raise Invalid(f"there is no folder {root} (from {Path.cwd()})", ("root",))
        self.train = _open(folder, train, "train", step=step_train, least=(height, visible))
        self.val = _open(folder, val, "val", step=step_val, least=(0.0, 0.0))
        check_measurable(self.val, f"{folder}, sets {', '.join(map(str, val))}")
        self.test = None if test is None else _open(folder, test, "test", step=step_val, least=(0.0, 0.0))
        if self.test:
            check_measurable(self.test, f"{folder}, sets {', '.join(map(str, test or []))}", "test")
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
        train: list[int],
        val: list[int],
        test: list[int] | None,
        step_train: int,
        step_val: int,
        **_: Any,
    ) -> Iterator[str]:
        """What is read for these arguments, from root on."""
        folder = Path(root).expanduser()
        for sets, step in ((train, step_train), (val, step_val), (test or [], step_val)):
            for number in sets:
                for clip in clips(folder, number, "train"):
                    yield from (str(file.relative_to(folder)) for file in clip.files(step))

    @staticmethod
    def unseen(**_: Any) -> Unseen:
        """What its training images are, if they are every third frame of sets 0 to 5."""
        return Unseen(42_782, (480, 640), has_masks=False)


def _open(root: Path, sets: Sequence[int], which: str, *, step: int, least: tuple[float, float]) -> Split:
    if not sets or len(set(sets)) < len(sets):
        raise Invalid(f"{sets} are not one or more numbers of sets, each once", (which,))
    there = [clip for number in sets for clip in clips(root.resolve(), number, which)]
    return _split(tuple(there), step, least, tuple(stamp(path) for clip in there for path in clip.watched))


@lru_cache(maxsize=4)
def _split(there: tuple[Clip, ...], step: int, least: tuple[float, float], when: tuple[tuple[int, int], ...]) -> Split:
    """Read once a process: many stages train on the same data. `when` tells changed files from the old."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    readers, mistakes = [], []
    for clip in there:
        size, frames, wrong = frames_of(clip, step)
        mistakes += wrong
        for frame in frames:
            identity = (clip.set * 1000 + clip.video) * 100_000 + frame.number
            images.append({"id": identity, "file_name": frame.name, "width": size[0], "height": size[1]})
            readers.append(frame.read)
            annotations += [_row(one, len(annotations) + n, identity, least) for n, one in enumerate(frame.there, 1)]
    refuse(mistakes, "Caltech's annotations")
    if not images:
        raise Invalid(f"there is no frame to take: one of {step} is taken", ("root",))
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": NAMES[0]}]}
    return Split(coco, classes_of(coco), partial(_read, readers))


def _read(readers: list[Any], index: int) -> Any:
    return readers[index]()


def _row(one: Pedestrian, identity: int, image: int, least: tuple[float, float]) -> dict[str, Any]:
    """Somebody as COCO has it, to be ignored if not at least so high and so visible."""
    counts = one.found and clear(one.box, one.visible, least)
    row = {"id": identity, "image_id": image, "category_id": 1, "bbox": list(one.box)}
    row |= {"area": one.box[2] * one.box[3], "ignore": int(not counts)}
    return row if one.visible is None else row | {"visible": list(one.visible)}


def clear(box: Sequence[float], visible: Sequence[float] | None, least: tuple[float, float]) -> bool:
    """Whether somebody is at least so many pixels high, and at least this part of the box is seen. Boxes: x, y, w, h.

    Without a visible box nothing is hidden.
    """
    seen = 1.0 if visible is None else visible[2] * visible[3] / (box[2] * box[3])
    return box[3] >= least[0] and seen >= least[1]
