"""AP agrees with worked examples and with pycocotools fed through its files."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from pycocotools import coco as files
from pycocotools.cocoeval import COCOeval

from tests.trainers.metrics.scenes import Scene, ant, bee, detections, everything, moved, scenes, split_of
from trainers.data import Digits
from trainers.data.split import Split
from trainers.metrics import CocoAP
from trainers.metrics.coco import coco_ap, to_coco
from trainers.outputs import Detections


def test_finding_everything_is_one() -> None:
    split = split_of([ant(10, 0, 0, 10, 10), ant(11, 5, 5, 50, 50), bee(11, 0, 0, 100, 100)])
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


def by_pycocotools(split: Split, found: dict[int, Detections]) -> tuple[dict[str, float], np.ndarray]:
    """Its six figures and its whole table of precisions; annotations in the order of ours, which decides between
    objects that a detection overlaps alike."""
    truth = files.COCO()
    rows, order = split._sorted
    table = [dict(split.coco["annotations"][place], id=n) for n, place in enumerate(order.tolist(), start=1)]
    for row, ignored in zip(table, rows.crowd | rows.ignore, strict=True):
        row["iscrowd"] = int(ignored)
    truth.dataset = {**split.coco, "annotations": table}
    truth.createIndex()
    results = to_coco(split, found)
    judged = files.COCO()
    judged.dataset = {**split.coco, "annotations": []}
    if results:
        judged = truth.loadRes(results)
    judged.createIndex()
    evaluation = COCOeval(truth, judged, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    figures = {name: value for name, value in zip(names, evaluation.stats, strict=False) if value > -1}
    return figures, evaluation.eval["precision"]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(scene=scenes())
def test_figures_of_random_scenes_are_those_of_pycocotools_class_by_class(scene: Scene) -> None:
    figures = CocoAP()(scene.split, scene.found, per_class=True)
    judged, precision = by_pycocotools(scene.split, scene.found)
    assert {name: value for name, value in figures.items() if "/" not in name} == pytest.approx(judged, abs=1e-9)
    for label, name in enumerate(scene.split.classes):
        own = precision[:, :, label, 0, 2]
        assert (f"AP/{name}" in figures) == (own > -1).any()
        if f"AP/{name}" in figures:
            assert figures[f"AP/{name}"] == pytest.approx(own.mean(), abs=1e-9)
            assert figures[f"AP50/{name}"] == pytest.approx(own[0].mean(), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(scene=scenes())
def test_the_order_of_the_images_makes_no_difference(scene: Scene) -> None:
    assert coco_ap(moved(scene.split), scene.found) == coco_ap(scene.split, scene.found)


def test_more_than_a_hundred_of_a_class_do_not_count() -> None:
    split = split_of([ant(10, 0, 0, 10, 10)])
    rest = [(100.0, 100.0, 120.0, 120.0, 0.9, 0)] * 99
    last = (0.0, 0.0, 10.0, 10.0, 0.1, 0)
    assert coco_ap(split, {10: detections(*rest, last)})["AP"] == pytest.approx(1 / 100)
    assert coco_ap(split, {10: detections(*rest, rest[0], last)})["AP"] == 0
    assert coco_ap(split, {10: detections(*rest, (*rest[0][:5], 1), last)})["AP"] == pytest.approx(1 / 100)


def test_a_class_without_objects_has_no_ap_of_its_own_and_does_not_lower_the_mean() -> None:
    split = split_of([ant(10, 0, 0, 10, 10), bee(10, 0, 0, 10, 10, iscrowd=1)])
    figures = CocoAP()(split, {10: detections((0, 0, 10, 10, 0.9, 0), (50, 50, 60, 60, 0.9, 1))}, per_class=True)
    assert figures["AP"] == figures["AP/ant"] == figures["AP50/ant"] == 1 and "AP/bee" not in figures


def test_without_anything_to_find_nothing_is_said() -> None:
    for split in (split_of([]), split_of([ant(10, 0, 0, 10, 10, ignore=1)])):
        for found in ({}, {10: detections((0, 0, 10, 10, 0.9, 0))}):
            assert coco_ap(split, found) == {} and CocoAP().figures(split) == []


def test_it_names_what_it_can_say() -> None:
    split = split_of([ant(10, 0, 0, 10, 10), bee(10, 0, 0, 100, 100)])
    assert sorted(CocoAP().figures(split)) == sorted(coco_ap(split, {})) == ["AP", "AP50", "AP75", "APl", "APs"]


def test_figures_are_plain_numbers() -> None:
    split = split_of([ant(10, 0, 0, 10, 10)])
    assert all(type(value) is float and math.isfinite(value) for value in coco_ap(split, everything(split)).values())
