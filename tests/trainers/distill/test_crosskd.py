"""CrossKD: the teacher finishes what the student began, and what comes of it is compared with what it says itself."""

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from tests.trainers.detectors.scenes import noise
from tests.trainers.test_every_detector import make
from trainers import distill
from trainers.call import Call, Invalid
from trainers.distill import CrossKD
from trainers.distill.crosskd import aligned, box_loss, class_loss, frozen
from trainers.outputs import Outputs, Targets

NONE = {f"{part}_weight": 0.0 for part in ("cls", "edges", "boxes", "centerness")}
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("GFL", {"reg_max": 8}),
    ("GFLv2", {"reg_max": 8}),
    ("ATSS", {}),
    ("FCOS", {}),
    ("FCOS", {"conventions": "paper"}),
    ("RetinaNet", {}),
]
EVERY = pytest.mark.parametrize(("kind", "own"), KINDS, ids=str)


class Pair:
    """A student, a teacher and the loss between them, and what they say of two images, the second one padded."""

    def __init__(self, kind: str, own: dict[str, Any], **args: Any) -> None:
        if kind != "RetinaNet":  # which always has four
            own = {"convs": 2, **own}
        self.student, self.teacher = (make(kind, own, width=width) for width in (4, 8))
        with torch.no_grad():
            for parameter in self.teacher.head.parameters():  # what is untrained says nearly the same everywhere
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.05)
        self.teacher.eval().requires_grad_(False)
        self.loss = CrossKD(self.student, self.teacher, **args)
        self.images, self.truth = noise((64, 64), (40, 50), padded=(64, 64))

    def said(self) -> tuple[Outputs, Outputs, Targets]:
        student = self.student(self.images)
        with torch.no_grad():
            teacher = self.teacher(self.images)
        return student, teacher, self.student.assign(student, self.truth)

    def crossed(self, student: Outputs) -> Outputs:
        """Without alignment."""
        found: Outputs = self.teacher.finish(*student.towers[self.loss.after], after=self.loss.after)
        return found


def only(kind: str, own: dict[str, Any], **weights: Any) -> Pair:
    """With these parts alone, and without alignment."""
    return Pair(kind, own, **{**NONE, "align": False, **weights})


def counted(targets: Targets) -> Tensor:
    return targets.valid if targets.ignored is None else targets.valid & ~targets.ignored


def positives(targets: Targets) -> int:
    by_image = torch.bincount(targets.row // (len(targets.valid) // 2), minlength=2)
    return int(by_image.clamp(min=1).sum())


@EVERY
def test_detectors_keep_what_their_towers_say_where_they_are_cut_before_its_relu(
    kind: str, own: dict[str, Any]
) -> None:
    pair = Pair(kind, own)
    assert pair.student.convs == (4 if kind == "RetinaNet" else 2)
    for outputs in pair.said()[:2]:
        assert outputs.towers.keys() == {pair.student.convs - 1}
        assert all((x < 0).any() for tower in outputs.towers[pair.student.convs - 1] for x in tower)
    assert not make(kind, own)(pair.images).towers


@EVERY
def test_a_teacher_is_not_told_by_its_own_towers_to_change(kind: str, own: dict[str, Any]) -> None:
    pair = Pair(kind, own, align=False)
    pair.student = copy.deepcopy(pair.teacher)
    _, teacher, targets = pair.said()
    found = pair.loss(teacher, teacher, targets)
    crossed = pair.crossed(teacher)
    for mine, theirs in zip(crossed.cls + crossed.box, teacher.cls + teacher.box, strict=True):
        assert torch.equal(mine, theirs)
    if kind == "ATSS":  # the cross entropy of the centerness with itself is its entropy
        p = torch.cat([x.flatten(1) for x in teacher.own["centerness"]], 1).flatten()[targets.row].sigmoid()
        entropy = F.binary_cross_entropy(p, p, reduction="sum") / positives(targets)
        torch.testing.assert_close(found, entropy, rtol=1e-4, atol=0)
    elif kind in ("GFL", "GFLv2"):
        assert found.item() == pytest.approx(0, abs=1e-6)


@EVERY
def test_classes_are_compared_over_all_rows_that_count_and_divided_by_the_positives(
    kind: str, own: dict[str, Any]
) -> None:
    pair = only(kind, own, cls_weight=3.0)
    student, teacher, targets = pair.said()
    loss = class_loss(pair.crossed(student).class_rows(), teacher.class_rows())
    expected = loss[counted(targets)].sum() / positives(targets)
    torch.testing.assert_close(pair.loss(student, teacher, targets), 3 * expected)
    assert not targets.valid.all()


def test_anchors_that_are_neither_good_nor_bad_are_left_out() -> None:
    pair = only("RetinaNet", {}, cls_weight=1.0)
    student, teacher, targets = pair.said()
    ignored = targets.ignored.clone()
    ignored[:100] = True
    before = pair.loss(student, teacher, targets)
    after = pair.loss(student, teacher, replace(targets, ignored=ignored))
    assert after < before


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_edges_are_a_mean_weighted_by_the_teachers_scores(temperature: float) -> None:
    pair = only("GFL", {"reg_max": 8}, edges_weight=2.0, temperature=temperature)
    student, teacher, targets = pair.said()
    log_p, log_q = (
        (o.edge_rows(9) / temperature).log_softmax(2) for o in (pair.crossed(student), teacher)
    )  # (R, 4, 9)
    loss = temperature**2 * (log_q.exp() * (log_q - log_p)).sum(2).mean(1)
    score = teacher.class_rows().sigmoid().amax(1)[targets.valid]
    expected = (score * loss[targets.valid]).sum() / score.sum()
    torch.testing.assert_close(pair.loss(student, teacher, targets), 2 * expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "own"), KINDS[2:], ids=str)
def test_boxes_are_weighted_by_the_teachers_scores_and_divided_by_the_positives(kind: str, own: dict[str, Any]) -> None:
    pair = only(kind, own, boxes_weight=2.0)
    student, teacher, targets = pair.said()
    loss = generalized_box_iou_loss(pair.teacher.boxes(pair.crossed(student)), pair.teacher.boxes(teacher))
    rows = counted(targets)
    expected = (teacher.class_rows().sigmoid().amax(1) * loss)[rows].sum() / positives(targets)
    torch.testing.assert_close(pair.loss(student, teacher, targets), 2 * expected)


@pytest.mark.parametrize("kind", ["ATSS", "FCOS"])
def test_the_centerness_is_learnt_at_the_positives(kind: str) -> None:
    pair = only(kind, {}, centerness_weight=2.0)
    student, teacher, targets = pair.said()
    said, wanted = (
        torch.cat([x.flatten(1) for x in o.own["centerness"]], 1).flatten()[targets.row]
        for o in (pair.crossed(student), teacher)
    )
    expected = F.binary_cross_entropy_with_logits(said, wanted.sigmoid(), reduction="sum") / positives(targets)
    torch.testing.assert_close(pair.loss(student, teacher, targets), 2 * expected)


def real_centerness(kind: str, strides: tuple[int, ...], targets: Targets) -> Tensor:
    """Of each positive, one by one, from the middle of its cell (FCOS) or its corner (ATSS), in images of 64 x 64."""
    start = 0.5 if kind == "FCOS" else 0
    points = [
        ((x + start) * stride, (y + start) * stride)
        for stride in strides
        for y in range(64 // stride)
        for x in range(64 // stride)
    ]
    found = []
    for row, (left, top, right, bottom) in zip(targets.row.tolist(), targets.box.tolist(), strict=True):
        x, y = points[row % len(points)]
        across, down = sorted((x - left, right - x)), sorted((y - top, bottom - y))
        found.append(math.sqrt(across[0] / across[1] * down[0] / down[1]))
    return torch.tensor(found)


@pytest.mark.parametrize(("kind", "own"), KINDS[2:5], ids=str)
def test_sums_may_be_divided_by_the_real_centerness_of_the_positives(kind: str, own: dict[str, Any]) -> None:
    weights = {"cls_weight": 0.4, "boxes_weight": 0.75, "centerness_weight": 2.0}
    by_number, by_centerness = (only(kind, own, normaliser=name, **weights) for name in ("positives", "centerness"))
    student, teacher, targets = by_number.said()
    crossed = by_number.crossed(student)
    rows = counted(targets)
    cls = class_loss(crossed.class_rows(), teacher.class_rows())[rows].sum()
    score = teacher.class_rows().sigmoid().amax(1)
    boxes = generalized_box_iou_loss(by_number.teacher.boxes(crossed), by_number.teacher.boxes(teacher))
    said, wanted = (
        torch.cat([x.flatten(1) for x in o.own["centerness"]], 1).flatten()[targets.row] for o in (crossed, teacher)
    )
    centred = F.binary_cross_entropy_with_logits(said, wanted.sigmoid(), reduction="sum")
    total = 0.4 * cls + 0.75 * (score * boxes)[rows].sum() + 2 * centred
    real = real_centerness(kind, by_number.student.strides, targets)
    assert 0 < real.sum() < positives(targets)
    torch.testing.assert_close(by_centerness.loss(student, teacher, targets), total / real.sum(), rtol=1e-4, atol=0)
    torch.testing.assert_close(by_number.loss(student, teacher, targets), total / positives(targets), rtol=1e-4, atol=0)


def test_where_there_is_no_centerness_sums_are_divided_by_one_and_a_detector_needs_to_have_it() -> None:
    by_centerness = only("FCOS", {}, cls_weight=1.0, normaliser="centerness")
    by_centerness.images, by_centerness.truth = noise((64, 64), (40, 50), padded=(64, 64), boxes=0)
    student, teacher, targets = by_centerness.said()
    cls = class_loss(by_centerness.crossed(student).class_rows(), teacher.class_rows())
    torch.testing.assert_close(by_centerness.loss(student, teacher, targets), cls[counted(targets)].sum())
    with pytest.raises(Invalid, match="no centerness") as refused:
        only("GFL", {"reg_max": 8}, normaliser="centerness")
    assert refused.value.where == ("normaliser",)


def test_a_normaliser_that_is_the_default_is_not_written_so_that_keys_stay() -> None:
    plain, named, other = (
        Call(name="CrossKD", args=args).complete(distill)
        for args in ({}, {"normaliser": "positives"}, {"normaliser": "centerness"})
    )
    assert (
        plain == named
        and "normaliser" not in plain.args
        and other.args
        == {
            **plain.args,
            "normaliser": "centerness",
        }
    )
    with pytest.raises(Invalid, match="normaliser"):
        Call(name="CrossKD", args={"normaliser": "cells"}).complete(distill)


@pytest.mark.parametrize(
    ("kind", "own", "silent"),
    [("GFL", {"reg_max": 8}, "boxes"), ("ATSS", {"reg_max": 8}, "boxes"), ("ATSS", {}, "edges")],
)
def test_of_distributions_edges_are_compared_and_of_numbers_boxes(kind: str, own: dict[str, Any], silent: str) -> None:
    with pytest.raises(Invalid, match="every part of CrossKD has the weight 0 for this pair"):
        only(kind, own, **{f"{silent}_weight": 1.0})
    pair, both = (only(kind, own, cls_weight=1.0, **more) for more in ({}, {f"{silent}_weight": 1.0}))
    assert pair.loss(*pair.said()).item() == both.loss(*both.said()).item() > 0


@EVERY
@pytest.mark.parametrize("wanting", [False, True])
def test_the_student_learns_up_to_the_cut_and_the_teacher_nothing(
    kind: str, own: dict[str, Any], wanting: bool
) -> None:
    pair = Pair(kind, own, after=1)
    pair.teacher.requires_grad_(wanting)
    student = pair.student(pair.images)
    teacher = pair.teacher(pair.images)
    pair.loss(student, teacher, pair.student.assign(student, pair.truth)).backward()
    assert all(p.grad is None for p in pair.teacher.parameters())
    assert all(p.requires_grad == wanting for p in pair.teacher.parameters())
    learnt = {name for name, p in pair.student.named_parameters() if p.grad is not None and p.grad.any()}
    assert any(name.startswith("backbone") for name in learnt)
    towers = {
        "FCOS": ("head.classification_head.conv.", "head.regression_head.conv."),
        "RetinaNet": ("head.classification_head.conv.", "head.regression_head.conv."),
    }.get(kind, ("head.cls_tower.", "head.box_tower."))
    of_head = {name for name in learnt if name.startswith("head")}
    later = ("1.", "2.", "3.") if kind == "RetinaNet" else ("3.", "4.")
    for tower in towers:
        assert f"{tower}0.weight" in of_head or f"{tower}0.0.weight" in of_head
        assert not any(name.startswith(tuple(tower + number for number in later)) for name in of_head)
    assert all(name.startswith(towers) for name in of_head)


def test_meanwhile_nothing_wants_a_gradient_whatever_happens() -> None:
    layer = torch.nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    with frozen(layer):
        assert not layer.weight.requires_grad and not layer.bias.requires_grad
    with pytest.raises(RuntimeError), frozen(layer):
        layer(torch.zeros(3, 5))
    assert layer.weight.requires_grad and not layer.bias.requires_grad


@EVERY
def test_a_batch_without_boxes_does_no_harm(kind: str, own: dict[str, Any]) -> None:
    pair = Pair(kind, own)
    pair.images, pair.truth = noise((64, 64), (40, 50), padded=(64, 64), boxes=0)
    found = pair.loss(*pair.said())
    found.backward()
    assert found.isfinite() and found > 0  # an image without a box counts as one with one positive
    assert all(p.grad.isfinite().all() for p in pair.student.parameters() if p.grad is not None)


def test_an_image_without_a_box_counts_as_one_with_one_positive() -> None:
    pair = only("GFL", {"reg_max": 8}, cls_weight=1.0)
    student, teacher, targets = pair.said()
    first = targets.row < len(targets.valid) // 2
    alone = replace(targets, row=targets.row[first])
    found, nowhere = (pair.loss(student, teacher, t) for t in (alone, replace(targets, row=targets.row[:0])))
    torch.testing.assert_close((int(first.sum()) + 1) * found, 2 * nowhere)


def test_aligned_features_have_the_teachers_mean_and_deviation_in_each_channel() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    found = aligned(7 * x - 3, 0.1 * y + 2)
    for mine, theirs in zip(torch.std_mean(found, (0, 2, 3)), torch.std_mean(0.1 * y + 2, (0, 2, 3)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, aligned(x, 0.1 * y + 2), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(aligned(x, x), x, rtol=1e-5, atol=1e-5)


def test_a_dead_channel_and_a_single_cell_are_finite() -> None:
    x = torch.zeros(2, 1, 2, 2, requires_grad=True)
    aligned(x, torch.rand(2, 1, 2, 2)).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    one = torch.rand(1, 3, 1, 1)
    torch.testing.assert_close(aligned(torch.rand(1, 3, 1, 1), one), one)


def test_with_alignment_neither_scale_nor_shift_of_the_students_features_counts() -> None:
    pair = Pair("GFL", {"reg_max": 8}, after=1)
    student, teacher, targets = pair.said()
    levels, box = student.towers[1]
    other = replace(student, towers={1: ([5 * x + 2 for x in levels], box)})
    torch.testing.assert_close(
        pair.loss(other, teacher, targets), pair.loss(student, teacher, targets), rtol=1e-3, atol=0
    )


def test_a_channel_that_is_rarely_on_is_aligned_before_its_relu_and_so_stays_as_large_as_the_teachers() -> None:
    """Aligned behind the ReLU its few values would be blown up."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 3, 20, 20, generator=generator) - shift for shift in (3.0, 0.0))
    assert aligned(student, teacher).relu().max() < 6 < aligned(student.relu(), teacher.relu()).max()


def test_features_that_no_convolution_has_seen_may_be_negative() -> None:
    pair = Pair("GFL", {"reg_max": 8}, after=0)
    student, teacher, targets = pair.said()
    assert (pair.loss.guest(student.features[0], teacher.features[0]) < 0).any()
    assert pair.loss(student, teacher, targets) > 0


def test_the_class_loss_by_hand_and_its_gradient() -> None:
    p, q = 0.2, 0.7
    x, y = (torch.tensor([[math.log(v / (1 - v))]], dtype=torch.float64) for v in (p, q))
    expected = abs(q - p) * -(q * math.log(p) + (1 - q) * math.log(1 - p))
    assert class_loss(x, y).tolist() == pytest.approx([expected])
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(lambda s: class_loss(s, y), (x.requires_grad_(),))


def test_how_far_boxes_are_apart_by_hand() -> None:
    # Two boxes of 2 x 2 that share 1 x 2, one that is far away, and one that is the same.
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 3, 3]])
    b = torch.tensor([[1.0, 0, 3, 2], [9, 0, 10, 1], [0, 0, 3, 3]])
    assert box_loss("giou", a, b).tolist() == pytest.approx([2 / 3, 1 + 8 / 10, 0], abs=1e-5)
    assert box_loss("iou", a, b).tolist() == pytest.approx([math.log(3), -math.log(1e-6), 0], abs=1e-5)


def test_boxes_without_an_area_are_finite_and_torchvisions_to_the_bit() -> None:
    a, b = torch.zeros(2, 4, requires_grad=True), torch.tensor([[0.0, 0, 0, 0], [1, 1, 2, 2]])
    for overlap in ("giou", "iou"):
        loss = box_loss(overlap, a, b)
        (gradient,) = torch.autograd.grad(loss.sum(), a)
        assert loss.isfinite().all() and gradient.isfinite().all()
        if overlap == "giou":
            theirs = generalized_box_iou_loss(a, b)
            assert torch.equal(loss, theirs)
            assert torch.equal(gradient, torch.autograd.grad(theirs.sum(), a)[0])


@pytest.mark.parametrize(
    ("student", "teacher", "cut"), [(4, 4, 3), (1, 4, 1), (4, 1, 0), (2, 3, 2), (0, 4, 0), (3, 0, 0)]
)
def test_the_cut_leaves_the_teacher_one_convolution_if_nothing_else_is_said(
    student: int, teacher: int, cut: int
) -> None:
    pair = [make("GFL", {"reg_max": 8, "convs": n}) for n in (student, teacher)]
    assert CrossKD(*pair).after == cut
    assert all(detector.keep_towers == {cut} for detector in pair)


def test_towers_of_another_depth_teach() -> None:
    student, teacher = make("GFL", {"reg_max": 8, "convs": 1}, width=4), make("GFL", {"reg_max": 8, "convs": 3})
    loss, (images, truth) = CrossKD(student, teacher), noise((64, 64))
    outputs = student(images)
    found = loss(outputs, teacher.eval()(images), student.assign(outputs, truth))
    assert loss.after == 1 and found.isfinite() and found > 0


def test_a_cut_after_more_convolutions_than_there_are_is_refused() -> None:
    with pytest.raises(Invalid, match=r"2 \(student\) and 4 \(teacher\)") as refusal:
        CrossKD(*(make("GFL", {"reg_max": 8, "convs": n}) for n in (2, 4)), after=3)
    assert refusal.value.where == ("after",)


def test_another_kind_of_teacher_finishes_in_its_own_way() -> None:
    student, teacher = make("ATSS", {}, width=4), make("GFL", {"reg_max": 8})
    loss, (images, truth) = CrossKD(student, teacher), noise((64, 64))
    outputs = student(images)
    found = loss(outputs, teacher.eval()(images), student.assign(outputs, truth))
    assert loss.edges_weight == 4 and found.isfinite() and found > 0


@pytest.mark.parametrize(
    ("student", "teacher", "reason"),
    [
        (("RepPoints", {}), ("GFL", {}), r"the student has none that could be cut: .* as GFL, .* as PKD"),
        (("GFL", {}), ("RepPoints", {}), r"the teacher has none that could be cut"),
        (("GFL", {}), ("FasterRCNN", {}), r"the teacher has none: .* such as PKD"),
        (("GFL", {}), ("RetinaNet", {}), r"number of predictions a cell.*1.*9"),
        (("GFL", {"channels": 8}), ("GFL", {}), r"channels of the towers.*8.*16"),
        (("GFL", {"extra": 1}), ("GFL", {}), r"strides"),
    ],
    ids=str,
)
def test_pairs_whose_towers_do_not_fit_are_refused(student: Any, teacher: Any, reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        CrossKD(make(*student), make(*teacher))


@pytest.mark.parametrize("args", [{"after": -1}, {"overlap": "diou"}, {"temperature": 0.5}, {"cls_weight": -1}])
def test_a_study_with_an_argument_out_of_range_is_refused_at_that_argument(args: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refusal:
        Call(name="CrossKD", args=args).complete(distill)
    assert refusal.value.where == ("CrossKD", *args)
