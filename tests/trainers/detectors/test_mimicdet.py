"""MimicDet: its losses written out, whom mimicry moves, and that nothing of the T-head is left in evaluation."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from tests.trainers.detectors.scenes import drawer, small, truth
from tests.trainers.detectors.written_out import focal, focal_of_nothing
from trainers.backbones import ResNet, TinyResNet
from trainers.call import Invalid
from trainers.detectors import MimicDet
from trainers.export import Raw, graph
from trainers.outputs import Outputs, Targets

STRIDES = (8, 16)  # of P3 and P4; the T-head's levels have 4 and 8
CELLS = 8 * 8 + 4 * 4
BOTH = pytest.mark.parametrize("separate", [False, True], ids=["shared", "separate"])


def make(**knobs: Any) -> MimicDet:
    extra = 1 if knobs.get("separate") else 0
    return small(MimicDet, **{"channels": 8, "hidden": 16, "convs": 1, "extra": extra, **knobs})


THREE = truth([[3.0, 5, 33, 40], [4.0, 3, 61, 62]], [], [[10.0, 8, 22, 21], [30.0, 20, 61, 60], [2.0, 30, 40, 63]])


def said(images: int, *, hidden: int = 16) -> Outputs:
    """Outputs of training that are leaves, with anchors that refinement moved."""
    draw = drawer(images, strides=STRIDES)
    own = {
        "score": draw(1),
        "delta": draw(4, 0.1),
        "cls": draw(3 + 1),
        "box": draw(4),
        "cls_features": draw(hidden),
        "box_features": draw(hidden),
        "staggered": draw(8, strides=(4, 8)),
    }
    return Outputs(draw(8), own=own)


def at(levels: list[Tensor], row: int) -> Tensor:
    """What maps say at the cell that a row counts."""
    image, cell = divmod(row, CELLS)
    level, cell = (0, cell) if cell < 64 else (1, cell - 64)
    width = 64 // STRIDES[level]
    return levels[level][image, :, cell // width, cell % width].detach()


def anchor(row: int) -> list[float]:
    """A square of four strides around (j * stride, i * stride)."""
    cell = row % CELLS
    stride, cell, width = (8, cell, 8) if cell < 64 else (16, cell - 64, 4)
    x, y = cell % width * stride, cell // width * stride
    return [x - 2 * stride, y - 2 * stride, x + 2 * stride, y + 2 * stride]


def deltas(box: list[float], start: list[float]) -> Tensor:
    """What leads from one box to another."""
    (w, h), (v, g) = ((b[2] - b[0], b[3] - b[1]) for b in (box, start))
    dx = ((box[0] + box[2]) - (start[0] + start[2])) / 2 / v
    dy = ((box[1] + box[3]) - (start[1] + start[3])) / 2 / g
    return torch.tensor([dx, dy, math.log(w / v), math.log(h / g)])


def moved(start: list[float], delta: Tensor) -> list[float]:
    """Where deltas lead."""
    dx, dy, dw, dh = delta.tolist()
    w, h = start[2] - start[0], start[3] - start[1]
    x, y = (start[0] + start[2]) / 2 + dx * w, (start[1] + start[3]) / 2 + dy * h
    w, h = w * math.exp(dw) / 2, h * math.exp(dh) / 2
    return [x - w, y - h, x + w, y + h]


def literal(model: MimicDet, outputs: Outputs, targets: Targets, mimics: tuple[str, ...]) -> dict[str, float]:
    """Anchor by anchor, in the words of the paper. Who answers for what is taken from the targets."""
    own, proposals = outputs.own, targets.own["proposals"]
    sums: dict[str, float] = dict.fromkeys(
        ("refine_score", "refine_box", "s_cls", "s_box", "t_cls", "t_box", "mimic"), 0.0
    )
    wanted = dict(zip(targets.own["refinement"][0].tolist(), targets.own["refinement"][1].tolist(), strict=True))
    for row in range(targets.images * CELLS):
        sums["refine_score"] += focal(at(own["score"], row).tolist(), 0 if row in wanted else None)
        if row in wanted:
            sums["refine_box"] += (at(own["delta"], row) - deltas(wanted[row], anchor(row))).abs().sum().item()

    stds = torch.tensor([0.1, 0.1, 0.2, 0.2])
    losses: list[list[float]] = [[] for _ in range(targets.images)]
    for number, row in enumerate(proposals.row.tolist()):
        label = int(proposals.label[number])
        losses[row // CELLS].append(-at(own["cls"], row).log_softmax(0)[label].item())
        if label < 3:
            goal = deltas(proposals.box[number].tolist(), moved(anchor(row), at(own["delta"], row))) / stds
            sums["s_box"] += (at(own["box"], row) - goal).abs().sum().item()
    hard = [loss for of_image in losses for loss in sorted(of_image, reverse=True)[: model.mined]]
    sums["s_cls"] = sum(hard)

    mimicked = set(proposals.mimicked.tolist())
    for place, number in enumerate(proposals.sampled.tolist()):
        row = int(proposals.row[number])
        level = 0 if row % CELLS < 64 else 1
        refined = moved(anchor(row), at(own["delta"], row))
        rois = torch.tensor([[row // CELLS, *refined]])
        region = roi_align(own["staggered"][level].detach(), rois, 7, 1 / (4, 8)[level], aligned=True)
        with torch.no_grad():
            taught = model.t_head(region)
        label = int(proposals.label[number])
        sums["t_cls"] -= taught.cls[0].log_softmax(0)[label].item()
        if label < 3:
            goal = deltas(proposals.box[number].tolist(), refined) / stds
            sums["t_box"] += (taught.box[0] - goal).abs().sum().item()
        if place in mimicked:
            for name in mimics:
                s, t = at(own[name], row), getattr(taught, name)[0]
                sums["mimic"] += 1 - (s @ t / (s.norm() * t.norm())).item()
    parts = {"refine": len(wanted), "s": len(hard), "t": len(proposals.sampled), "mimic": len(mimicked)}
    return {name: value / parts[name.split("_")[0]] for name, value in sums.items()}


@pytest.mark.parametrize(
    ("knobs", "mimics"),
    [
        ({}, ("cls", "box_features")),
        ({"mimic_cls": "features"}, ("cls_features", "box_features")),
        ({"mimic_box": "none"}, ("cls",)),
        ({"mimic_cls": "none"}, ("box_features",)),
        ({"mimic_cls": "none", "mimic_box": "none"}, ()),
    ],
)
def test_the_losses_are_those_of_the_paper_written_out(knobs: dict[str, Any], mimics: tuple[str, ...]) -> None:
    model, outputs = make(mined=20, sampled=24, mimicked=10, **knobs), said(3)
    targets = model.assign(outputs, THREE)
    assert set(targets.level.tolist()) == {0, 1}
    found = {name: loss.item() for name, loss in model.losses(outputs, targets).items()}
    assert found == pytest.approx(literal(model, outputs, targets, mimics), rel=1e-4)


def test_each_weight_scales_its_own_losses() -> None:
    weights = {"refine_weight": 2.0, "s_weight": 3.0, "t_weight": 5.0, "mimic_weight": 7.0}
    plain, weighed, outputs = make(), make(**weights), said(3)
    targets = plain.assign(outputs, THREE)
    again = weighed.losses(outputs, targets)
    for name, loss in plain.losses(outputs, targets).items():
        torch.testing.assert_close(again[name], loss * weights[f"{name.split('_')[0]}_weight"])


def grads(model: nn.Module, loss: Tensor) -> dict[str, bool]:
    """Which parameters a loss moves."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
    return {name: bool(grad.any()) for name, grad in zip(names, found, strict=True)}


@BOTH
@pytest.mark.parametrize("detach", [True, False])
def test_mimicry_moves_the_s_side_alone_if_the_teacher_is_detached(separate: bool, detach: bool) -> None:
    model = make(separate=separate, detach_teacher=detach)
    outputs = model(torch.rand(3, 3, 64, 64))
    moves = grads(model, model.losses(outputs, model.assign(outputs, THREE))["mimic"])
    teacher = {name for name in moves if name.startswith(tuple(model.training_only()))}
    student = {name for name in moves if name.startswith(("s_head.", "backbone.", "neck.laterals.1."))}
    quiet = {"s_head.box.weight", "s_head.box.bias"}  # their features are compared, not what they make of them
    assert student - quiet <= {name for name, moved in moves.items() if moved}
    assert not any(moves[name] for name in moves if name.startswith("refinement."))
    last = {"t_head.box.weight", "t_head.box.bias"}
    assert {name for name in teacher if moves[name]} == (set() if detach else teacher - last)


def test_neither_head_moves_the_refinement_and_the_t_head_moves_its_own_side() -> None:
    model = make()
    outputs = model(torch.rand(3, 3, 64, 64))
    losses = model.losses(outputs, model.assign(outputs, THREE))
    for name in ("s_cls", "s_box", "t_cls", "t_box"):
        moves = grads(model, losses[name])
        assert not any(moved for part, moved in moves.items() if part.startswith("refinement.")), name
        other = "t_head." if name.startswith("s") else "s_head."
        assert not any(moved for part, moved in moves.items() if part.startswith(other)), name
        assert moves["neck.outputs.0.weight"] == name.startswith("t"), name  # P2


@BOTH
def test_evaluation_reads_nothing_that_is_for_training_only(separate: bool) -> None:
    model = make(separate=separate).eval()
    images = torch.rand(2, 3, 64, 64)
    before = model(images)
    prefixes = tuple(model.training_only())
    spoilt = [p for name, p in model.named_parameters() if name.startswith(prefixes)]
    assert len(spoilt) > 10
    with torch.no_grad():
        for parameter in spoilt:
            parameter.fill_(torch.nan)
    after = model(images)
    assert set(after.own) == {"score", "delta", "cls", "box"}
    for name, levels in {"features": after.features, **after.own}.items():
        for x, y in zip(levels, before.features if name == "features" else before.own[name], strict=True):
            assert x.isfinite().all() and torch.equal(x, y), name
    assert [len(found.boxes) for found in model.detect(after, THREE.sizes[:2])] == [100, 100]


@BOTH
def test_the_exported_graph_holds_the_s_side_and_no_part_for_training(separate: bool) -> None:
    model = make(separate=separate)
    prefixes = tuple(f"detector.{prefix}" for prefix in model.training_only())
    every = {f"detector.{name}" for name, _ in model.named_parameters()}
    program = graph(model, (64, 64))
    parameters = program.graph_signature.inputs_to_parameters
    read = {parameters[node.name] for node in program.graph.nodes if node.users and node.name in parameters}
    assert read == {name for name in every if not name.startswith(prefixes)}
    operations = {str(node.target) for node in program.graph.nodes}
    assert any("deform_conv2d" in name for name in operations)
    assert not [name for name in operations if "roi" in name]

    assert set(program.state_dict) == read, "nor is any other weight in its file"
    images = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        for x, y in zip(program.module()(images), Raw(model.eval())(images), strict=True):
            torch.testing.assert_close(x, y)


@BOTH
def test_training_and_evaluation_say_the_same(separate: bool) -> None:
    model, images = make(separate=separate), torch.rand(2, 3, 64, 64)
    training, evaluation = model(images), model.eval()(images)
    for name, levels in evaluation.own.items():
        for x, y in zip(levels, training.own[name], strict=True):
            torch.testing.assert_close(x, y)
    assert [x.shape[2] for x in training.own["staggered"]] == [16, 8, 4][: len(model.strides)]
    if not separate:
        assert torch.equal(training.own["staggered"][1], training.features[0])


def test_a_teachers_backbone_is_made_anew_with_weights_and_frozen_parts() -> None:
    model = make(separate=True)
    for x, y in zip(model.t_backbone.parameters(), model.backbone.parameters(), strict=True):
        assert x is not y and torch.equal(x, y)
    model.backbone.load_state_dict(TinyResNet(width=8).state_dict())
    model.backbone.freeze(1)
    model.renew_teacher()
    for x, y in zip(model.t_backbone.parameters(), model.backbone.parameters(), strict=True):
        assert x is not y and torch.equal(x, y) and x.requires_grad == y.requires_grad
    assert not all(x.requires_grad for x in model.t_backbone.parameters())


def test_a_batch_without_boxes_is_all_background_and_moves_no_box() -> None:
    model, outputs = make(), said(2)
    targets = model.assign(outputs, truth([], []))
    losses = model.losses(outputs, targets)
    assert len(targets.row) == 0
    assert losses["refine_box"].item() == losses["s_box"].item() == losses["t_box"].item() == 0
    torch.testing.assert_close(losses["refine_score"], focal_of_nothing(outputs.own["score"]))
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.t_head.parameters())
    for name in ("box", "delta"):
        assert not any(x.grad.any() for x in outputs.own[name])


def test_what_the_padding_says_changes_no_loss_and_is_never_detected() -> None:
    model = make(score_threshold=0.0, max_detections=10_000, nms_iou=1.0)
    outputs, size, cells = said(1), (33, 20), [(5, 3), (3, 2)]
    loud = {name: [x.detach().clone() for x in levels] for name, levels in outputs.own.items()}
    for name in ("score", "cls", "box", "cls_features", "box_features", "delta"):
        for x, (height, width) in zip(loud[name], cells, strict=True):
            x[:, :, height:] += 9
            x[:, :, :, width:] += 9
    seen = truth([[2.0, 3, 18, 30]], size=size)
    found = []
    for own in (outputs.own, loud):
        torch.manual_seed(0)
        one = replace(outputs, own=own)
        targets = model.assign(one, seen)
        assert targets.valid.sum() == 5 * 3 + 3 * 2
        assert targets.valid[targets.own["proposals"].row].all()
        found.append((model.losses(one, targets), model.detect(one, [size])[0]))
    (losses, detections), (loud_losses, loud_detections) = found
    for name, loss in losses.items():
        torch.testing.assert_close(loud_losses[name], loss)
    torch.testing.assert_close(loud_detections.boxes, detections.boxes)
    assert len(detections.scores) == 3 * (5 * 3 + 3 * 2)


def test_a_certain_anchor_is_decoded_twice_from_its_own_cell() -> None:
    """Cell (1, 2) of stride 16: the refinement moves its anchor, and the S-head moves what came of that."""
    model, outputs = make(), said(1)
    own = {name: [torch.zeros_like(x) for x in outputs.own[name]] for name in ("score", "delta", "cls", "box")}
    for x in own["cls"]:
        x[:, 3] = 9.0  # background
    own["delta"][1][0, :, 1, 2] = torch.tensor([0.125, 0.0, math.log(0.5), math.log(0.5)])
    own["box"][1][0, :, 1, 2] = torch.tensor([0.0, -2.5, 0.0, 5 * math.log(1.5)])
    own["cls"][1][0, :, 1, 2] = torch.tensor([0.0, 0.0, 8.0, 1.0])
    (found,) = model.detect(Outputs([], own=own), [(64, 64)])
    # Around (32, 16), 64 wide; then around (40, 16), 32 wide; then around (40, 8), 32 by 48, and cut at the top.
    torch.testing.assert_close(found.boxes[:1], torch.tensor([[24.0, 0, 56, 32]]))
    assert found.labels[0] == 2
    torch.testing.assert_close(found.scores[0], torch.tensor([0.0, 0, 8, 1]).softmax(0)[2])


def test_only_what_the_refinement_ranks_best_is_judged() -> None:
    model, outputs = make(top_k=5, score_threshold=0.0, nms_iou=1.0), said(2)
    found = model.detect(outputs, [(64, 64)] * 2)
    assert [len(one.scores) for one in found] == [5 * 3] * 2
    for image, one in enumerate(found):
        scores = torch.stack([at(outputs.own["score"], image * CELLS + row) for row in range(CELLS)]).flatten()
        best = scores.topk(5).indices.tolist()
        wanted = [at(outputs.own["cls"], image * CELLS + row).softmax(0)[:3] for row in best]
        torch.testing.assert_close(one.scores, torch.cat(wanted).sort(descending=True).values)


def test_losses_are_float32_under_autocast() -> None:
    model = make()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(torch.rand(3, 3, 64, 64))
        losses = model.losses(outputs, model.assign(outputs, THREE))
    assert outputs.own["cls"][0].dtype == torch.bfloat16
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


def test_on_a_resnet_the_s_head_reads_p3_to_p7_and_the_t_head_p2_to_p6() -> None:
    with torch.device("meta"):
        model = MimicDet(ResNet(depth=18), 80)
        images = torch.zeros(1, 3, 256, 384)
        training, evaluation = model(images), model.eval()(images)
    assert model.strides == (8, 16, 32, 64, 128)
    for outputs in (training, evaluation):
        assert [x.shape[2] for x in outputs.features] == [32, 16, 8, 4, 2]
        assert [tuple(x.shape[1:3]) for x in outputs.own["cls"]] == [(81, n) for n in (32, 16, 8, 4, 2)]
        assert not outputs.cls and not outputs.box
    assert [x.shape[2] for x in training.own["staggered"]] == [64, 32, 16, 8, 4]
    assert model.neck.extras[0].in_channels == 512  # P6 comes from C5


class OneMap(nn.Module):
    channels, strides = (8,), (8,)


def test_a_backbone_of_one_map_and_a_separate_pyramid_of_no_extra_level_are_the_users_mistake() -> None:
    with pytest.raises(Invalid, match="at least two maps"):
        MimicDet(OneMap(), 3)
    with pytest.raises(Invalid, match="extra levels") as error:
        make(separate=True, extra=0)
    assert error.value.where == ("extra",)
