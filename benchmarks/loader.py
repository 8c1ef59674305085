"""Images/s of our loader against what torchvision's detection reference does: same JPEGs, transforms and processes.

Theirs is torch's DataLoader over a detection data set, with batches of one orientation, the v2 transforms (resize,
flip, to float) and lists for batches. Ours also lays a batch on one padded canvas, which theirs leaves to the model;
the third column adds that to theirs. Both are timed in turn, so that what else the machine does hits all alike.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from table import show
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from trainers.augment import Resize
from trainers.data.batches import Batches
from trainers.data.coco import COCO

IMAGES, BATCH, ROUNDS = 200, 4, 5
SHORT, LONG = 800, 1333


def lengths(
    batches: Callable[[], Iterable[tuple[Any, Any]]], laid_out: Callable[[Any], Sized] | None = None
) -> Iterator[int]:
    """How many images each batch has."""
    return (len(laid_out(images) if laid_out else images) for images, _ in batches())


def write(folder: Path) -> None:
    """A COCO folder of photograph-like JPEGs: 640 x 480, every third 480 x 640, with five objects each."""
    rng = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    (folder / "train2017").mkdir(parents=True)
    (folder / "annotations").mkdir()
    for index in range(IMAGES):
        width, height = (480, 640) if index % 3 == 0 else (640, 480)
        y, x = np.mgrid[:height, :width]
        picture = np.stack([x / width, y / height, (x + y) / (width + height)], axis=2) * 150
        for _ in range(5):
            left, top = int(rng.integers(width - 120)), int(rng.integers(height - 120))
            w, h = (int(side) for side in rng.integers(20, 120, 2))
            picture[top : top + h, left : left + w] = rng.uniform(0, 230, 3)
            rows.append(
                {"id": len(rows) + 1, "image_id": index + 1, "category_id": 1, "bbox": [left, top, w, h], "iscrowd": 0}
            )
        picture += rng.normal(0, 8, picture.shape)
        name = f"{index + 1:06d}.jpg"
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / "train2017" / name, quality=90)
        images.append({"id": index + 1, "file_name": name, "width": width, "height": height})
    coco = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "thing"}]}
    for part in ("train", "val"):
        (folder / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(coco))
    (folder / "val2017").symlink_to(folder / "train2017")


class Pictures(Dataset):
    """What torchvision's CocoDetection wrapped for v2 gives, without masks."""

    def __init__(self, data: COCO, folder: Path) -> None:
        self.split, self.folder = data.train, folder / "train2017"
        self.change = v2.Compose(
            [
                v2.ToImage(),
                v2.RandomShortestSize(min_size=SHORT, max_size=LONG),
                v2.RandomHorizontalFlip(p=0.5),
                v2.ToDtype(torch.float32, scale=True),
                v2.ToPureTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        picture = Image.open(self.folder / self.split.coco["images"][index]["file_name"]).convert("RGB")
        boxes = tv_tensors.BoundingBoxes(
            self.split.boxes(index), format="XYXY", canvas_size=(picture.height, picture.width)
        )
        return self.change(picture, {"boxes": boxes, "labels": self.split.labels(index)})


class Grouped(Sampler):
    """Batches of one orientation, in the order in which they become full."""

    def __init__(self, data: Pictures) -> None:
        self.wide = [width > height for height, width in data.split.sizes]
        self.order = RandomSampler(data)

    def __iter__(self) -> Iterator[list[int]]:
        waiting: dict[bool, list[int]] = {True: [], False: []}
        for index in self.order:
            batch = waiting[self.wide[index]]
            batch.append(index)
            if len(batch) == BATCH:
                yield list(batch)
                batch.clear()


def collate(batch: list) -> tuple:
    return tuple(zip(*batch, strict=True))


def padded(images: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """As torchvision's models put a list of images into one batch."""
    height, width = (-(-max(image.shape[side] for image in images) // 32) * 32 for side in (1, 2))
    batch = images[0].new_zeros((len(images), 3, height, width))
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]].copy_(image)
    return batch


def rate(epoch: Callable[[], Iterator[int]]) -> float:
    """Images a second of a whole epoch, its processes' start included."""
    start = time.perf_counter()
    count = sum(epoch())
    return count / (time.perf_counter() - start)


def main(rounds: int = ROUNDS) -> None:
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        write(Path(name))
        data = COCO(root=name)
        pictures = Pictures(data, Path(name))
        for processes in (0, 1, 2):
            batches = Batches(
                data.train,
                batch=BATCH,
                seed=0,
                flip=0.5,
                group=True,
                resize=Resize(short=SHORT, long=LONG),
                loader_workers=processes,
            )
            loader = DataLoader(pictures, batch_sampler=Grouped(pictures), num_workers=processes, collate_fn=collate)
            ways: dict[str, Callable[[], Iterator[int]]] = {
                "ours": partial(lengths, partial(batches.epoch, 0)),
                "torchvision's": partial(lengths, partial(iter, loader)),
                "torchvision's, padded": partial(lengths, partial(iter, loader), padded),
            }
            rates: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(rounds):
                for way, epoch in ways.items():
                    rates[way].append(rate(epoch))
            ratio = {
                way: statistics.median(a / b for a, b in zip(rates["ours"], rates[way], strict=True)) for way in ways
            }
            rows.append(
                {
                    "processes": processes,
                    **{f"{way}, images/s": statistics.median(rates[way]) for way in ways},
                    "ours / torchvision's": ratio["torchvision's"],
                    "ours / torchvision's, padded": ratio["torchvision's, padded"],
                }
            )
    show("loader", rows, "Goal: ratios of at least 1. Medians of rounds in which the three take turns.")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
