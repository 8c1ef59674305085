"""GFLv2: its quality and its losses written out, and that it is GFL wherever the quality is 1."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.trainers.detectors.scenes import THREE, drawer, small, truth
from tests.trainers.detectors.written_out import generalized_focal
from trainers.backbones import ResNet
from trainers.call import Invalid
from trainers.detectors import GFL, GFLv2
from trainers.detectors.gflv2 import product_logit, statistics
from trainers.outputs import Outputs

BINS = 9


def make(kind: Any = GFLv2, **knobs: Any) -> Any:
    return small(kind, **{"channels": 16, "convs": 1, "extra": 0, "reg_max": BINS - 1, **knobs})


def said(images: int, *, quality: float | None = None) -> Outputs:
    """Outputs that are leaves; with confident enough scores that the weights differ."""
    draw = drawer(images)
    features, cls, box, z = draw(16), draw(3), draw(4 * BINS), draw(1)
    good = [x.detach().sigmoid() if quality is None else torch.full_like(x, quality) for x in z]
    return Outputs(features, cls, box, own={"quality": [x.requires_grad_() for x in good]})


def test_the_losses_are_those_of_the_paper_written_out() -> None:
    model, outputs = make(), said(3)
    targets = model.assign(outputs, THREE)
    assert len(set(targets.level.tolist())) > 1
    found = {name: loss.item() for name, loss in model.losses(outputs, targets).items()}
    assert found == pytest.approx(generalized_focal(outputs, targets), rel=1e-4)


def test_the_quality_is_that_of_the_paper_written_out() -> None:
    """Of each edge in turn: four probabilities, the highest first, and their mean; then two linear layers."""
    model = make()
    for layer in (0, 2):
        torch.nn.init.normal_(model.head.quality[layer].weight, std=0.5)
        torch.nn.init.normal_(model.head.quality[layer].bias)
    outputs = model(torch.rand(2, 3, 64, 64))
    hidden, last = model.head.quality[0], model.head.quality[2]
    for box, quality in zip(outputs.box, outputs.own["quality"], strict=True):
        assert quality.shape == (2, 1, *box.shape[2:])
        numbers: list[float] = []
        for edge in box[1, :, 2, 3].view(4, BINS).tolist():
            total = sum(math.exp(z) for z in edge)
            highest = sorted((math.exp(z) / total for z in edge), reverse=True)[:4]
            numbers += [*highest, sum(highest) / 4]
        inner = [
            max(0.0, b + sum(w * x for w, x in zip(weights, numbers, strict=True)))
            for weights, b in zip(hidden.weight.flatten(1).tolist(), hidden.bias.tolist(), strict=True)
        ]
        outer = last.bias.item() + sum(w * x for w, x in zip(last.weight.flatten().tolist(), inner, strict=True))
        assert quality[1, 0, 2, 3].item() == pytest.approx(1 / (1 + math.exp(-outer)), abs=1e-5)


def test_a_certain_edge_has_other_statistics_than_one_that_may_be_anywhere() -> None:
    box = torch.zeros(1, 4 * 5, 1, 1)
    box[0, 5:10] = torch.tensor([-50.0, 50, -50, -50, -50]).view(5, 1, 1)
    anywhere, certain = [0.2, 0.2, 0.2], [1.0, 0.0, 0.5]
    found = statistics(box, 5, 2).flatten()
    torch.testing.assert_close(found, torch.tensor([*anywhere, *certain, *anywhere, *anywhere]))


def test_with_a_quality_of_one_everything_is_as_in_gfl() -> None:
    outputs, gfl, model = said(3, quality=1.0), make(GFL), make()
    targets = model.assign(outputs, THREE)
    expected = gfl.losses(outputs, gfl.assign(outputs, THREE))
    for name, loss in model.losses(outputs, targets).items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-5, atol=0)
    for ours, theirs in zip(model.detect(outputs, THREE.sizes), gfl.detect(outputs, THREE.sizes), strict=True):
        torch.testing.assert_close(ours.scores, theirs.scores, rtol=1e-5, atol=0)
        torch.testing.assert_close(ours.boxes, theirs.boxes)


def test_class_logits_are_told_without_the_quality() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 64)
    model, gfl = make(), make(GFL)
    gfl.load_state_dict({name: x for name, x in model.state_dict().items() if "quality" not in name})
    for x, y in zip(model(images).cls, gfl(images).cls, strict=True):
        assert torch.equal(x, y)


def test_what_is_detected_scores_the_product_and_only_the_product_is_held_against_the_threshold() -> None:
    model, outputs = make(score_threshold=0.3), said(1, quality=0.01)
    cls = [torch.full_like(c, -9.0) for c in outputs.cls]
    quality = [x.detach().clone() for x in outputs.own["quality"]]
    for i, j, good in ((0, 0, 0.2), (5, 6, 0.5)):  # of 0.88: 0.18 is too little
        cls[1][0, 2, i, j] = 2.0
        quality[1][0, 0, i, j] = good
    (found,) = model.detect(replace(outputs, cls=cls, own={"quality": quality}), [(64, 64)])
    torch.testing.assert_close(found.scores, torch.tensor([2.0]).sigmoid() * 0.5)
    assert found.labels.tolist() == [2]


def test_the_logit_of_a_product_is_exact_where_float32_would_round_it() -> None:
    z = torch.tensor([-60.0, -20, -5, 0, 3, 30], dtype=torch.float64)[:, None]
    quality = torch.tensor([1e-5, 0.3, 0.5, 0.999], dtype=torch.float64)
    product = z.sigmoid() * quality
    expected = (product / (1 - product)).log()
    torch.testing.assert_close(product_logit(z.float(), quality.float()), expected.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("z", [-1e4, -120.0, 0.0, 120.0, 1e4])
@pytest.mark.parametrize("quality", [0.0, 1e-30, 0.5, 1 - 1e-7, 1.0])
@pytest.mark.parametrize("wanted", [0.0, 0.5, 1.0])
def test_no_logit_and_no_quality_is_too_extreme_for_the_loss(z: float, quality: float, wanted: float) -> None:
    logit, good = torch.tensor([[z]], requires_grad=True), torch.tensor([[quality]], requires_grad=True)
    of_product = product_logit(logit, good)
    loss = ((wanted - of_product.sigmoid()).abs() ** 2) * F.binary_cross_entropy_with_logits(
        of_product, torch.tensor([[wanted]])
    )
    loss.backward()
    assert logit.grad is not None and good.grad is not None
    assert loss.isfinite() and logit.grad.isfinite() and good.grad.isfinite()


def test_scores_teach_the_edges_through_the_quality_alone() -> None:
    model = make()
    outputs = model(torch.rand(3, 3, 64, 64))
    qfl = model.losses(outputs, model.assign(outputs, THREE))["qfl"]
    assert any(grad.any() for grad in torch.autograd.grad(qfl, outputs.box, retain_graph=True))
    blind = replace(outputs, own={"quality": [x.detach() for x in outputs.own["quality"]]})
    qfl = model.losses(blind, model.assign(blind, THREE))["qfl"]
    assert not any(grad.any() for grad in torch.autograd.grad(qfl, outputs.box, materialize_grads=True))


def test_boxes_do_not_teach_the_quality_that_weighs_them() -> None:
    model, outputs = make(), said(3)
    losses = model.losses(outputs, model.assign(outputs, THREE))
    seeing = outputs.cls + outputs.own["quality"]
    for name in ("box", "dfl"):
        grads = torch.autograd.grad(losses[name], seeing, retain_graph=True, materialize_grads=True)
        assert not any(grad.any() for grad in grads), name
    assert all(grad.any() for grad in torch.autograd.grad(losses["qfl"], seeing))


def test_what_the_padding_says_of_its_quality_changes_no_loss() -> None:
    model, outputs = make(), said(1)
    seen = truth([[2.0, 3, 18, 30]], size=(33, 20))
    loud = [x.detach().clone() for x in outputs.own["quality"]]
    for x, (height, width) in zip(loud, [(9, 5), (5, 3), (3, 2)], strict=True):
        x[:, :, height:] = 1
        x[:, :, :, width:] = 1
    quiet_losses = model.losses(outputs, model.assign(outputs, seen))
    other = replace(outputs, own={"quality": loud})
    for name, loss in model.losses(other, model.assign(other, seen)).items():
        torch.testing.assert_close(loss, quiet_losses[name])


def test_under_autocast_the_quality_is_float32() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = make()(torch.rand(3, 3, 64, 64))
    assert outputs.cls[0].dtype == torch.bfloat16
    assert {x.dtype for x in outputs.own["quality"]} == {torch.float32}


def test_it_is_gfl_with_1409_parameters_more_under_the_names_of_its_two_layers() -> None:
    with torch.device("meta"):
        model, gfl = GFLv2(ResNet(depth=50), 80), GFL(ResNet(depth=50), 80)
    more = {name: tuple(x.shape) for name, x in model.state_dict().items() if name not in gfl.state_dict()}
    assert more == {
        "head.quality.0.weight": (64, 20, 1, 1),
        "head.quality.0.bias": (64,),
        "head.quality.2.weight": (1, 64, 1, 1),
        "head.quality.2.bias": (1,),
    }
    assert len(model.state_dict()) == len(gfl.state_dict()) + 4
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in gfl.parameters()) + 1409


def test_more_bins_cannot_be_read_than_there_are() -> None:
    make(top=BINS)
    with pytest.raises(Invalid, match="9 bins") as raised:
        make(top=BINS + 1)
    assert raised.value.where == ("top",)
