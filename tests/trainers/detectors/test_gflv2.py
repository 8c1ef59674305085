"""GFLv2: its quality and its losses written out, and that it is GFL wherever the quality is 1."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou_loss

from trainers.backbones import ResNet, TinyResNet
from trainers.detectors import GFL, GFLv2
from trainers.detectors.gflv2 import product_logit, statistics
from trainers.outputs import Outputs, Targets, Truth
from trainers.spec import Invalid

STRIDES = (4, 8, 16)
BINS = 9


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(kind: Any = GFLv2, num_classes: int = 3, **knobs: Any) -> Any:
    torch.manual_seed(0)
    small: dict[str, Any] = {"channels": 16, "convs": 1, "extra": 0, "reg_max": BINS - 1}
    return kind(TinyResNet(width=8), num_classes, **{**small, **knobs})


def truth(*boxes: list[list[float]], size: tuple[int, int] = (64, 64)) -> Truth:
    """Images with boxes of class 0, 1, 2, 0, ... each."""
    return Truth(
        boxes=[torch.tensor(b).view(-1, 4) for b in boxes],
        labels=[torch.arange(len(b)) % 3 for b in boxes],
        sizes=[size] * len(boxes),
        ids=list(range(len(boxes))),
        scales=[(1.0, 1.0)] * len(boxes),
    )


def said(images: int, *, quality: float | None = None) -> Outputs:
    """Outputs that are leaves; with confident enough scores that the weights differ."""
    generator = torch.Generator().manual_seed(0)

    def levels(channels: int) -> list[Tensor]:
        shapes = [(images, channels, 64 // s, 64 // s) for s in STRIDES]
        return [torch.randn(shape, generator=generator) for shape in shapes]

    features, cls, box = levels(16), levels(3), levels(4 * BINS)
    good = [x.sigmoid() if quality is None else torch.full_like(x, quality) for x in levels(1)]
    for x in cls + box + good:
        x.requires_grad_()
    return Outputs(features, cls, box, own={"quality": good})


THREE = truth([[3.0, 5, 33, 40], [4.0, 3, 61, 62]], [], [[10.0, 8, 22, 21], [30.0, 20, 61, 60], [2.0, 40, 20, 63]])


def literal(outputs: Outputs, targets: Targets) -> dict[str, float]:
    """Location by location, in probabilities and in the words of the paper."""
    per_image = sum(cls[0, 0].numel() for cls in outputs.cls)
    owner = {row: p for p, row in enumerate(targets.row.tolist())}
    counts = [0] * targets.images
    sums = dict.fromkeys(("qfl", "box", "dfl", "weight"), 0.0)
    row = 0
    for image in range(targets.images):
        for cls, box, good, stride in zip(outputs.cls, outputs.box, outputs.own["quality"], STRIDES, strict=True):
            for i in range(cls.shape[2]):
                for j in range(cls.shape[3]):
                    quality = good[image, 0, i, j].item()
                    scores = [quality / (1 + math.exp(-z)) for z in cls[image, :, i, j].tolist()]
                    wanted = [0.0] * len(scores)
                    if (p := owner.get(row)) is not None:
                        counts[image] += 1
                        edges = box[image, :, i, j].detach().view(4, BINS)
                        d = (edges.softmax(1) * torch.arange(BINS)).sum(1)
                        predicted = torch.stack([j - d[0], i - d[1], j + d[2], i + d[3]])[None]
                        real = targets.box[p][None] / stride
                        wanted[targets.label[p]] = box_iou(predicted, real).item()
                        weight = max(scores)
                        sums["weight"] += weight
                        sums["box"] += weight * generalized_box_iou_loss(predicted, real).item()
                        x1, y1, x2, y2 = real[0].tolist()
                        for e, y in enumerate((j - x1, i - y1, x2 - j, y2 - i)):
                            y = min(max(y, 0), BINS - 1 - 0.1)
                            k = math.floor(y)
                            log_p = edges[e].log_softmax(0)
                            sums["dfl"] -= weight * ((k + 1 - y) * log_p[k] + (y - k) * log_p[k + 1]).item() / 4
                    for q, s in zip(wanted, scores, strict=True):
                        sums["qfl"] -= abs(q - s) ** 2 * (q * math.log(s) + (1 - q) * math.log(1 - s))
                    row += 1
    assert row == per_image * targets.images
    return {
        "qfl": sums["qfl"] / sum(max(1, count) for count in counts),
        "box": 2 * sums["box"] / sums["weight"],
        "dfl": 0.25 * sums["dfl"] / sums["weight"],
    }


def test_the_losses_are_those_of_the_paper_written_out() -> None:
    model, outputs = make(), said(3)
    targets = model.assign(outputs, THREE)
    assert len(set(targets.level.tolist())) > 1
    found = {name: loss.item() for name, loss in model.losses(outputs, targets).items()}
    assert found == pytest.approx(literal(outputs, targets), rel=1e-4)


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
    loss = ((wanted - of_product.sigmoid()).abs() ** 2) * torch.nn.functional.binary_cross_entropy_with_logits(
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


def test_under_autocast_the_quality_and_the_losses_are_float32() -> None:
    model = make()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(torch.rand(3, 3, 64, 64))
        targets = model.assign(outputs, THREE)
        inside = model.losses(outputs, targets)
    assert outputs.cls[0].dtype == torch.bfloat16
    assert {x.dtype for x in outputs.own["quality"]} == {torch.float32}
    for name, loss in model.losses(outputs, targets).items():
        assert inside[name].dtype == torch.float32
        assert torch.equal(inside[name], loss)


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
