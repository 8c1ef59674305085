"""RepPoints: what its deformable convolutions read, its targets and losses written out, and how boxes are decoded."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.trainers.detectors.points_written_out import (
    PER_IMAGE,
    THREE,
    cells_of,
    literal_box,
    literal_guesses,
    literal_nearest,
    literal_overlap,
    make,
    said,
)
from tests.trainers.detectors.scenes import STRIDES, truth
from tests.trainers.detectors.written_out import focal, focal_of_nothing
from trainers.backbones import ResNet
from trainers.detectors import RepPoints
from trainers.detectors.max_iou import IGNORED
from trainers.detectors.points import regular_grid
from trainers.outputs import Outputs, Targets


def place(model: Any, points: Tensor) -> None:
    """Every cell guesses these points."""
    with torch.no_grad():
        model.head.init_out.weight.zero_()
        model.head.init_out.bias.copy_(points)


def test_at_the_regular_grid_the_deformable_convolutions_are_ordinary_ones() -> None:
    model, x = make(), torch.randn(2, 16, 7, 9)
    head = model.head
    place(model, regular_grid())
    cls, init, points = head(x)
    plain = F.conv2d(head.cls_tower(x), head.cls_conv.weight, padding=1)
    torch.testing.assert_close(cls, head.cls_out(plain.relu()))
    plain = F.conv2d(head.pts_tower(x), head.refine_conv.weight, padding=1)
    torch.testing.assert_close(points, head.refine_out(plain.relu()) + init)


def test_points_one_down_and_two_to_the_right_read_the_features_there() -> None:
    model, x = make(), torch.randn(2, 16, 7, 9)
    place(model, regular_grid())
    there = model.head(x)[0][:, :, 1:, 2:]
    place(model, regular_grid() + torch.tensor([1.0, 2.0]).repeat(9))
    # Not at the last cells: an ordinary convolution sees no padding there, and these would.
    torch.testing.assert_close(model.head(x)[0][:, :, :5, :6], there[:, :, :5, :6])


def test_what_is_read_at_the_points_moves_them_by_a_tenth_and_the_refined_box_not_at_all() -> None:
    gradients = []
    for factor in (1.0, 0.1):
        model, x = make(gradient_mul=factor), torch.randn(1, 16, 7, 9, generator=torch.Generator().manual_seed(1))
        torch.nn.init.normal_(model.head.init_out.bias)
        cls, _, points = model.head(x)
        (of_class,) = torch.autograd.grad(cls.square().sum(), model.head.init_out.bias, retain_graph=True)
        (of_points,) = torch.autograd.grad(points.square().sum(), model.head.init_out.bias)
        gradients.append((of_class, of_points))
    assert gradients[0][0].any() and gradients[0][1].any()
    for whole, tenth in zip(*gradients, strict=True):
        torch.testing.assert_close(0.1 * whole, tenth)
    model = make(gradient_mul=0.0)
    points = model.head(torch.randn(1, 16, 7, 9))[2]
    assert not torch.autograd.grad(points.sum(), model.head.init_out.bias)[0].any()


def test_targets_are_the_positives_of_the_refinement_and_own_those_of_the_guess() -> None:
    model, outputs = make(), said(3)
    targets = model.assign(outputs, THREE)
    rows, ignored, first = {}, [], {}
    for image, boxes in enumerate(THREE.boxes):
        owner = literal_overlap(literal_guesses(outputs, image), boxes)
        ignored += [number == IGNORED for number in owner]
        rows |= {image * PER_IMAGE + cell: boxes[number].tolist() for cell, number in enumerate(owner) if number >= 0}
        for cell, number in literal_nearest(boxes.tolist(), (64, 64)).items():
            first[image * PER_IMAGE + cell] = boxes[number].tolist()
    assert dict(zip(targets.row.tolist(), targets.box.tolist(), strict=True)) == rows
    assert targets.ignored.tolist() == ignored and any(ignored)
    assert dict(zip(targets.own["init_row"].tolist(), targets.own["init_box"].tolist(), strict=True)) == first
    image = targets.row // PER_IMAGE
    for i, label, box in zip(image.tolist(), targets.label.tolist(), targets.box.tolist(), strict=True):
        assert box == THREE.boxes[i][label].tolist()
    assert [cells_of()[cell][0] for cell in (targets.row % PER_IMAGE).tolist()] == targets.level.tolist()


def literal_losses(outputs: Outputs, targets: Targets) -> dict[str, float]:
    """Image by image and cell by cell."""
    first = dict(zip(targets.own["init_row"].tolist(), targets.own["init_box"].tolist(), strict=True))
    positive = dict(zip(targets.row.tolist(), range(len(targets.row)), strict=True))
    ignored = targets.ignored.tolist()
    sums, counts = dict.fromkeys(("focal", "init", "refine"), 0.0), {"init": 0, "refine": 0}

    def distance(box: list[float], real: list[float], x: int, y: int, stride: int) -> float:
        total = 0.0
        for v, r, c in zip(box, real, (x, y, x, y), strict=True):
            d = abs((v * stride + c) / (4 * stride) - r / (4 * stride))
            total += d * d / 2 / 0.11 if d < 0.11 else d - 0.11 / 2
        return total

    for image in range(targets.images):
        seen = {"init": 0, "refine": 0}
        for cell, (level, x, y) in enumerate(cells_of()):
            row, stride = image * PER_IMAGE + cell, STRIDES[level]
            at = (image, slice(None), y // stride, x // stride)
            p = positive.get(row)
            if row in first:
                seen["init"] += 1
                box = literal_box(outputs.own["init"][level][at].tolist())
                sums["init"] += 0.5 * distance(box, first[row], x, y, stride)
            if p is not None:
                seen["refine"] += 1
                sums["refine"] += distance(outputs.box[level][at].tolist(), targets.box[p].tolist(), x, y, stride)
            if not ignored[row]:
                sums["focal"] += focal(outputs.cls[level][at].tolist(), None if p is None else int(targets.label[p]))
        for stage in counts:
            counts[stage] += max(1, seen[stage])
    return {
        "focal": sums["focal"] / counts["refine"],
        "init": sums["init"] / counts["init"],
        "refine": sums["refine"] / counts["refine"],
    }


def test_the_losses_are_those_of_the_paper_written_out() -> None:
    model, outputs = make(), said(3)
    targets = model.assign(outputs, THREE)
    assert len(set(targets.level.tolist())) > 1
    found = {name: loss.item() for name, loss in model.losses(outputs, targets).items()}
    assert found == pytest.approx(literal_losses(outputs, targets), rel=1e-4)


def test_each_loss_teaches_its_own_part_alone() -> None:
    model, outputs = make(), said(3)
    losses = model.losses(outputs, model.assign(outputs, THREE))
    parts = {"focal": outputs.cls, "init": outputs.own["init"], "refine": outputs.box}
    for name, loss in losses.items():
        for part, leaves in parts.items():
            grads = torch.autograd.grad(loss, leaves, retain_graph=True, materialize_grads=True)
            assert any(grad.any() for grad in grads) == (name == part), (name, part)


def test_a_batch_without_boxes_has_gradients_of_zero_for_points_and_divides_by_its_images() -> None:
    model, outputs = make(), said(2)
    losses = model.losses(outputs, model.assign(outputs, truth([], [])))
    assert losses["init"].item() == losses["refine"].item() == 0
    torch.testing.assert_close(losses["focal"], focal_of_nothing(outputs.cls) / 2)
    sum(losses.values()).backward()
    for x in outputs.box + outputs.own["init"]:
        assert x.grad is not None and not x.grad.any()
    assert not model.head.moment_transfer.grad.any()


def test_padding_carries_no_loss_and_is_never_detected() -> None:
    model, outputs = make(score_threshold=0.0, max_detections=10_000, nms_iou=1.0), said(1)
    size = (33, 20)
    targets = model.assign(outputs, truth([[2.0, 3, 18, 30]], size=size))
    sum(model.losses(outputs, targets).values()).backward()
    for level, (height, width) in enumerate([(9, 5), (5, 3), (3, 2)]):
        for x in (outputs.cls[level], outputs.box[level], outputs.own["init"][level]):
            assert x.grad is not None
            assert not x.grad[:, :, height:].any() and not x.grad[:, :, :, width:].any()
    (found,) = model.detect(outputs, [size])
    assert len(found.scores) == 3 * (9 * 5 + 5 * 3 + 3 * 2)


def test_a_certain_cell_is_decoded_to_its_box_around_the_refined_points() -> None:
    """Cell (5, 6) of stride 8 says: from 2 strides to the left and 3 above to 4 to the right and 1.5 below, class 2."""
    model, outputs = make(), said(1)
    cls = [torch.full_like(c, -9.0) for c in outputs.cls]
    box = [b.detach().clone() for b in outputs.box]
    cls[1][0, 2, 5, 6] = 3.0
    box[1][0, :, 5, 6] = torch.tensor([-2.0, -3, 4, 1.5])
    (found,) = model.detect(replace(outputs, cls=cls, box=box), [(64, 64)])
    torch.testing.assert_close(found.boxes, torch.tensor([[48.0 - 16, 40 - 24, 64, 40 + 12]]))
    assert found.labels.tolist() == [2]
    torch.testing.assert_close(found.scores, torch.tensor([3.0]).sigmoid())


def test_boxes_are_those_around_the_refined_points_which_start_where_the_guess_is() -> None:
    model = make()
    outputs = model(torch.rand(1, 3, 64, 64))
    for box, points, init in zip(outputs.box, outputs.own["points"], outputs.own["init"], strict=True):
        expected = literal_box(points[0, :, 1, 2].tolist())
        assert box[0, :, 1, 2].tolist() == pytest.approx(expected, abs=1e-5)
        assert points.shape == init.shape == (1, 18, *box.shape[2:])
    with torch.no_grad():
        model.head.refine_out.weight.zero_()
    outputs = model(torch.rand(1, 3, 64, 64))
    for points, init in zip(outputs.own["points"], outputs.own["init"], strict=True):
        assert torch.equal(points, init)


def test_under_autocast_points_and_boxes_are_float32_and_the_targets_those_without() -> None:
    model = make()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(torch.rand(3, 3, 64, 64))
        targets = model.assign(outputs, THREE)
    assert outputs.cls[0].dtype == torch.bfloat16
    assert {x.dtype for x in outputs.box + outputs.own["init"] + outputs.own["points"]} == {torch.float32}
    again = model.assign(outputs, THREE)
    assert torch.equal(targets.row, again.row) and torch.equal(targets.ignored, again.ignored)


def test_every_class_starts_at_a_score_of_one_in_a_hundred() -> None:
    for cls in make()(torch.rand(2, 3, 64, 64)).cls:
        torch.testing.assert_close(cls.sigmoid(), torch.full_like(cls, 0.01), atol=5e-3, rtol=0)


def test_parameters_and_names_are_those_of_the_published_network() -> None:
    with torch.device("meta"):
        model = RepPoints(ResNet(depth=50), 80)
        outputs = model(torch.zeros(1, 3, 801, 1333))
    towers = 2 * 3 * (256 * 256 * 9 + 2 * 256)
    convs = 3 * 256 * 256 * 9 + 256  # one of them with a bias
    outs = 2 * (256 * 18 + 18) + 256 * 80 + 80
    assert sum(p.numel() for p in model.head.parameters()) == towers + convs + outs + 2
    assert sum(p.numel() for p in model.parameters()) == 36_849_078
    towerless = {name: tuple(x.shape) for name, x in model.head.state_dict().items() if "tower" not in name}
    assert towerless == {
        "moment_transfer": (2,),
        "init_conv.weight": (256, 256, 3, 3),
        "init_conv.bias": (256,),
        "init_out.weight": (18, 256, 1, 1),
        "init_out.bias": (18,),
        "cls_conv.weight": (256, 256, 3, 3),
        "cls_out.weight": (80, 256, 1, 1),
        "cls_out.bias": (80,),
        "refine_conv.weight": (256, 256, 3, 3),
        "refine_out.weight": (18, 256, 1, 1),
        "refine_out.bias": (18,),
    }
    assert model.strides == (8, 16, 32, 64, 128)
    assert [tuple(x.shape[2:]) for x in outputs.cls] == [
        (math.ceil(801 / s), math.ceil(1333 / s)) for s in model.strides
    ]
