"""Small data sets as CityPersons is distributed in COCO's format, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from trainers.data import Digits

CATEGORIES = [
    {"id": 1, "name": "pedestrian"},
    {"id": 2, "name": "rider"},
    {"id": 3, "name": "sitting person"},
    {"id": 4, "name": "other person"},
    {"id": 5, "name": "people group"},
    {"id": 0, "name": "ignore region"},
]


def somebody(identity: int, image: int, bbox: list[float], *, category: int = 1, **more: Any) -> dict[str, Any]:
    """An annotation; vis_bbox is the whole box if nothing else is said."""
    whole = {"id": identity, "image_id": image, "category_id": category, "iscrowd": 0, "ignore": int(category != 1)}
    return whole | {"bbox": bbox, "vis_bbox": bbox, "height": bbox[3], "vis_ratio": 1.0} | more


def write_annotations(path: Path, images: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Write an annotation file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": CATEGORIES}))


def write_digits(root: Path, digits: Digits) -> None:
    """The demo's digits, each a pedestrian, in the folder of a city."""
    for name, split in (("train", digits.train), ("val", digits.val)):
        folder = root / "leftImg8bit" / name / "ulm"
        folder.mkdir(parents=True)
        images, rows = [], []
        for place, (height, width) in enumerate(split.sizes):
            file = f"ulm_{place:06d}_000019_leftImg8bit.png"
            Image.fromarray(split.read(place).permute(1, 2, 0).numpy()).save(folder / file)
            images.append({"id": place + 1, "im_name": file, "width": width, "height": height})
            for x1, y1, x2, y2 in split.boxes(place).tolist():
                rows.append(somebody(len(rows) + 1, place + 1, [x1, y1, x2 - x1, y2 - y1]))
        write_annotations(root / f"annotations/{name}.json", images, rows)
