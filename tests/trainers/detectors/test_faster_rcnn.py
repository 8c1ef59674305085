"""Faster R-CNN is torchvision's in its conventions, and its own pieces put together in mmdetection's."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms

from tests.trainers.detectors import twins
from tests.trainers.detectors.scenes import THREE, small, truth
from trainers.backbones import ResNet
from trainers.detectors import FasterRCNN, proposals, regions
from trainers.outputs import Outputs


def make(num_classes: int = 3, **knobs: Any) -> FasterRCNN:
    return small(FasterRCNN, num_classes, **{"channels": 16, "hidden": 16, "pooled": 3, **knobs})


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_raw_outputs_losses_and_gradients_are_torchvisions_with_its_weights() -> None:
    twins.same_training("FasterRCNN")


def test_detections_are_torchvisions_with_its_weights() -> None:
    twins.same_detections("FasterRCNN")


def test_names_and_numbers_of_weights_are_torchvisions() -> None:
    published = 41_755_286  # for 91 classes with the background; the norms are counted as constants
    assert twins.same_parameters("FasterRCNN") == published - 10 * 5 * (1024 + 1) + 53_120


def test_it_reads_all_maps_and_a_pooled_level_more() -> None:
    with torch.device("meta"):
        model = FasterRCNN(ResNet(depth=18), 80)
        outputs = model(torch.zeros(2, 3, 800, 1088))
    assert model.strides == (4, 8, 16, 32, 64)
    assert [tuple(x.shape[2:]) for x in outputs.features] == [(200, 272), (100, 136), (50, 68), (25, 34), (13, 17)]
    assert [x.shape[1] for x in outputs.own["objectness"]] == [3] * 5
    assert [x.shape[1] for x in outputs.own["deltas"]] == [12] * 5
    assert not outputs.cls and not outputs.box and len(outputs.maps) == 4
    assert make(extra=0).strides == (4, 8, 16) and make().strides == (4, 8, 16, 32)


def test_the_losses_are_those_of_the_two_stages_in_this_order_of_chance() -> None:
    model = make()
    outputs = model(images())
    targets = model.assign(outputs, THREE)
    torch.manual_seed(4)
    found = model.losses(outputs, targets)
    torch.manual_seed(4)
    here = proposals.grid(model.rpn, outputs.features, model.strides, THREE.sizes, model.convention)
    rpn_cls, rpn_box = proposals.losses(model.rpn, outputs, targets, here, beta=0.0)
    drawn = model.sample(model.propose(outputs, THREE.sizes), THREE)
    logits, deltas = model.judge(outputs.features, drawn.boxes, THREE.sizes)
    cls, box = regions.losses(logits, deltas, drawn, beta=0.0)
    wanted = {"rpn_cls": rpn_cls, "rpn_box": rpn_box, "cls": cls, "box": box}
    assert set(found) == set(wanted)
    for name, loss in wanted.items():
        assert torch.equal(found[name], loss), name


def test_the_same_seed_draws_the_same_and_assigning_draws_nothing() -> None:
    model = make()
    outputs = model(images())

    def once(seed: int) -> list[float]:
        torch.manual_seed(seed)
        return [loss.item() for loss in model.losses(outputs, model.assign(outputs, THREE)).values()]

    assert once(1) == once(1) != once(2)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    model.assign(outputs, THREE)
    model.propose(outputs, THREE.sizes)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_second_stage_teaches_the_pyramid_but_not_the_first_stage() -> None:
    model = make()
    outputs = model(images())
    losses = model.losses(outputs, model.assign(outputs, THREE))
    own = [*outputs.own["objectness"], *outputs.own["deltas"]]
    grads = torch.autograd.grad(losses["cls"] + losses["box"], own, retain_graph=True, allow_unused=True)
    assert all(grad is None for grad in grads)
    assert torch.autograd.grad(losses["cls"], outputs.features[0])[0].any()


def test_regions_are_judged_image_after_image_with_the_background_first() -> None:
    model = make(5)
    outputs = model(images(2))
    boxes = [torch.tensor([[3.0, 5, 33, 40], [0.0, 0, 64, 64]]), torch.tensor([[10.0, 8, 22, 21]])]
    logits, deltas = model.judge(outputs.features, boxes, [(64, 64)] * 2)
    assert logits.shape == (3, 6) and deltas.shape == (3, 24)
    alone, _ = model.judge([x[1:] for x in outputs.features], boxes[1:], [(64, 64)])
    torch.testing.assert_close(logits[2:], alone)
    assert logits.requires_grad and deltas.requires_grad


def stubborn(model: FasterRCNN, proposed: list[Tensor], logits: Tensor, deltas: Tensor) -> FasterRCNN:
    """A model that proposes and judges what it is told to."""
    model.propose = lambda *_: proposed
    model.judge = lambda *_: (logits, deltas)
    return model


def test_a_certain_region_is_decoded_by_its_own_classs_deltas() -> None:
    """Class 2 moves the region right by half its width and makes it twice as high; the others would move it away."""
    logits = torch.tensor([[0.0, 0, 0, 9]])
    deltas = torch.full((1, 16), 3.0)
    deltas[0, 12:] = torch.tensor([0.5 / 0.1, 0, 0, torch.tensor(2.0).log() / 0.2])
    model = stubborn(make(), [torch.tensor([[10.0, 20, 30, 30]])], logits, deltas)
    (found,) = model.detect(Outputs([]), [(64, 64)])
    torch.testing.assert_close(found.boxes, torch.tensor([[20.0, 15, 40, 35]]))
    assert found.labels.tolist() == [2]
    torch.testing.assert_close(found.scores, logits.softmax(1)[:, 3])


def test_background_is_never_found() -> None:
    logits = torch.tensor([[9.0, 0, 0, 0]])
    model = stubborn(make(), [torch.tensor([[10.0, 20, 30, 30]])], logits, torch.zeros(1, 16))
    (found,) = model.detect(Outputs([]), [(64, 64)])
    assert found.boxes.shape == (0, 4) and found.labels.shape == (0,)


def test_nothing_proposed_is_nothing_found() -> None:
    model = make()
    outputs = model(images(2))
    model.propose = lambda *_: [torch.empty(0, 4)] * 2
    for found in model.detect(outputs, [(64, 64)] * 2):
        assert found.boxes.shape == (0, 4) and found.scores.shape == (0,)


def test_every_class_of_every_proposal_is_suppressed_with_its_like_as_written_out() -> None:
    model = make(score_threshold=0.2, nms_iou=0.4, max_detections=30).eval()
    for layer in (model.roi_heads.box_predictor.cls_score, model.rpn.head.cls_logits):
        torch.nn.init.normal_(layer.weight, std=0.5)
    sizes = [(64, 64), (50, 40)]
    with torch.no_grad():
        outputs = model(images(2))
        found = model.detect(outputs, sizes)
        proposed = model.propose(outputs, sizes)
        logits, deltas = model.judge(outputs.features, proposed, sizes)
    start = 0
    for one, boxes, (height, width) in zip(found, proposed, sizes, strict=True):
        stop = start + len(boxes)
        side, centre = boxes[:, None, 2:] - boxes[:, None, :2], (boxes[:, None, 2:] + boxes[:, None, :2]) / 2
        d = deltas[start:stop].unflatten(1, (4, 4))[:, 1:] * torch.tensor([0.1, 0.1, 0.2, 0.2])
        middle, half = centre + d[..., :2] * side, side * d[..., 2:].exp() / 2
        every = torch.cat([middle - half, middle + half], 2).clamp(min=0).flatten(0, 1)
        every = torch.minimum(every, torch.tensor([width, height, width, height]))
        scores = F.softmax(logits[start:stop], 1)[:, 1:].flatten()
        labels = torch.arange(3).repeat(len(boxes))
        keep = scores > 0.2
        every, scores, labels = every[keep], scores[keep], labels[keep]
        best = batched_nms(every, scores, labels, 0.4)[:30]
        assert 5 < len(best) <= 30
        torch.testing.assert_close(one.boxes, every[best], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(one.scores, scores[best])
        assert torch.equal(one.labels, labels[best])
        start = stop


def test_in_evaluation_more_padding_proposes_nothing_more() -> None:
    """What a cell says in the padding depends on the other images of its batch, and so must not count."""
    model = make().eval()
    with torch.no_grad():
        outputs = model(torch.rand(1, 3, 64, 64))

        def padded(levels: list[Tensor]) -> list[Tensor]:
            more = zip(levels, model.strides, strict=True)
            return [F.pad(x, (0, 64 // s, 0, 64 // s), value=30.0) for x, s in more]

        own = {
            "objectness": padded(outputs.own["objectness"]),
            "deltas": [
                F.pad(x, (0, 64 // s, 0, 64 // s)) for x, s in zip(outputs.own["deltas"], model.strides, strict=True)
            ],
        }
        larger = replace(outputs, features=padded(outputs.features), own=own)
        (one,), (two,) = model.propose(outputs, [(64, 64)]), model.propose(larger, [(64, 64)])
    torch.testing.assert_close(one, two)


def test_a_batch_without_boxes_learns_that_there_is_nothing() -> None:
    model = make()
    outputs = model(images(2))
    losses = model.losses(outputs, model.assign(outputs, truth([], [])))
    assert losses["rpn_box"].item() == losses["box"].item() == 0
    assert losses["rpn_cls"].item() > 0 and losses["cls"].item() > 0
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


def test_losses_are_float32_under_autocast_and_detections_need_none() -> None:
    model = make(score_threshold=0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(images())
        losses = model.losses(outputs, model.assign(outputs, THREE))
    assert outputs.own["objectness"][0].dtype == torch.bfloat16
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    found = model.detect(outputs, THREE.sizes)  # as evaluation does
    assert all(one.boxes.dtype == one.scores.dtype == torch.float32 and len(one.scores) for one in found)


@pytest.mark.parametrize("conventions", ["mmdetection", "torchvision"])
def test_the_conventions_reach_every_part(conventions: Any) -> None:
    model = make(conventions=conventions)
    mmdetection = conventions == "mmdetection"
    pooler, (anchors, *_) = model.roi_heads.box_roi_pool, model.rpn.anchor_generator.cell_anchors
    assert (pooler.sampling, pooler.aligned) == ((0, True) if mmdetection else (2, False))
    assert model.rpn._post_nms_top_n == {"training": 1000 if mmdetection else 2000, "testing": 1000}
    assert (anchors == anchors.round()).all() != mmdetection
    outputs = model(images(1))
    targets = model.assign(outputs, truth([[2.0, 3, 18, 30]], sizes=[(33, 20)]))
    assert targets.valid.all() != mmdetection
