"""FCOS: the whole assignment and loss written out, how boxes are decoded and ordered, and what padding may not do."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from tests.trainers.detectors.scenes import STRIDES, drawer, small
from tests.trainers.detectors.scenes import truth as truth_of
from tests.trainers.detectors.written_out import (
    centerness,
    cross_entropy,
    distances,
    distribution_focal,
    edges,
    focal,
    overlap,
    sigmoid,
)
from trainers.backbones import ResNet
from trainers.call import Invalid
from trainers.detectors import FCOS
from trainers.outputs import Outputs, Truth

BINS = 9
SIDE = 128
CELLS = [(SIDE // s) ** 2 for s in STRIDES]
KINDS: list[dict[str, Any]] = [{}, {"conventions": "paper"}, {"reg_max": BINS - 1}]
EVERY_KIND = pytest.mark.parametrize("knobs", KINDS, ids=["mmdetection", "paper", "distributions"])


def make(**knobs: Any) -> FCOS:
    return small(FCOS, **{"channels": 16, "convs": 1, "extra": 0, **knobs})


def truth(*boxes: list[list[float]], size: tuple[int, int] = (SIDE, SIDE)) -> Truth:
    return truth_of(*boxes, size=size)


# Some lie within others; the first answers on all levels where centres are not sampled.
MANY = truth(
    [[3.3, 5.1, 120.2, 118.4], [10.1, 8.2, 22.3, 21.4], [40.3, 50.2, 79.1, 80.3]],
    [],
    [[30.2, 20.1, 61.3, 60.2], [2.1, 40.3, 20.2, 63.1], [28.3, 22.2, 58.1, 95.4], [1.1, 1.2, 100.3, 90.1]],
)


def said(images: int, bins: int = 0) -> Outputs:
    """Outputs that are leaves: random logits, and distances that are not negative."""
    draw = drawer(images, size=(SIDE, SIDE))
    box = draw(4 * bins) if bins else [(2 * x.detach().abs() + 0.1).requires_grad_() for x in draw(4)]
    return Outputs(draw(16), draw(3), box, own={"centerness": draw(1)})


# The words of mmdetection, number by number.


def answers(x: float, y: float, level: int, boxes: list[list[float]], *, sampled: bool) -> int | None:
    """The smallest box that a point lies in and that its level is for."""
    stride, best, found = STRIDES[level], math.inf, None
    low = 8 * STRIDES[level - 1] if level else -1
    high = math.inf if level == len(STRIDES) - 1 else 8 * stride
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        distance = edges(x, y, (x1, y1, x2, y2))
        inside = min(distance) > 0
        if sampled:
            reach, cx, cy = 1.5 * stride, (x1 + x2) / 2, (y1 + y2) / 2
            left, top = max(cx - reach, x1), max(cy - reach, y1)
            right, bottom = min(cx + reach, x2), min(cy + reach, y2)
            inside = min(edges(x, y, (left, top, right, bottom))) > 0
        area = (x2 - x1) * (y2 - y1)
        if inside and low <= max(distance) <= high and area < best:
            best, found = area, number
    return found


def literal(
    outputs: Outputs, truth: Truth, *, conventions: str = "mmdetection", reg_max: int = 0
) -> tuple[dict[str, float], dict[int, tuple[int, list[float]]]]:
    """The losses, and the label and box that each positive row answers for."""
    paper, owned = conventions == "paper", {}
    sums = dict.fromkeys(("cls", "centerness", "box", "dfl", "weight"), 0.0)
    for image, (boxes, labels) in enumerate(zip(truth.boxes, truth.labels, strict=True)):
        for level, stride in enumerate(STRIDES):
            side = SIDE // stride
            cls, box, centred = (
                maps[level][image].permute(1, 2, 0).tolist()
                for maps in (outputs.cls, outputs.box, outputs.own["centerness"])
            )
            for i in range(side):
                for j in range(side):
                    x, y = j * stride + stride // 2, i * stride + stride // 2
                    owner = answers(x, y, level, boxes.tolist(), sampled=not paper)
                    sums["cls"] += focal(cls[i][j], None if owner is None else int(labels[owner]))
                    if owner is None:
                        continue
                    real = boxes[owner].tolist()
                    owned[image * sum(CELLS) + sum(CELLS[:level]) + i * side + j] = (labels[owner].item(), real)
                    target = centerness(x, y, real)
                    sums["centerness"] += cross_entropy(sigmoid(centred[i][j][0]), target)
                    if reg_max:
                        wanted = [d / stride for d in edges(x, y, real)]
                        sums["dfl"] += target * distribution_focal(box[i][j], wanted)
                    far = [d * (1 if paper else stride) for d in (distances(box[i][j]) if reg_max else box[i][j])]
                    iou, giou = overlap([x - far[0], y - far[1], x + far[2], y + far[3]], real)
                    sums["box"] += target * (-math.log(iou) if paper else 1 - giou)
                    sums["weight"] += target
    found = {"cls": sums["cls"] / len(owned), "centerness": sums["centerness"] / len(owned)}
    found["box"] = sums["box"] / sums["weight"]
    if reg_max:
        found["dfl"] = 0.25 * sums["dfl"] / sums["weight"]
    return found, owned


@EVERY_KIND
def test_assignment_and_losses_are_those_of_mmdetection_written_out(knobs: dict[str, Any]) -> None:
    model, outputs = make(**knobs), said(3, BINS if "reg_max" in knobs else 0)
    targets = model.assign(outputs, MANY)
    losses, owned = literal(outputs, MANY, **knobs)
    assert targets.row.tolist() == sorted(owned)
    assert targets.label.tolist() == [owned[row][0] for row in sorted(owned)]
    assert targets.box.tolist() == [owned[row][1] for row in sorted(owned)]
    assert set(targets.level.tolist()) == {0, 1, 2}
    found = {name: loss.item() for name, loss in model.losses(outputs, targets).items()}
    assert found == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize(
    ("conventions", "middle", "both"), [("mmdetection", 0.5, True), ("paper", 0.5, True), ("torchvision", 0.0, False)]
)
def test_where_the_range_of_one_level_ends_that_of_the_next_begins(conventions: str, middle: float, both: bool) -> None:
    """In the middle of a box of 64 pixels the farthest edge is 32 away: to both levels, but to none in torchvision."""
    model, outputs = make(conventions=conventions), said(1)
    for level, stride in ((0, 4), (1, 8)):
        column = 48 // stride
        x = (column + middle) * stride
        targets = model.assign(outputs, truth([[x - 32, 56, x + 32, 76]]))
        cell = targets.row[targets.level == level] - sum(CELLS[:level])
        assert (cell % (SIDE // stride) == column).any() == both


def test_an_image_without_boxes_has_no_positives_and_shifts_no_numbers() -> None:
    model, outputs = make(), said(2)
    targets = model.assign(outputs, truth([], [[3.0, 5, 60, 58], [70.0, 80, 90, 99]]))
    assert (targets.row >= sum(CELLS)).all()
    assert set(targets.label.tolist()) == {0, 1}


# Decoding.


@pytest.mark.parametrize(
    ("conventions", "box"),
    [
        ("mmdetection", [52.0 - 16, 44 - 24, 52 + 32, 44 + 12]),
        ("torchvision", [48.0 - 16, 40 - 24, 48 + 32, 40 + 12]),
        ("paper", [52.0 - 2, 44 - 3, 52 + 4, 44 + 1.5]),
    ],
)
def test_a_certain_point_is_decoded_to_its_box(conventions: str, box: list[float]) -> None:
    """Cell (5, 6) of stride 8 says 2, 3, 4 and 1.5, class 2."""
    model, outputs = make(conventions=conventions), said(1)
    cls = [torch.full_like(c, -20.0) for c in outputs.cls]
    cls[1][0, 2, 5, 6] = 3.0
    distances = [torch.zeros_like(b) for b in outputs.box]
    distances[1][0, :, 5, 6] = torch.tensor([2, 3, 4, 1.5])
    centred = [torch.full_like(c, 1.0) for c in outputs.own["centerness"]]
    (found,) = model.detect(Outputs([], cls, distances, own={"centerness": centred}), [(SIDE, SIDE)])
    torch.testing.assert_close(found.boxes, torch.tensor([box]))
    assert found.labels.tolist() == [2]
    score = torch.tensor([3.0]).sigmoid() * torch.tensor([1.0]).sigmoid()
    torch.testing.assert_close(found.scores, score.sqrt() if conventions == "torchvision" else score)


def test_distributions_are_decoded_from_the_middle_of_the_cell_in_strides() -> None:
    model, outputs = make(reg_max=BINS - 1), said(1, BINS)
    cls = [torch.full_like(c, -20.0) for c in outputs.cls]
    cls[1][0, 2, 5, 6] = 3.0
    box = [torch.zeros_like(b) for b in outputs.box]
    edges = torch.full((4, BINS), -50.0)
    edges[[0, 1, 2], [2, 3, 4]] = 50
    edges[3, 1:3] = 50
    box[1][0, :, 5, 6] = edges.flatten()
    (found,) = model.detect(replace(outputs, cls=cls, box=box), [(SIDE, SIDE)])
    torch.testing.assert_close(found.boxes, torch.tensor([[52.0 - 16, 44 - 24, 52 + 32, 44 + 12]]))


def test_the_threshold_is_for_classes_alone_and_the_centerness_orders_what_overlaps() -> None:
    model, outputs = make(score_threshold=0.3), said(1)
    cls = [torch.full_like(c, -20.0) for c in outputs.cls]
    cls[1][0, 0, 5, 5:8] = torch.tensor([0.8, 0.6, 0.29]).logit()
    centred = [torch.zeros_like(c) for c in outputs.own["centerness"]]
    centred[1][0, 0, 5, 5:8] = torch.tensor([0.1, 0.4, 1.0]).logit().clamp(max=20)
    box = [torch.zeros_like(b) for b in outputs.box]
    for cell, x in ((5, 0), (6, 1), (7, 2)):  # all three say (20, 20, 84, 84)
        point = torch.tensor([44.0 + 8 * x, 44])
        box[1][0, :, 5, cell] = torch.cat([point - 20, 84 - point]) / 8
    (found,) = model.detect(Outputs([], cls, box, own={"centerness": centred}), [(SIDE, SIDE)])
    torch.testing.assert_close(found.scores, torch.tensor([0.6 * 0.4]))
    torch.testing.assert_close(found.boxes, torch.tensor([[20.0, 20, 84, 84]]))


# Padding, precision, sizes.


def test_the_padding_learns_to_be_background_and_is_never_detected() -> None:
    model, outputs = make(score_threshold=0.0, max_detections=10_000, nms_iou=1.0, top_k=10_000), said(1)
    size = (33, 20)  # 9 by 5, 5 by 3 and 3 by 2 cells
    targets = model.assign(outputs, truth([[2.0, 3, 18, 30]], size=size))
    assert targets.valid.sum() == 45 + 15 + 6
    sum(model.losses(outputs, targets).values()).backward()
    for cls, (height, width) in zip(outputs.cls, [(9, 5), (5, 3), (3, 2)], strict=True):
        assert cls.grad is not None
        assert (cls.grad[:, :, height:] > 0).all() and (cls.grad[:, :, :, width:] > 0).all()
    (found,) = model.detect(outputs, [size])
    assert len(found.scores) == 3 * (45 + 15 + 6)


def test_each_loss_teaches_its_own_output_alone() -> None:
    model, outputs = make(), said(3)
    losses = model.losses(outputs, model.assign(outputs, MANY))
    maps = {"cls": outputs.cls, "box": outputs.box, "centerness": outputs.own["centerness"]}
    for name, loss in losses.items():
        for other, levels in maps.items():
            grads = torch.autograd.grad(loss, levels, retain_graph=True, materialize_grads=True)
            assert any(grad.any() for grad in grads) == (name == other), (name, other)


def test_centerness_is_read_from_the_tower_of_boxes_but_in_the_paper_from_that_of_classes() -> None:
    for conventions, name in (("mmdetection", "regression_head"), ("paper", "classification_head")):
        model = make(conventions=conventions)
        sum(x.sum() for x in model(torch.rand(1, 3, 64, 64)).own["centerness"]).backward()
        taught = {n for n, p in model.head.named_parameters() if p.grad is not None and "conv" in n}
        assert taught and all(n.startswith(name) for n in taught)


def test_a_level_scales_its_distances_before_they_lose_their_sign() -> None:
    images = torch.rand(1, 3, 64, 64)
    for conventions in ("mmdetection", "paper"):
        model = make(conventions=conventions).eval()
        with torch.no_grad():
            once = model(images).box
            model.head.scales.copy_(torch.tensor([1.0, 3.0, -1.0]))
            scaled = model(images).box
        if conventions == "paper":
            expected = [once[0], once[1] ** 3, 1 / once[2]]
        else:
            expected = [once[0], 3 * once[1], torch.zeros_like(once[2])]  # all of them were positive
            assert (once[2] > 0).all()
        for x, y in zip(scaled, expected, strict=True):
            torch.testing.assert_close(x, y)


def test_torchvisions_conventions_have_no_distributions() -> None:
    with pytest.raises(Invalid, match="reg_max must be 0"):
        make(conventions="torchvision", reg_max=16)


TOWER = 4 * (256 * 256 * 9 + 2 * 256)  # without the convolutions' biases
OUT = 256 * 9 + 1  # of one channel
BODY = 32_440_537 - 5_063_833  # ResNet-50 and FPN, as GFL's


@pytest.mark.parametrize(
    ("knobs", "head"),
    [
        ({}, 2 * (TOWER + 4 * 256) + (80 + 4 + 1) * OUT + 5),
        ({"conventions": "torchvision"}, 2 * (TOWER + 4 * 256) + (80 + 4 + 1) * OUT),
        ({"conventions": "paper"}, 2 * TOWER + (80 + 4 + 1) * OUT + 5),
        ({"reg_max": 16}, 2 * (TOWER + 4 * 256) + (80 + 68 + 1) * OUT + 5),
    ],
)
def test_parameters_are_those_of_the_published_networks(knobs: dict[str, Any], head: int) -> None:
    """mmdetection counts 225,344 fewer, which it freezes; torchvision's 32,269,600 have 91 classes and no norms."""
    with torch.device("meta"):
        model = FCOS(ResNet(depth=50), 80, **knobs)
        outputs = model(torch.zeros(1, 3, 801, 1333))
    assert sum(p.numel() for p in model.head.parameters()) == head
    assert {m.num_groups for m in model.head.modules() if isinstance(m, nn.GroupNorm)} == {32}
    assert sum(p.numel() for p in model.parameters()) == BODY + head
    if not knobs:
        assert BODY + head - 225_344 == 32_072_026
    if knobs == {"conventions": "torchvision"}:
        norms = sum(
            p.numel() for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()
        )
        assert BODY + head + 11 * OUT - norms == 32_269_600
    assert model.strides == (8, 16, 32, 64, 128)
    assert [tuple(c.shape[1:]) for c in outputs.own["centerness"]] == [
        (1, math.ceil(801 / s), math.ceil(1333 / s)) for s in model.strides
    ]


def test_its_state_has_torchvisions_names() -> None:
    from torchvision.models.detection.fcos import FCOSHead

    theirs = set(FCOSHead(256, 1, 80).state_dict())
    assert set(make(convs=4, conventions="torchvision").head.state_dict()) == theirs
    assert set(make(convs=4).head.state_dict()) == theirs | {"scales"}
    without = {f"{tower}_head.conv.{i}.bias" for tower in ("classification", "regression") for i in (0, 3, 6, 9)}
    assert set(make(convs=4, conventions="paper").head.state_dict()) == (theirs | {"scales"}) - without
