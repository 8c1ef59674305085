"""TADF: its Gaussians against a loop over cells, both losses of regions by hand, and which parts which pairs have."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.trainers.detectors.scenes import noise
from tests.trainers.distill.test_box_masks import BOX, home_by_hand, rectangle
from tests.trainers.distill.two_stages import OneStage, TwoStage, real, said
from tests.trainers.test_every_detector import make as make_detector
from trainers import distill
from trainers.call import Call, Invalid
from trainers.distill import TADF
from trainers.distill.box_masks import Boxes
from trainers.distill.tadf import bell, box_losses, class_losses, gaussians
from trainers.outputs import Outputs, Targets


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussians_by_hand(by_image: list[list[list[float]]], stride: int, height: int, width: int) -> Tensor:
    """Box by box and cell by cell; of several the highest."""
    mask = torch.zeros(len(by_image), height, width)
    for image, some in enumerate(by_image):
        for box in some:
            rows, columns = rectangle(box, stride, height, width)
            for row in rows:
                for column in columns:
                    down = (row + 0.5 - (rows.start + rows.stop) / 2) / (len(rows) / 2)
                    right = (column + 0.5 - (columns.start + columns.stop) / 2) / (len(columns) / 2)
                    value = math.exp(-(down**2) / 2) * math.exp(-(right**2) / 2)
                    mask[image, row, column] = max(float(mask[image, row, column]), value)
    return mask


def boxes(by_image: list[list[list[float]]]) -> Boxes:
    image = [number for number, some in enumerate(by_image) for _ in some]
    every = torch.tensor([box for some in by_image for box in some]).view(-1, 4)
    return Boxes(every, torch.tensor(image, dtype=torch.long), len(by_image))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(BOX, max_size=3), min_size=1, max_size=3), st.sampled_from([4, 8]))
def test_the_mask_is_that_of_a_loop_over_cells(by_image: list[list[list[float]]], stride: int) -> None:
    some = boxes(by_image)
    found = gaussians(some, stride, (56 // stride, 64 // stride))
    torch.testing.assert_close(found, gaussians_by_hand(by_image, stride, 56 // stride, 64 // stride))


def test_a_row_of_cells_by_hand() -> None:
    found = bell(torch.tensor([1, 2, 0]), torch.tensor([4, 3, 2]), 5)
    edge, half = math.exp(-((2 / 3) ** 2) / 2), math.exp(-(0.5**2) / 2)
    torch.testing.assert_close(found, torch.tensor([[0, edge, 1, edge, 0], [0, 0, 1, 0, 0], [half, half, 0, 0, 0]]))


def test_a_mask_is_as_symmetric_as_its_box_and_highest_in_the_middle() -> None:
    (found,) = gaussians(boxes([[[8.0, 16, 48, 40]]]), 8, (7, 8))
    inside = found[2:5, 1:6]
    assert torch.equal(inside, inside.flip(0)) and torch.equal(inside, inside.flip(1))
    assert found.max() == found[3, 3] == 1 and (inside > 0).all()
    assert found.sum() == inside.sum()


def test_images_without_boxes_have_no_mask() -> None:
    some = boxes([[[0.0, 0, 32, 32]], []])
    assert not gaussians(some, 8, (4, 4))[1].any()
    assert gaussians(boxes([[], []]), 8, (4, 4)).shape == (2, 4, 4)


def loss(*, student: Any = None, teacher: Any = None, **knobs: Any) -> TADF:
    torch.manual_seed(0)
    return TADF(student or OneStage(), teacher or OneStage(), **knobs).double()


WIDE = ([[3.0, 5, 33, 40], [-200.0, -200, 100, 100]], [], [[2.0, 9, 30, 30]])  # the second belongs to level 1


def test_features_are_a_weighted_mean_over_all_levels() -> None:
    one, student, teacher = loss(feature_weight=3.0), said(1), said(2)
    assert [home_by_hand(box, 8, 2) for box in WIDE[0]] == [0, 1]
    masks = [
        gaussians_by_hand([[WIDE[0][0]], [], list(WIDE[2])], 8, 8, 8),
        gaussians_by_hand([[WIDE[0][1]], [], []], 16, 4, 4),
    ]
    above = below = 0.0
    for adapt, mine, taught, mask in zip(one.adapters, student.features, teacher.features, masks, strict=True):
        above += ((adapt(mine) - taught).square() * mask[:, None]).sum().item()
        below += 2 * 4 * mask.sum().item()
    assert one(student, teacher, real(boxes=WIDE)).item() == pytest.approx(3 * above / below)


def test_cells_outside_of_boxes_are_not_looked_at() -> None:
    one, student, teacher, wanted = loss(), said(1), said(2), real(boxes=WIDE)
    expected = one(student, teacher, wanted)
    outside = gaussians_by_hand([[WIDE[0][0]], [], list(WIDE[2])], 8, 8, 8) == 0
    teacher.features[0] = teacher.features[0].detach().masked_fill(outside[:, None], math.inf)
    torch.testing.assert_close(one(student, teacher, wanted), expected)


def test_chosen_levels_are_compared_alone() -> None:
    one, student = loss(levels=(1,)), said(1)
    one(student, said(2), real(boxes=WIDE)).backward()
    assert len(one.adapters) == 1
    assert student.features[0].grad is None and student.features[1].grad is not None


def test_the_gradient_of_features_agrees_with_finite_differences() -> None:
    one, teacher, wanted = loss(), said(2), real(boxes=WIDE)
    for adapt in one.adapters:
        torch.nn.init.normal_(adapt.weight)

    def value(*features: Tensor) -> Tensor:
        student = said(1)
        student.features[:] = features
        found: Tensor = one(student, teacher, wanted)
        return found

    assert torch.autograd.gradcheck(value, tuple(said(1).features), fast_mode=True)


def test_a_batch_without_boxes_is_an_exact_zero_with_a_zero_gradient() -> None:
    one, student = loss(), said(1)
    found = one(student, said(2), real(boxes=([], [], [])))
    found.backward()
    assert found.item() == 0
    assert all(x.grad is not None and (x.grad == 0).all() for x in student.features)


def logits(*rows: list[float]) -> Tensor:
    """With these probabilities."""
    return torch.tensor(rows, dtype=torch.float64).log()


def test_classes_by_hand() -> None:
    uneven, even = [0.75, 0.125, 0.125], [0.5, 0.25, 0.25]
    far = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    back = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(2)
    student, teacher, background = logits(even, uneven), logits(uneven, even), torch.tensor([0, 0])
    every = class_losses(student, teacher, background, temperature=1.0, selective=False)
    assert every.tolist() == pytest.approx([far, back])
    # The teacher has more for the background in the first region alone, and more for class 0 in the second.
    assert class_losses(student, teacher, background, temperature=1.0, selective=True).tolist() == pytest.approx([far])
    objects = torch.tensor([1, 1])
    assert class_losses(student, teacher, objects, temperature=1.0, selective=True).tolist() == pytest.approx([back])


def test_the_teacher_is_better_or_not_whatever_the_temperature_and_whatever_is_added_to_its_logits() -> None:
    student, teacher, labels = draw(0, 40, 4), draw(1, 40, 4), torch.arange(40) % 4
    better = teacher.softmax(1)[range(40), labels] > student.softmax(1)[range(40), labels]
    assert 0 < better.sum() < 40
    for temperature in (1.0, 7.0):
        whole = class_losses(student, teacher, labels, temperature=temperature, selective=False)
        found = class_losses(student, teacher + 5, labels, temperature=temperature, selective=True)
        torch.testing.assert_close(found, whole[better])


def test_boxes_by_hand() -> None:
    student = torch.zeros(4, 4, dtype=torch.float64)
    teacher = torch.tensor([[1.0, 0, 0, 0], [3.0, 0, 0, 0], [0.0, 0, 2, 2], [0.5, 0, 0, 0]], dtype=torch.float64)
    wanted = torch.tensor([[0.0, 2, 0, 0], [1.0, 1, 0, 0], [0.0, 0, 3, 3], [0.75, 0, 0, 0]], dtype=torch.float64)
    # From the teacher 1, 3, 4 and .5; from the real box 2, 2, 6 and .75; the teacher itself is 3, 3, 2, .25 away.
    every = box_losses(student, teacher, wanted, selective=False)
    assert every.tolist() == [1, 2, 4, 0.5]
    assert box_losses(student, teacher, wanted, selective=True).tolist() == [4, 0.5]


def test_a_teacher_that_is_far_away_pulls_no_harder_than_the_real_box() -> None:
    student = draw(0, 5, 4).requires_grad_()
    wanted = draw(1, 5, 4)
    found = box_losses(student, wanted + 1000, wanted, selective=False)
    torch.testing.assert_close(found, (student - wanted).abs().sum(1))
    (gradient,) = torch.autograd.grad(found.sum(), student)
    torch.testing.assert_close(gradient, (student - wanted).sign().detach())


@pytest.mark.parametrize("selective", [True, False])
def test_the_gradients_of_regions_agree_with_finite_differences(selective: bool) -> None:
    teacher, wanted, labels = draw(1, 6, 4), draw(2, 6, 4), torch.arange(6) % 4
    assert torch.autograd.gradcheck(
        lambda x: class_losses(x, teacher, labels, temperature=2.0, selective=selective),
        (draw(0, 6, 4).requires_grad_(),),
    )
    assert torch.autograd.gradcheck(
        lambda x: box_losses(x, teacher, wanted, selective=selective), (draw(0, 6, 4).requires_grad_(),)
    )


def two_stages(**knobs: Any) -> tuple[TADF, Outputs, Outputs, Targets]:
    one = loss(student=TwoStage(), teacher=TwoStage(), feature_weight=0.0, selective=False, **knobs)
    return one, said(1, by=TwoStage()), said(2, by=TwoStage(scale=3.0)), real()


def test_regions_are_shared_and_divided_by_their_number() -> None:
    one, student, teacher, wanted = two_stages(cls_weight=2.0, box_weight=3.0)
    truth = wanted.truth
    proposed = [torch.cat(both) for both in zip(student.own["proposed"], teacher.own["proposed"], strict=True)]
    drawn = TwoStage().sample(proposed, truth)
    labels = torch.cat(drawn.labels)
    mine, its = (o.by.judge(o.features, proposed, truth.sizes) for o in (student, teacher))
    expected = 2 * class_losses(mine[0], its[0], labels, temperature=1.0, selective=False).sum() / 10
    positive = [number for number, label in enumerate(labels.tolist()) if label]
    deltas = torch.cat(drawn.deltas)
    assert len(labels) == 10 and 0 < len(positive) < 10
    for number in positive:
        four = slice(4 * int(labels[number]), 4 * int(labels[number]) + 4)
        s, t, r = mine[1][number, four], its[1][number, four], deltas[number]
        expected = expected + 3 * min((s - t).abs().sum(), (s - r).abs().sum()) / 10
    torch.testing.assert_close(one(student, teacher, wanted), expected)


def test_a_part_of_no_weight_is_not_computed() -> None:
    one, student, teacher, wanted = two_stages(cls_weight=0.0, box_weight=0.0)
    for said_by in (student, teacher):
        said_by.own.clear()  # whoever asked for proposals would not find them
    assert one(student, teacher, wanted).item() == 0 and not list(one.parameters())
    one, student, teacher, wanted = two_stages(cls_weight=2.0, box_weight=0.0)
    other, *_ = two_stages(cls_weight=0.0, box_weight=3.0)
    both, *_ = two_stages(cls_weight=2.0, box_weight=3.0)
    parts = one(student, teacher, wanted) + other(student, teacher, wanted)
    torch.testing.assert_close(both(student, teacher, wanted), parts)


def test_two_stage_detectors_compare_regions_unless_told_otherwise() -> None:
    assert (loss().cls_weight, loss().box_weight) == (0.0, 0.0)
    both = loss(student=TwoStage(), teacher=TwoStage())
    assert (both.cls_weight, both.box_weight) == (1.0, 1.0)


@pytest.mark.parametrize("knob", ["cls_weight", "box_weight"])
def test_regions_are_refused_where_a_detector_has_none(knob: str) -> None:
    with pytest.raises(Invalid, match=f"{knob}.*the teacher has none.*FasterRCNN") as refusal:
        loss(student=TwoStage(), **{knob: 1.0})
    assert refusal.value.where == (knob,)


def test_a_loss_of_which_nothing_is_left_for_this_pair_is_refused() -> None:
    with pytest.raises(Invalid, match="every part of TADF has the weight 0 for this pair"):
        loss(feature_weight=0.0)
    with pytest.raises(Invalid, match="every part of TADF"):
        loss(student=TwoStage(), feature_weight=0.0, cls_weight=0.0)
    assert loss(feature_weight=0.0, cls_weight=0.0, box_weight=0.0)(said(1), said(2), real()).item() == 0


def test_other_strides_or_classes_are_refused_where_they_matter() -> None:
    with pytest.raises(Invalid, match="strides"):
        loss(teacher=OneStage(strides=(4, 8)))
    loss(student=TwoStage(), teacher=TwoStage(strides=(4, 8)), feature_weight=0.0)
    with pytest.raises(Invalid, match="number of classes"):
        loss(student=TwoStage(), teacher=TwoStage(num_classes=80))
    loss(student=TwoStage(), teacher=TwoStage(num_classes=80), cls_weight=0.0, box_weight=0.0)


def test_real_second_stages_learn_from_one_another_and_the_first_ones_do_not() -> None:
    own = {"extra": 1, "hidden": 32, "pooled": 3}
    student, teacher = (make_detector("FasterRCNN", own, width=width) for width in (4, 8))
    teacher.eval().requires_grad_(False)
    images, truth = noise((64, 64), (40, 50), padded=(64, 64))
    call = Call(name="TADF", args={"feature_weight": 0.0, "selective": False}).complete(distill)
    one = call.of(distill, student, teacher)
    with torch.no_grad():
        lesson = teacher(images)
    outputs = student(images)
    found = one(outputs, lesson, student.assign(outputs, truth))
    found.backward()
    assert found.isfinite() and found > 0
    for part in ("cls_score", "bbox_pred"):
        learnt = getattr(student.roi_heads.box_predictor, part).weight.grad
        assert learnt is not None and (learnt != 0).any()
    assert all(parameter.grad is None for parameter in (*teacher.parameters(), *student.rpn.parameters()))


@pytest.mark.parametrize("args", [{"feature_weight": -1}, {"temperature": 0.5}, {"selective": 1}])
def test_a_study_with_an_argument_out_of_range_is_refused_at_that_argument(args: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refusal:
        Call(name="TADF", args=args).complete(distill)
    assert refusal.value.where == ("TADF", *args)
