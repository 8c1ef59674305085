"""The log-average miss rate agrees with worked examples and with the benchmarks' loops written out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainers.metrics.scenes import Scene, ant, bee, detections, everything, moved, scenes, split_of
from trainers.call import Call, Invalid
from trainers.data.vbb import pedestrian
from trainers.metrics import MissRate
from trainers.metrics.curves import REFERENCES, log_average_miss_rate
from trainers.metrics.greedy import FALSE, HIT, IGNORED
from trainers.metrics.pedestrians import CALTECH, CITYPERSONS
from trainers.outputs import Detections

Box = tuple[float, float, float, float]
PERSON = (100.0, 100.0, 41.0, 100.0)  # x, y, width and height: Caltech's aspect
SIZE = (640, 480)


def person(image: int = 10, box: Box = PERSON, **more: Any) -> dict[str, Any]:
    return ant(image, *box, **more)


def seen(part: float, box: Box = PERSON) -> dict[str, Any]:
    """So much of the height is seen."""
    return {"visible": [box[0], box[1], box[2], part * box[3]]}


def at(box: Box, score: float = 0.9, label: int = 0) -> tuple[float, float, float, float, float, int]:
    return box[0], box[1], box[0] + box[2], box[1] + box[3], score, label


def shifted(x: float, y: float = 0.0, box: Box = PERSON) -> Box:
    return box[0] + x, box[1] + y, box[2], box[3]


def rates(rows: list[dict[str, Any]], found: dict[int, Detections], images: int = 1, **knobs: Any) -> dict[str, float]:
    return MissRate(**knobs)(split_of(rows, images=images, size=SIZE), found)


def met(missed: float) -> Any:
    return pytest.approx(missed, abs=1e-12)


# From the fate of each detection to the figure


def test_everything_found_without_a_false_alarm_is_almost_zero() -> None:
    assert log_average_miss_rate(np.array([HIT, HIT]), 2, 1) == met(1e-10)


def test_nothing_found_is_one() -> None:
    for fates in ([], [FALSE], [IGNORED, FALSE, FALSE]):
        assert log_average_miss_rate(np.array(fates, dtype=np.uint8), 2, 10) == met(1)


def test_at_each_reference_it_is_the_last_detection_with_no_more_false_alarms() -> None:
    # Four objects, 20 images. Found, false, found, false, false, found: 1/20 false alarms an image after two, 2/20
    # after four, 3/20 after five. Missed with at most .01, .0178, .0316 a false alarm an image: 3 of 4. With at most
    # .0562: the second false alarm lies beyond, so 2 of 4. At .1 it lies within, and still 2 of 4. At .1778 and above,
    # 1 of 4.
    fates = np.array([HIT, FALSE, HIT, FALSE, FALSE, HIT])
    expected = ((3 / 4) ** 3 * (2 / 4) ** 2 * (1 / 4) ** 4) ** (1 / 9)
    assert log_average_miss_rate(fates, 4, 20) == met(expected)


def test_below_the_first_false_alarm_nothing_is_found_when_that_comes_first() -> None:
    # One image: the first false alarm is already 1 an image, so the object counts at the last reference alone.
    assert log_average_miss_rate(np.array([FALSE, HIT]), 1, 1) == met((1.0**8 * 1e-10) ** (1 / 9))


def test_ignored_detections_are_as_if_they_were_not_there() -> None:
    fates = [HIT, FALSE, HIT, FALSE, FALSE, HIT]
    with_ignored = [IGNORED, *fates[:3], IGNORED, IGNORED, *fates[3:], IGNORED]
    assert log_average_miss_rate(np.array(with_ignored), 4, 20) == log_average_miss_rate(np.array(fates), 4, 20)


def test_the_references_are_nine_from_a_hundredth_to_one() -> None:
    assert pytest.approx([0.01, 0.0178, 0.0316, 0.0562, 0.1, 0.1778, 0.3162, 0.5623, 1], abs=1e-4) == REFERENCES


FATES = st.lists(st.sampled_from([FALSE, HIT, HIT, IGNORED]), max_size=30)


@given(FATES, st.data())
def test_a_false_alarm_more_never_lowers_it_and_a_hit_more_never_raises_it(
    fates: list[int], data: st.DataObject
) -> None:
    total, images = fates.count(HIT) + data.draw(st.integers(1, 3)), data.draw(st.integers(1, 60))
    place = data.draw(st.integers(0, len(fates)))
    before = log_average_miss_rate(np.array(fates, dtype=np.uint8), total, images)
    assert log_average_miss_rate(np.array([*fates[:place], FALSE, *fates[place:]]), total, images) >= before - 1e-12
    assert log_average_miss_rate(np.array([*fates[:place], HIT, *fates[place:]]), total, images) <= before + 1e-12


# Caltech: who is to be found


@pytest.mark.parametrize(
    ("box", "more", "counted"),
    [
        (PERSON, {}, True),
        ((100, 100, 20.5, 50), {}, True),
        ((100, 100, 20, 49.9), {}, False),  # shorter than 50 pixels
        (PERSON, seen(0.66), True),
        (PERSON, seen(0.64), False),  # too hidden
        (PERSON, {"visible": [0, 0, 0, 0]}, False),  # all of him is hidden
        ((4, 4, 41, 100), {}, True),
        ((3, 100, 41, 100), {}, False),  # too near an edge
        ((100, 3, 41, 100), {}, False),
        ((634 - 41, 374, 41, 100), {}, True),
        ((594, 100, 41, 100), {}, False),
        ((100, 375, 41, 100), {}, False),
        (PERSON, {"ignore": 1}, False),  # people, person?
        (PERSON, {"iscrowd": 1}, False),
    ],
)
def test_whom_the_reasonable_setting_wants_found(box: Box, more: dict[str, Any], counted: bool) -> None:
    missed = rates([person(box=box, **more)], {})
    assert missed.get("MR") == (met(1) if counted else None)
    # Whoever is not to be found may be: beside another he is no mistake.
    other = (300.0, 100.0, 41.0, 100.0)
    both = [person(box=other), person(box=box, **more)]
    assert rates(both, {10: detections(at(other), at(box, 0.95))})["MR"] == met(1e-10)


LEFT, TOP, RIGHT, BOTTOM = 5.0, 5.0, 635.0, 475.0  # the benchmark's, for the numbers in its files


@pytest.mark.parametrize("by", [0.0, 0.25, 1.0])
@pytest.mark.parametrize(
    ("box", "outwards"),
    [
        ((LEFT, 200.0, 41.0, 100.0), (-1, 0)),
        ((300.0, TOP, 41.0, 100.0), (0, -1)),
        ((RIGHT - 41, 200.0, 41.0, 100.0), (1, 0)),
        ((300.0, BOTTOM - 100, 41.0, 100.0), (0, 1)),
    ],
    ids=["left", "top", "right", "bottom"],
)
def test_at_the_benchmarks_bounds_one_counts_and_beyond_one_does_not(
    box: Box, outwards: tuple[int, int], by: float
) -> None:
    x, y = outwards
    read = pedestrian("person", shifted(x * by, y * by, box), ())
    assert read is not None
    assert rates([person(box=read.box)], {}).get("MR") == (None if by else met(1))


SIDE = st.floats(-10, 700) | st.sampled_from([LEFT, TOP, RIGHT, BOTTOM]).flatmap(
    lambda bound: st.sampled_from([bound, math.nextafter(bound, 0), math.nextafter(bound, 1000)])
)


@settings(deadline=None)
@given(left=SIDE, top=SIDE, right=SIDE, bottom=SIDE, seen=st.none() | st.tuples(SIDE, SIDE, st.floats(0, 99)))
def test_whom_the_numbers_in_the_file_let_count_counts(
    left: float, top: float, right: float, bottom: float, seen: tuple[float, float, float] | None
) -> None:
    x, y, w, h = left, top, max(right - left, 1.0), max(bottom - top, 50.0)
    visible = (*seen[:2], w, seen[2]) if seen else (0.0, 0.0, 0.0, 0.0)
    counts = x >= LEFT and y >= TOP and x + w <= RIGHT and y + h <= BOTTOM
    counts = counts and (not seen or visible[2] * visible[3] / (w * h) >= 0.65)
    read = pedestrian("person", (x, y, w, h), visible)
    assert read is not None
    more = {} if read.visible is None else {"visible": list(read.visible)}
    assert ("MR" in rates([person(box=read.box, **more)], {})) == counts


@pytest.mark.parametrize(
    ("height", "part", "expected"),
    [
        (120.0, None, "all large near none any_aspect typical"),
        (90.0, None, "all near none any_aspect typical"),
        (80.0, None, "all near none any_aspect typical"),
        (79.0, None, "all medium none any_aspect typical"),
        (50.0, None, "all medium none any_aspect typical"),
        (40.0, None, "all medium"),
        (30.0, None, "all medium"),
        (29.0, None, "all far"),
        (20.0, None, "all far"),
        (19.0, None, ""),
        (120.0, 1.0, "all partial"),
        (120.0, 0.7, "all partial"),
        (120.0, 0.5, "all heavy"),
        (120.0, 0.21, "all heavy"),
        (120.0, 0.1, ""),
        (40.0, 0.5, "all"),
    ],
)
def test_which_settings_somebody_belongs_to(height: float, part: float | None, expected: str) -> None:
    box = (100.0, 100.0, 0.41 * height, height)
    made = rates([person(box=box, **(seen(part, box) if part else {}))], {})
    reasonable = {"MR", *(f"MR_{name}" for name in CALTECH if name.startswith(("MR_overlap", "MR_expand")))}
    assert len(CALTECH) == 18
    names = {name.removeprefix("MR_") for name in made if not name.startswith("-") and name != "MR"}
    assert {name for name in names if not name.startswith(("overlap", "expand"))} == set(expected.split())
    assert ("MR" in made) == (height >= 50 and (part is None or part >= 0.65)) == bool(reasonable & made.keys())


@pytest.mark.parametrize(
    ("width", "expected"), [(41.0, "typical"), (50.0, "typical"), (52.0, "atypical"), (30.0, "atypical")]
)
def test_a_figure_is_typical_when_its_aspect_is_within_a_tenth(width: float, expected: str) -> None:
    made = rates([person(box=(100.0, 100.0, width, 100.0))], {})
    assert {name for name in ("typical", "atypical") if f"MR_{name}" in made} == {expected}


# Caltech: who found whom


def test_boxes_are_compared_at_the_same_aspect() -> None:
    # Half as wide as it should be and twice: both become 41 x 100 around the same middle.
    rows = [person(box=(110.25, 100.0, 20.5, 100.0))]
    assert rates(rows, {10: detections(at((79.5, 100.0, 82.0, 100.0)))})["MR"] == met(1e-10)
    # The region to be ignored keeps its width: 82 wide, it holds all of a detection at its left end.
    rows = [person(), person(box=(300.0, 100.0, 82.0, 100.0), ignore=1)]
    assert rates(rows, {10: detections(at(PERSON), at((300.0, 100.0, 41.0, 100.0)))})["MR"] == met(1e-10)


def test_an_overlap_of_half_is_enough() -> None:
    for y, found in ((33.0, True), (34.0, False)):  # 67 / 133 and 66 / 134
        made = rates([person()], {10: detections(at(shifted(0, y)))})
        assert made["MR"] == (met(1e-10) if found else met(1))
    made = rates([person()], {10: detections(at(shifted(0, 50.0)))})  # a third
    assert (made["MR_overlap25"], made["MR_overlap50"], made["MR_overlap75"]) == (met(1e-10), met(1), met(1))


def test_each_is_found_once_and_an_ignored_region_any_number_of_times() -> None:
    again = {10: detections(at(PERSON, 0.9), at(PERSON, 0.8))}
    twenty = [person(10 + n) for n in range(20)]
    one_alarm = rates(twenty, {**again, **{10 + n: detections(at(PERSON, 0.1)) for n in range(1, 20)}}, images=20)
    # 1/20 an image is a false alarm too many at .01, .0178 and .0316: there 19 of 20 are missed.
    assert one_alarm["MR"] == met(((19 / 20) ** 3 * 1e-10**6) ** (1 / 9))
    crowd = person(box=(200.0, 100.0, 400.0, 200.0), ignore=1)
    inside = [at((210.0 + 30 * n, 150.0, 41.0, 100.0), 0.95) for n in range(10)]
    assert rates([person(), crowd], {10: detections(*inside, at(PERSON, 0.5))})["MR"] == met(1e-10)


def test_less_than_half_inside_an_ignored_region_is_a_false_alarm() -> None:
    crowd = person(box=(200.0, 100.0, 100.0, 100.0), ignore=1)
    for x, ignored in ((-20.0, True), (-21.0, False)):  # 21 or 20 of 41 pixels inside
        made = rates([person(), crowd], {10: detections(at((200.0 + x, 100.0, 41.0, 100.0), 0.95), at(PERSON, 0.5))})
        assert made["MR"] == (met(1e-10) if ignored else met(1e-10 ** (1 / 9)))


def test_who_overlaps_one_to_be_found_finds_him_even_inside_an_ignored_region() -> None:
    crowd = person(box=(50.0, 50.0, 300.0, 300.0), ignore=1)
    assert rates([person(), crowd], {10: detections(at(shifted(5, 5)))})["MR"] == met(1e-10)


def test_who_has_been_found_leaves_the_next_to_the_ignored_region() -> None:
    crowd = person(box=(50.0, 50.0, 300.0, 300.0), ignore=1)
    assert rates([person(), crowd], {10: detections(at(PERSON), at(PERSON, 0.8))})["MR"] == met(1e-10)


@pytest.mark.parametrize(("height", "counts"), [(40.0, True), (39.9, False)])
def test_detections_below_four_fifths_of_the_least_height_do_not_count(height: float, counts: bool) -> None:
    noise = at((300.0, 100.0, 20.0, height), 0.95)
    made = rates([person()], {10: detections(noise, at(PERSON, 0.5))})
    assert made["MR"] == (met(1e-10 ** (1 / 9)) if counts else met(1e-10))
    wide = rates([person()], {10: detections(at((300.0, 100.0, 20.0, 39.0), 0.95), at(PERSON, 0.5))})
    assert (wide["MR_expand100"], wide["MR_expand125"]) == (met(1e-10), met(1e-10))
    assert wide["MR_expand150"] == met(1e-10 ** (1 / 9))


def test_images_with_nobody_in_them_count() -> None:
    # One false alarm in 100 images, or in one.
    found = {10: detections(at((300.0, 100.0, 41.0, 100.0), 0.95), at(PERSON, 0.5))}
    assert rates([person()], found, images=100)["MR"] == met(1e-10)
    assert rates([person()], found, images=1)["MR"] == met(1e-10 ** (1 / 9))


# CityPersons


def test_citypersons_subsets_are_by_height_and_by_what_is_seen() -> None:
    def subsets(height: float, part: float | None) -> str:
        box = (1.0, 1.0, 30.0, height)
        made = rates([person(box=box, **(seen(part, box) if part else {}))], {}, family="citypersons")
        return " ".join(name for name in CITYPERSONS if name in made)

    assert subsets(100, None) == subsets(100, 0.66) == subsets(100, 1.0) == "MR MR_all"  # and edges do not matter
    assert subsets(50, 1.0) == subsets(75, 1.0) == "MR MR_small MR_all"  # both ends belong to it
    assert subsets(49, 1.0) == subsets(20, 1.0) == "MR_all"
    assert subsets(100, 0.5) == "MR_heavy MR_all"
    assert subsets(19, 1.0) == subsets(100, 0.1) == ""


def test_citypersons_boxes_are_compared_as_they_are() -> None:
    wide = {10: detections(at((79.5, 100.0, 82.0, 100.0)))}  # contains the person, and is twice as large
    rows = [person(box=(110.25, 100.0, 20.5, 100.0))]
    assert rates(rows, wide)["MR"] == met(1e-10)
    assert rates(rows, wide, family="citypersons")["MR"] == met(1)


def test_citypersons_counts_a_thousand_detections_of_an_image() -> None:
    noise = [at((300.0, 100.0, 20.0, 10.0), 0.95)]  # too low to count as a false alarm, and yet it takes a place
    rows = [person()]
    for more, missed in ((999, 1e-10), (1000, 1.0)):
        found = {10: detections(*noise * more, at(PERSON, 0.5))}
        assert rates(rows, found, family="citypersons")["MR"] == met(missed)
        assert rates(rows, found)["MR"] == met(1e-10)


# The metric


def test_lower_is_better_so_what_is_maximised_is_negated() -> None:
    made = rates([person()], {10: detections(at(PERSON))})
    assert MissRate().score == "-MR" and MissRate(score="-MR_all").score == "-MR_all"
    assert all(made[f"-{name}"] == -made[name] for name in CALTECH if name in made)
    assert sorted(made) == sorted(MissRate().figures(split_of([person()], size=SIZE)))


def test_a_score_that_the_family_does_not_have_is_refused_with_those_that_it_has() -> None:
    with pytest.raises(Invalid, match="-MR_far is not one of -MR, -MR_all, -MR_heavy, -MR_small"):
        MissRate(family="citypersons", score="-MR_far")
    with pytest.raises(Invalid, match="did you mean -MR_heavy"):
        MissRate(score="-MR_heavi")
    with pytest.raises(Invalid, match="MR"):  # to be maximised, it would choose the worst
        MissRate(score="MR")


def test_classes_count_alike_and_each_can_be_had() -> None:
    split = split_of([person(), bee(10, 300, 100, 41, 100)], images=1, size=SIZE)
    made = MissRate()(split, {10: detections(at(PERSON))}, per_class=True)
    assert (made["MR/ant"], made["MR/bee"], made["MR"]) == (met(1e-10), met(1), met((1 + 1e-10) / 2))


def test_without_anybody_to_find_nothing_is_said() -> None:
    for rows in ([], [person(ignore=1)], [person(box=(100.0, 100.0, 4.0, 10.0))]):
        for found in ({}, {10: detections(at(PERSON))}):
            for family in ("caltech", "citypersons"):
                assert rates(rows, found, family=family) == {}


def written_out(scene: Scene, *, family: str, name: str) -> float | None:
    """One figure by the benchmarks' own loops: over images, detections and objects."""
    setting, caltech = {"caltech": CALTECH, "citypersons": CITYPERSONS}[family][name], family == "caltech"
    low, high = setting.height
    means, split = [], scene.split
    for label in range(len(split.classes)):
        fates: list[tuple[float, int]] = []
        total = 0
        for image in sorted(split.ids):
            regular, ignored = [], []
            rows = [r for r in split.coco["annotations"] if r["image_id"] == image]
            for row in sorted(
                (r for r in rows if r["category_id"] == split.categories[label]), key=lambda r: r["bbox"]
            ):
                x, y, w, h = row["bbox"]
                visible = row.get("visible")
                part = visible[2] * visible[3] / (w * h) if visible else math.inf if caltech else 1.0
                counts = not row["iscrowd"] and not row.get("ignore") and low <= h
                counts = counts and (h < high if caltech else h <= high)
                counts = counts and setting.visible[0] <= part <= setting.visible[1]
                if caltech:
                    left, top = x + 1, y + 1  # in the file, which counts pixels from 1
                    counts = counts and left >= 5 and top >= 5 and left + w <= 195 and top + h <= 195
                    if setting.aspect > 0:
                        counts = counts and abs(w / h - 0.41) < setting.aspect
                    if setting.aspect < 0:
                        counts = counts and abs(w / h - 0.41) > -setting.aspect
                if not counts:
                    ignored.append((x, y, w, h))
                else:
                    regular.append((x + w / 2 - 0.41 * h / 2, y, 0.41 * h, h) if caltech else (x, y, w, h))
            total += len(regular)
            taken = [False] * len(regular)
            found = scene.found.get(image, detections())
            for box, score, own in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True):
                x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
                if own != label or not low / setting.expand <= h < high * setting.expand:
                    continue
                mine = (x + w / 2 - 0.41 * h / 2, y, 0.41 * h, h) if caltech else (x, y, w, h)
                best, which = setting.overlap, -1
                for n, other in enumerate(regular):
                    if not taken[n] and common(mine, other) / union(mine, other) >= best:
                        best, which = common(mine, other) / union(mine, other), n
                if which >= 0:
                    taken[which] = True
                    fates.append((score, 1))
                elif any(common(mine, other) / (mine[2] * mine[3]) >= setting.overlap for other in ignored):
                    continue
                else:
                    fates.append((score, 0))
        if not total:
            continue
        fates.sort(key=lambda fate: -fate[0])
        missed = []
        for reference in REFERENCES:
            right = wrong = last = 0
            for _, hit in fates:
                right, wrong = right + hit, wrong + 1 - hit
                if wrong / len(split.ids) <= reference:
                    last = right
            missed.append(max(1 - last / total, 1e-10))
        means.append(math.prod(missed) ** (1 / 9))
    return sum(means) / len(means) if means else None


def common(a: Box, b: Box) -> float:
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(w, 0) * max(h, 0)


def union(a: Box, b: Box) -> float:
    return a[2] * a[3] + b[2] * b[3] - common(a, b)


@settings(max_examples=150, deadline=None)
@given(scene=scenes(tall=True))
def test_random_scenes_have_the_figures_of_the_loops(scene: Scene) -> None:
    for family, names in (("caltech", CALTECH), ("citypersons", CITYPERSONS)):
        made = MissRate(family=family)(scene.split, scene.found)
        for name in names:
            expected = written_out(scene, family=family, name=name)
            assert made.get(name) == (expected and pytest.approx(expected, rel=1e-6)), name


@settings(max_examples=50, deadline=None)
@given(scene=scenes(tall=True), score=st.floats(0, 1), image=st.integers(10, 13))
def test_a_detection_that_overlaps_nobody_cannot_lower_a_rate(scene: Scene, score: float, image: int) -> None:
    here = scene.found.get(image, detections())
    away = torch.tensor([[1000.0, 1000.0, 1041.0, 1100.0]])
    scores, order = torch.cat([here.scores, torch.tensor([score])]).sort(descending=True, stable=True)
    more = Detections(torch.cat([here.boxes, away])[order], scores, torch.cat([here.labels, torch.tensor([0])])[order])
    for family in ("caltech", "citypersons"):
        before = MissRate(family=family)(scene.split, scene.found)
        after = MissRate(family=family)(scene.split, {**scene.found, image: more})
        assert before.keys() == after.keys()
        assert all(after[name] >= before[name] - 1e-12 for name in before if not name.startswith("-"))


@settings(max_examples=50, deadline=None)
@given(scene=scenes(tall=True))
def test_the_order_of_the_images_makes_no_difference(scene: Scene) -> None:
    assert MissRate()(moved(scene.split), scene.found) == MissRate()(scene.split, scene.found)


def test_finding_everybody_leaves_nobody_missed() -> None:
    split = split_of([person(), person(11, box=(50.0, 50.0, 82.0, 200.0))], size=SIZE)
    assert MissRate()(split, everything(split))["MR"] == met(1e-10)


def test_a_study_names_its_knobs() -> None:
    from trainers import metrics

    call = Call.model_validate({"MissRate": {"family": "citypersons"}}).complete(metrics)
    assert call.args == {"score": "-MR", "family": "citypersons"} and call.of(metrics).family == "citypersons"
    with pytest.raises(Invalid, match="family"):
        Call.model_validate({"MissRate": {"family": "eth"}}).complete(metrics)
