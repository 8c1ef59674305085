"""LD's valuable region: what it adds to the main one, how its rows weigh, and when it is left out."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.trainers.detectors.scenes import noise
from tests.trainers.distill.figures import Near, random_outputs, targets_at
from tests.trainers.test_every_detector import make
from trainers import distill
from trainers.call import Call, Invalid
from trainers.distill.ld import LD, edge_kl
from trainers.distill.soft import soft_kl
from trainers.outputs import Outputs, Targets
from trainers.task import Lesson, Task

NORMALISERS = pytest.mark.parametrize("normaliser", ["reference", "per_image", "by_weight"])
POSITIVES = (1, 5, 7, 8)
ROWS, COUNTS = (0, 5, 6, 12), (0.2, 0.3, 0.4, 0.7)  # row 5 is positive too
NEAR = Near(rows=ROWS, counts=COUNTS)


def said(by: Near = NEAR) -> tuple[Outputs, Outputs, Targets]:
    return replace(random_outputs(1), by=by), random_outputs(2), targets_at(*POSITIVES)


def losses(student: Outputs, teacher: Outputs, rows: tuple[int, ...], *, temperature: float = 10.0) -> Tensor:
    """Location by location the mean over its edges. -> (R,)."""
    row = torch.tensor(rows)
    edges, taught = (o.edge_rows(5)[row] for o in (student, teacher))
    return torch.stack([soft_kl(s, t, temperature=temperature).mean() for s, t in zip(edges, taught, strict=True)])


def learnt(value: Tensor, levels: list[Tensor]) -> Tensor:
    """The gradient by the edge logits. -> (B*A, 4, 5)."""
    return Outputs([], box=list(torch.autograd.grad(value, levels, retain_graph=True))).edge_rows(5)


def test_by_hand(figures, targets):
    # As in the main region: the top edge is taught (1/4, 3/4) and is (1/2, 1/2). The class score is not read.
    box = torch.zeros(1, 8, 1, 1)
    taught = box.clone()
    taught[0, 3] = math.log(3)
    cls = torch.tensor([-1.0, math.log(4)]).view(1, 2, 1, 1)
    near = Near(bins=2, num_classes=2, rows=(0,), counts=(0.6,))
    loss = LD(near, near, weight=0.0, vlr_weight=2.0, temperature=1.0)
    edge = (0.25 * math.log(0.5) + 0.75 * math.log(1.5)) / 2
    found = loss(Outputs([], [cls], [box], by=near), Outputs([], [cls], [taught]), targets(images=1))
    assert found.item() == pytest.approx(2.0 * 0.6 * edge / 4)


def test_the_default_is_a_quarter_of_the_sum_over_edges_divided_by_sixteen():
    student, teacher, wanted = said()
    row = torch.tensor(ROWS)
    edges = soft_kl(student.edge_rows(5)[row], teacher.edge_rows(5)[row], temperature=10.0)  # (4, 4)
    expected = 0.25 * (torch.tensor(COUNTS)[:, None] * edges).sum() / 16
    torch.testing.assert_close(LD(NEAR, NEAR, weight=0.0)(student, teacher, wanted), expected)


@NORMALISERS
def test_the_regions_are_normalised_and_weighed_each_by_itself_and_added(normaliser):
    student, teacher, wanted = said()
    both = LD(NEAR, NEAR, normaliser=normaliser)(student, teacher, wanted)
    main = LD(NEAR, NEAR, normaliser=normaliser, vlr_weight=0.0)(student, teacher, wanted)
    counts = torch.tensor(COUNTS, dtype=torch.float64)
    scale = {"reference": 1.0, "per_image": 3 / 2, "by_weight": 1 / counts.sum()}[normaliser]
    near = 0.0625 * scale * (counts * losses(student, teacher, ROWS)).sum()
    torch.testing.assert_close(both, main + near)


def test_where_the_region_has_no_weights_the_highest_class_scores_weigh():
    near = Near(rows=ROWS)
    student, teacher, wanted = said(near)
    scores = student.class_rows().detach().sigmoid().amax(1)[torch.tensor(ROWS)]
    value = LD(near, near, weight=0.0, vlr_weight=1.0)(student, teacher, wanted)
    torch.testing.assert_close(value, (scores * losses(student, teacher, ROWS)).sum())
    value.backward()
    assert all(level.grad is None for level in [*student.cls, *teacher.box])


@pytest.mark.parametrize(("normaliser", "growth"), [("reference", 2), ("per_image", 1), ("by_weight", 1)])
def test_only_the_reference_grows_with_the_batch(of_images, normaliser, growth):
    loss = LD(NEAR, NEAR, normaliser=normaliser)
    student, teacher, wanted = said()
    doubled = Near(rows=(*ROWS, *(row + 16 for row in ROWS)), counts=COUNTS * 2)
    pair = replace(of_images(student, [0, 1, 0, 1]), by=doubled), of_images(teacher, [0, 1, 0, 1])
    twice = loss(*pair, targets_at(*POSITIVES, *(row + 16 for row in POSITIVES), images=4))
    torch.testing.assert_close(twice, growth * loss(student, teacher, wanted))


@NORMALISERS
def test_a_teacher_that_agrees_asks_for_nothing(normaliser):
    student, _, wanted = said()
    value = LD(NEAR, NEAR, normaliser=normaliser)(student, random_outputs(1), wanted)
    assert value.item() == 0
    assert learnt(value, student.box).abs().max() < 1e-14


@NORMALISERS
def test_with_neither_positives_nor_a_region_it_is_an_exact_zero_with_a_zero_gradient(normaliser):
    student, teacher, _ = said(Near(counts=()))
    value = LD(NEAR, NEAR, normaliser=normaliser)(student, teacher, targets_at())
    assert value.shape == () and value.item() == 0
    assert (learnt(value, student.box) == 0).all()


def test_the_gradient_follows_the_formula_in_the_region_and_is_zero_elsewhere():
    student, teacher, wanted = said()
    value = LD(NEAR, NEAR, weight=0.0, vlr_weight=0.5, temperature=3.0)(student, teacher, wanted)
    row = torch.tensor(ROWS)
    p, q = ((o.edge_rows(5).detach() / 3).softmax(-1)[row] for o in (student, teacher))
    expected = torch.zeros(16, 4, 5, dtype=torch.float64)
    expected[row] = 0.5 * torch.tensor(COUNTS, dtype=torch.float64)[:, None, None] / 4 * 3.0 * (p - q) / 5
    torch.testing.assert_close(learnt(value, student.box), expected)


@NORMALISERS
@pytest.mark.parametrize("edges", ["separate", "joint"])
def test_the_gradient_agrees_with_finite_differences(normaliser, edges):
    student, teacher, wanted = said()
    loss = LD(NEAR, NEAR, normaliser=normaliser, edges=edges)
    assert torch.autograd.gradcheck(
        lambda *box: loss(replace(student, box=list(box)), teacher, wanted), student.box, fast_mode=True
    )


def test_a_part_of_weight_zero_is_not_computed():
    class Untouchable(Near):
        def valuable(self, *args, **knobs):
            raise AssertionError("this region weighs nothing")

    student, teacher, wanted = said(Untouchable())
    LD(NEAR, NEAR, vlr_weight=0.0)(student, teacher, wanted)

    spoilt = [level.detach().clone() for level in random_outputs(1).box]
    spoilt[0][0, :, 0, 1] = torch.nan  # a positive that is not in the region
    only = LD(NEAR, NEAR, weight=0.0)
    found = only(replace(student, box=spoilt, by=NEAR), teacher, wanted)
    torch.testing.assert_close(found, only(replace(student, by=NEAR), teacher, wanted))

    neither = LD(NEAR, NEAR, weight=0.0, vlr_weight=0.0)(student, teacher, wanted)
    assert neither.item() == 0
    assert (learnt(neither, student.box) == 0).all()


@pytest.mark.parametrize("edges", ["separate", "joint"])
def test_losses_of_weight_zero_leave_every_gradient_of_the_student_as_it_is_to_the_bit(edges):
    images, truth = noise((64, 64), (40, 50), padded=(64, 64))
    teacher = make("GFL", {"reg_max": 8}, width=8).eval().requires_grad_(False)

    def gradients(silent: bool) -> list[Tensor]:
        student = make("GFL", {"reg_max": 8}, width=4)
        calls = [
            Call(name="LD", args={"weight": 0, "vlr_weight": 0, "edges": edges}),
            Call(name="KD", args={"weight": 0, "vlr_weight": 0}),
        ]
        taught = {c.name: c.complete(distill).of(distill, student, teacher) for c in calls if silent}
        Task(student, taught)(images, truth, Lesson([teacher(images)])).total.backward()
        return [p.grad for p in student.parameters()]

    for mine, alone in zip(gradients(silent=True), gradients(silent=False), strict=True):
        assert torch.equal(mine, alone)


def test_the_region_is_the_one_that_the_students_detector_finds_with_the_knobs_of_the_loss():
    images, truth = noise((64, 64), (40, 50), padded=(64, 64))
    student, teacher = (make("GFL", {"reg_max": 8}, width=width) for width in (4, 8))
    with torch.no_grad():
        mine, taught = student(images), teacher(images)
    mine = replace(mine, box=[level.requires_grad_() for level in mine.box])
    wanted = student.assign(mine, truth)
    found = []
    for knobs in ({}, {"vlr_gamma": 0.6}, {"vlr_overlap": "iof_diou"}):
        value = LD(student, teacher, weight=0.0, **knobs)(mine, taught, wanted)
        gradient = Outputs([], box=list(torch.autograd.grad(value, mine.box))).edge_rows(9)
        found.append(gradient.abs().amax((1, 2)).nonzero().squeeze(1))
        gamma, overlap = knobs.get("vlr_gamma", 0.25), knobs.get("vlr_overlap", "diou")
        assert torch.equal(found[-1], student.valuable(mine, wanted, gamma=gamma, overlap=overlap).row)
    assert len({tuple(row.tolist()) for row in found}) == 3


def test_gflv2_weighs_its_rows_by_class_times_quality():
    images, truth = noise((64, 64))
    student, teacher = (make("GFLv2", {"reg_max": 8}, width=width) for width in (4, 8))
    with torch.no_grad():
        mine, taught = student(images), teacher(images)
    mine = replace(mine, own={"quality": [torch.rand_like(level) for level in mine.own["quality"]]})
    wanted = student.assign(mine, truth)
    quality = torch.cat([level.flatten() for level in mine.own["quality"]])[wanted.row]
    scores = mine.class_rows().sigmoid().amax(1)[wanted.row] * quality
    edges, lesson = (o.edge_rows(9)[wanted.row] for o in (mine, taught))
    expected = (scores * soft_kl(edges, lesson, temperature=10.0).mean(1)).sum()
    found = LD(student, teacher, weight=1.0, vlr_weight=0.0)(mine, taught, wanted)
    torch.testing.assert_close(found, expected)


# Edges one by one or all at once


def draw(*shape: int, seed: int) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_joint_edges_are_one_distribution_over_all_their_bins_and_a_quarter_of_its_divergence():
    mine, taught = draw(6, 4, 5, seed=1), draw(6, 4, 5, seed=2)
    joint = edge_kl(mine, taught, temperature=10.0, edges="joint")
    torch.testing.assert_close(joint, soft_kl(mine.view(6, 20), taught.view(6, 20), temperature=10.0) / 4)
    student, teacher, wanted = said()
    row = torch.tensor(ROWS)
    value = LD(NEAR, NEAR, weight=0.0, vlr_weight=1.0, edges="joint")(student, teacher, wanted)
    pair = (o.edge_rows(5)[row].flatten(1) for o in (student, teacher))
    expected = (torch.tensor(COUNTS) * soft_kl(*pair, temperature=10.0)).sum() / 4
    torch.testing.assert_close(value, expected)


def test_where_no_edge_is_likelier_than_another_joint_is_a_sixteenth_of_separate():
    mine, taught = draw(6, 4, 17, seed=1), draw(6, 4, 17, seed=2)
    taught = taught - (taught - mine).mean(-1, keepdim=True)
    joint, separate = (edge_kl(mine, taught, temperature=1e4, edges=e) for e in ("joint", "separate"))
    torch.testing.assert_close(16 * joint, separate, rtol=1e-2, atol=0)


@settings(deadline=None)
@given(shift=st.floats(0.5, 30), edge=st.integers(0, 3), temperature=st.floats(1, 20))
def test_a_constant_on_one_edge_changes_joint_edges_and_not_separate_ones(shift, edge, temperature):
    mine = draw(2, 4, 5, seed=1)
    taught = mine.clone()
    taught[:, edge] += shift
    assert (edge_kl(mine, taught, temperature=temperature, edges="separate").abs() < 1e-9).all()
    assert (edge_kl(mine, taught, temperature=temperature, edges="joint") > 1e-5).all()


# What is refused


def test_a_student_that_knows_no_valuable_region_is_refused_unless_it_is_left_out(figures):
    with pytest.raises(Invalid, match=r"Figures, the student, has no valuable localization region.*vlr_weight 0") as e:
        LD(figures(), Near())
    assert e.value.where == ("vlr_weight",)
    LD(figures(), Near(), vlr_weight=0.0)
    LD(Near(), figures())


@pytest.mark.parametrize(
    "args", [{"vlr_weight": -1}, {"vlr_gamma": 1.5}, {"vlr_gamma": -0.1}, {"vlr_overlap": "iou"}, {"edges": "all"}]
)
def test_a_study_with_an_argument_out_of_range_is_refused_at_that_argument(args):
    with pytest.raises(Invalid) as refusal:
        Call(name="LD", args=args).complete(distill)
    assert refusal.value.where == ("LD", *args)
