"""What Mimic compares, held against slow loops over regions and cells."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from trainers.detectors.proposals import CONVENTIONS
from trainers.detectors.regions import Pooler
from trainers.distill import mimic_regions as regions
from trainers.distill.box_masks import home

STRIDE, HEIGHT, WIDTH = 8, 5, 7  # of the maps here: images of 40 x 56 pixels


def maps(seed: int, *, images: int = 3, channels: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, channels, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)


def rows(*written: tuple[float, ...]) -> Tensor:
    return torch.tensor(written, dtype=torch.float64).view(-1, 5)


@st.composite
def anywhere(draw: st.DrawFn) -> Tensor:
    """Up to six regions in three images: of no size and at the borders too."""
    found = []
    for _ in range(draw(st.integers(0, 6))):
        x1, x2 = sorted(draw(st.tuples(st.floats(0, 56), st.floats(0, 56))))
        y1, y2 = sorted(draw(st.tuples(st.sampled_from([0.0, 7.9, 8.0, 16.0, 39.0, 40.0]), st.floats(0, 40))))
        found.append((float(draw(st.integers(0, 2))), x1, y1, x2, y2))
    return rows(*found)


def touched(region: list[float]) -> list[tuple[int, int]]:
    """The (row, column) of all cells that share more than an edge with a region."""
    _, x1, y1, x2, y2 = region
    return [
        (i, j)
        for i in range(HEIGHT)
        for j in range(WIDTH)
        if x1 < STRIDE * (j + 1) and STRIDE * j < x2 and y1 < STRIDE * (i + 1) and STRIDE * i < y2
    ]


# Which proposals


def test_half_are_the_first_on_an_object_and_half_the_first_elsewhere() -> None:
    real = torch.tensor([[0.0, 0, 10, 10]])
    on, off = [0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]
    proposed = torch.tensor([off, on, on, off, on, off]) + torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])[:, None]
    found = regions.chosen(proposed, real, count=4, balanced=True)
    assert torch.equal(found, proposed[[0, 1, 2, 3]])
    assert torch.equal(
        regions.chosen(proposed[[1, 2, 4, 0, 3, 5]], real, count=4, balanced=True), proposed[[1, 2, 0, 3]]
    )
    assert torch.equal(
        regions.chosen(proposed[[1, 2, 4, 0, 3, 5]], real, count=4, balanced=False), proposed[[1, 2, 4, 0]]
    )


def test_an_overlap_of_half_is_on_the_object_and_less_is_not() -> None:
    real = torch.tensor([[0.0, 0, 10, 10]])
    half, less = [0.0, 0.0, 10.0, 5.0], [0.0, 0.0, 10.0, 4.9]
    proposed = torch.tensor([less, less, half])
    assert torch.equal(regions.chosen(proposed, real, count=2, balanced=True), proposed[[0, 2]])


@given(
    kinds=st.lists(st.booleans(), max_size=12),
    count=st.integers(1, 12),
    boxes=st.integers(0, 2),
    balanced=st.booleans(),
)
def test_the_best_of_each_kind_are_taken_and_one_fills_up_where_the_other_is_short(
    kinds: list[bool], count: int, boxes: int, balanced: bool
) -> None:
    real = torch.tensor([[0.0, 0, 10, 10]]).expand(boxes, 4)
    proposed = torch.tensor([[0.0, 0, 10, 10] if on else [50.0, 50, 60, 60] for on in kinds]).view(-1, 4)
    proposed = proposed + torch.arange(len(kinds))[:, None] / 100  # to tell them apart
    found = regions.chosen(proposed, real, count=count, balanced=balanced)
    positive = [on and boxes > 0 for on in kinds]
    if balanced:
        yes, no = ([i for i, on in enumerate(positive) if on == kind] for kind in (True, False))
        taken = yes[: max(count // 2, count - len(no))]
        wanted = sorted(taken + no[: count - len(taken)])
    else:
        wanted = list(range(min(count, len(kinds))))
    assert torch.equal(found, proposed[wanted])
    assert len(found) == min(count, len(kinds))


def test_regions_know_their_image() -> None:
    boxes = [torch.tensor([[1.0, 2, 3, 4]]), torch.empty(0, 4), torch.tensor([[5.0, 6, 7, 8], [0.0, 0, 1, 1]])]
    assert regions.numbered(boxes).tolist() == [[0, 1, 2, 3, 4], [2, 5, 6, 7, 8], [2, 0, 0, 1, 1]]
    assert regions.numbered([torch.empty(0, 4)]).shape == (0, 5)


@given(sides=st.lists(st.tuples(st.floats(0, 2000), st.floats(0, 2000)), max_size=5), finest=st.sampled_from([4, 8]))
def test_a_region_is_on_the_level_that_a_two_stage_detector_reads_it_from(
    sides: list[tuple[float, float]], finest: int
) -> None:
    sides = [*sides, (112.0, 112.0), (56.0, 224.0), (111.9, 112.0), (0.0, 3.0), (448.0, 448.0)]
    boxes = torch.tensor([(3.0, 5.0, 3 + width, 5 + height) for width, height in sides])
    strides = tuple(finest * 2**n for n in range(4))
    pooler = Pooler(strides, 7, CONVENTIONS["mmdetection"])
    found = home(boxes, strides, inclusive=False)
    assert torch.equal(found, pooler.level(boxes))


# Crops


def test_a_region_covers_the_cells_that_it_touches() -> None:
    found = regions.covered(
        rows((0, 0, 0, 8, 8), (0, 7.9, 0, 8.1, 8), (0, 9, 17, 10, 18), (0, 0, 0, 56, 40)),
        stride=STRIDE,
        height=HEIGHT,
        width=WIDTH,
    )
    assert found.tolist() == [[0, 0, 1, 1], [0, 0, 2, 1], [1, 2, 2, 3], [0, 0, 7, 5]]


@given(where=anywhere())
def test_it_covers_at_least_one_cell_and_none_beyond_the_map(where: Tensor) -> None:
    found = regions.covered(where, stride=STRIDE, height=HEIGHT, width=WIDTH)
    for (left, upper, right, lower), region in zip(found.long().tolist(), where.tolist(), strict=True):
        assert 0 <= left < right <= WIDTH and 0 <= upper < lower <= HEIGHT
        cells = [(i, j) for i in range(upper, lower) for j in range(left, right)]
        if region[1] < region[3] and region[2] < region[4]:
            assert cells == touched(region)


def test_a_region_of_no_size_at_the_end_of_the_image_covers_the_last_cell() -> None:
    found = regions.covered(rows((0, 56, 40, 56, 40)), stride=STRIDE, height=HEIGHT, width=WIDTH)
    assert found.tolist() == [[6, 4, 7, 5]]


def looped(student: Tensor, teacher: Tensor, where: Tensor, *, per_value: bool) -> Tensor:
    """Region by region, as the paper writes it."""
    cells = regions.covered(where, stride=STRIDE, height=HEIGHT, width=WIDTH).long().tolist()
    total = student.new_zeros(())
    for image, (left, upper, right, lower) in zip(where[:, 0].long().tolist(), cells, strict=True):
        u, v = (x[image, :, upper:lower, left:right] for x in (teacher, student))
        total = total + (u - v).square().sum() / (u.numel() if per_value else 1)
    return total


@settings(deadline=None)
@given(where=anywhere(), per_value=st.booleans())
def test_the_weighted_sum_over_cells_is_the_sum_over_crops_and_so_is_its_gradient(
    where: Tensor, per_value: bool
) -> None:
    student, teacher = maps(0).requires_grad_(), maps(1)
    found = regions.crop_distance(student, teacher, where, stride=STRIDE, per_value=per_value)
    wanted = looped(student, teacher, where, per_value=per_value)
    torch.testing.assert_close(found, wanted)
    if len(where):
        torch.testing.assert_close(*(torch.autograd.grad(x, student)[0] for x in (found, wanted)))


def test_crops_by_hand() -> None:
    student, teacher = torch.zeros(2, 3, HEIGHT, WIDTH), torch.full((2, 3, HEIGHT, WIDTH), 2.0)
    where = rows((0, 0, 0, 16, 8), (1, 8, 8, 24, 32)).float()  # 2 and 6 cells
    found = [regions.crop_distance(student, teacher, where, stride=STRIDE, per_value=n).item() for n in (True, False)]
    assert found == pytest.approx([2 * 2**2, (2 + 6) * 3 * 2**2])


def test_what_no_region_covers_gets_no_gradient() -> None:
    student = maps(0).requires_grad_()
    where = rows((1, 8, 8, 24, 32))
    regions.crop_distance(student, maps(1), where, stride=STRIDE, per_value=True).backward()
    assert student.grad is not None
    reached = (student.grad != 0).all(1)
    assert reached.nonzero().tolist() == [[1, i, j] for i, j in touched(where[0].tolist())]


def test_the_gradients_agree_with_finite_differences() -> None:
    where = rows((0, 3, 5, 30, 39), (0, 20, 1, 56, 12), (2, 1, 1, 9, 9))
    teacher = maps(1)
    assert torch.autograd.gradcheck(
        lambda x: regions.crop_distance(x, teacher, where, stride=STRIDE, per_value=True), (maps(0).requires_grad_(),)
    )
    for read in (
        lambda x: regions.aligned(x, where, stride=STRIDE, size=3),
        lambda x: regions.pyramid_pooled(x, where, stride=STRIDE),
    ):
        wanted = read(teacher)
        assert torch.autograd.gradcheck(
            lambda x, read=read, wanted=wanted: regions.region_distance(read(x), wanted, per_value=True),
            (maps(0).requires_grad_(),),
        )


# Regions of one size


def test_aligned_regions_are_what_a_two_stage_detector_pools() -> None:
    x = maps(0).float()
    boxes = [torch.tensor([[3.0, 5, 30, 39], [0.0, 0, 56, 40]]), torch.empty(0, 4), torch.tensor([[9.5, 1, 20, 12.25]])]
    wanted = Pooler((STRIDE,), 7, CONVENTIONS["mmdetection"])([x], boxes, [])
    found = regions.aligned(x, regions.numbered(boxes), stride=STRIDE, size=7)
    torch.testing.assert_close(found, wanted.flatten(2))


@settings(deadline=None)
@given(where=anywhere())
def test_a_spatial_pyramid_is_three_adaptive_poolings_of_the_same_cells(where: Tensor) -> None:
    x = maps(0)
    found = regions.pyramid_pooled(x, where, stride=STRIDE)
    assert found.shape == (len(where), 2, 1 + 4 + 16)
    cells = regions.covered(where, stride=STRIDE, height=HEIGHT, width=WIDTH).long().tolist()
    for pooled, image, (left, upper, right, lower) in zip(found, where[:, 0].long().tolist(), cells, strict=True):
        crop = x[image, :, upper:lower, left:right]
        wanted = [F.adaptive_max_pool2d(crop, bins).flatten(1) for bins in (1, 2, 4)]
        torch.testing.assert_close(pooled, torch.cat(wanted, dim=1))


@pytest.mark.parametrize("per_value", [True, False])
def test_regions_of_one_size_are_compared_value_by_value(per_value: bool) -> None:
    student, teacher = torch.zeros(4, 3, 21), torch.full((4, 3, 21), 0.5)
    wanted = 4 * 0.25 * (1 if per_value else 63)
    assert regions.region_distance(student, teacher, per_value=per_value).item() == pytest.approx(wanted)
    assert regions.region_distance(student[:0], teacher[:0], per_value=per_value) == 0


# The second stage


def test_class_probabilities_by_hand() -> None:
    # (1/2, 1/2) and (1/4, 3/4); the second region is the same for both.
    student = torch.tensor([[0.0, 0.0], [5.0, 1.0]])
    teacher = torch.tensor([[0.0, math.log(3)], [7.0, 3.0]])
    assert regions.class_distance(student, teacher).item() == pytest.approx(2 * 0.25**2)


def test_the_boxes_of_the_class_that_the_teacher_finds_likeliest_are_compared() -> None:
    logits = torch.tensor([[9.0, 1.0, 2.0], [0.0, 4.0, -4.0]])  # the background is no object
    student, teacher = torch.zeros(2, 12), torch.arange(24.0).view(2, 12)
    wanted = sum(n**2 for n in (8, 9, 10, 11)) + sum(n**2 for n in (16, 17, 18, 19))
    assert regions.box_distance(student, teacher, logits).item() == wanted


def test_second_stages_agree_with_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    deltas, taught = torch.randn(2, 3, 16, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: regions.class_distance(x, b), (a.requires_grad_(),))
    assert torch.autograd.gradcheck(lambda x: regions.box_distance(x, taught, b), (deltas.requires_grad_(),))


def test_no_region_is_a_distance_of_zero() -> None:
    assert regions.class_distance(torch.empty(0, 4), torch.empty(0, 4)) == 0
    assert regions.box_distance(torch.empty(0, 16), torch.empty(0, 16), torch.empty(0, 4)) == 0
