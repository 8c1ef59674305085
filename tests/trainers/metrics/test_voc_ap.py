"""VOC's AP agrees with worked examples and with its definition written out, loop by loop."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings

from tests.trainers.metrics.scenes import Scene, ant, bee, detections, everything, moved, scenes, split_of
from trainers.data.split import Split
from trainers.metrics import VocAP
from trainers.outputs import Detections

HIT, AWAY = (0.0, 0.0, 10.0, 10.0), (100.0, 100.0, 110.0, 110.0)


def figures(rows: list[dict[str, Any]], found: dict[int, Detections], **knobs: Any) -> dict[str, float]:
    return VocAP(**knobs)(split_of(rows), found)


def two_of_three() -> tuple[list[dict[str, Any]], dict[int, Detections]]:
    """Three objects; found in the order: right, wrong, right. Precision 1 at a recall of 1/3, and 2/3 at 2/3."""
    rows = [ant(10, 0, 0, 10, 10), ant(11, 0, 0, 10, 10), ant(11, 50, 50, 10, 10)]
    return rows, {10: detections((*HIT, 0.9, 0), (*AWAY, 0.8, 0)), 11: detections((*HIT, 0.7, 0))}


def test_finding_everything_is_one() -> None:
    split = split_of([ant(10, 0, 0, 10, 10), ant(11, 5, 5, 50, 50), bee(11, 0, 0, 100, 100)])
    for points in ("11", "area"):
        metric = VocAP(points=points)
        found = metric(split, everything(split))
        assert found == dict.fromkeys(metric.figures(split), pytest.approx(1.0))


def test_at_eleven_recalls_each_has_the_highest_precision_from_there_on() -> None:
    # Recalls 0, .1, .2, .3 have a precision of 1; .4, .5, .6 of 2/3; .7 to 1 are not reached.
    assert figures(*two_of_three())["AP50"] == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)
    assert figures(*two_of_three())["AP50_11"] == figures(*two_of_three())["AP50"]


def test_the_area_is_that_below_the_curve() -> None:
    found = figures(*two_of_three(), points="area")
    assert found["AP50"] == found["AP50_area"] == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)
    assert found["AP50_11"] == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)


def test_a_recall_of_three_tenths_reaches_three_tenths() -> None:
    """In floating point it does not: there the fourth of 0, .1, .2 ... is more than 3 / 10."""
    rows = [ant(10, 15 * n, 0, 10, 10) for n in range(10)]
    found = {10: detections(*((15.0 * n, 0.0, 15.0 * n + 10, 10.0, 0.9, 0) for n in range(3)))}
    assert figures(rows, found)["AP50"] == pytest.approx(4 / 11)


def test_ap_is_the_mean_over_ten_overlaps() -> None:
    found = figures([ant(10, 0, 0, 10, 10)], {10: detections((0, 0, 10, 7.75, 0.9, 0))})  # an overlap of .775
    assert [found[f"AP{n}"] for n in range(50, 100, 5)] == [1] * 6 + [0] * 4
    assert found["AP"] == pytest.approx(0.6)


def test_half_is_enough_for_mmdetection_and_not_for_the_kit() -> None:
    assert figures([ant(10, 0, 0, 10, 10)], {10: detections((0, 0, 10, 5, 0.9, 0))})["AP50"] == 1  # 50 of 100
    # The kit's boxes hold their last pixel: 0 to 9 are ten, 0 to 4 are five, 0 to 4.1 a bit more.
    half = figures([ant(10, 0, 0, 9, 9)], {10: detections((0, 0, 9, 4, 0.9, 0))})
    more = figures([ant(10, 0, 0, 9, 9)], {10: detections((0, 0, 9, 4.1, 0.9, 0))})
    assert (half["AP50_devkit"], more["AP50_devkit"]) == (0, 1)
    assert more["AP50"] == 0  # 9 x 4.1 of 9 x 9


def test_a_second_detection_of_an_object_is_wrong_and_the_better_one_found_it() -> None:
    rows = [ant(10, 0, 0, 10, 10), ant(11, 0, 0, 10, 10)]
    # Right, wrong (again), right: precisions 1 and 2/3.
    found = {10: detections((*HIT, 0.9, 0), (*HIT, 0.8, 0)), 11: detections((*HIT, 0.7, 0))}
    assert figures(rows, found, points="area")["AP50"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_who_overlaps_a_found_object_most_is_wrong_though_another_is_free() -> None:
    """There VOC differs from COCO, where it takes the free one."""
    rows = [ant(10, 0, 0, 10, 10), ant(10, 4, 0, 10, 10)]
    found = {10: detections((0, 0, 10, 10, 0.9, 0), (1, 0, 11, 10, 0.8, 0))}  # overlaps 9/11 and 7/13
    assert figures(rows, found, points="area")["AP50"] == pytest.approx(0.5)


def test_difficult_objects_are_neither_to_be_found_nor_a_mistake_however_often() -> None:
    rows = [ant(10, 0, 0, 10, 10), ant(10, 100, 100, 10, 10, ignore=1)]
    for times in range(3):
        found = {10: detections(*[(*AWAY, 0.9, 0)] * times, (*HIT, 0.5, 0))}
        for name in ("AP50", "AP50_devkit", "AP50_area"):
            assert figures(rows, found)[name] == 1


def test_a_difficult_object_asked_for_by_less_than_the_overlap_is_no_excuse() -> None:
    rows = [ant(10, 0, 0, 10, 10), ant(10, 100, 100, 10, 10, ignore=1)]
    found = {10: detections((100, 100, 110, 106, 0.9, 0), (*HIT, 0.5, 0))}  # .6 of the difficult one
    made = figures(rows, found, points="area")
    assert (made["AP50"], made["AP60"], made["AP65"]) == (1, 1, 0.5)


def test_the_mean_is_over_classes_with_objects_and_each_can_be_had() -> None:
    split = split_of([ant(10, 0, 0, 10, 10), bee(10, 0, 0, 10, 10, ignore=1)])
    found = {10: detections((*HIT, 0.9, 0), (*AWAY, 0.9, 1))}
    made = VocAP()(split, found, per_class=True)
    assert made["AP"] == made["AP/ant"] == made["AP50/ant"] == 1 and "AP/bee" not in made
    both = VocAP()(split_of([ant(10, 0, 0, 10, 10), bee(10, 0, 0, 10, 10)]), found, per_class=True)
    assert (both["AP"], both["AP/ant"], both["AP/bee"]) == (0.5, 1, 0)


def test_finding_nothing_is_zero_and_where_nothing_is_nothing_is_said() -> None:
    for found in ({}, {10: detections(), 11: detections()}, {10: detections((*AWAY, 0.9, 0))}):
        made = figures([ant(10, 0, 0, 10, 10)], found)
        assert set(made.values()) == {0.0} and len(made) == 14
        assert figures([], found) == figures([ant(10, 0, 0, 10, 10, ignore=1)], found) == {}


def test_the_score_changes_no_figure() -> None:
    assert VocAP().score == "AP" and VocAP(score="AP50").score == "AP50"
    assert figures(*two_of_three(), score="AP50_devkit") == figures(*two_of_three())


def written_out(scene: Scene, *, threshold: float, kit: bool, points: str) -> float | None:
    """AP at one overlap, in fractions, as the definitions say it."""
    split, precisions = scene.split, []
    for label in range(len(split.classes)):
        objects, guesses = [], []
        for row in split.coco["annotations"]:
            if row["category_id"] == split.categories[label]:
                x, y, w, h = row["bbox"]
                ignored = bool(row["iscrowd"] or row.get("ignore"))
                objects.append({"image": row["image_id"], "box": (x, y, x + w, y + h), "ignored": ignored, "found": 0})
        objects.sort(key=lambda one: (one["ignored"], one["box"][0], one["box"][1], one["box"][2], one["box"][3]))
        for image, found in sorted(scene.found.items()):
            for box, score, own in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True):
                if own == label:
                    guesses.append((score, image, tuple(int(v) for v in box)))
        guesses.sort(key=lambda guess: -guess[0])
        total = sum(not one["ignored"] for one in objects)
        if not total:
            continue
        right = wrong = 0
        curve: list[tuple[Fraction, Fraction]] = []
        for _, image, box in guesses:
            near = [(overlap(box, one["box"], int(kit)), one) for one in objects if one["image"] == image]
            most = max((value for value, _ in near), default=Fraction(0))
            wanted = next((one for value, one in near if value == most), None)
            enough = wanted is not None and (most > Fraction(1, 2) if kit else most >= Fraction(str(threshold)))
            if enough and wanted["ignored"]:
                continue
            if enough and not wanted["found"]:
                wanted["found"], right = 1, right + 1
            else:
                wrong += 1
            curve.append((Fraction(right, total), Fraction(right, right + wrong)))
        if points == "11":
            at = [max((p for r, p in curve if r >= Fraction(k, 10)), default=Fraction(0)) for k in range(11)]
            precisions.append(sum(at) / 11)
        else:
            recalls = sorted({Fraction(0), *(r for r, _ in curve)})
            parts = [(b - a) * max(p for r, p in curve if r >= b) for a, b in pairwise(recalls)]
            precisions.append(sum(parts, Fraction(0)))
    return float(sum(precisions) / len(precisions)) if precisions else None


def overlap(a: tuple[int, ...], b: tuple[int, ...], more: int) -> Fraction:
    w = min(a[2], b[2]) - max(a[0], b[0]) + more
    h = min(a[3], b[3]) - max(a[1], b[1]) + more
    if w <= 0 or h <= 0:
        return Fraction(0)
    areas = [(box[2] - box[0] + more) * (box[3] - box[1] + more) for box in (a, b)]
    return Fraction(w * h, sum(areas) - w * h)


@settings(max_examples=150, deadline=None)
@given(scene=scenes())
def test_random_scenes_have_the_figures_of_the_definition(scene: Scene) -> None:
    for points in ("11", "area"):
        made = VocAP(points=points)(scene.split, scene.found)
        for threshold in (0.5, 0.6, 0.75):
            expected = written_out(scene, threshold=threshold, kit=False, points=points)
            assert made.get(f"AP{round(threshold * 100)}") == (expected and pytest.approx(expected))
        expected = written_out(scene, threshold=0.5, kit=True, points=points)
        assert made.get("AP50_devkit") == (expected and pytest.approx(expected))


@settings(max_examples=50, deadline=None)
@given(scene=scenes())
def test_the_order_of_the_images_makes_no_difference(scene: Scene) -> None:
    assert VocAP()(moved(scene.split), scene.found) == VocAP()(scene.split, scene.found)


def test_a_metric_needs_no_image_and_no_order_of_annotations() -> None:
    rows, found = two_of_three()
    backwards = Split(split_of(rows[::-1]).coco, ("ant", "bee"), split_of(rows).read)
    assert VocAP()(backwards, found) == figures(rows, found)
