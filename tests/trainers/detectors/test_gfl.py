"""GFL: the whole loss written out level by level, its divisors, and what padding may not do."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.trainers.detectors.scenes import THREE, drawer, small, truth
from tests.trainers.detectors.written_out import generalized_focal
from trainers.backbones import ResNet
from trainers.detectors import GFL
from trainers.outputs import Outputs, Truth

BINS = 9


def make(**knobs: Any) -> GFL:
    return small(GFL, **{"channels": 16, "convs": 1, "extra": 0, "reg_max": BINS - 1, **knobs})


def said(images: int) -> Outputs:
    """Outputs that are leaves; with confident enough scores that the weights differ."""
    draw = drawer(images)
    return Outputs(draw(16), draw(3), draw(4 * BINS))


@pytest.mark.parametrize("box_loss", ["giou", "ciou"])
def test_the_losses_are_those_of_the_paper_written_out(box_loss: str) -> None:
    model, outputs = make(box_loss=box_loss), said(3)
    targets = model.assign(outputs, THREE)
    targets.box[0] = torch.tensor([-90.0, -80, 150, 160])  # its edges are farther away than the last bin
    assert len(set(targets.level.tolist())) > 1
    found = {name: loss.item() for name, loss in model.losses(outputs, targets).items()}
    assert found == pytest.approx(generalized_focal(outputs, targets, ciou=box_loss == "ciou"), rel=1e-4)


def test_scores_learn_from_quality_alone_and_edges_from_boxes_alone() -> None:
    """Neither the quality that a score should have nor the weight that it gives to a box has a gradient."""
    model, outputs = make(), said(3)
    losses = model.losses(outputs, model.assign(outputs, THREE))
    for name, blind, seeing in (
        ("qfl", outputs.box, outputs.cls),
        ("box", outputs.cls, outputs.box),
        ("dfl", outputs.cls, outputs.box),
    ):
        grads = torch.autograd.grad(losses[name], blind + seeing, retain_graph=True, materialize_grads=True)
        assert not any(grad.any() for grad in grads[: len(blind)]), name
        assert grads[len(blind)].any(), name


def test_positives_carry_the_label_and_the_box_that_they_lie_in() -> None:
    model = make()
    targets = model.assign(said(3), THREE)
    image = targets.row // (16 * 16 + 8 * 8 + 4 * 4)
    assert set(image.tolist()) == {0, 2}
    for i, label, box in zip(image.tolist(), targets.label.tolist(), targets.box.tolist(), strict=True):
        assert box == THREE.boxes[i][label].tolist()
    assert targets.valid.all()
    assert (targets.images, targets.levels) == (3, 3)
    cell = targets.row % 336
    assert torch.equal(targets.level, (cell >= 256).long() + (cell >= 320).long())


def test_a_batch_twice_over_has_the_same_losses() -> None:
    model, outputs = make(), said(3)
    twice = Outputs(*([torch.cat([x, x]) for x in ls] for ls in (outputs.features, outputs.cls, outputs.box)))
    both = Truth(*(x + x for x in (THREE.boxes, THREE.labels, THREE.sizes, THREE.ids, THREE.scales)))
    once = model.losses(outputs, model.assign(outputs, THREE))
    for name, loss in model.losses(twice, model.assign(twice, both)).items():
        torch.testing.assert_close(loss, once[name])


def test_a_batch_without_boxes_has_gradients_of_zero_for_boxes_and_divides_by_its_images() -> None:
    model, outputs = make(), said(2)
    losses = model.losses(outputs, model.assign(outputs, truth([], [])))
    assert losses["box"].item() == losses["dfl"].item() == 0
    z = torch.cat([c.detach().flatten() for c in outputs.cls])
    torch.testing.assert_close(losses["qfl"], (z.sigmoid() ** 2 * F.softplus(z)).sum() / 2)
    sum(losses.values()).backward()
    for box in outputs.box:
        assert box.grad is not None and not box.grad.any()


def test_padding_carries_no_loss_and_everything_else_does() -> None:
    model, outputs = make(), said(2)
    size = (33, 20)  # 9 by 5, 5 by 3 and 3 by 2 cells
    targets = model.assign(outputs, truth([[2.0, 3, 18, 30]], [[1.0, 1, 17, 19]], size=size))
    sum(model.losses(outputs, targets).values()).backward()
    for cls, box, (height, width) in zip(outputs.cls, outputs.box, [(9, 5), (5, 3), (3, 2)], strict=True):
        assert cls.grad is not None and box.grad is not None
        assert (cls.grad[:, :, :height, :width] != 0).all()
        for grad in (cls.grad, box.grad):
            assert not grad[:, :, height:].any()
            assert not grad[:, :, :, width:].any()


def test_what_the_padding_says_changes_no_loss_and_is_never_detected() -> None:
    model, outputs = make(score_threshold=0.0, max_detections=10_000, nms_iou=1.0), said(1)
    size = (33, 20)
    loud = replace(outputs, cls=[c.detach().clone() for c in outputs.cls])
    for cls, (height, width) in zip(loud.cls, [(9, 5), (5, 3), (3, 2)], strict=True):
        cls[:, :, height:] += 20
        cls[:, :, :, width:] += 20
    seen = truth([[2.0, 3, 18, 30]], size=size)
    quiet_losses = model.losses(outputs, model.assign(outputs, seen))
    for name, loss in model.losses(loud, model.assign(loud, seen)).items():
        torch.testing.assert_close(loss, quiet_losses[name])
    (found,) = model.detect(loud, [size])
    assert len(found.scores) == 3 * (9 * 5 + 5 * 3 + 3 * 2)
    assert found.scores.max() < 0.999


def test_a_certain_location_is_decoded_to_its_box() -> None:
    """Cell (5, 6) of stride 8 says: 2, 3, 4 and 1.5 strides to the left, top, right and bottom, class 2."""
    model, outputs = make(), said(1)
    cls = [torch.full_like(c, -9.0) for c in outputs.cls]
    box = [torch.zeros_like(b) for b in outputs.box]
    cls[1][0, 2, 5, 6] = 3.0
    edges = torch.full((4, BINS), -50.0)
    edges[[0, 1, 2], [2, 3, 4]] = 50
    edges[3, 1:3] = 50
    box[1][0, :, 5, 6] = edges.flatten()
    (found,) = model.detect(Outputs([], cls, box), [(64, 64)])
    torch.testing.assert_close(found.boxes, torch.tensor([[48.0 - 16, 40 - 24, 64, 40 + 12]]))
    assert found.labels.tolist() == [2]
    torch.testing.assert_close(found.scores, torch.tensor([3.0]).sigmoid())


def test_every_class_starts_at_a_score_of_one_in_a_hundred() -> None:
    outputs = make()(torch.rand(2, 3, 64, 64))
    for cls in outputs.cls:
        torch.testing.assert_close(cls.sigmoid(), torch.full_like(cls, 0.01), atol=5e-3, rtol=0)


@pytest.mark.parametrize(("depth", "count"), [(18, 19_420_889), (34, 29_529_049), (50, 32_440_537), (101, 51_432_665)])
def test_parameters_are_those_of_the_published_networks(depth: int, count: int) -> None:
    with torch.device("meta"):
        model = GFL(ResNet(depth=depth), 80)
        outputs = model(torch.zeros(1, 3, 801, 1333))
    assert sum(p.numel() for p in model.parameters()) == count
    assert sum(p.numel() for p in model.head.parameters()) == 5_063_833
    assert [tuple(c.shape) for c in outputs.cls] == [
        (1, 80, math.ceil(801 / s), math.ceil(1333 / s)) for s in (8, 16, 32, 64, 128)
    ]
    assert model.strides == (8, 16, 32, 64, 128)
    assert model.bins == 17
