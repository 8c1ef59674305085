"""DeFeat: its parts by hand and against loops over cells, which weights switch what on, and which pairs it refuses."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.trainers.detectors.scenes import noise
from tests.trainers.distill.two_stages import Backbone, OneStage, TwoStage, real, said
from tests.trainers.test_every_detector import make as make_detector
from trainers import distill
from trainers.call import Call, Invalid
from trainers.distill import DeFeat
from trainers.distill.box_masks import every_box, level_masks, stage_masks
from trainers.distill.defeat import decoupled, decoupled_kl
from trainers.distill.soft import soft_kl
from trainers.outputs import Outputs, Targets

OFF = {
    "foreground_weight": 0.0,
    "background_weight": 0.0,
    "backbone_foreground_weight": 0.0,
    "backbone_background_weight": 0.0,
}
ONE = OneStage(), OneStage()


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mask(seed: int, *shape: int) -> Tensor:
    return draw(seed, *shape) > 0.5


def by_cells(student: Tensor, teacher: Tensor, inside: Tensor, fg: float, bg: float) -> float:
    """One level, cell by cell."""
    sums, counts = {True: 0.0, False: 0.0}, {True: 0, False: 0}
    images, channels, height, width = student.shape
    for b in range(images):
        for y in range(height):
            for x in range(width):
                here = bool(inside[b, y, x])
                for c in range(channels):
                    sums[here] += (float(student[b, c, y, x]) - float(teacher[b, c, y, x])) ** 2
                    counts[here] += 1
    return sum(w * sums[here] / max(1, 2 * counts[here]) for here, w in ((True, fg), (False, bg)))


@pytest.mark.parametrize("weights", [(4.0, 16.0), (3.0, 0.0), (0.0, 12.0)])
def test_whole_maps_are_added_to_what_the_masks_say(weights: tuple[float, float]) -> None:
    students, teachers = ([draw(seed, 2, 3, 4, 5), draw(seed + 1, 2, 3, 2, 3)] for seed in (0, 7))
    masks = [mask(3, 2, 4, 5), mask(4, 2, 2, 3)]
    whole = sum(5.0 * (s - t).square().mean() / 2 for s, t in zip(students, teachers, strict=True)) / 2
    expected = decoupled(students, teachers, masks, *weights) + whole
    torch.testing.assert_close(decoupled(students, teachers, masks, *weights, 5.0), expected)


@pytest.mark.parametrize("weights", [(4.0, 16.0), (3.0, 0.0), (0.0, 12.0)])
def test_it_is_what_a_loop_over_cells_finds(weights: tuple[float, float]) -> None:
    students, teachers = ([draw(seed, 2, 3, 4, 5), draw(seed + 1, 2, 3, 2, 3)] for seed in (0, 7))
    masks = [mask(3, 2, 4, 5), mask(4, 2, 2, 3)]
    slow = [by_cells(*level, *weights) for level in zip(students, teachers, masks, strict=True)]
    assert decoupled(students, teachers, masks, *weights).item() == pytest.approx(sum(slow) / 2)


def test_by_hand() -> None:
    # Two channels. One cell of foreground, 1 and 2 apart; three of background, each 1 apart in one channel.
    student = torch.tensor([[[[1.0, 1], [1, 1]], [[2.0, 0], [0, 0]]]])
    inside = torch.tensor([[[True, False], [False, False]]])
    found = decoupled([student], [torch.zeros_like(student)], [inside], 4.0, 16.0)
    assert found.item() == pytest.approx(4 * (1 + 4) / (2 * 2 * 1) + 16 * 3 / (2 * 2 * 3))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.floats(0.1, 20))
def test_equal_weights_on_halves_of_a_map_are_the_mean_square_of_the_map(seed: int, weight: float) -> None:
    student, teacher = draw(seed, 2, 3, 4, 4), draw(seed + 1, 2, 3, 4, 4)
    half = torch.zeros(2, 4, 4, dtype=torch.bool)
    half[:, :, ::2] = True
    found = decoupled([student], [teacher], [half], weight, weight)
    torch.testing.assert_close(found, weight * (student - teacher).square().mean())


def test_background_may_weigh_more_and_still_count_less_cell_by_cell() -> None:
    student = torch.ones(1, 2, 10, 10, dtype=torch.float64, requires_grad=True)
    inside = torch.zeros(1, 10, 10, dtype=torch.bool)
    inside[:, :2, :2] = True
    decoupled([student], [torch.zeros_like(student)], [inside], 4.0, 16.0).backward()
    assert student.grad is not None
    # 4 / 4 cells to 16 / 96 cells.
    assert (student.grad[0, 0, 0, 0] / student.grad[0, 0, 9, 9]).item() == pytest.approx(6)


@pytest.mark.parametrize("weights", [(4.0, 16.0), (3.0, 0.0), (0.0, 12.0)])
def test_a_teacher_that_agrees_asks_for_nothing(weights: tuple[float, float]) -> None:
    student = draw(0, 2, 3, 4, 5).requires_grad_()
    found = decoupled([student], [student.detach()], [mask(1, 2, 4, 5)], *weights)
    assert found.item() == 0
    (gradient,) = torch.autograd.grad(found, student)
    assert (gradient == 0).all()


@pytest.mark.parametrize("weights", [(4.0, 16.0), (3.0, 0.0), (0.0, 12.0)])
def test_the_gradient_agrees_with_finite_differences(weights: tuple[float, float]) -> None:
    teacher, inside = draw(1, 2, 3, 2, 3), mask(2, 2, 2, 3)
    assert torch.autograd.gradcheck(
        lambda x: decoupled([x], [teacher], [inside], *weights), (draw(0, 2, 3, 2, 3).requires_grad_(),)
    )


def test_with_one_weight_the_other_cells_are_not_looked_at() -> None:
    student, teacher, inside = draw(0, 1, 2, 3, 3), draw(1, 1, 2, 3, 3), mask(3, 1, 3, 3)
    spoilt = student.masked_fill(~inside[:, None], math.nan)
    expected = decoupled([student], [teacher], [inside], 4.0, 0.0)
    torch.testing.assert_close(decoupled([spoilt], [teacher], [inside], 4.0, 0.0), expected)


@pytest.mark.parametrize("everywhere", [True, False])
def test_a_map_of_only_one_kind_is_no_division_by_zero(everywhere: bool) -> None:
    student = draw(0, 2, 3, 4, 5).requires_grad_()
    inside = torch.full((2, 4, 5), everywhere)
    found = decoupled([student], [torch.zeros_like(student)], [inside], 4.0, 16.0)
    assert found.item() == pytest.approx((4 if everywhere else 16) * student.square().mean().item() / 2)
    assert torch.autograd.grad(found, student)[0].isfinite().all()


def loss(*, student: Any = None, teacher: Any = None, **knobs: Any) -> DeFeat:
    torch.manual_seed(0)
    return DeFeat(student or OneStage(), teacher or OneStage(), **knobs).double()


def test_the_pyramid_is_compared_on_all_levels_after_adapters_without_relu() -> None:
    one = loss(**{**OFF, "foreground_weight": 3.0, "background_weight": 12.0})
    student, teacher, wanted = said(1), said(2), real()
    mine = [adapt(x) for adapt, x in zip(one.neck, student.features, strict=True)]
    assert any((x < 0).any() for x in mine)
    masks = level_masks(every_box(wanted.truth), (8, 16), (0, 1), mine)
    torch.testing.assert_close(one(student, teacher, wanted), decoupled(mine, teacher.features, masks, 3.0, 12.0))


def test_at_first_the_loss_is_half_the_mean_square_of_the_teacher() -> None:
    one = loss(**{**OFF, "foreground_weight": 1.0, "background_weight": 1.0})
    for adapt in one.neck:
        torch.nn.init.zeros_(adapt.bias)
    student, teacher, wanted = said(1), said(2), real()
    masks = level_masks(every_box(wanted.truth), (8, 16), (0, 1), teacher.features)
    zeros = [torch.zeros_like(x) for x in teacher.features]
    expected = decoupled(zeros, teacher.features, masks, 1.0, 1.0)
    torch.testing.assert_close(one(student, teacher, wanted), expected, rtol=1e-2, atol=0)


def test_chosen_levels_are_compared_alone() -> None:
    one = loss(**{**OFF, "foreground_weight": 4.0, "background_weight": 16.0, "levels": (1,)})
    student, teacher, wanted = said(1), said(2), real()
    assert len(one.neck) == 1
    mine = [one.neck[0](student.features[1])]
    masks = level_masks(every_box(wanted.truth), (8, 16), (1,), mine)
    torch.testing.assert_close(one(student, teacher, wanted), decoupled(mine, teacher.features[1:], masks, 4.0, 16.0))


@pytest.mark.parametrize(("stages", "compared"), [(None, (1, 2)), ((0,), (0,)), ((2, 0), (0, 2))])
def test_the_backbones_are_compared_on_the_two_coarsest_stages_or_on_chosen_ones(
    stages: tuple[int, ...] | None, compared: tuple[int, ...]
) -> None:
    one = loss(**{**OFF, "backbone_foreground_weight": 4.0, "backbone_background_weight": 16.0, "stages": stages})
    student, teacher, wanted = said(1), said(2), real()
    mine = [adapt(student.maps[stage]) for adapt, stage in zip(one.backbone, compared, strict=True)]
    assert all((x >= 0).all() for x in mine) and any((x > 0).any() for x in mine)
    masks = stage_masks(every_box(wanted.truth), 4, student.maps[0], mine)
    taught = [teacher.maps[stage] for stage in compared]
    torch.testing.assert_close(one(student, teacher, wanted), decoupled(mine, taught, masks, 4.0, 16.0))


def test_without_masks_whole_maps_of_the_backbones_are_compared() -> None:
    one = loss(**OFF, backbone_weight=1.0)
    student, teacher = said(1), said(2)
    means = [
        (adapt(student.maps[stage]) - teacher.maps[stage]).square().mean() / 2
        for adapt, stage in zip(one.backbone, (1, 2), strict=True)
    ]
    torch.testing.assert_close(one(student, teacher, real()), torch.stack(means).mean())


def test_the_parts_add_up() -> None:
    whole = loss(backbone_weight=2.0)
    neck = loss(backbone_foreground_weight=0.0, backbone_background_weight=0.0)
    masked, unmasked = loss(foreground_weight=0.0, background_weight=0.0), loss(**OFF, backbone_weight=2.0)
    neck.neck.load_state_dict(whole.neck.state_dict())
    for part in (masked, unmasked):
        part.backbone.load_state_dict(whole.backbone.state_dict())
    student, teacher, wanted = said(1), said(2), real()
    expected = torch.stack([part(student, teacher, wanted) for part in (neck, masked, unmasked)])
    assert (expected > 0).all()
    torch.testing.assert_close(whole(student, teacher, wanted), expected.sum())


def logits(*rows: list[float]) -> Tensor:
    """With these probabilities."""
    return torch.tensor(rows, dtype=torch.float64).log()


def test_regions_by_hand() -> None:
    # The first shows an object, the other two do not: KL of 3/4, 1/8, 1/8 from 1/2, 1/4, 1/4, and of the reverse.
    uneven, even = [0.75, 0.125, 0.125], [0.5, 0.25, 0.25]
    student, teacher = logits(even, uneven, even), logits(uneven, even, even)
    far = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    back = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(2)
    positive = torch.tensor([True, False, False])
    found = decoupled_kl(student, teacher, positive, weights=(2.0, 3.0), temperatures=(1.0, 1.0))
    assert found.item() == pytest.approx(2 * far + 3 * back / 2)


def test_each_kind_of_region_has_its_own_weight_and_temperature() -> None:
    student, teacher, positive = draw(0, 6, 4), draw(1, 6, 4), mask(5, 6)
    assert positive.any() and not positive.all()
    found = decoupled_kl(student, teacher, positive, weights=(2.0, 5.0), temperatures=(3.0, 4.0))
    each = [
        4 * soft_kl(student[here], teacher[here], temperature=t).mean()
        for here, t in ((positive, 3.0), (~positive, 4.0))
    ]
    torch.testing.assert_close(found, 2 * each[0] + 5 * each[1])
    alone = decoupled_kl(student, teacher, positive, weights=(0.0, 5.0), temperatures=(3.0, 4.0))
    torch.testing.assert_close(alone, 5 * each[1])


@pytest.mark.parametrize("positive", [True, False])
def test_regions_of_only_one_kind_are_no_division_by_zero(positive: bool) -> None:
    student, teacher = draw(0, 3, 4).requires_grad_(), draw(1, 3, 4)
    found = decoupled_kl(student, teacher, torch.full((3,), positive), weights=(2.0, 5.0), temperatures=(1.0, 1.0))
    expected = (2 if positive else 5) * 4 * soft_kl(student, teacher, temperature=1.0).mean()
    torch.testing.assert_close(found, expected)
    none = decoupled_kl(student[:0], teacher[:0], torch.zeros(0).bool(), weights=(2.0, 5.0), temperatures=(1.0, 1.0))
    assert none.item() == 0 and none.requires_grad


def test_the_gradient_of_regions_agrees_with_finite_differences() -> None:
    teacher, positive = draw(1, 5, 4), mask(5, 5)
    assert torch.autograd.gradcheck(
        lambda x: decoupled_kl(x, teacher, positive, weights=(2.0, 3.0), temperatures=(2.0, 3.0)),
        (draw(0, 5, 4).requires_grad_(),),
    )


def pair_of_two_stages(**knobs: Any) -> tuple[DeFeat, Outputs, Outputs, Targets]:
    return (
        loss(student=TwoStage(), teacher=TwoStage(), **OFF, **knobs),
        said(1, by=TwoStage()),
        said(2, by=TwoStage(scale=3.0)),
        real(),
    )


def test_both_judge_the_teachers_regions_and_the_teachers_labels_say_what_they_show() -> None:
    one, student, teacher, wanted = pair_of_two_stages(cls_positive_weight=2.0, cls_negative_weight=7.0)
    drawn = teacher.by.sample(teacher.own["proposed"], wanted.truth)
    labels = torch.cat(drawn.labels)
    student.own.clear()  # what the student proposes is not asked for
    said_of_them, _ = student.by.judge(student.features, drawn.boxes, wanted.truth.sizes)
    taught, _ = teacher.by.judge(teacher.features, drawn.boxes, wanted.truth.sizes)
    each = 4 * soft_kl(said_of_them, taught, temperature=1.0)
    expected = 2 * each[labels > 0].mean() + 7 * each[labels == 0].mean()
    assert (labels > 0).any() and (labels == 0).any()
    torch.testing.assert_close(one(student, teacher, wanted), expected)


def test_two_stage_detectors_compare_regions_unless_told_otherwise() -> None:
    assert loss(student=TwoStage(), teacher=TwoStage()).cls_weights == (2.0, 2.0)
    assert loss(student=TwoStage(), teacher=TwoStage(), cls_negative_weight=0.0).cls_weights == (2.0, 0.0)
    assert loss().cls_weights == (0.0, 0.0)
    assert loss(cls_positive_weight=0.0, cls_negative_weight=0.0).cls_weights == (0.0, 0.0)


@pytest.mark.parametrize("knob", ["cls_positive_weight", "cls_negative_weight"])
@pytest.mark.parametrize(
    ("student", "teacher", "lacking"), [(OneStage(), TwoStage(), "student"), (*ONE, "student and the teacher")]
)
def test_regions_are_refused_where_a_detector_has_none(student: Any, teacher: Any, lacking: str, knob: str) -> None:
    with pytest.raises(Invalid, match=f"{knob}.*second stage.*the {lacking} has none.*FasterRCNN.*KD") as refusal:
        DeFeat(student, teacher, **{knob: 2.0})
    assert refusal.value.where == (knob,)


def test_other_strides_are_refused_with_both_figures() -> None:
    with pytest.raises(Invalid, match=r"strides, but the student's is \(8, 16\) and the teacher's is \(4, 8\)"):
        DeFeat(OneStage(), OneStage(strides=(4, 8)))


def test_backbones_of_other_strides_are_refused_unless_they_are_not_compared() -> None:
    coarse = OneStage(backbone=Backbone((2, 3), (8, 16)))
    with pytest.raises(Invalid, match=r"\(4, 8, 16\).*\(8, 16\).*set backbone_foreground_weight"):
        DeFeat(OneStage(), coarse)
    DeFeat(OneStage(), coarse, backbone_foreground_weight=0.0, backbone_background_weight=0.0)


def test_other_classes_are_refused_where_regions_are_compared() -> None:
    with pytest.raises(Invalid, match="number of classes"):
        DeFeat(TwoStage(), TwoStage(num_classes=80))
    DeFeat(OneStage(), OneStage(num_classes=80))


@pytest.mark.parametrize("knob", ["levels", "stages"])
@pytest.mark.parametrize("numbers", [(), (0, 3), (1, 1)])
def test_levels_and_stages_that_are_not_there_or_are_named_twice_are_refused(
    numbers: tuple[int, ...], knob: str
) -> None:
    with pytest.raises(Invalid, match=f"{knob}.*one or more of 0 to ., each once") as refusal:
        DeFeat(*ONE, **{knob: numbers})
    assert refusal.value.where == (knob,)


def test_a_wider_teacher_is_met_by_the_adapters() -> None:
    one = loss(teacher=OneStage(channels=6, backbone=Backbone((5, 6, 7))))
    assert [(a.in_channels, a.out_channels) for a in one.neck] == [(4, 6)] * 2
    assert [(a[0].in_channels, a[0].out_channels) for a in one.backbone] == [(3, 6), (4, 7)]


def test_what_weighs_nothing_has_no_adapters() -> None:
    silent = loss(**OFF, cls_positive_weight=0.0, cls_negative_weight=0.0)
    assert not list(silent.parameters()) and silent(said(1), said(2), real()).item() == 0
    assert len(loss(foreground_weight=0.0, background_weight=0.0).neck) == 0
    assert len(loss(backbone_foreground_weight=0.0, backbone_background_weight=0.0).backbone) == 0


def test_a_loss_of_which_nothing_is_left_for_this_pair_is_refused() -> None:
    with pytest.raises(Invalid, match="every part of DeFeat has the weight 0 for this pair"):
        loss(**OFF)
    with pytest.raises(Invalid, match="every part of DeFeat"):
        loss(student=TwoStage(), **OFF, cls_positive_weight=0.0)
    assert loss(student=TwoStage(), teacher=TwoStage(), **OFF).cls_weights == (2.0, 2.0)


def test_a_batch_without_boxes_is_all_background() -> None:
    one, student, teacher = loss(), said(1), said(2)
    empty = real(boxes=([], [], []))
    found = one(student, teacher, empty)
    scaled = loss(foreground_weight=400.0, backbone_foreground_weight=400.0)
    torch.testing.assert_close(scaled(student, teacher, empty), found)
    assert loss(background_weight=0.0, backbone_background_weight=0.0)(student, teacher, empty).item() == 0


def test_a_box_at_the_border_of_the_padding_does_no_harm() -> None:
    found = loss()(said(1), said(2), real(boxes=([[60.0, 60, 64, 64]], [[64.0, 0, 64, 64]], [])))
    assert found.isfinite()


@pytest.mark.parametrize("kind", ["FasterRCNN", "MaskRCNN"])
def test_real_second_stages_learn_from_one_another(kind: str) -> None:
    own = {"extra": 1, "hidden": 32, "pooled": 3}
    student, teacher = make_detector(kind, own, width=4), make_detector(kind, own, width=8).eval().requires_grad_(False)
    images, truth = noise((64, 64), (40, 50), padded=(64, 64))
    one = Call(name="DeFeat", args=OFF).complete(distill).of(distill, student, teacher)
    with torch.no_grad():
        lesson = teacher(images)
    outputs = student(images)
    torch.manual_seed(0)
    found = one(outputs, lesson, student.assign(outputs, truth))
    found.backward()
    assert found.isfinite() and found > 0
    learnt = student.roi_heads.box_predictor.cls_score.weight.grad
    assert learnt is not None and (learnt != 0).any()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    # A sampler that found no object, as for images without boxes, leaves the regions of the background.
    nowhere = replace(truth, boxes=[b[:0] for b in truth.boxes], labels=[n[:0] for n in truth.labels])
    again = student(images)
    assert one(again, lesson, student.assign(again, nowhere)).isfinite()


def test_one_class_will_do() -> None:
    one = loss(student=TwoStage(num_classes=1), teacher=TwoStage(num_classes=1), **OFF)
    two = draw(0, 4, 2), draw(1, 4, 2)
    assert decoupled_kl(*two, mask(3, 4), weights=one.cls_weights, temperatures=(1.0, 1.0)) > 0


@pytest.mark.parametrize(
    "args", [{"foreground_weight": -1}, {"backbone_weight": -1}, {"cls_positive_temperature": 0.5}, {"levels": [-1]}]
)
def test_a_study_with_an_argument_out_of_range_is_refused_at_that_argument(args: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refusal:
        Call(name="DeFeat", args=args).complete(distill)
    assert refusal.value.where == ("DeFeat", *args)
