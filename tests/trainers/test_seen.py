"""What detectors find in a few validation images: who finds what, which images are shown, and what is said of edges."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from trainers import build, seen
from trainers.call import Call
from trainers.data.split import Split
from trainers.doubtful import comparable, doubtful, in_bins, say
from trainers.matched import NEITHER, WRONG, Box, best_threshold, matched, quality
from trainers.outputs import Detections
from trainers.seen import LOOKED, choose, look, visits, watch
from trainers.spec import Model, Recipe, Stage
from trainers.store import Store
from trainers.thumbnails import SIDE, data_uri

CPU = torch.device("cpu")
DIGITS = Call(name="Digits", args={"classes": 3, "train": 8, "val": 12})


def split(*objects: tuple[int, list[float]], crowds: tuple[list[float], ...] = ()) -> Split:
    """One image of 100 x 100 with these objects (label, corners), and regions that do not count."""
    rows = [(label, box, 0) for label, box in objects] + [(0, box, 1) for box in crowds]
    annotations = [
        {"id": i, "image_id": 7, "category_id": label, "bbox": [x, y, x2 - x, y2 - y], "iscrowd": crowd}
        for i, (label, (x, y, x2, y2), crowd) in enumerate(rows)
    ]
    coco = {
        "images": [{"id": 7, "file_name": "a.png", "width": 100, "height": 100}],
        "annotations": annotations,
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
    }
    return Split(coco, ("cat", "dog"), lambda index: torch.zeros(3, 100, 100, dtype=torch.uint8))


def found(*boxes: tuple[float, int, list[float]]) -> Detections:
    scores, labels, corners = zip(*boxes, strict=True)
    return Detections(torch.tensor(corners), torch.tensor(scores), torch.tensor(labels))


ONE, NEAR, FAR = [10.0, 10.0, 50.0, 50.0], [12.0, 12.0, 50.0, 50.0], [60.0, 60.0, 90.0, 90.0]


def objects_of(detections: Detections, truth: Split) -> list[int]:
    return [box.object for box in matched(detections, truth, 0)]


def test_an_object_is_found_once_by_the_surest_detection_of_its_class() -> None:
    assert objects_of(found((0.9, 0, NEAR), (0.8, 0, ONE)), split((0, ONE))) == [0, WRONG]
    assert objects_of(found((0.9, 1, ONE)), split((0, ONE))) == [WRONG]
    assert objects_of(found((0.9, 0, FAR)), split((0, ONE))) == [WRONG]


def test_a_detection_takes_the_object_that_it_overlaps_most() -> None:
    assert objects_of(found((0.9, 0, NEAR)), split((0, ONE), (0, NEAR))) == [1]


def test_what_lies_on_a_region_that_does_not_count_is_neither_right_nor_wrong() -> None:
    truth = split((0, ONE), crowds=(FAR,))
    assert objects_of(found((0.9, 0, FAR), (0.8, 0, ONE)), truth) == [NEITHER, 0]
    assert quality(matched(found((0.9, 0, FAR)), truth, 0), 0.5) == 0


def test_hardly_sure_detections_are_left_out_and_an_image_without_objects_has_only_wrong_ones() -> None:
    assert objects_of(found((0.9, 0, ONE), (0.04, 0, FAR)), split()) == [WRONG]


def box(score: float, which: int) -> Box:
    return Box((0, 0, 1, 1), score, 0, which)


def test_the_quality_of_an_image_is_what_is_found_less_what_is_wrong_from_a_score_on() -> None:
    boxes = [box(0.9, 0), box(0.8, WRONG), box(0.6, 1), box(0.3, WRONG), box(0.2, NEITHER)]
    assert [quality(boxes, threshold) for threshold in (0.95, 0.85, 0.7, 0.5, 0.1)] == [0, 1, 0, 1, 0]


def test_the_threshold_has_the_highest_f1_and_is_the_lowest_of_equal_ones() -> None:
    # From .55: one right of one, of two objects, F1 2/3; from .35: two right of three, 4/5; from .05: two of five, 4/7.
    boxes = [box(0.9, 0), box(0.5, WRONG), box(0.4, 1), box(0.3, WRONG), box(0.2, WRONG), box(0.1, NEITHER)]
    assert best_threshold([boxes], 2) == 0.35
    assert best_threshold([[]], 0) == 0.05, "where nothing is found any will do"


@pytest.mark.parametrize("count", [1, 5, LOOKED, 5000])
def test_the_images_looked_at_are_spread_evenly_and_so_is_every_beginning(count: int) -> None:
    places = visits(count)
    assert len(places) == len(set(places)) == min(count, LOOKED)
    assert all(0 <= place < count for place in places)
    if count >= 8:
        assert {4 * place // count for place in places[:4]} == {0, 1, 2, 3}, "one of each quarter"


def good(*qualities: int) -> list[list[Box]]:
    """What detectors of these qualities find in an image."""
    return [[box(0.9, 0 if quality > 0 else WRONG)] * abs(quality) for quality in qualities]


def test_half_of_the_images_are_fixed_and_the_others_differ_most() -> None:
    images = [good(9, -9), good(0, 0), good(1, 2), good(3, -1), good(1, 1), good(-1, 1)]
    assert choose(images, [(0, 1)], 0.5, number=4) == [(3, True), (5, True), (0, False), (1, False)]
    assert choose(images, [(0, 1)], 0.5, number=1) == [(0, True)]
    assert choose(images, [(0, 1)], 0.95, number=2) == [(0, False), (1, False)], "where nobody differs"
    assert len(choose(images, [(0, 1)], 0.5, number=50)) == 6


def test_of_several_students_the_differences_count_together() -> None:
    images = [good(0, 2, 0, 0), good(0, 1, 3, 0)]
    assert choose(images, [(0, 1), (2, 3)], 0.5, number=1) == [(1, True)]


def decoded(uri: str) -> Image.Image:
    head, _, text = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_a_thumbnail_is_small_and_keeps_the_shape_and_a_small_image_every_pixel() -> None:
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 900, 1200), dtype=np.uint8))
    uri = data_uri(noise)
    assert decoded(uri).size == (SIDE, SIDE * 3 // 4)
    assert 6 * len(uri) < 1_000_000, "six of the worst are no large page"
    flat = torch.full((3, 40, 64), 90, dtype=torch.uint8)
    assert decoded(data_uri(flat)).size == (64, 40)
    assert abs(int(np.asarray(decoded(data_uri(flat))).mean()) - 90) <= 1


# Detectors that say something, though they learnt nothing.


def model(detector: str = "GFL", **knobs: object) -> Model:
    args = {"channels": 8, "convs": 1, "extra": 0, **knobs}
    return Model(detector=Call(name=detector, args=args), backbone=Call(name="TinyResNet", args={"width": 4}))


def loud(seed: int, made: Model | None = None) -> torch.nn.Module:
    """A detector with random weights so large that it is sure of what it says."""
    torch.manual_seed(seed)
    network = build.network(made or model(reg_max=8), 3)
    for conv in (network.head.cls, network.head.box):
        torch.nn.init.normal_(conv.weight, std=0.5)
        torch.nn.init.zeros_(conv.bias)
    return network.eval()


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory):
    """What is said of three such detectors, of as many images as may be."""
    data, store = build.dataset(DIGITS), Store(tmp_path_factory.mktemp("seen") / "store")
    contents, results = build.contents(DIGITS), []
    for seed in range(3):
        stage = Stage(model=model(reg_max=8), data=contents, recipe=Recipe(batch=4), seed=seed)
        facts = {"metrics": {"val/AP": 0.0}, "history": [], "seconds": 1.0, "device": "cpu"}
        results.append(store.put(stage, loud(seed).state_dict(), score=0.0, **facts))
    return lambda number=5: look(store, data, results, [(2, 1)], number=number, seconds=600)


def test_what_is_seen_is_plain_small_and_the_same_again(looked) -> None:
    threads = torch.get_num_threads()
    made = looked()
    assert json.loads(json.dumps(made, allow_nan=False)) == looked()
    assert len(json.dumps(made)) < 1_000_000
    assert torch.get_num_threads() == threads
    assert (made["looked"], made["of"], len(made["images"])) == (12, 12, 5)
    assert made["classes"] == ["zero", "one", "two"]


def test_every_image_has_its_truth_and_what_each_detector_finds_in_it(looked) -> None:
    data = build.dataset(DIGITS)
    names = {image["file_name"]: place for place, image in enumerate(data.val.coco["images"])}
    for image in looked()["images"]:
        place = names[image["name"]]
        assert [row[:4] for row in image["truth"]] == data.val.boxes(place).tolist()
        assert [row[4] for row in image["truth"]] == data.val.labels(place).tolist()
        assert len(image["found"]) == 3 and any(image["found"])
        for x1, y1, x2, y2, score, label, which in (row for own in image["found"] for row in own):
            assert 0 <= x1 <= x2 <= 64 and 0 <= y1 <= y2 <= 64 and 0.05 <= score <= 1 and 0 <= label < 3
            assert which in (WRONG, NEITHER) or image["truth"][which][4] == label
        pixels = np.asarray(decoded(image["uri"]), dtype=float)
        assert np.abs(pixels - data.val.read(place).permute(1, 2, 0).numpy()).mean() < 6, "it is that image"


def test_when_the_time_is_over_what_was_looked_at_is_enough() -> None:
    val = build.dataset(DIGITS).val
    some = watch([loud(0)], [Recipe()], val, device=CPU, seconds=0)
    assert len(some) == 1
    assert watch([loud(0)], [Recipe()], val, device=CPU, seconds=600)[0] == some[0]


def test_threads_are_as_many_as_are_quicker_and_as_before_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    before, now = torch.get_num_threads(), [0.0]
    monkeypatch.setattr(seen.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(torch, "get_num_threads", lambda used=[4]: used[0])
    used: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)

    def work() -> None:
        now[0] += {4: slow, 1: 2.0}[used[-1]]

    slow = 5.0
    assert seen.quicker(work, CPU) == 1
    slow = 1.0
    assert seen.quicker(work, CPU) == 4
    assert used == [4, 4, 1, 4] * 2
    monkeypatch.undo()
    assert torch.get_num_threads() == before


# Edges.


def told(val: Split, teacher: torch.nn.Module, place: int) -> Split:
    """The split where what the teacher says of one image is the truth there."""
    some = say(teacher, val, place, Recipe(), device=CPU).found
    rows = [
        {"id": i, "image_id": val.ids[place], "category_id": val.categories[label], "bbox": [x, y, x2 - x, y2 - y]}
        for i, ((x, y, x2, y2), label) in enumerate(zip(some.boxes.tolist(), some.labels.tolist(), strict=True))
    ]
    return Split({**val.coco, "annotations": rows}, val.classes, val.read)


def test_the_box_is_the_teachers_right_one_whose_edges_are_least_known() -> None:
    teacher, other = loud(0), loud(1)
    val = told(build.dataset(DIGITS).val, teacher, 2)
    made = doubtful([teacher, other], [Recipe(), Recipe()], val, threshold=0.05, device=CPU)
    assert made is not None and made["image"] == 2
    said = say(teacher, val, 2, Recipe(), device=CPU)
    entropy = torch.distributions.Categorical(probs=said.edges.double()).entropy().mean(1)
    kept = []
    for corners in said.found.boxes:
        gaps = (said.boxes.clamp(0, 64) - corners).abs().sum(1)
        kept.append(entropy[gaps.argmin()].item())
    assert made["entropy"] == pytest.approx(max(kept[:50]), rel=1e-4)
    mine, theirs = made["lines"]
    assert (mine["panel"], theirs["panel"]) == (0, 1)
    assert mine["divergence"] == pytest.approx(0) and theirs["divergence"] > 0
    for line in made["lines"]:
        edges = np.array(line["edges"])
        assert edges.shape == (4, 9) and np.allclose(edges.sum(1), 1)
    # The teacher's own box is the truth here, so each edge lies in the mean of its distribution, if it was not cut.
    if np.allclose(np.clip(mine["box"], 0, 64), mine["box"]):
        assert made["truth_bins"] == pytest.approx(np.array(mine["edges"]) @ np.arange(9), abs=0.05)


def test_how_far_true_edges_are_is_counted_in_bins_from_the_location() -> None:
    edges = torch.zeros(4, 5)
    for edge, distance in enumerate((1, 2, 3, 2)):
        edges[edge, distance] = 1.0
    # The location is at (20, 30), a bin has 10 pixels.
    assert in_bins([15.0, 10.0, 60.0, 25.0], [10.0, 10.0, 50.0, 50.0], edges) == pytest.approx([0.5, 2.0, 4.0, -0.5])


def test_only_distributions_over_the_same_bins_are_compared() -> None:
    gfl, finer = loud(0), loud(0, model(reg_max=16))
    four_numbers = build.network(model("ATSS"), 3).eval()
    assert comparable(gfl, loud(1)) and not comparable(finer, gfl) and not comparable(four_numbers, gfl)
    val = build.dataset(DIGITS).val
    for others in ([finer], [four_numbers]):
        assert doubtful([gfl, *others], [Recipe(), Recipe()], val, threshold=0.05, device=CPU) is None
    plain = build.network(model(reg_max=8), 3).eval()  # which is sure of nothing
    assert doubtful([plain, plain], [Recipe(), Recipe()], val, threshold=0.05, device=CPU) is None
