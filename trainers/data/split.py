"""One part of a data set: annotations in COCO's format, and a way to read an image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainers.call import Call, Invalid, canonical
from trainers.data.annotations import refuse
from trainers.data.masks import decode, wrong_pack

Metric = Annotated[Call, "trainers.metrics"]  # a knob of every data set
COCO_AP = Call(name="CocoAP")


class Rows(NamedTuple):
    """All M annotations of a split as columns, in an order that does not depend on the file's."""

    image: np.ndarray  # (M,) int64, position of the image, never falling
    category: np.ndarray  # (M,) int64, category id
    bbox: np.ndarray  # (M, 4) float64, x, y, width, height in pixels
    area: np.ndarray  # (M,) float64, square pixels; of the mask where there is one
    crowd: np.ndarray  # (M,) bool: a region with many objects; no object in training
    ignore: np.ndarray  # (M,) bool: neither to be found nor a mistake; no object in training
    visible: np.ndarray  # (M, 4) float64, x, y, width, height of what is seen of it; NaN where nobody says


@dataclass(frozen=True, eq=False)
class Split:
    """Images by position 0..len-1, in the order of `coco["images"]`. The annotations are checked already."""

    coco: dict[str, Any]  # images, annotations, categories; never changed
    classes: tuple[str, ...]  # names in the order of the category ids: label k is the k-th
    read: Callable[[int], Tensor]  # position -> (3, H, W) uint8, RGB
    # Reads the masks by annotation id, packed; called once, and only if somebody wants them: COCO's are large.
    outlines: Callable[[], Mapping[int, bytes]] = dict

    def __len__(self) -> int:
        return len(self.coco["images"])

    @cached_property
    def ids(self) -> list[int]:
        """Image ids by position."""
        return [image["id"] for image in self.coco["images"]]

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) by position, in pixels."""
        return [(image["height"], image["width"]) for image in self.coco["images"]]

    @cached_property
    def categories(self) -> list[int]:
        """Category ids by label."""
        return sorted(category["id"] for category in self.coco["categories"])

    @cached_property
    def rows(self) -> Rows:
        """The annotations as columns, sorted by their content. A missing area or iscrowd is filled in."""
        return self._sorted[0]

    @cached_property
    def _sorted(self) -> tuple[Rows, np.ndarray]:
        """The rows, and where in the file's list each was."""
        position = {identity: index for index, identity in enumerate(self.ids)}
        table = self.coco["annotations"]
        image = np.array([position[row["image_id"]] for row in table], dtype=np.int64)
        category = np.array([row["category_id"] for row in table], dtype=np.int64)
        # Adding zero makes -0.0 a plain 0.0.
        bbox = np.array([row["bbox"] for row in table], dtype=np.float64).reshape(-1, 4) + 0.0
        boxed = bbox[:, 2] * bbox[:, 3]
        area = np.array([row.get("area", np.nan) for row in table], dtype=np.float64) + 0.0
        area = np.where(np.isnan(area), boxed, area)
        crowd = np.array([row.get("iscrowd", 0) for row in table], dtype=bool)
        ignore = np.array([row.get("ignore", 0) for row in table], dtype=bool)
        unsaid = [np.nan] * 4
        visible = np.array([row.get("visible", unsaid) for row in table], dtype=np.float64).reshape(-1, 4) + 0.0
        order = np.lexsort((*visible.T[::-1], ignore, crowd, area, *bbox.T[::-1], category, image))
        columns = (image, category, bbox, area, crowd, ignore, visible)
        return Rows(*(column[order] for column in columns)), order

    def boxes(self, index: int) -> Tensor:
        """What to find in an image, cut to it, without crowds and what is to be ignored.

        -> (N, 4) float32, x1 y1 x2 y2 in pixels.
        """
        return self._objects[0][self._within(index)].clone()

    def labels(self, index: int) -> Tensor:
        """The classes of `boxes`. -> (N,) int64, 0..K-1."""
        return self._objects[1][self._within(index)].clone()

    def ignored(self, index: int) -> Tensor:
        """Crowds and what else is to be ignored in an image, cut to it. -> (M, 4) float32, as `boxes`."""
        starts, boxes = self._ignored
        return boxes[starts[index] : starts[index + 1]].clone()

    @property
    def has_ignored(self) -> bool:
        """Whether any image has something to be ignored."""
        return len(self._ignored[1]) > 0

    def masks(self, index: int) -> Tensor | None:
        """Which pixels belong to each of `boxes`. -> (N, height, width) bool, or None without `has_masks`.

        Raises `Invalid` for a mask that cannot be drawn.
        """
        if not self.has_masks:
            return None
        size, drawn = self.sizes[index], []
        for identity in self._objects[3][self._within(index)].tolist():
            try:
                drawn.append(decode(self._outlines[identity], size))
            except Invalid as error:
                raise Invalid(f"annotation {identity} of image {self.ids[index]}: {error}") from None
        return torch.stack(drawn) if drawn else torch.zeros((0, *size), dtype=torch.bool)

    @cached_property
    def has_masks(self) -> bool:
        """Whether every object of `boxes` has a mask."""
        return bool(self._outlines) and all(identity in self._outlines for identity in self._objects[3].tolist())

    @cached_property
    def masks_digest(self) -> str:
        """SHA-256 in hex over all masks of `masks`; empty without `has_masks`. Raises `Invalid`, which lists the masks
        that cannot be drawn."""
        if not self.has_masks:
            return ""
        digest, mistakes = hashlib.sha256(), []
        for index, size in enumerate(self.sizes):
            for identity in self._objects[3][self._within(index)].tolist():
                outline = self._outlines[identity]
                digest.update(outline + b"\n")
                if flaw := wrong_pack(outline, size):
                    mistakes.append(f"annotation {identity} of image {self.ids[index]}: its segmentation {flaw}")
        refuse(mistakes, "masks")
        return digest.hexdigest()

    @cached_property
    def _outlines(self) -> Mapping[int, bytes]:
        return self.outlines()

    def _within(self, index: int) -> slice:
        starts = self._objects[2]
        return slice(starts[index], starts[index + 1])

    @cached_property
    def _objects(self) -> tuple[Tensor, Tensor, list[int], np.ndarray]:
        """Boxes and labels of all images one after another, where those of each image start, and their ids."""
        rows, order = self._sorted
        boxes, there = self._cut
        kept = ~rows.crowd & ~rows.ignore & there
        labels = np.searchsorted(np.array(self.categories, dtype=np.int64), rows.category)
        starts = np.searchsorted(rows.image[kept], np.arange(len(self) + 1))
        ids = np.array([row["id"] for row in self.coco["annotations"]], dtype=np.int64)[order[kept]]
        return torch.from_numpy(boxes[kept]), torch.from_numpy(labels[kept]), starts.tolist(), ids

    @cached_property
    def _ignored(self) -> tuple[list[int], Tensor]:
        """Where what is to be ignored starts in each image, and its boxes."""
        boxes, there = self._cut
        kept = (self.rows.crowd | self.rows.ignore) & there
        starts = np.searchsorted(self.rows.image[kept], np.arange(len(self) + 1))
        return starts.tolist(), torch.from_numpy(boxes[kept])

    @cached_property
    def _cut(self) -> tuple[np.ndarray, np.ndarray]:
        """All boxes as corners, cut to their images, and which are left: without width or height none can be learnt."""
        height, width = np.array(self.sizes, dtype=np.float64).reshape(-1, 2)[self.rows.image].T
        x, y, w, h = self.rows.bbox.T
        left, right = np.clip(x, 0, width), np.clip(x + w, 0, width)
        top, bottom = np.clip(y, 0, height), np.clip(y + h, 0, height)
        boxes = np.stack([left, top, right, bottom], axis=1).astype(np.float32)
        return boxes, (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def classes_of(coco: dict[str, Any]) -> tuple[str, ...]:
    """Category names in the order of their ids."""
    return tuple(category["name"] for category in sorted(coco["categories"], key=lambda c: c["id"]))


def fingerprint(train: Split, val: Split, test: Split | None = None) -> str:
    """SHA-256 in hex over what the splits say: image list, categories and annotations. Without a test split it is as if
    there could be none.

    The order and ids of annotations, keys that nobody reads, and 3 for 3.0 make no difference. The folder
    that the images lie in does not enter, nor do their pixels.
    """
    digest = hashlib.sha256()
    for split in (train, val, test) if test else (train, val):
        images = [[i["id"], i["file_name"], i["width"], i["height"]] for i in split.coco["images"]]
        categories = sorted([c["id"], c["name"]] for c in split.coco["categories"])
        rows = split.rows
        count = len(rows.image)
        digest.update(canonical({"images": images, "categories": categories, "annotations": count}).encode())
        # Little-endian bytes instead of JSON: the same on every machine, and 860,000 annotations in no time.
        identities = np.array(split.ids, dtype="<i8")[rows.image]
        for column in (
            identities,
            rows.category.astype("<i8"),
            rows.bbox.astype("<f8"),
            rows.area.astype("<f8"),
        ):
            digest.update(column.tobytes())
        digest.update(rows.crowd.astype(np.uint8).tobytes())
        if rows.ignore.any():
            digest.update(b"ignore" + rows.ignore.astype(np.uint8).tobytes())
        if not np.isnan(rows.visible).all():
            digest.update(b"visible" + rows.visible.astype("<f8").tobytes())
    return digest.hexdigest()
