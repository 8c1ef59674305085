"""Small scenes for the tests of metrics: two classes, images of 200 x 200 pixels, and random ones with many ties."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st

from trainers.data.split import Split, classes_of
from trainers.outputs import Detections


def split_of(rows: list[dict[str, Any]], images: int = 2, size: tuple[int, int] = (200, 200)) -> Split:
    """Images 10, 11, ... of (width, height); categories 3 and 8, of which 8 comes first in the file."""
    table = [{"id": n, "iscrowd": 0, **row} for n, row in enumerate(rows, start=1)]
    for row in table:
        row.setdefault("area", row["bbox"][2] * row["bbox"][3])
    pictures = [{"id": 10 + i, "file_name": f"{i}.png", "width": size[0], "height": size[1]} for i in range(images)]
    categories = [{"id": 8, "name": "bee"}, {"id": 3, "name": "ant"}]
    coco = {"images": pictures, "annotations": table, "categories": categories}
    return Split(coco, classes_of(coco), lambda index: torch.zeros(3, *size[::-1], dtype=torch.uint8))


def ant(image: int, *bbox: float, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": 3, "bbox": list(bbox), **more}


def bee(image: int, *bbox: float, **more: Any) -> dict[str, Any]:
    return {**ant(image, *bbox, **more), "category_id": 8}


def detections(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """(x1, y1, x2, y2, score, label), best first."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].long())


def everything(split: Split) -> dict[int, Detections]:
    return {
        identity: Detections(split.boxes(index), torch.ones(len(split.labels(index))), split.labels(index))
        for index, identity in enumerate(split.ids)
    }


class Scene(NamedTuple):
    """What is there and what was found."""

    split: Split
    found: dict[int, Detections]


def moved(split: Split) -> Split:
    """The same images and annotations in another order of the images."""
    coco = {**split.coco, "images": split.coco["images"][::-1]}
    return Split(coco, split.classes, split.read)


@st.composite
def scenes(draw: st.DrawFn, *, tall: bool = False) -> Scene:
    """Boxes on a coarse grid and few scores, so that overlaps and scores are often equal; `tall`: pedestrians."""
    sides = st.integers(6, 36).map(lambda n: 4 * n) if tall else st.integers(1, 12).map(lambda n: 4 * n)
    places = st.integers(0, 8).map(lambda n: 4 * n)
    images = draw(st.integers(1, 4))
    rows, found = [], {}
    for image in range(10, 10 + images):
        boxes = []
        for _ in range(draw(st.integers(0, 5))):
            height = draw(sides)
            width = max(4, round(height * draw(st.sampled_from([0.25, 0.41, 0.6])))) if tall else draw(sides)
            box = [draw(places), draw(places), width, height]
            boxes.append(box)
            kind = draw(st.sampled_from([{}, {}, {}, {"ignore": 1}, {"iscrowd": 1}]))
            if tall and draw(st.booleans()):
                kind = {**kind, "visible": [box[0], box[1], width, height * draw(st.sampled_from([0.1, 0.5, 0.65, 1]))]}
            rows.append({"image_id": image, "category_id": draw(st.sampled_from([3, 3, 8])), "bbox": box, **kind})
        guesses = []
        for _ in range(draw(st.integers(0, 7))):
            if boxes and draw(st.integers(0, 3)):
                x, y, w, h = draw(st.sampled_from(boxes))
                x, y = x + draw(st.integers(-4, 4)), y + draw(st.integers(-4, 4))
                w, h = w + draw(st.integers(0, 4)), h + draw(st.integers(0, 4))
            else:
                x, y, w, h = draw(places), draw(places), draw(sides), draw(sides)
            guesses.append(
                (x, y, x + w, y + h, draw(st.sampled_from([0.1, 0.5, 0.5, 0.9])), draw(st.sampled_from([0, 0, 1])))
            )
        if guesses or draw(st.booleans()):
            found[image] = detections(*sorted(guesses, key=lambda guess: -guess[4]))
    return Scene(split_of(rows, images=images), found)
