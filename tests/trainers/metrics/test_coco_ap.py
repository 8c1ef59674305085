"""AP agrees with worked examples and with pycocotools fed through its files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pycocotools import coco as files
from pycocotools.cocoeval import COCOeval

from trainers.data import Digits
from trainers.data.split import Split, classes_of
from trainers.metrics.coco import coco_ap, to_coco
from trainers.outputs import Detections


def split_of(rows: list[dict[str, Any]], images: int = 2) -> Split:
    """Images 10, 11, ... of 200 x 200 pixels; categories 3 and 8, of which 8 comes first in the file."""
    table = [{"id": n, "iscrowd": 0, **row} for n, row in enumerate(rows, start=1)]
    for row in table:
        row.setdefault("area", row["bbox"][2] * row["bbox"][3])
    pictures = [{"id": 10 + i, "file_name": f"{i}.png", "width": 200, "height": 200} for i in range(images)]
    categories = [{"id": 8, "name": "bee"}, {"id": 3, "name": "ant"}]
    coco = {"images": pictures, "annotations": table, "categories": categories}
    return Split(coco, classes_of(coco), lambda index: torch.zeros(3, 200, 200, dtype=torch.uint8))


def ant(image: int, *bbox: float, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": 3, "bbox": list(bbox), **more}


def detections(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """(x1, y1, x2, y2, score, label), best first."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].long())


def everything(split: Split) -> dict[int, Detections]:
    return {
        identity: Detections(split.boxes(index), torch.ones(len(split.labels(index))), split.labels(index))
        for index, identity in enumerate(split.ids)
    }


def test_finding_everything_is_one() -> None:
    split = split_of([ant(10, 0, 0, 10, 10), ant(11, 5, 5, 50, 50), {**ant(11, 0, 0, 100, 100), "category_id": 8}])
    want = dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl"), 1.0)
    assert coco_ap(split, everything(split)) == pytest.approx(want)


def test_finding_nothing_is_zero_and_sizes_without_objects_are_left_out() -> None:
    split = split_of([ant(10, 0, 0, 10, 10)])
    for nothing in ({}, {10: detections(), 11: detections()}):
        assert coco_ap(split, nothing) == {"AP": 0, "AP50": 0, "AP75": 0, "APs": 0}


def test_one_of_two_found_counts_the_recalls_up_to_a_half() -> None:
    split = split_of([ant(10, 0, 0, 10, 10), ant(11, 0, 0, 10, 10)])
    figures = coco_ap(split, {10: detections((0, 0, 10, 10, 0.9, 0))})
    assert figures["AP"] == pytest.approx(51 / 101, abs=1e-9)  # recalls 0, .01, ... .50 of 101


def test_the_right_box_of_the_wrong_class_is_nothing() -> None:
    split = split_of([ant(10, 0, 0, 10, 10)])
    assert coco_ap(split, {10: detections((0, 0, 10, 10, 0.9, 1))})["AP"] == 0


def test_a_false_alarm_between_two_hits_costs_a_third_of_the_upper_half() -> None:
    split = split_of([ant(10, 0, 0, 10, 10), ant(11, 0, 0, 10, 10)])
    found = {
        10: detections((0, 0, 10, 10, 0.9, 0), (100, 100, 120, 120, 0.8, 0)),
        11: detections((0, 0, 10, 10, 0.7, 0)),
    }
    assert coco_ap(split, found)["AP"] == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-9)


def test_an_overlap_of_775_passes_six_of_ten_thresholds() -> None:
    split = split_of([ant(10, 0, 0, 10, 10)])
    figures = coco_ap(split, {10: detections((0, 0, 10, 7.75, 0.9, 0))})
    assert (figures["AP"], figures["AP50"], figures["AP75"]) == pytest.approx((0.6, 1, 1), abs=1e-9)


def test_a_detection_in_a_crowd_is_neither_right_nor_wrong() -> None:
    split = split_of([ant(10, 0, 0, 10, 10), ant(10, 50, 50, 100, 100, iscrowd=1)])
    found = {10: detections((60, 60, 80, 80, 0.95, 0), (0, 0, 10, 10, 0.9, 0))}
    assert coco_ap(split, found)["AP"] == pytest.approx(1)


def test_results_carry_the_data_sets_own_ids() -> None:
    split = split_of([ant(10, 0, 0, 10, 10)])
    found = {11: detections((1, 2, 4, 8, 0.5, 1)), 10: detections((0, 0, 10, 10, 0.25, 0))}
    assert to_coco(split, found) == [
        {"image_id": 10, "category_id": 3, "bbox": [0, 0, 10, 10], "score": 0.25},
        {"image_id": 11, "category_id": 8, "bbox": [1, 2, 3, 6], "score": 0.5},
    ]


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    split = split_of([ant(10, 0, 0, 10, 10)])
    coco_ap(split, everything(split))
    assert capfd.readouterr() == ("", "")


def guesses(split: Split, seed: int) -> dict[int, Detections]:
    """What a middling detector might say: boxes near the right ones, doubles, and noise."""
    rng, found = torch.Generator().manual_seed(seed), {}
    for index, identity in enumerate(split.ids[:-1]):
        boxes, labels = split.boxes(index).repeat(3, 1), split.labels(index).repeat(3)
        near = boxes + torch.randn(boxes.shape, generator=rng) * 3
        corner = torch.rand(120, 2, generator=rng) * 150
        noise = torch.cat([corner, corner + 5 + torch.rand(120, 2, generator=rng) * 45], dim=1)
        every = torch.cat([near, noise])
        scores = (torch.rand(len(every), generator=rng) * 50).round() / 50  # with ties
        classes = torch.cat([labels, torch.randint(0, len(split.classes), (120,), generator=rng)])
        order = scores.argsort(descending=True, stable=True)
        found[identity] = Detections(every[order], scores[order], classes[order])
    return found


def through_files(split: Split, found: dict[int, Detections], folder: Path) -> dict[str, float]:
    """The same figures by pycocotools as its manual says."""
    (folder / "truth.json").write_text(json.dumps(split.coco))
    (folder / "found.json").write_text(json.dumps(to_coco(split, found)))
    truth = files.COCO(str(folder / "truth.json"))
    evaluation = COCOeval(truth, truth.loadRes(str(folder / "found.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    return {name: value for name, value in zip(names, evaluation.stats, strict=False) if value > -1}


@pytest.mark.parametrize("seed", [0, 1])
def test_figures_are_those_of_pycocotools_through_its_files(seed: int, tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(60):
        x, y = (torch.rand(2, generator=rng) * 40).tolist()
        w, h = (torch.rand(2, generator=rng) * 150 + 4).tolist()
        image, category, crowd = (int(torch.randint(0, n, (), generator=rng)) for n in (20, 2, 10))
        row = ant(10 + image, x, y, w, h, area=w * h * 0.7, iscrowd=int(crowd == 0))
        rows.append({**row, "category_id": (3, 8)[category]})
    split = split_of(rows, images=25)
    found = guesses(split, seed)
    figures = coco_ap(split, found)
    assert set(figures) == {"AP", "AP50", "AP75", "APs", "APm", "APl"} and 0.02 < figures["AP"] < 0.95
    assert figures == pytest.approx(through_files(split, found, tmp_path), abs=1e-9)


def test_the_demo_set_too(tmp_path: Path) -> None:
    split = Digits(train=1, val=40).val
    found = guesses(split, 0)
    assert coco_ap(split, found) == pytest.approx(through_files(split, found, tmp_path), abs=1e-9)
