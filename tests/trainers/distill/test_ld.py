"""LD's main region: which rows it compares, how it weights and normalises them, and which pairs it refuses."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainers.test_every_detector import make
from trainers import distill
from trainers.call import Call, Invalid
from trainers.distill.ld import LD
from trainers.distill.soft import soft_kl
from trainers.outputs import Outputs

NORMALISERS = pytest.mark.parametrize("normaliser", ["reference", "per_image", "by_weight"])
POSITIVES = (1, 5, 7, 8)  # image 0: levels 0, 0, 1; image 1: level 0


def main(*pair: Any, **knobs: Any) -> LD:
    """LD of the main region alone."""
    return LD(*pair, vlr_weight=0.0, **knobs)


def gradients(loss: Tensor, levels: list[Tensor]) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss, levels, allow_unused=True, retain_graph=True))


def by_rows(student: Outputs, teacher: Outputs, rows: tuple[int, ...], *, temperature: float) -> tuple[Tensor, Tensor]:
    """Scores (P,) and losses (P, 4), location by location: image row // 8, cell row % 8."""
    scores, losses = [], []
    for row in rows:
        image, cell = divmod(row, 8)
        level, y, x = (0, *divmod(cell, 3)) if cell < 6 else (1, 0, cell - 6)
        scores.append(max(1 / (1 + math.exp(-z)) for z in student.cls[level][image, :, y, x].tolist()))
        here = [o.box[level][image, :, y, x].split(5) for o in (student, teacher)]
        losses.append(torch.stack([soft_kl(s, t, temperature=temperature) for s, t in zip(*here, strict=True)]))
    return torch.tensor(scores, dtype=torch.float64), torch.stack(losses)


def test_by_hand(figures, targets):
    # Two bins, T = 1. One location, whose top edge is taught (1/4, 3/4) and is (1/2, 1/2); the others agree.
    box = torch.zeros(1, 8, 1, 1)
    taught = box.clone()
    taught[0, 3] = math.log(3)
    cls = torch.tensor([-1.0, math.log(4)]).view(1, 2, 1, 1)  # the higher score is 4/5
    pair = figures(bins=2, num_classes=2), figures(bins=2, num_classes=2)
    loss = main(*pair, weight=2.0, temperature=1.0)
    edge = (0.25 * math.log(0.5) + 0.75 * math.log(1.5)) / 2
    found = loss(Outputs([], [cls], [box]), Outputs([], [cls + 1], [taught]), targets(0, images=1))
    assert found.item() == pytest.approx(2.0 * 0.8 * edge / 4)


def test_the_reference_sums_scores_times_losses_over_rows_and_a_quarter_of_the_edges(figures, outputs, targets):
    student, teacher = outputs(1), outputs(2)
    scores, losses = by_rows(student, teacher, POSITIVES, temperature=10.0)
    found = main(figures(), figures())(student, teacher, targets(*POSITIVES))
    torch.testing.assert_close(found, 0.25 * (scores[:, None] * losses).sum() / 4)


def test_per_image_is_the_reference_at_three_images(figures, outputs, targets, of_images):
    per_image, reference = main(figures(), figures(), normaliser="per_image"), main(figures(), figures())
    student, teacher = outputs(1, images=3), outputs(2, images=3)
    three = targets(*POSITIVES, images=3)
    assert per_image(student, teacher, three).item() == pytest.approx(reference(student, teacher, three).item())
    student, teacher, two = (
        of_images(student, [0, 1]),
        of_images(teacher, [0, 1]),
        targets(*POSITIVES, images=2),
    )
    assert per_image(student, teacher, two).item() == pytest.approx(1.5 * reference(student, teacher, two).item())


@pytest.mark.parametrize("shift", [0.0, -8.0])  # heads start with scores of a hundredth: their sum is below 1
def test_by_weight_is_the_mean_over_rows_weighted_by_score(figures, outputs, targets, shift):
    student, teacher = outputs(1), outputs(2)
    student = replace(student, cls=[level + shift for level in student.cls])
    scores, losses = by_rows(student, teacher, POSITIVES, temperature=10.0)
    found = main(figures(), figures(), weight=1.0, normaliser="by_weight")(student, teacher, targets(*POSITIVES))
    torch.testing.assert_close(found, (scores * losses.mean(1)).sum() / scores.sum())


@pytest.mark.parametrize(("normaliser", "growth"), [("reference", 2), ("per_image", 1), ("by_weight", 1)])
def test_only_the_reference_grows_with_the_batch(figures, outputs, targets, of_images, normaliser, growth):
    loss = main(figures(), figures(), normaliser=normaliser)
    student, teacher = outputs(1), outputs(2)
    once = loss(student, teacher, targets(*POSITIVES))
    pair = of_images(student, [0, 1, 0, 1]), of_images(teacher, [0, 1, 0, 1])
    twice = loss(*pair, targets(*POSITIVES, *(row + 16 for row in POSITIVES), images=4))
    torch.testing.assert_close(twice, growth * once)


@NORMALISERS
def test_the_order_of_images_and_of_rows_is_irrelevant(figures, outputs, targets, of_images, normaliser):
    loss = main(figures(), figures(), normaliser=normaliser)
    student, teacher = outputs(1), outputs(2)
    swapped = loss(of_images(student, [1, 0]), of_images(teacher, [1, 0]), targets(0, 15, 9, 13))
    torch.testing.assert_close(swapped, loss(student, teacher, targets(*POSITIVES)))


@NORMALISERS
def test_a_teacher_that_agrees_asks_for_nothing(figures, outputs, targets, normaliser):
    student, teacher = outputs(1), outputs(1)
    found = main(figures(), figures(), normaliser=normaliser)(student, teacher, targets(*POSITIVES))
    assert found.item() == 0
    for gradient in gradients(found, student.box):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-14, rtol=0)


@NORMALISERS
def test_a_batch_without_positives_is_an_exact_zero_with_a_zero_gradient(figures, outputs, targets, normaliser):
    student, teacher = outputs(1), outputs(2)
    found = main(figures(), figures(), normaliser=normaliser)(student, teacher, targets())
    assert found.shape == () and found.item() == 0
    assert all(g is not None and (g == 0).all() for g in gradients(found, student.box))


def test_a_level_without_positives_gets_a_zero_gradient(figures, outputs, targets):
    student = outputs(1)
    found = main(figures(), figures())(student, outputs(2), targets(0, 1))
    used, unused = gradients(found, student.box)
    assert (used != 0).any() and (unused == 0).all()


def test_the_gradient_follows_the_formula_at_positives_and_is_zero_elsewhere(figures, outputs, targets):
    student, teacher, rows = outputs(1), outputs(2), torch.tensor(POSITIVES)
    found = main(figures(), figures(), weight=0.5, temperature=3.0)(student, teacher, targets(*POSITIVES))
    p, q = ((o.edge_rows(5).detach() / 3).softmax(-1)[rows] for o in (student, teacher))
    scores = student.class_rows().detach().sigmoid().amax(1)[rows]
    expected = torch.zeros(16, 4, 5, dtype=torch.float64)
    expected[rows] = 0.5 * scores[:, None, None] / 4 * 3.0 * (p - q) / 5
    got = Outputs([], box=[g for g in gradients(found, student.box) if g is not None])
    torch.testing.assert_close(got.edge_rows(5), expected)


@NORMALISERS
def test_the_gradient_agrees_with_finite_differences(figures, outputs, targets, normaliser):
    student, teacher = outputs(1), outputs(2)
    loss = main(figures(), figures(), normaliser=normaliser)
    assert torch.autograd.gradcheck(
        lambda *box: loss(replace(student, box=list(box)), teacher, targets(*POSITIVES)),
        student.box,
        fast_mode=True,
    )


@NORMALISERS
def test_neither_the_scores_nor_the_teacher_get_a_gradient(figures, outputs, targets, normaliser):
    student, teacher = outputs(1), outputs(2)
    main(figures(), figures(), normaliser=normaliser)(student, teacher, targets(*POSITIVES)).backward()
    assert all(level.grad is None for level in [*student.cls, *teacher.box, *teacher.cls])


def test_the_teachers_scores_are_not_read(figures, outputs, targets):
    student, teacher = outputs(1), outputs(2)
    loss, wanted = main(figures(), figures()), targets(*POSITIVES)
    expected = loss(student, teacher, wanted)
    assert torch.equal(loss(student, replace(teacher, cls=[]), wanted), expected)


def test_one_edge_of_one_location_may_shift(figures, outputs, targets):
    # Bins of an edge are neighbouring channels: a constant on channels 5..9 is a constant on the top edge.
    student, teacher = outputs(1), outputs(2)
    loss, wanted = main(figures(), figures()), targets(*POSITIVES)
    expected = loss(student, teacher, wanted)
    shifted = [level.detach().clone() for level in student.box]
    shifted[0][0, 5:10, 0, 1] += 7
    torch.testing.assert_close(loss(replace(student, box=shifted), teacher, wanted), expected)
    shifted[0][0, 4:9, 0, 1] += 7
    assert not torch.isclose(loss(replace(student, box=shifted), teacher, wanted), expected)


def test_what_lies_outside_the_positives_may_be_anything(figures, outputs, targets):
    student, teacher = outputs(1), outputs(2)
    loss, wanted = main(figures(), figures()), targets(0, 8)
    expected = loss(student, teacher, wanted)
    spoilt = [level.detach().clone() for level in student.box]
    spoilt[0][:, :, 1] = torch.nan
    spoilt[1][:] = torch.nan
    assert torch.equal(loss(replace(student, box=spoilt), teacher, wanted), expected)


def test_its_size_is_that_of_a_teacher_whose_logits_spread_by_three(figures, targets):
    # 17 bins, T = 10, an indifferent student: about s^2 / 34 an edge, so 0.26 at s = 3.
    generator = torch.Generator().manual_seed(0)
    box = torch.zeros(1, 68, 40, 50)
    taught = 3 * torch.randn(box.shape, generator=generator)
    cls = torch.full((1, 3, 40, 50), 20.0)
    student, teacher = Outputs([], [cls], [box]), Outputs([], [cls], [taught])
    loss = main(figures(bins=17), figures(bins=17), weight=1.0, normaliser="by_weight")
    assert loss(student, teacher, targets(*range(2000), images=1)).item() == pytest.approx(9 / 34, rel=0.1)


def test_scores_near_zero_leave_by_weight_finite(figures, outputs, targets):
    student, teacher = outputs(1), outputs(2)
    silent = replace(student, cls=[torch.full_like(level, -1000.0) for level in student.cls])
    found = main(figures(), figures(), normaliser="by_weight")(silent, teacher, targets(*POSITIVES))
    assert found.item() == 0


def test_a_student_that_only_minimises_it_learns_the_teachers_distributions(figures, outputs, targets):
    student, teacher, wanted = outputs(1), outputs(2), targets(*POSITIVES)
    loss, steps = main(figures(), figures()), torch.optim.SGD(student.box, lr=100)
    seen = []
    for _ in range(100):
        seen.append(loss(student, teacher, wanted))
        steps.zero_grad()
        seen[-1].backward()
        steps.step()
    assert all(after < before for before, after in pairwise(seen))
    assert seen[-1] < 0.01 * seen[0]


@NORMALISERS
def test_nothing_asks_the_device_for_a_value(figures, outputs, targets, normaliser):
    # Tensors on `meta` have shapes but no values: reading one raises.
    def meta(levels: list[Tensor]) -> list[Tensor]:
        return [torch.empty_like(level, device="meta", requires_grad=True) for level in levels]

    student, teacher = (Outputs([], meta(o.cls), meta(o.box)) for o in (outputs(1), outputs(2)))
    wanted = targets(*POSITIVES)
    wanted = replace(wanted, row=wanted.row.to("meta"), level=wanted.level.to("meta"))
    found = main(figures(), figures(), normaliser=normaliser)(student, teacher, wanted)
    found.backward()
    assert found.shape == ()


def test_a_detector_without_distributions_is_named(figures):
    with pytest.raises(Invalid, match=r"the teacher predicts boxes as four numbers: write reg_max: 16 for.*GFL"):
        main(figures(), figures(bins=0))
    with pytest.raises(Invalid, match=r"the student predicts boxes as four numbers"):
        main(figures(bins=0), figures())


def test_other_bins_are_refused_with_both_numbers(figures):
    with pytest.raises(Invalid, match=r"bins, but the student's is 17 and the teacher's is 9: .*the same reg_max"):
        main(figures(bins=17), figures(bins=9))


def test_other_strides_are_refused_with_both(figures):
    with pytest.raises(Invalid, match=r"student's is \(8, 16\) and the teacher's is \(8, 16, 32\): .*extra.*CWD.*PKD"):
        main(figures(), figures(strides=(8, 16, 32)))


def test_distances_that_start_elsewhere_are_refused_with_who_may_teach_whom(figures):
    with pytest.raises(Invalid, match=r"student's is 0.0 and the teacher's is 0.5: FCOS counts from the middle.*KD"):
        main(figures(), figures(start=0.5))


@pytest.mark.parametrize("loss", ["LD", "KD"])
def test_anchors_that_lie_elsewhere_are_not_compared(loss):
    call = Call(name=loss).complete(distill)
    mine, its = (make("RetinaNet", {"reg_max": 8, "conventions": c}, width=4) for c in ("mmdetection", "torchvision"))
    with pytest.raises(Invalid, match=r"conventions, but .* mmdetection and .* torchvision: anchors lie elsewhere"):
        call.of(distill, mine, its)
    call.of(distill, mine, make("RetinaNet", {"reg_max": 8}, width=8))


def test_other_classes_and_channels_do_not_matter(figures, outputs, targets):
    loss = main(figures(), figures(num_classes=7, channels=9))
    assert loss(outputs(1), outputs(2, classes=7), targets(*POSITIVES)).isfinite()


@pytest.mark.parametrize("args", [{"temperature": 0.5}, {"temperature": "inf"}, {"weight": -1}, {"normaliser": "sum"}])
def test_a_study_with_an_argument_out_of_range_is_refused_at_that_argument(args):
    with pytest.raises(Invalid) as refusal:
        Call(name="LD", args=args).complete(distill)
    assert refusal.value.where == ("LD", *args)
