"""GI: where two detectors disagree, which of these places are instances, and what is learnt of them."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.trainers.distill.figures import SHAPES, Figures, targets_at
from trainers import distill
from trainers.call import Call, Invalid
from trainers.distill import GI
from trainers.distill.instances import chosen, instances, pooled, relations
from trainers.outputs import Outputs, Targets, rows

APART = torch.arange(8) * 100.0  # left edges of eight boxes that do not overlap


@dataclass(frozen=True)
class Says(Figures):
    """A detector whose boxes are what it says."""

    def boxes(self, outputs: Outputs) -> Tensor:
        return rows(outputs.box, self.anchors)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def said(seed: int, *, images: int = 2, anchors: int = 1, left: Tensor = APART) -> Outputs:
    """Random features and class logits, and boxes of 40 pixels that start here from the left, cell by cell."""
    maps = [draw(images, 4, *s, seed=seed + n).requires_grad_() for n, s in enumerate(SHAPES)]
    cls = [(3 * draw(images, 3 * anchors, *s, seed=seed + 10 + n)).requires_grad_() for n, s in enumerate(SHAPES)]
    box = torch.stack([left, left * 0, left + 40, left * 0 + 40], 1).double()
    levels = [box[:6].T.reshape(4, *SHAPES[0]), box[6:].T.reshape(4, *SHAPES[1])]
    boxes = [level.repeat(images, anchors, 1, 1).requires_grad_() for level in levels]
    return Outputs(maps, cls, boxes, anchors=anchors, by=Says(anchors=anchors))


def everywhere(*, images: int = 2, anchors: int = 1) -> Targets:
    return replace(targets_at(images=images), valid=torch.ones(8 * anchors * images, dtype=torch.bool))


def scores(student: Outputs, teacher: Outputs) -> Tensor:
    """Of all rows."""
    return (teacher.class_rows().sigmoid() - student.class_rows().sigmoid()).abs().amax(1).detach()


def apart(student: Outputs, teacher: Outputs, cells: Tensor) -> Tensor:
    """The mean squared difference of the features at these cells, image by image 8 of them. (R,) -> (R,)."""
    return (rows(student.features) - rows(teacher.features))[cells].square().mean(1)


def test_an_instance_scores_by_the_class_that_differs_most_and_has_the_box_of_the_surer() -> None:
    def logit(*p: float) -> list[float]:
        return [math.log(q / (1 - q)) for q in p]

    student = torch.tensor([logit(0.5, 0.9), logit(0.1, 0.2), logit(0.3, 0.3)])
    teacher = torch.tensor([logit(0.4, 0.6), logit(0.8, 0.1), logit(0.3, 0.3)])
    mine, theirs = torch.zeros(3, 4), torch.ones(3, 4)
    score, box = instances(student, teacher, mine, theirs)
    assert score.tolist() == pytest.approx([0.3, 0.7, 0])
    assert box[:, 0].tolist() == [0, 1, 1]  # the student is surer of the first; of equals the teacher's


def test_the_better_suppresses_what_overlaps_it_and_so_many_are_left() -> None:
    score = torch.tensor([0.1, 0.9, 0.5, 0.8, 0.3])
    box = torch.tensor([[0.0, 0, 10, 10], [50, 0, 60, 10], [51, 0, 61, 10], [90, 0, 99, 9], [50, 0, 60, 2.9]])
    every = torch.arange(5)
    assert chosen(score, box, every, count=9, iou=0.3).tolist() == [1, 3, 4, 0]
    assert chosen(score, box, every, count=2, iou=0.3).tolist() == [1, 3]
    assert chosen(score, box, torch.tensor([4, 2, 0]), count=9, iou=0.3).tolist() == [2, 4, 0]
    assert chosen(score, box, every[:0], count=9, iou=0.3).tolist() == []


def test_of_each_image_the_best_cells_of_all_levels_are_imitated() -> None:
    student, teacher = said(1), said(2)
    best = scores(student, teacher).view(2, 8).topk(3).indices + torch.tensor([[0], [8]])
    found = GI(Says(), Says(), cells_weight=5.0, count=3)(student, teacher, everywhere())
    torch.testing.assert_close(found, 5 * apart(student, teacher, best.flatten()).mean())


def test_a_batch_chooses_on_each_level_and_images_suppress_one_another() -> None:
    student, teacher = said(1), said(2)  # the boxes of both images are the same
    score = scores(student, teacher).view(2, 8)
    expected = torch.zeros((), dtype=torch.float64)
    for level in (slice(0, 6), slice(6, 8)):
        better, image = score[:, level].max(0)  # of the two images
        cell = torch.arange(8)[level] + 8 * image
        expected = expected + apart(student, teacher, cell[better.topk(2).indices]).mean()
    found = GI(Says(), Says(), cells_weight=1.0, count=2, per="batch")(student, teacher, everywhere())
    torch.testing.assert_close(found, expected)
    assert not torch.isclose(found, GI(Says(), Says(), cells_weight=1.0, count=2)(student, teacher, everywhere()))


def test_what_overlaps_a_better_instance_is_none() -> None:
    left = APART.clone()
    left[:4] = torch.tensor([0.0, 10, 20, 300])  # the first three overlap by at least a third
    student, teacher = said(1, images=1, left=left), said(2, images=1, left=left)
    score = scores(student, teacher)
    best = score[:3].argmax()
    expected = apart(student, teacher, torch.cat([best[None], torch.arange(3, 8)])).mean()
    found = GI(Says(), Says(), cells_weight=1.0)(student, teacher, everywhere(images=1))
    torch.testing.assert_close(found, expected)


def test_locations_in_the_padding_are_no_instances() -> None:
    student, teacher, wanted = said(1), said(2), everywhere()
    wanted.valid[[1, 2, 15]] = False
    expected = apart(student, teacher, wanted.valid.nonzero().squeeze(1)).mean()
    found = GI(Says(), Says(), cells_weight=1.0, count=8)(student, teacher, wanted)
    torch.testing.assert_close(found, expected)
    wanted.valid[:] = False
    nothing = GI(Says(), Says())(student, teacher, wanted)
    assert nothing.item() == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(nothing, student.features))


def test_an_anchor_stands_for_its_cell() -> None:
    student, teacher = said(1, anchors=2), said(2, anchors=2)
    best = scores(student, teacher).view(2, 8, 2).amax(2)  # the boxes of a cell are the same: one is left
    cells = best.topk(3).indices + torch.tensor([[0], [8]])
    pair = Says(anchors=2), Says(anchors=2)
    found = GI(*pair, cells_weight=1.0, count=3)(student, teacher, everywhere(anchors=2))
    torch.testing.assert_close(found, apart(student, teacher, cells.flatten()).mean())


@pytest.mark.parametrize("per", ["image", "batch"])
def test_only_the_features_learn(per: Any) -> None:
    student, teacher = said(1), said(2)
    parts = {"cells_weight": 1.0, "regions_weight": 1.0, "relation_weight": 1.0}
    GI(Says(), Says(), per=per, **parts)(student, teacher, everywhere()).backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in student.features)
    assert all(x.grad is None for x in (*student.cls, *student.box, *teacher.features, *teacher.cls, *teacher.box))


def test_a_region_is_read_from_the_level_that_fits_its_size() -> None:
    # Levels of strides 8, 16 and 32 with one value each; 112 pixels belong to stride 8, 224 to 16, 448 to 32.
    features = [torch.full((1, 2, n, n), float(n)) for n in (64, 32, 16)]
    sides = torch.tensor([8.0, 111, 112, 223, 224, 447, 448, 2000])
    boxes = torch.stack([sides * 0, sides * 0, sides, sides], 1)
    found = pooled(features, boxes, torch.zeros(8, dtype=torch.long), (8, 16, 32))
    assert found.shape == (8, 2, 10, 10)
    assert found[:, 0, 0, 0].tolist() == [64] * 4 + [32] * 2 + [16] * 2  # level after level


def test_a_region_is_read_in_its_own_image_and_place() -> None:
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    features = [torch.stack([x, y])[None] + torch.tensor([0.0, 100]).view(2, 1, 1, 1)]
    found = pooled(features, torch.tensor([[16.0, 8, 48, 40]]), torch.tensor([1]), (8,))
    # Cells 2 to 6 and 1 to 5 from the corners, whose values are in their middles: half a cell less.
    middle = torch.arange(10) * 0.4 + 0.2 - 0.5
    torch.testing.assert_close(found[0, 0, 0], 100 + 2 + middle, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found[0, 1, :, 0], 100 + 1 + middle, rtol=1e-5, atol=1e-4)


def test_regions_are_a_mean_over_points_and_instances_and_a_sum_over_channels() -> None:
    student, teacher = said(1), said(2)
    levels = [o.features for o in (student, teacher)]
    row = (scores(student, teacher).view(2, 8).topk(2).indices + torch.tensor([[0], [8]])).flatten()
    box = rows(student.box)[row].detach()
    mine, taught = (pooled(x, box, row // 8, (8, 16)) for x in levels)
    expected = (mine - taught).square().sum() / (4 * 100)
    found = GI(Says(), Says(), cells_weight=0.0, regions_weight=3.0, count=2)(student, teacher, everywhere())
    torch.testing.assert_close(found, 3 * expected)


def test_relations_by_hand() -> None:
    # Three points: distances 3, 4, 5 and 2, 2, 2; means 4 and 2.
    student = torch.tensor([[0.0, 0], [3, 0], [0, 4]])
    teacher = torch.tensor([[0.0, 0], [2, 0], [1, math.sqrt(3)]])
    expected = sum((a / 4 - 1) ** 2 / 2 for a in (3, 4, 5)) / 3
    assert relations(student, teacher).item() == pytest.approx(expected, rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.1, 100), shift=st.floats(-50, 50))
def test_relations_see_neither_scale_nor_place(scale: float, shift: float) -> None:
    x, y = draw(5, 3, seed=0), draw(5, 3, seed=1)
    torch.testing.assert_close(relations(scale * x + shift, y), relations(x, y))
    torch.testing.assert_close(relations(x, scale * x + shift).item(), 0.0, atol=1e-20, rtol=0)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_less_than_three_instances_have_no_relation(number: int) -> None:
    x = draw(number, 3).requires_grad_()
    found = relations(x, draw(number, 3, seed=1))
    (gradient,) = torch.autograd.grad(found, x)
    assert found.item() == pytest.approx(0, abs=1e-20) and gradient.abs().sum() < 1e-9


def test_instances_with_the_same_features_do_no_harm() -> None:
    x = torch.zeros(4, 3, dtype=torch.float64).requires_grad_()
    found = relations(x, draw(4, 3))
    (gradient,) = torch.autograd.grad(found, x)
    assert found.isfinite() and gradient.isfinite().all()


def test_the_gradients_agree_with_finite_differences() -> None:
    y = draw(5, 3, seed=1)
    assert torch.autograd.gradcheck(lambda x: relations(x, y), (draw(5, 3).requires_grad_(),))
    student, teacher = said(1), said(2)
    loss = GI(Says(), Says(), cells_weight=1.0, regions_weight=1.0, relation_weight=1.0, count=3)

    def of(*features: Tensor) -> Tensor:
        value: Tensor = loss(replace(student, features=list(features)), teacher, everywhere())
        return value

    assert torch.autograd.gradcheck(of, student.features, fast_mode=True)


def test_the_batch_may_be_doubled() -> None:
    student, teacher = said(1), said(2)
    twice = [
        replace(o, **{name: [x.repeat(2, 1, 1, 1) for x in getattr(o, name)] for name in ("features", "cls", "box")})
        for o in (student, teacher)
    ]
    loss = GI(Says(), Says(), regions_weight=1.0, count=3)
    torch.testing.assert_close(loss(*twice, everywhere(images=4)), loss(student, teacher, everywhere()))


def test_a_narrower_student_is_made_as_wide() -> None:
    loss = GI(Says(channels=4), Says(channels=6), regions_weight=1.0, relation_weight=1.0).double()
    teacher = replace(said(2), features=[draw(2, 6, *s, seed=n) for n, s in enumerate(SHAPES)])
    loss(said(1), teacher, everywhere()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in loss.parameters())


def test_detectors_without_class_logits_or_boxes_at_their_cells_are_refused() -> None:
    with pytest.raises(Invalid, match=r"the teacher has none: .* such as PKD"):
        GI(Says(), Says(anchors=0))
    with pytest.raises(Invalid, match=r"the student does not say: .* such as GFL, .* such as PKD"):
        GI(Figures(), Says())
    with pytest.raises(Invalid, match=r"number of classes.*3.*80"):
        GI(Says(), Says(num_classes=80))
    with pytest.raises(Invalid, match=r"strides.*\(4, 8\).*\(8, 16\)"):
        GI(Says(strides=(4, 8)), Says())


@pytest.mark.parametrize("args", [{"count": 0}, {"iou": 1.5}, {"per": "level"}, {"regions_weight": -1}])
def test_a_study_with_an_argument_out_of_range_is_refused_at_that_argument(args: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refusal:
        Call(name="GI", args=args).complete(distill)
    assert refusal.value.where == ("GI", *args)
