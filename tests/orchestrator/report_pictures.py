"""What `pictures` may find, made by hand, for the tests of how the report's page shows it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from orchestrator.board import Board
from orchestrator.pictures import panels
from trainers.thumbnails import data_uri

CLASSES = ["person", "<img src=x onerror=alert(1)>", "a traffic light that has a rather long name"]
BINS = 17
SIZES = {
    "000123.jpg": (640, 480),
    "folder/" + "long" * 20 + ".jpg": (90, 160),
    "<b>wide</b>.jpg": (600, 200),
    "empty.jpg": (64, 64),
}


def found_by(board: Board, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the detectors of a study find in four images, of which two are there because they differ."""
    shown = [{**panel, "score": 0.5} for panel, _ in panels(board, summary)]
    images = [image(name, size, number, len(shown)) for number, (name, size) in enumerate(SIZES.items())]
    whole = {"mark": "", "panels": shown, "looked": 9, "of": 10, "threshold": 0.4, "classes": CLASSES}
    return {**whole, "images": images, "edges": edges(images[0]["truth"][0], len(shown))}


def image(name: str, size: tuple[int, int], number: int, detectors: int) -> dict[str, Any]:
    """Three objects, or none in the last; the later a detector, the surer it is, and the more it finds."""
    width, height = size
    corners = [(0.05, 0.3, 0.35, 0.95), (0.3, 0.02, 0.6, 0.4), (0.7, 0.5, 0.98, 0.9)]
    placed = [[width * left, height * up, width * right, height * down] for left, up, right, down in corners]
    truth = [[*box, label] for label, box in enumerate(placed)] if number < 3 else []
    found = []
    for one in range(detectors):
        right = [
            [*(x + 0.01 * width for x in box[:4]), 0.35 + 0.08 * one - 0.1 * place, box[4], place]
            for place, box in enumerate(truth)
        ]
        wrong = [[0.5 * width, 0.6 * height, 0.68 * width, 0.95 * height, 0.75 - 0.1 * one, 2, -1]]
        ignored = [[0.1 * width, 0.05 * height, 0.25 * width, 0.2 * height, 0.5, 0, -2]]
        kept = [box for box in right + wrong + (ignored if number == 0 else []) if box[4] >= 0.05]
        found.append(sorted(kept, key=lambda box: -box[4]))
    drawn = {"name": name, "width": width, "height": height, "uri": drawing(size), "differs": number < 2}
    return {**drawn, "truth": truth, "found": found}


def drawing(size: tuple[int, int]) -> str:
    """Grey from black to white, as a PNG in an address."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def edges(truth: Sequence[float], detectors: int) -> dict[str, Any]:
    """What they say of the first object of the first image: the teacher doubts, the others each less."""
    lines = [
        {
            "panel": one,
            "box": [x + 4 * one for x in truth[:4]],
            "edges": [bell(4 + side, 3 / (1 + one)) for side in range(4)],
        }
        for one in range(detectors)
    ]
    for one, line in enumerate(lines):
        line["divergence"] = 0.04 * one
    bins = [4.2, 5.1, 6.0, 40.0]  # the last is further off than there are bins
    return {"image": 0, "label": 0, "truth": truth[:4], "truth_bins": bins, "entropy": 1.9, "lines": lines}


def bell(middle: float, wide: float) -> list[float]:
    heights = [math.exp(-(((one - middle) / wide) ** 2)) for one in range(BINS)]
    return [height / sum(heights) for height in heights]


def noisy(seed: int, size: tuple[int, int] = (640, 480)) -> str:
    """A photo of nothing but noise, as the page has photos."""
    pixels = torch.randint(0, 256, (3, size[1], size[0]), generator=torch.Generator().manual_seed(seed))
    return data_uri(pixels.to(torch.uint8))
