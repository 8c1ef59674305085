"""KD: which rows it compares, both readings of class logits, both means, and which pairs it refuses."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.trainers.distill.figures import Near
from tests.trainers.test_every_detector import make
from trainers import distill
from trainers.call import Call, Invalid
from trainers.distill.kd import KD, level_of
from trainers.distill.soft import bernoulli_kl, soft_kl
from trainers.outputs import Outputs

FORMS = pytest.mark.parametrize("form", ["softmax", "binary"])
NORMALISERS = pytest.mark.parametrize("normaliser", ["per_level", "all"])
DIVERGENCE = {"softmax": soft_kl, "binary": bernoulli_kl}
POSITIVES = (1, 5, 7, 8)  # levels 0, 0, 1, 0


def by_rows(student: Outputs, teacher: Outputs, form: str) -> list[float]:
    """The loss of each of the positives, cell by cell."""
    cells = [(0, 0, 0, 1), (0, 0, 1, 2), (1, 0, 0, 1), (0, 1, 0, 0)]  # level, image, row, column
    pairs = [(student.cls[n][b, :, y, x], teacher.cls[n][b, :, y, x]) for n, b, y, x in cells]
    return [DIVERGENCE[form](*pair, temperature=2.0).item() for pair in pairs]


def gradients(loss: Tensor, levels: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, levels))


@pytest.mark.parametrize(("form", "terms"), [("softmax", 1), ("binary", 2)])
def test_by_hand(figures, targets, form, terms):
    # T = 1 and two classes. softmax: q = (1/4, 3/4), p = (1/2, 1/2). binary: q = 1/4 and 3/4, p = 1/2 twice.
    one = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    z = math.log(3)
    student = Outputs([], [torch.zeros(1, 2, 1, 1)])
    taught = torch.tensor([0.0, z]) if form == "softmax" else torch.tensor([-z, z])
    loss = KD(figures(num_classes=2), figures(num_classes=2), weight=3.0, temperature=1.0, form=form)
    found = loss(student, Outputs([], [taught.view(1, 2, 1, 1)]), targets(0, images=1))
    assert found.item() == pytest.approx(3.0 * terms * one / 2)


@FORMS
def test_per_level_sums_the_means_of_the_levels(figures, outputs, targets, form):
    student, teacher = outputs(1), outputs(2)
    a, b, c, d = by_rows(student, teacher, form)
    found = KD(figures(), figures(), form=form)(student, teacher, targets(*POSITIVES))
    assert found.item() == pytest.approx(10 * ((a + b + d) / 3 + c))


@FORMS
def test_all_is_the_mean_of_all_positives(figures, outputs, targets, form):
    student, teacher = outputs(1), outputs(2)
    found = KD(figures(), figures(), form=form, normaliser="all")(student, teacher, targets(*POSITIVES))
    assert found.item() == pytest.approx(10 * sum(by_rows(student, teacher, form)) / 4)


@FORMS
@NORMALISERS
def test_the_sum_over_classes_is_the_mean_times_their_number(figures, outputs, targets, form, normaliser):
    student, teacher, wanted = outputs(1), outputs(2), targets(*POSITIVES)
    mean = KD(figures(), figures(), form=form, normaliser=normaliser)(student, teacher, wanted)
    added = KD(figures(), figures(), form=form, normaliser=normaliser, over_classes="sum")(student, teacher, wanted)
    torch.testing.assert_close(added, 3 * mean)


def test_the_sum_over_classes_is_torchs_batchmean(figures, outputs, targets):
    student, teacher, rows = outputs(1), outputs(2), torch.tensor(POSITIVES)
    p, q = ((o.class_rows()[rows] / 2).log_softmax(1) for o in (student, teacher))
    loss = KD(figures(), figures(), weight=1.0, normaliser="all", over_classes="sum")
    expected = 4 * torch.nn.functional.kl_div(p, q, reduction="batchmean", log_target=True)
    torch.testing.assert_close(loss(student, teacher, targets(*POSITIVES)), expected)


@NORMALISERS
def test_the_batch_may_be_doubled(figures, outputs, targets, of_images, normaliser):
    loss = KD(figures(), figures(), normaliser=normaliser)
    student, teacher = outputs(1), outputs(2)
    pair = of_images(student, [0, 1, 0, 1]), of_images(teacher, [0, 1, 0, 1])
    twice = loss(*pair, targets(*POSITIVES, *(row + 16 for row in POSITIVES), images=4))
    torch.testing.assert_close(twice, loss(student, teacher, targets(*POSITIVES)))


@FORMS
@NORMALISERS
def test_the_order_of_images_and_of_rows_is_irrelevant(figures, outputs, targets, of_images, form, normaliser):
    loss = KD(figures(), figures(), form=form, normaliser=normaliser)
    student, teacher = outputs(1), outputs(2)
    swapped = loss(of_images(student, [1, 0]), of_images(teacher, [1, 0]), targets(0, 15, 9, 13))
    torch.testing.assert_close(swapped, loss(student, teacher, targets(*POSITIVES)))


@FORMS
@NORMALISERS
def test_a_teacher_that_agrees_asks_for_nothing(figures, outputs, targets, form, normaliser):
    student = outputs(1)
    loss = KD(figures(), figures(), form=form, normaliser=normaliser)
    found = loss(student, outputs(1), targets(*POSITIVES))
    assert found.item() == 0
    for gradient in gradients(found, student.cls):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-14, rtol=0)


@FORMS
@NORMALISERS
def test_a_batch_without_positives_is_an_exact_zero_with_a_zero_gradient(figures, outputs, targets, form, normaliser):
    student = outputs(1)
    found = KD(figures(), figures(), form=form, normaliser=normaliser)(student, outputs(2), targets())
    assert found.shape == () and found.item() == 0
    assert all((gradient == 0).all() for gradient in gradients(found, student.cls))


@NORMALISERS
def test_a_level_without_positives_counts_for_nothing(figures, outputs, targets, normaliser):
    student, teacher = outputs(1), outputs(2)
    a, b, _, d = by_rows(student, teacher, "softmax")
    found = KD(figures(), figures(), normaliser=normaliser)(student, teacher, targets(1, 5, 8))
    assert found.item() == pytest.approx(10 * (a + b + d) / 3)
    _, unused = gradients(found, student.cls)
    assert (unused == 0).all()


@FORMS
def test_the_gradient_follows_the_formula_at_positives_and_is_zero_elsewhere(figures, outputs, targets, form):
    student, teacher, rows = outputs(1), outputs(2), torch.tensor(POSITIVES)
    found = KD(figures(), figures(), form=form, weight=3.0, temperature=4.0)(student, teacher, targets(*POSITIVES))
    halves = [o.class_rows().detach()[rows] / 4.0 for o in (student, teacher)]
    p, q = (z.softmax(1) if form == "softmax" else z.sigmoid() for z in halves)
    share = torch.tensor([[1 / 3], [1 / 3], [1.0], [1 / 3]], dtype=torch.float64)
    expected = torch.zeros(16, 3, dtype=torch.float64)
    expected[rows] = 3.0 * share * 4.0 * (p - q) / 3
    torch.testing.assert_close(Outputs([], gradients(found, student.cls)).class_rows(), expected)


@FORMS
@NORMALISERS
def test_the_gradient_agrees_with_finite_differences(figures, outputs, targets, form, normaliser):
    student, teacher = outputs(1), outputs(2)
    loss = KD(figures(), figures(), form=form, normaliser=normaliser)
    assert torch.autograd.gradcheck(
        lambda *cls: loss(replace(student, cls=list(cls)), teacher, targets(*POSITIVES)),
        student.cls,
        fast_mode=True,
    )


def test_the_teacher_gets_no_gradient_and_boxes_are_not_read(figures, outputs, targets):
    student, teacher = replace(outputs(1), box=[]), replace(outputs(2), box=[])
    KD(figures(), figures())(student, teacher, targets(*POSITIVES)).backward()
    assert all(level.grad is None for level in teacher.cls)
    assert all(level.grad is not None and (level.grad != 0).any() for level in student.cls)


def test_softmax_does_not_see_a_constant_over_the_classes_of_a_location_and_binary_does(figures, outputs, targets):
    student, teacher, wanted = outputs(1), outputs(2), targets(*POSITIVES)
    shifted = [level.detach().clone() for level in student.cls]
    shifted[0][0, :, 0, 1] += 7
    softmax, binary = KD(figures(), figures()), KD(figures(), figures(), form="binary")
    other = replace(student, cls=shifted)
    torch.testing.assert_close(softmax(other, teacher, wanted), softmax(student, teacher, wanted))
    assert not torch.isclose(binary(other, teacher, wanted), binary(student, teacher, wanted))


@FORMS
def test_the_order_of_the_classes_is_irrelevant_when_both_share_it(figures, outputs, targets, form):
    student, teacher, wanted = outputs(1), outputs(2), targets(*POSITIVES)
    loss = KD(figures(), figures(), form=form)
    turned = [replace(o, cls=[level[:, [2, 0, 1]] for level in o.cls]) for o in (student, teacher)]
    torch.testing.assert_close(loss(*turned, wanted), loss(student, teacher, wanted))
    assert not torch.isclose(loss(turned[0], teacher, wanted), loss(student, teacher, wanted))


@FORMS
@NORMALISERS
def test_nothing_asks_the_device_for_a_value(figures, outputs, targets, form, normaliser):
    # Tensors on `meta` have shapes but no values: reading one raises.
    def meta(levels: list[Tensor]) -> list[Tensor]:
        return [torch.empty_like(level, device="meta", requires_grad=True) for level in levels]

    student, teacher = (Outputs([], meta(o.cls)) for o in (outputs(1), outputs(2)))
    wanted = targets(*POSITIVES)
    wanted = replace(wanted, row=wanted.row.to("meta"), level=wanted.level.to("meta"))
    found = KD(figures(), figures(), form=form, normaliser=normaliser)(student, teacher, wanted)
    found.backward()
    assert found.shape == ()


# The valuable region

NEAR = Near(rows=(2, 3, 5, 6, 14))  # levels 0, 0, 0, 1, 1; row 5 is positive too


@FORMS
@pytest.mark.parametrize("over_classes", ["mean", "sum"])
def test_the_valuable_region_adds_its_own_mean_of_each_level(outputs, targets, form, over_classes):
    student, teacher, rows = replace(outputs(1), by=NEAR), outputs(2), torch.tensor(NEAR.rows)
    knobs = {"form": form, "over_classes": over_classes}
    both = KD(NEAR, NEAR, vlr_weight=3.0, **knobs)(student, teacher, targets(*POSITIVES))
    main = KD(NEAR, NEAR, **knobs)(student, teacher, targets(*POSITIVES))
    of = DIVERGENCE[form](student.class_rows()[rows], teacher.class_rows()[rows], temperature=2.0)
    factor = 3 if over_classes == "sum" else 1
    torch.testing.assert_close(both, main + 3 * factor * (of[:3].mean() + of[3:].mean()))
    every = KD(NEAR, NEAR, weight=0.0, vlr_weight=3.0, normaliser="all", **knobs)
    torch.testing.assert_close(every(student, teacher, targets(*POSITIVES)), 3 * factor * of.mean())


@FORMS
def test_in_the_valuable_region_too_a_teacher_that_agrees_asks_for_nothing(outputs, targets, form):
    student = replace(outputs(1), by=NEAR)
    found = KD(NEAR, NEAR, form=form, vlr_weight=3.0)(student, outputs(1), targets(*POSITIVES))
    assert found.item() == 0
    for gradient in gradients(found, student.cls):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-14, rtol=0)


def test_an_empty_region_is_an_exact_zero_with_a_zero_gradient(outputs, targets):
    student = replace(outputs(1), by=Near())
    found = KD(NEAR, NEAR, weight=0.0, vlr_weight=1.0)(student, outputs(2), targets(*POSITIVES))
    assert found.item() == 0
    assert all((gradient == 0).all() for gradient in gradients(found, student.cls))


def test_by_default_the_valuable_region_is_not_asked_for(figures, outputs, targets):
    KD(figures(), figures())(outputs(1), outputs(2), targets(*POSITIVES))  # these figures have none
    with pytest.raises(Invalid, match=r"no valuable localization region") as refusal:
        KD(figures(), figures(), vlr_weight=1.0)
    assert refusal.value.where == ("vlr_weight",)


def test_without_positives_of_weight_only_the_region_is_read(outputs, targets):
    student, teacher = replace(outputs(1), by=NEAR), outputs(2)
    spoilt = [level.detach().clone() for level in student.cls]
    spoilt[0][0, :, 0, 1] = torch.nan  # row 1 is positive and not in the region
    loss = KD(NEAR, NEAR, weight=0.0, vlr_weight=1.0)
    found = loss(replace(student, cls=spoilt), teacher, targets(*POSITIVES))
    torch.testing.assert_close(found, loss(student, teacher, targets(*POSITIVES)))


@pytest.mark.parametrize("name", ["GFL", "RetinaNet"])  # one anchor a cell, and nine
def test_the_level_of_a_row_is_the_one_that_its_detector_says(name):
    model = make(name, {})
    outputs = model(torch.rand(2, 3, 40, 56))
    counts = [model.anchors * level.shape[2] * level.shape[3] for level in outputs.cls]
    expected = [number for _ in range(2) for number, count in enumerate(counts) for _ in range(count)]
    assert level_of(outputs, torch.arange(len(expected))).tolist() == expected


def test_softmax_is_refused_for_one_class_and_binary_is_not(figures, outputs, targets):
    one = figures(num_classes=1), figures(num_classes=1)
    with pytest.raises(Invalid, match=r"always zero with one class: use form binary") as refusal:
        KD(*one)
    assert refusal.value.where == ("form",)
    loss = KD(*one, form="binary")
    assert loss(outputs(1, classes=1), outputs(2, classes=1), targets(*POSITIVES)) > 0


def test_other_classes_are_refused_with_both_numbers(figures):
    with pytest.raises(Invalid, match=r"number of classes, but the student's is 3 and the teacher's is 80"):
        KD(figures(), figures(num_classes=80))


def test_other_strides_are_refused_with_both(figures):
    with pytest.raises(
        Invalid,
        match=r"strides.*\(4, 8\) and the teacher's is \(8, 16\): .*both the same; PKD takes any",
    ):
        KD(figures(strides=(4, 8)), figures())


def test_detectors_without_distributions_will_do(figures):
    KD(figures(bins=0), figures())


@pytest.mark.parametrize(
    "args",
    [
        {"temperature": 0.5},
        {"weight": -1},
        {"form": "soft"},
        {"normaliser": "none"},
        {"over_classes": "max"},
        {"vlr_weight": -1},
        {"proposer": "both"},
    ],
)
def test_a_study_with_an_argument_out_of_range_is_refused_at_that_argument(args):
    with pytest.raises(Invalid) as refusal:
        Call(name="KD", args=args).complete(distill)
    assert refusal.value.where == ("KD", *args)


def test_a_two_stage_detector_has_no_cells_to_compare(figures):
    one, two = figures(), figures(anchors=0)
    for pair, role in (((one, two), "teacher"), ((two, one), "student")):
        with pytest.raises(Invalid, match=f"the {role} has none: use one-stage detectors, .* such as PKD"):
            KD(*pair)


def test_as_many_predictions_a_cell_are_needed_on_both_sides(figures):
    with pytest.raises(Invalid, match=r"predictions a cell.*9.*1: Figures and Figures differ in that.*PKD"):
        KD(figures(anchors=9), figures())
