"""ATSS: its losses written out cell by cell, how its boxes are decoded and ordered, and what padding may not do."""

import math
from typing import Any

import pytest
import torch

from tests.trainers.detectors.scenes import STRIDES, THREE, drawer, small, truth
from tests.trainers.detectors.written_out import (
    centerness,
    cross_entropy,
    distances,
    distribution_focal,
    edges,
    focal,
    focal_of_nothing,
    overlap,
    sigmoid,
)
from trainers.backbones import ResNet
from trainers.detectors import ATSS, GFL
from trainers.outputs import Outputs, Targets

BINS = 9
SIDE = 64
CELLS = (256, 64, 16)
EVERY_KIND = pytest.mark.parametrize("reg_max", [0, BINS - 1], ids=["deltas", "distributions"])


def make(**knobs: Any) -> ATSS:
    return small(ATSS, **{"channels": 16, "convs": 1, "extra": 0, **knobs})


def said(images: int, reg_max: int = 0) -> Outputs:
    """Outputs that are leaves."""
    draw = drawer(images)
    box = draw(4 * (reg_max + 1) if reg_max else 4)
    return Outputs(draw(16), draw(3), box, own={"centerness": draw(1)})


def decoded(values: list[float], x: float, y: float, stride: int, *, reg_max: int) -> list[float]:
    if reg_max:
        left, top, right, bottom = (stride * d for d in distances(values))
        return [x - left, y - top, x + right, y + bottom]
    side = 8 * stride
    x, y = x + 0.1 * values[0] * side, y + 0.1 * values[1] * side
    width, height = side * math.exp(0.2 * values[2]), side * math.exp(0.2 * values[3])
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def literal(outputs: Outputs, targets: Targets, *, reg_max: int) -> dict[str, float]:
    """Level by level and cell by cell."""
    owner = {row: p for p, row in enumerate(targets.row.tolist())}
    counts = [0] * targets.images
    sums = dict.fromkeys(("cls", "centerness", "box", "dfl", "weight"), 0.0)
    for level, stride in enumerate(STRIDES):
        side = SIDE // stride
        for image in range(targets.images):
            cls, box, centred = (
                maps[level][image].permute(1, 2, 0).tolist()
                for maps in (outputs.cls, outputs.box, outputs.own["centerness"])
            )
            for i in range(side):
                for j in range(side):
                    p = owner.get(image * sum(CELLS) + sum(CELLS[:level]) + i * side + j)
                    sums["cls"] += focal(cls[i][j], None if p is None else int(targets.label[p]))
                    if p is None:
                        continue
                    counts[image] += 1
                    x, y, real = j * stride, i * stride, targets.box[p].tolist()
                    target = centerness(x, y, real)
                    sums["centerness"] += cross_entropy(sigmoid(centred[i][j][0]), target)
                    predicted = decoded(box[i][j], x, y, stride, reg_max=reg_max)
                    sums["box"] += target * (1 - overlap(predicted, real)[1])
                    sums["weight"] += target
                    if reg_max:
                        wanted = [d / stride for d in edges(x, y, real)]
                        sums["dfl"] += target * distribution_focal(box[i][j], wanted)
    number = sum(max(1, count) for count in counts)
    found = {"cls": sums["cls"] / number, "centerness": sums["centerness"] / number}
    found["box"] = 2 * sums["box"] / sums["weight"]
    if reg_max:
        found["dfl"] = 0.25 * sums["dfl"] / sums["weight"]
    return found


@EVERY_KIND
def test_the_losses_are_those_of_mmdetection_written_out(reg_max: int) -> None:
    model, outputs = make(reg_max=reg_max), said(3, reg_max)
    targets = model.assign(outputs, THREE)
    targets.box[0] = torch.tensor([-90.0, -80, 150, 160])  # its edges are farther away than the last bin
    assert len(set(targets.level.tolist())) > 1
    found = {name: loss.item() for name, loss in model.losses(outputs, targets).items()}
    assert found == pytest.approx(literal(outputs, targets, reg_max=reg_max), rel=1e-4)


def test_positives_are_those_of_gfl() -> None:
    model, outputs = make(), said(3)
    gfl = small(GFL, channels=16, convs=1, extra=0)
    ours, theirs = model.assign(outputs, THREE), gfl.assign(outputs, THREE)
    for name in ("row", "level", "label", "box", "valid"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


@EVERY_KIND
def test_each_loss_teaches_its_own_output_alone(reg_max: int) -> None:
    model, outputs = make(reg_max=reg_max), said(3, reg_max)
    losses = model.losses(outputs, model.assign(outputs, THREE))
    maps = {"cls": outputs.cls, "box": outputs.box, "centerness": outputs.own["centerness"]}
    for name, loss in losses.items():
        for other, levels in maps.items():
            grads = torch.autograd.grad(loss, levels, retain_graph=True, materialize_grads=True)
            assert any(grad.any() for grad in grads) == (name.replace("dfl", "box") == other), (name, other)


@EVERY_KIND
def test_a_batch_without_boxes_has_gradients_of_zero_for_boxes_and_divides_by_its_images(reg_max: int) -> None:
    model, outputs = make(reg_max=reg_max), said(2, reg_max)
    losses = model.losses(outputs, model.assign(outputs, truth([], [])))
    assert losses["box"].item() == losses["centerness"].item() == 0
    torch.testing.assert_close(losses["cls"], focal_of_nothing(outputs.cls) / 2)
    sum(losses.values()).backward()
    for level in (*outputs.box, *outputs.own["centerness"]):
        assert level.grad is not None and not level.grad.any()


@EVERY_KIND
def test_the_padding_carries_no_loss_and_is_never_detected(reg_max: int) -> None:
    knobs: dict[str, Any] = {"score_threshold": 0.0, "max_detections": 10_000, "nms_iou": 1.0, "top_k": 10_000}
    model, outputs = make(reg_max=reg_max, **knobs), said(2, reg_max)
    size, inside = (33, 20), [(9, 5), (5, 3), (3, 2)]
    targets = model.assign(outputs, truth([[2.0, 3, 18, 30]], [[1.0, 1, 17, 19]], size=size))
    sum(model.losses(outputs, targets).values()).backward()
    for cls, (height, width) in zip(outputs.cls, inside, strict=True):
        assert cls.grad is not None and (cls.grad[:, :, :height, :width] != 0).all()
    for levels in (outputs.cls, outputs.box, outputs.own["centerness"]):
        for level, (height, width) in zip(levels, inside, strict=True):
            assert level.grad is not None
            assert not level.grad[:, :, height:].any() and not level.grad[:, :, :, width:].any()
    for found in model.detect(outputs, [size, size]):
        assert len(found.scores) == 3 * (9 * 5 + 5 * 3 + 3 * 2)


@EVERY_KIND
def test_every_cell_is_decoded_to_its_own_box_and_scored_by_class_and_centerness(reg_max: int) -> None:
    knobs: dict[str, Any] = {"max_detections": 10_000, "nms_iou": 1.0, "top_k": 10_000}
    model, outputs = make(reg_max=reg_max, score_threshold=0.5, **knobs), said(2, reg_max)
    found = model.detect(outputs, [(SIDE, SIDE)] * 2)
    for image in range(2):
        expected = []
        for level, stride in enumerate(STRIDES):
            for i in range(SIDE // stride):
                for j in range(SIDE // stride):
                    values = outputs.box[level][image, :, i, j].tolist()
                    box = decoded(values, j * stride, i * stride, stride, reg_max=reg_max)
                    factor = outputs.own["centerness"][level][image, 0, i, j].sigmoid().item()
                    for label, score in enumerate(outputs.cls[level][image, :, i, j].sigmoid().tolist()):
                        if score > 0.5:  # the class alone; the product may be lower
                            expected.append((score * factor, label, [min(max(v, 0), SIDE) for v in box]))
        expected.sort(key=lambda one: -one[0])
        assert found[image].labels.tolist() == [label for _, label, _ in expected]
        torch.testing.assert_close(found[image].scores, torch.tensor([score for score, _, _ in expected]))
        torch.testing.assert_close(found[image].boxes, torch.tensor([box for *_, box in expected]), rtol=0, atol=1e-3)
        assert (found[image].scores < 0.5).any()


def test_of_boxes_that_overlap_the_one_of_the_best_class_and_centerness_stays() -> None:
    model, outputs = make(), said(1)
    cls = [torch.full_like(c, -20.0) for c in outputs.cls]
    centred = [torch.zeros_like(c) for c in outputs.own["centerness"]]
    cls[1][0, 0, 4, 4:6] = torch.tensor([0.8, 0.6]).logit()
    centred[1][0, 0, 4, 4:6] = torch.tensor([0.1, 0.4]).logit()
    (found,) = model.detect(
        Outputs([], cls, [torch.zeros_like(b) for b in outputs.box], own={"centerness": centred}), [(SIDE, SIDE)]
    )
    torch.testing.assert_close(found.scores, torch.tensor([0.6 * 0.4]))
    assert found.boxes.tolist() == [[8, 0, 64, 64]]  # around (40, 32) by 64, within the image


def test_every_class_starts_at_a_score_of_one_in_a_hundred() -> None:
    outputs = make()(torch.rand(2, 3, SIDE, SIDE))
    for cls in outputs.cls:
        torch.testing.assert_close(cls.sigmoid(), torch.full_like(cls, 0.01), atol=5e-3, rtol=0)


def test_a_level_scales_its_boxes_and_nothing_else() -> None:
    model, images = make().eval(), torch.rand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        before = model(images)
        model.head.scales.copy_(torch.tensor([1.0, 3.0, -1.0]))
        after = model(images)
    for x, y, scale in zip(before.box, after.box, (1, 3, -1), strict=True):
        torch.testing.assert_close(y, x * scale)
    for x, y in zip(before.own["centerness"] + before.cls, after.own["centerness"] + after.cls, strict=True):
        assert torch.equal(x, y)


TOWER = 4 * (256 * 256 * 9 + 2 * 256)
OUT = 256 * 9 + 1  # of one channel


@pytest.mark.parametrize(
    ("depth", "body"), [(18, 19_420_889 - 5_063_833), (50, 32_440_537 - 5_063_833), (101, 51_432_665 - 5_063_833)]
)
def test_parameters_are_those_of_the_published_networks(depth: int, body: int) -> None:
    """Of ResNet-50's, mmdetection trains 225,344 fewer: 32.07 million. The body is GFL's."""
    for reg_max, numbers in ((0, 4), (16, 68)):
        with torch.device("meta"):
            model = ATSS(ResNet(depth=depth), 80, reg_max=reg_max)
        head = 2 * TOWER + (80 + numbers + 1) * OUT + 5
        assert sum(p.numel() for p in model.head.parameters()) == head
        assert sum(p.numel() for p in model.parameters()) == body + head
        if (depth, reg_max) == (50, 0):
            assert body + head - 225_344 == 32_069_978


def test_its_state_is_what_published_weights_are_mapped_onto() -> None:
    head = {name.removeprefix("head.") for name in make(convs=1).state_dict() if name.startswith("head.")}
    towers = {f"{name}_tower.{x}" for name in ("cls", "box") for x in ("0.weight", "1.weight", "1.bias")}
    outs = {f"{name}.{x}" for name in ("cls", "box", "centerness") for x in ("weight", "bias")}
    assert head == towers | outs | {"scales"}
