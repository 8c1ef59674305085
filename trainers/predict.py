"""What a trained detector finds in images that are nobody's data set, and a picture of it."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from trainers.data.split import Split
from trainers.evaluate import find
from trainers.outputs import Detections, Network
from trainers.spec import Recipe

READABLE = 480  # pixels of a picture's long side
GOLDEN = 0.618034  # of the circle of hues: neighbours differ most


def predict(
    detector: Network, image: Tensor, *, classes: Sequence[str], recipe: Recipe, device: torch.device
) -> Detections:
    """What is found in an image, (3, H, W) uint8, as validation finds it; best first, in its pixels.

    Images are looked at one by one: what is found in one depends on its padding, and so on the others of its batch.
    """
    split = Split(
        coco={
            "images": [{"id": 0, "height": image.shape[1], "width": image.shape[2]}],
            "annotations": [],
            "categories": [{"id": k, "name": name} for k, name in enumerate(classes)],
        },
        classes=tuple(classes),
        read=lambda position: image,
    )
    return find(detector, split, recipe.model_copy(update={"batch": 1}), device=device)[0]


def above(found: Detections, score: float) -> Detections:
    """Those of at least this score."""
    kept = found.scores >= score
    return Detections(found.boxes[kept], found.scores[kept], found.labels[kept])


def draw(image: Tensor, found: Detections, file: Path, *, classes: Sequence[str]) -> None:
    """Write a PNG of an image, (3, H, W) uint8, with what was found in it: the best lies on top.

    A small image is shown several times as large, so that names can be read.
    """
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    zoom = max(1, READABLE // max(picture.size))
    picture = picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(picture)
    side = min(picture.size)
    width, font = max(1, round(side / 250)), ImageFont.load_default(size=max(9, round(side / 35)))
    rows = list(zip((found.boxes * zoom).tolist(), found.scores.tolist(), found.labels.tolist(), strict=True))
    for box, score, label in reversed(rows):
        colour = hue(label)
        pen.rectangle(box, outline=colour, width=width)
        text = f"{classes[label]} {score:.2f}"
        _, _, right, bottom = pen.textbbox((0, 0), text, font=font)
        x = max(0, min(box[0], picture.width - right))
        y = box[1] - (bottom + 1) if box[1] >= bottom + 1 else box[1]
        pen.rectangle((x, y, x + right, y + bottom), fill=colour)
        pen.text((x, y), text, fill="black", font=font)
    picture.save(file, format="PNG")


def hue(label: int) -> tuple[int, int, int]:
    """A bright colour of its own for each class."""
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(label * GOLDEN % 1, 0.75, 1))
    return red, green, blue
