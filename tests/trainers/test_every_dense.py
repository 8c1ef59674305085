"""What holds for every detector that can do more with its outputs than the loop asks for: see `trainers.outputs.Dense`.

Its boxes of all rows, its head that finishes what the towers of another say, and LD's valuable region.
"""

import math
import statistics
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from tests.trainers.detectors.scenes import masked, noise
from tests.trainers.detectors.written_out import overlap
from tests.trainers.test_every_detector import CASES, make, over
from trainers import detectors
from trainers.call import Call, offers
from trainers.detectors.anchors import anchors
from trainers.outputs import Outputs, Overlap, Targets, Truth
from trainers.within import tensors

OFFERED = offers(detectors)
POSITIVES_LEFT_OUT = {"RetinaNet", "FCOS"}  # of the valuable region
WITHOUT_ANCHORS = {"FCOS"}


def able(ability: str, without: Collection[str] = ()) -> pytest.MarkDecorator:
    """The cases of the detectors that have an ability, without some."""
    return over(case for case in CASES if hasattr(OFFERED[case[0]], ability) and case[0] not in without)


WITH_BOXES, WITH_TOWERS, WITH_VALUABLE = able("boxes"), able("finish"), able("valuable")
NEAR_ANCHORS = able("valuable", WITHOUT_ANCHORS)
OVERLAPS = pytest.mark.parametrize("kind", ["diou", "iof_diou"])


def scene(*, boxes: bool = True) -> tuple[Tensor, Truth]:
    """Two boxes that overlap; one that ends where the padding begins; and none."""
    sizes, padded = [(64, 64), (40, 50), (64, 20)], (64, 64)
    images, _ = noise(*sizes, padded=padded)
    real = [torch.tensor([[3.3, 5.1, 33.7, 40.2], [14.6, 11.9, 61.2, 62.4]]), torch.tensor([[19.7, 9.4, 50.0, 40.0]])]
    real.append(torch.zeros(0, 4))
    if not boxes:
        real = [b[:0] for b in real]
    return images, masked(real, [torch.arange(len(b)) for b in real], sizes, padded)


def judged(model: Any, *, boxes: bool = True) -> tuple[Outputs, Targets]:
    images, truth = scene(boxes=boxes)
    outputs = model(images)
    return outputs, model.assign(outputs, truth)


# Boxes


@WITH_BOXES
def test_what_it_detects_is_among_the_boxes_of_all_rows(name: str, own: dict[str, Any]) -> None:
    model = make(name, own, score_threshold=0.001).eval()
    images, truth = scene()
    with torch.no_grad():
        outputs = model(images)
        every = model.boxes(outputs)
        found = model.detect(outputs, truth.sizes)
    assert every.shape == (len(outputs.class_rows()), 4) and every.dtype == torch.float32
    for boxes, size, detections in zip(every.unflatten(0, (3, -1)), truth.sizes, found, strict=True):
        far = torch.cdist(detections.boxes, clip_boxes_to_image(boxes, size), p=torch.inf)
        assert len(far) > 0 and far.amin(1).max() < 1e-3


@WITH_BOXES
def test_the_boxes_of_an_image_do_not_depend_on_the_others(name: str, own: dict[str, Any]) -> None:
    model = make(name, own).eval()
    images, _ = scene()
    with torch.no_grad():
        every = model.boxes(model(images)).unflatten(0, (3, -1))
        alone = torch.stack([model.boxes(model(images[n : n + 1])) for n in range(3)])
    torch.testing.assert_close(every, alone, rtol=1e-3, atol=1e-3)


@WITH_BOXES
def test_with_nothing_to_say_a_box_has_its_cell_in_the_middle_and_one_cell_moves_its_own_rows_alone(
    name: str, own: dict[str, Any]
) -> None:
    model = make(name, own)
    images, _ = scene()
    with torch.no_grad():
        outputs = model(images)
        silent = replace(outputs, box=[torch.zeros_like(level) for level in outputs.box])
        boxes = model.boxes(silent)
        steps = [(stride, range(0, 64, stride)) for stride in model.strides]
        cells = [(x, y, s) for s, step in steps for y in step for x in step for _ in range(model.anchors)]
        expected = torch.tensor([[x + model.start * s, y + model.start * s] for x, y, s in cells])
        found = ((boxes[:, :2] + boxes[:, 2:]) / 2).unflatten(0, (3, -1))
        torch.testing.assert_close(found, expected.expand_as(found), rtol=0, atol=1e-3)

        level, image, y, x = 1, 2, 3, 5  # not square, so that no two of these can be mixed up
        silent.box[level][image, :, y, x] = torch.linspace(0.1, 3, silent.box[level].shape[1])
        moved = (model.boxes(silent) != boxes).any(1).nonzero().squeeze(1).tolist()
    coarser, finer = model.strides[level], model.strides[0]
    first = image * len(cells) + model.anchors * ((64 // finer) ** 2 + y * (64 // coarser) + x)
    assert moved == list(range(first, first + model.anchors))


@WITH_BOXES
def test_boxes_reach_all_that_predicts_them(name: str, own: dict[str, Any]) -> None:
    model = make(name, own)
    outputs, _ = judged(model)
    boxes = model.boxes(outputs)
    gradients = torch.autograd.grad((boxes * torch.arange(1.0, 5)).sum(), outputs.box)
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


# Towers


def tall(name: str, own: dict[str, Any]) -> Any:
    """With two convolutions a tower where there is a choice."""
    return make(name, own, **({"convs": 2} if "convs" in Call(name=name).knobs(detectors) else {}))


@WITH_TOWERS
def test_its_head_finishes_its_own_towers_from_every_step_to_what_it_says(name: str, own: dict[str, Any]) -> None:
    model = tall(name, own)
    assert model.convs > 1
    model.keep_towers = frozenset(range(model.convs + 1))
    outputs = model(scene()[0])
    assert outputs.towers.keys() == model.keep_towers
    assert all(x is y for tower in outputs.towers[0] for x, y in zip(tower, outputs.features, strict=True))
    for after, (cls, box) in outputs.towers.items():
        assert [x.shape for x in cls] == [x.shape for x in outputs.features]
        finished = model.finish(cls, box, after=after)
        assert finished.anchors == outputs.anchors and finished.by is model
        for part in ("cls", "box", "own"):
            said, expected = (list(tensors([getattr(o, part)])) for o in (finished, outputs))
            assert len(said) == len(expected)
            assert all(torch.equal(x, y) for x, y in zip(said, expected, strict=True)), (part, after)
    assert torch.equal(model.boxes(finished), model.boxes(outputs))


@WITH_TOWERS
def test_of_the_towers_only_what_somebody_asks_for_is_kept(name: str, own: dict[str, Any]) -> None:
    model = make(name, own)
    assert model.keep_towers == frozenset()
    assert model(scene()[0]).towers == {}
    model.keep_towers |= {1}
    assert model(scene()[0]).towers.keys() == {1}
    assert make(name, own).keep_towers == frozenset()


@WITH_TOWERS
def test_what_another_says_in_the_middle_learns_through_the_rest_of_the_head(name: str, own: dict[str, Any]) -> None:
    student, teacher = tall(name, own), tall(name, own).requires_grad_(False)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(1.1)
    student.keep_towers = frozenset({1})
    outputs = student(scene()[0])
    crossed = teacher.finish(*outputs.towers[1], after=1)
    assert not torch.equal(crossed.class_rows(), outputs.class_rows())
    (crossed.class_rows().sum() + teacher.boxes(crossed).sum()).backward()
    moved = [key for key, p in student.named_parameters() if p.grad is not None and p.grad.any()]
    assert any(key.startswith("backbone.") for key in moved) and any(key.startswith("head.") for key in moved)


# The valuable region


def valuable(model: Any, outputs: Outputs, targets: Targets, **knobs: Any) -> dict[int, float | None]:
    """Rows and what they weigh."""
    region = model.valuable(outputs, targets, **{"gamma": 0.25, "overlap": "diou", **knobs})
    weights = [None] * len(region.row) if region.weight is None else region.weight.tolist()
    return dict(zip(region.row.tolist(), weights, strict=True))


@WITH_VALUABLE
@OVERLAPS
def test_the_region_lies_in_the_images_that_have_boxes(name: str, own: dict[str, Any], kind: Overlap) -> None:
    model = make(name, own)
    outputs, targets = judged(model)
    region = model.valuable(outputs, targets, gamma=0.25, overlap=kind)
    assert region.row.dtype == torch.long and len(region.row) > 20
    assert (region.row.diff() > 0).all()
    assert region.row.min() >= 0 and region.row.max() < 2 * len(targets.valid) / 3  # the third image has no boxes
    assert targets.valid[region.row].all()
    if region.weight is not None:
        assert region.weight.shape == region.row.shape and not region.weight.requires_grad
        assert ((region.weight > 0) & (region.weight <= 1)).all()


@WITH_VALUABLE
@OVERLAPS
def test_without_boxes_there_is_no_region(name: str, own: dict[str, Any], kind: Overlap) -> None:
    model = make(name, own)
    outputs, targets = judged(model, boxes=False)
    region = model.valuable(outputs, targets, gamma=0.25, overlap=kind)
    assert region.row.shape == (0,)
    assert region.weight is None or region.weight.shape == (0,)


@WITH_VALUABLE
@OVERLAPS
def test_positives_are_left_out_or_may_be_in_it_as_its_docstring_says(
    name: str, own: dict[str, Any], kind: Overlap
) -> None:
    model = make(name, own)
    outputs, targets = judged(model)
    shared = valuable(model, outputs, targets, overlap=kind).keys() & set(targets.row.tolist())
    assert bool(shared) == (name not in POSITIVES_LEFT_OUT)


@NEAR_ANCHORS
@OVERLAPS
def test_a_gamma_of_one_leaves_nothing_and_a_smaller_gamma_adds_rows(
    name: str, own: dict[str, Any], kind: Overlap
) -> None:
    model = make(name, own)
    outputs, targets = judged(model)
    regions = [valuable(model, outputs, targets, gamma=gamma, overlap=kind) for gamma in (1.0, 0.75, 0.5, 0.25, 0.0)]
    assert not regions[0]
    for less, more in pairwise(regions):
        assert less.keys() < more.keys()
        assert all(more[row] >= weight for row, weight in less.items())


@NEAR_ANCHORS
def test_the_overlap_of_the_paper_and_that_of_the_released_code_are_two(name: str, own: dict[str, Any]) -> None:
    model = make(name, own)
    outputs, targets = judged(model)
    paper, code = (valuable(model, outputs, targets, overlap=kind) for kind in ("diou", "iof_diou"))
    assert paper.keys() - code.keys() and code.keys() - paper.keys()


@NEAR_ANCHORS
@OVERLAPS
@pytest.mark.parametrize("gamma", [0.25, 0.6])
def test_the_region_is_that_of_the_paper_written_out(
    name: str, own: dict[str, Any], kind: Overlap, gamma: float
) -> None:
    model = make(name, own)
    outputs, targets = judged(model)
    found = valuable(model, outputs, targets, gamma=gamma, overlap=kind)
    grid = model.grid(outputs) if hasattr(model, "grid") else anchors(outputs.cls, model.strides)
    expected = written_out(grid.box.tolist(), grid.level.tolist(), targets, gamma=gamma, kind=kind)
    if name in POSITIVES_LEFT_OUT:
        expected = {row: weight for row, weight in expected.items() if row not in set(targets.row.tolist())}
    assert found == pytest.approx(expected, rel=1e-4)


def written_out(
    boxes: list[list[float]], levels: list[int], targets: Targets, *, gamma: float, kind: Overlap
) -> dict[int, float]:
    """Box by box and anchor by anchor. -> the rows with their weights."""
    found: dict[int, float] = {}
    for image, real in enumerate(targets.truth.boxes):
        first = image * len(boxes)
        inside = [n for n in range(len(boxes)) if targets.valid[first + n]]
        for box in real.tolist():
            ious = []
            for level in sorted(set(levels)):
                here = [(math.dist(middle(boxes[n]), middle(box)), n) for n in inside if levels[n] == level]
                ious += [overlap(boxes[n], box)[0] for _, n in sorted(here)[:9]]
            threshold = statistics.mean(ious) + statistics.stdev(ious)
            for n in inside:
                iou = overlap(boxes[n], box)[0]
                if gamma * threshold <= CLOSENESS[kind](boxes[n], box) < threshold and iou > 0:
                    found[first + n] = max(iou, found.get(first + n, 0.0))
    return found


def middle(box: Sequence[float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def apart(a: Sequence[float], b: Sequence[float]) -> float:
    """The squared distance of the middles by the squared diagonal of what holds both."""
    diagonal = math.dist((min(a[0], b[0]), min(a[1], b[1])), (max(a[2], b[2]), max(a[3], b[3])))
    return (math.dist(middle(a), middle(b)) / diagonal) ** 2


def covered(anchor: Sequence[float], box: Sequence[float]) -> float:
    """The part of the anchor that the box covers."""
    sides = (max(0.0, min(anchor[k + 2], box[k + 2]) - max(anchor[k], box[k])) for k in (0, 1))
    return math.prod(sides) / ((anchor[2] - anchor[0]) * (anchor[3] - anchor[1]))


CLOSENESS: dict[str, Callable[[Sequence[float], Sequence[float]], float]] = {
    "diou": lambda anchor, box: overlap(anchor, box)[0] - apart(anchor, box),
    "iof_diou": lambda anchor, box: covered(anchor, box) - apart(anchor, box),
}


@over(case for case in CASES if case[0] in WITHOUT_ANCHORS)
def test_without_anchors_it_is_all_points_in_a_box_that_answer_for_none(name: str, own: dict[str, Any]) -> None:
    model = make(name, own)
    outputs, targets = judged(model)
    regions = [
        valuable(model, outputs, targets, gamma=gamma, overlap=kind)
        for gamma, kind in ((0.25, "diou"), (1.0, "iof_diou"))
    ]
    grid = anchors(outputs.cls, model.strides)
    half = 0 if model.start == 0 else grid.stride[:, None] / 2
    point = (grid.centre + half).tolist()
    expected = set()
    for image, real in enumerate(targets.truth.boxes):
        for n, (x, y) in enumerate(point):
            if any(x1 < x < x2 and y1 < y < y2 for x1, y1, x2, y2 in real.tolist()):
                expected.add(image * len(point) + n)
    expected -= set(targets.row.tolist())
    assert regions[0].keys() == regions[1].keys() == expected
    assert set(regions[0].values()) == {None}


@able("row_scores")
def test_what_a_row_scores_is_what_it_detects_with(name: str, own: dict[str, Any]) -> None:
    model = make(name, own, score_threshold=0.0).eval()
    images, truth = scene()
    with torch.no_grad():
        outputs = model(images)
        row = torch.arange(len(outputs.class_rows())).flip(0)
        scores = model.row_scores(outputs, row)
        found = model.detect(outputs, truth.sizes)
    assert scores.shape == outputs.class_rows().shape and (scores <= outputs.class_rows()[row].sigmoid()).all()
    assert scores.flip(0).unflatten(0, (3, -1))[0].max() == pytest.approx(found[0].scores[0].item(), rel=1e-5)
