"""FGFI: which cells are near an object, against loops over anchors, and the loss by hand."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.trainers.distill.figures import Figures
from tests.trainers.distill.two_stages import real, said
from trainers import distill
from trainers.call import Call, Invalid
from trainers.distill import FGFI
from trainers.distill.box_masks import Boxes
from trainers.distill.near import near, overlaps

GRIDS = [(8, (7, 8)), (16, (4, 4))]


def boxes(*by_image: list[list[float]]) -> Boxes:
    image = [number for number, some in enumerate(by_image) for _ in some]
    every = torch.tensor([box for some in by_image for box in some], dtype=torch.float64).view(-1, 4)
    return Boxes(every, torch.tensor(image, dtype=torch.long), len(by_image))


def iou(a: list[float], b: list[float], more: int) -> float:
    across = min(a[2], b[2]) - max(a[0], b[0]) + more
    along = min(a[3], b[3]) - max(a[1], b[1]) + more
    both = max(across, 0) * max(along, 0)
    areas = [(c[2] - c[0] + more) * (c[3] - c[1] + more) for c in (a, b)]
    return both / (sum(areas) - both)


def anchors_of(x: int, y: int, stride: int) -> list[list[float]]:
    """Three shapes of 8 * 8 strides around a cell's corner."""
    found = []
    for ratio in (0.5, 1, 2):
        width, height = 8 * stride / math.sqrt(ratio), 8 * stride * math.sqrt(ratio)
        found.append([x * stride - width / 2, y * stride - height / 2, x * stride + width / 2, y * stride + height / 2])
    return found


def near_by_hand(
    by_image: list[list[list[float]]], grids: list[tuple[int, tuple[int, int]]], phi: float, more: int
) -> list[Tensor]:
    """Box by box, level by level, cell by cell, anchor by anchor."""
    masks = [torch.zeros(len(by_image), *shape, dtype=torch.bool) for _, shape in grids]
    for image, some in enumerate(by_image):
        for box in some:
            best = {
                (level, y, x): max(iou(anchor, box, more) for anchor in anchors_of(x, y, stride))
                for level, (stride, (height, width)) in enumerate(grids)
                for y in range(height)
                for x in range(width)
            }
            for (level, y, x), found in best.items():
                masks[level][image, y, x] |= found > phi * max(best.values())
    return masks


CORNER = st.floats(0, 50, width=32)
BOX = st.tuples(CORNER, CORNER, st.floats(2, 60, width=32), st.floats(2, 60, width=32)).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(BOX, max_size=2), min_size=1, max_size=2), st.sampled_from([0.31, 0.5, 0.73]), st.booleans())
def test_near_cells_are_those_of_a_loop_over_anchors(
    by_image: list[list[list[float]]], phi: float, inclusive: bool
) -> None:
    found = near(boxes(*by_image), GRIDS, phi=phi, inclusive=inclusive)
    slow = near_by_hand(by_image, GRIDS, phi, int(inclusive))
    assert all(torch.equal(a, b) for a, b in zip(found, slow, strict=True))


@pytest.mark.parametrize("inclusive", [True, False])
def test_overlaps_are_those_of_a_loop_over_anchors(inclusive: bool) -> None:
    box = [5.0, 9.0, 40.0, 31.0]
    found = overlaps(torch.tensor([box], dtype=torch.float64), 8, (3, 2), inclusive=inclusive)
    assert found.shape == (1, 3, 3, 2)
    for y in range(3):
        for x in range(2):
            slow = [iou(anchor, box, int(inclusive)) for anchor in anchors_of(x, y, 8)]
            assert found[0, :, y, x].tolist() == pytest.approx(slow)


def test_an_anchor_overlaps_itself_wholly() -> None:
    square = torch.tensor([[-16.0, -8, 48, 56]], dtype=torch.float64)  # around cell (3, 2) of stride 8
    found = overlaps(square, 8, (7, 8), inclusive=False)
    assert found[0, 1, 3, 2].item() == pytest.approx(1) and found.max().item() == pytest.approx(1)


def test_with_the_pixels_at_both_ends_small_boxes_overlap_more() -> None:
    small = torch.tensor([[10.0, 10, 14, 11]], dtype=torch.float64)
    found = [overlaps(small, 8, (7, 8), inclusive=one)[0, 1, 1, 1].item() for one in (False, True)]
    assert found == pytest.approx([4 * 1 / 64**2, 5 * 2 / 65**2])


@settings(max_examples=15, deadline=None)
@given(st.lists(BOX, min_size=1, max_size=3), st.floats(0.1, 0.8))
def test_a_higher_phi_leaves_fewer_cells_and_every_box_has_one(some: list[list[float]], phi: float) -> None:
    more, fewer = (near(boxes(some), GRIDS, phi=p, inclusive=True) for p in (phi, phi + 0.1))
    assert all((a | ~b).all() for a, b in zip(more, fewer, strict=True))
    assert any(mask.any() for mask in fewer)


def test_a_box_that_no_anchor_touches_has_no_cell() -> None:
    assert not near(boxes([[900.0, 900, 950, 950]]), [(8, (7, 8))], phi=0.5, inclusive=False)[0].any()


def loss(**knobs: Any) -> FGFI:
    torch.manual_seed(0)
    return FGFI(Figures(), Figures(), **knobs).double()


WIDE = ([[3.0, 5, 33, 40], [-200.0, -200, 100, 100]], [], [[2.0, 9, 30, 30]])  # the second belongs to level 1


@pytest.mark.parametrize("assigned", [True, False])
@pytest.mark.parametrize("normaliser", ["all", "per_level"])
def test_it_is_half_the_squared_difference_a_near_cell(assigned: bool, normaliser: Any) -> None:
    one = loss(weight=0.5, assigned=assigned, normaliser=normaliser)
    student, teacher = said(1), said(2)
    if assigned:
        first = near_by_hand([[WIDE[0][0]], [], list(WIDE[2])], [(8, (8, 8))], 0.5, 1)
        masks = first + near_by_hand([[WIDE[0][1]], [], []], [(16, (4, 4))], 0.5, 1)
    else:
        masks = near_by_hand([list(some) for some in WIDE], [(8, (8, 8)), (16, (4, 4))], 0.5, 1)
    sums = []
    for adapt, mine, taught, mask in zip(one.adapters, student.features, teacher.features, masks, strict=True):
        errors = (adapt(mine) - taught).square()
        cells = [(b, y, x) for b, y, x in mask.nonzero().tolist()]
        sums.append((sum(errors[b, c, y, x].item() for b, y, x in cells for c in range(4)), len(cells)))
    assert all(number for _, number in sums)
    if normaliser == "all":
        expected = sum(error for error, _ in sums) / (2 * sum(number for _, number in sums))
    else:
        expected = sum(error / (2 * number) for error, number in sums)
    assert one(student, teacher, real(boxes=WIDE)).item() == pytest.approx(0.5 * expected)


def test_on_its_own_level_alone_a_box_has_fewer_cells_or_others() -> None:
    some = boxes([[3.0, 5, 33, 40]])
    maps = said(1, (0,)).features
    own, every = loss().masks(some, maps), loss(assigned=False).masks(some, maps)
    assert own[0].any() and not own[1].any()
    assert every[0].any() and (own[0] & every[0]).any()


def test_chosen_levels_are_compared_alone() -> None:
    one = loss(levels=(1,))
    student, teacher = said(1), said(2)
    one(student, teacher, real(boxes=WIDE)).backward()
    assert len(one.adapters) == 1
    assert student.features[0].grad is None and student.features[1].grad is not None


def test_what_is_not_near_an_object_is_not_looked_at() -> None:
    one, student, teacher, wanted = loss(), said(1), said(2), real(boxes=WIDE)
    expected = one(student, teacher, wanted)
    masks = near_by_hand([[WIDE[0][0]], [], list(WIDE[2])], [(8, (8, 8))], 0.5, 1)
    spoilt = teacher.features[0].detach().masked_fill(~masks[0][:, None], math.nan)
    teacher.features[0] = spoilt
    torch.testing.assert_close(one(student, teacher, wanted), expected)
    expected.backward()
    assert student.features[0].grad is not None and student.features[0].grad.isfinite().all()


def test_the_gradient_agrees_with_finite_differences() -> None:
    one, teacher, wanted = loss(weight=1.0, normaliser="per_level"), said(2), real(boxes=WIDE)
    for adapt in one.adapters:
        torch.nn.init.normal_(adapt[0].weight)

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
    assert all(parameter.grad is not None for parameter in one.parameters())


def test_a_box_at_the_image_border_does_no_harm() -> None:
    assert loss()(said(1), said(2), real(boxes=([[60.0, 60, 64, 64]], [[64.0, 0, 64, 64]], []))).isfinite()


def test_channels_count_unlike_in_losses_that_take_means_of_them() -> None:
    student, teacher, wanted = said(1), said(2), real(boxes=WIDE)
    one = loss(weight=1.0)
    expected = one(student, teacher, wanted)
    # The same teacher's channels twice, for twice the adapters: twice the loss.
    twice = FGFI(Figures(), Figures(channels=8), weight=1.0).double()
    for wide, narrow in zip(twice.adapters, one.adapters, strict=True):
        for name in ("weight", "bias"):
            getattr(wide[0], name).data = getattr(narrow[0], name).data.repeat_interleave(2, 0)
    teacher.features[:] = [x.repeat_interleave(2, 1) for x in teacher.features]
    torch.testing.assert_close(twice(student, teacher, wanted), 2 * expected)


def test_weight_zero_has_no_adapters() -> None:
    silent = loss(weight=0.0)
    assert not list(silent.parameters()) and silent(said(1), said(2), real()).item() == 0


def test_other_strides_are_refused_with_both_figures() -> None:
    with pytest.raises(Invalid, match=r"strides, but the student's is \(8, 16\) and the teacher's is \(4, 8\)"):
        FGFI(Figures(), Figures(strides=(4, 8)))


@pytest.mark.parametrize("levels", [(), (0, 2), (0, 0)])
def test_levels_that_are_not_there_or_are_named_twice_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(Invalid, match="one or more of 0 to 1, each once"):
        loss(levels=levels)


@pytest.mark.parametrize("args", [{"phi": 1}, {"phi": -0.1}, {"weight": -1}, {"normaliser": "none"}])
def test_a_study_with_an_argument_out_of_range_is_refused_at_that_argument(args: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refusal:
        Call(name="FGFI", args=args).complete(distill)
    assert refusal.value.where == ("FGFI", *args)
