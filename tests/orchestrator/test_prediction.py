"""What `tapath predict` writes and draws is what was found, where it was found."""

from __future__ import annotations

import json
from pathlib import Path as File
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageOps
from pycocotools.coco import COCO
from torch import nn

from orchestrator import prediction
from orchestrator.cli import main
from orchestrator.meant import Meant
from tests.trainers.data.folders import turned
from trainers.appraisal import Trained
from trainers.call import Invalid
from trainers.outputs import Detections
from trainers.predict import draw, hue
from trainers.spec import Recipe

CLASSES = ("cat", "dog")
FOUND = Detections(
    torch.tensor([[10.0, 20.0, 30.0, 25.0], [40.0, 5.0, 47.5, 60.0]]), torch.tensor([0.75, 0.5]), torch.tensor([1, 0])
)


def looked(folder: File, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """`predict` over one image, of a detector that finds just this."""
    Image.new("RGB", (64, 80)).save(folder / "one.png")
    monkeypatch.setattr(prediction, "predict", lambda *_, **__: FOUND)
    monkeypatch.setattr(prediction, "device_of", lambda detector: torch.device("cpu"))
    trained: Any = Trained(nn.Identity(), CLASSES, Recipe())
    meant = Meant("x", trained, [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}], True, "")
    pictures = prediction.pictures([str(folder / "one.png")])
    out = folder / "out"
    return prediction.find(meant, pictures, prediction.drawings(pictures, out), out, threshold=0.3)


def test_results_are_what_pycocotools_reads(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes x, y, width, height, from which it makes areas and corners of its own."""
    made = looked(tmp_path, monkeypatch)
    truth = {
        "images": [{"id": 1, "width": 64, "height": 80}],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    rows = COCO(str(tmp_path / "truth.json")).loadRes(made["results"]).dataset["annotations"]
    assert [row["bbox"] for row in rows] == [[10, 20, 20, 5], [40, 5, 7.5, 55]]
    assert [row["area"] for row in rows] == [100, 412.5]
    assert [row["segmentation"][0][:2] + row["segmentation"][0][4:6] for row in rows] == FOUND.boxes.tolist()
    assert [(row["score"], row["category_id"], row["image_id"]) for row in rows] == [(0.75, 3, 1), (0.5, 7, 1)]


@pytest.mark.parametrize("zoom", [1, 10])
def test_a_box_is_drawn_where_it_was_found(zoom: int, tmp_path: File) -> None:
    """In the colour of its class; a small image is drawn ten times as large, and its boxes with it."""
    side = 480 // zoom
    box = torch.tensor([[100.0, 120.0, 300.0, 400.0]]) / zoom
    found = Detections(box, torch.tensor([0.9]), torch.tensor([1]))
    draw(torch.zeros(3, side, side, dtype=torch.uint8), found, tmp_path / "x.png", classes=CLASSES)
    drawn = np.array(Image.open(tmp_path / "x.png"))
    assert drawn.shape == (480, 480, 3)
    edges = [(100, 250), (300, 250), (200, 120), (200, 400), (100, 400), (300, 400), (300, 120)]  # x, y
    assert all(tuple(drawn[y, x]) == hue(1) for x, y in edges)
    beside = [(98, 250), (302, 250), (200, 402), (102 + 2, 250), (200, 250), (296, 250), (200, 396)]
    assert not any(drawn[y, x].any() for x, y in beside)


def test_a_name_that_no_file_can_have_is_no_image(tmp_path: File) -> None:
    long = str(tmp_path / ("x" * 300))
    with pytest.raises(Invalid, match="x: there is no such file or folder"):
        prediction.pictures([long])


def bright(detector: object, pixels: torch.Tensor, **_: Any) -> Detections:
    """A detector that finds the one bright rectangle, wherever it is."""
    rows, columns = (pixels.amax(0) > 128).nonzero().T
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return Detections(torch.tensor([box], dtype=torch.float), torch.tensor([0.9]), torch.tensor([0]))


@pytest.mark.parametrize("as_stored", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_and_drawings_are_of_the_image_that_a_viewer_shows_or_of_the_stored_one(
    orientation: int, as_stored: bool, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction, "predict", bright)
    monkeypatch.setattr(prediction, "device_of", lambda detector: torch.device("cpu"))
    image = Image.new("RGB", (640, 480))
    image.paste((255, 255, 255), (40, 30, 100, 200))
    image.save(tmp_path / "photo.jpg", exif=turned(orientation), quality=95)
    image = image if as_stored else ImageOps.exif_transpose(Image.open(tmp_path / "photo.jpg"))
    left, top, right, bottom = image.convert("L").point(lambda value: value > 128 and 255).getbbox()

    trained: Any = Trained(nn.Identity(), CLASSES, Recipe())
    meant = Meant("x", trained, [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}], True, "")
    found, out = prediction.pictures([str(tmp_path / "photo.jpg")]), tmp_path / "out"
    drawn = prediction.drawings(found, out)
    made = prediction.find(meant, found, drawn, out, threshold=0.3, as_stored=as_stored)
    assert [row["bbox"] for row in made["images"][0]["found"]] == [[left, top, right - left, bottom - top]]
    with Image.open(drawn[0]) as picture:
        assert picture.size == image.size
        assert picture.getpixel(((left + right) // 2, bottom)) == hue(0)


def test_the_command_says_whether_images_are_turned(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 6)).save("a.png")
    asked = []

    def find(*_: Any, as_stored: bool, **__: Any) -> dict[str, Any]:
        asked.append(as_stored)
        return {"images": [], "broken": {}, "results": "x", "own_ids": True}

    monkeypatch.setattr(prediction, "find", find)
    monkeypatch.setattr("orchestrator.meant.meant", lambda *_, **__: None)
    for words in ([], ["--as-stored"]):
        assert CliRunner().invoke(main, ["predict", "study.yaml", "a.png", *words]).exit_code == 0
    assert asked == [False, True]
