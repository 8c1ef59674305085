"""Imitation: which cells of a region are compared, and what a mean is."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from tests.trainers.distill.figures import Figures, random_outputs, targets_at
from trainers import distill
from trainers.call import Call, Invalid
from trainers.distill import Imitation
from trainers.distill.box_masks import Boxes
from trainers.distill.cells import cells, inside, positive_cells, valid_cells
from trainers.distill.imitation import fine
from trainers.distill.squared_errors import cell_errors
from trainers.outputs import Outputs, Targets, Truth

Pick = Callable[[Outputs, list[int]], Outputs]
GRID = cells([torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 1, 2)], (8, 16), start=0.0)
EVERYWHERE = torch.ones(8, dtype=torch.bool)


def fine_cells(boxes: Tensor, valid: Tensor) -> Tensor:
    """Of one image: boxes (N, 4) and which of its cells count -> (8,) bool."""
    some = Boxes(boxes, torch.zeros(len(boxes), dtype=torch.long), 1)
    return fine(some, [(8, (2, 3)), (16, (1, 2))], valid[None], start=0.0)[0]


def targets(*boxes: list[list[float]], rows: tuple[int, ...] = ()) -> Targets:
    """Images of 16 x 24 pixels with these boxes, and these positives."""
    real = [torch.tensor(b).view(-1, 4) for b in boxes]
    labels = [torch.zeros(len(b), dtype=torch.long) for b in boxes]
    number = len(boxes)
    truth = Truth(real, labels, [(16, 24)] * number, list(range(number)), [(1.0, 1.0)] * number)
    return replace(targets_at(*rows, images=number), truth=truth)


def differences(student: Outputs, teacher: Outputs, *where: tuple[int, int, int, int]) -> list[float]:
    """The mean squared difference at (level, image, row, column)."""
    return [
        (student.features[n][b, :, y, x] - teacher.features[n][b, :, y, x]).square().mean().item()
        for n, b, y, x in where
    ]


def test_cells_count_row_after_row_from_their_upper_left_corner_or_their_middle() -> None:
    assert GRID.centre.tolist() == [[0, 0], [8, 0], [16, 0], [0, 8], [8, 8], [16, 8], [0, 0], [16, 0]]
    assert GRID.stride.tolist() == [8] * 6 + [16] * 2
    assert GRID.level.tolist() == [0] * 6 + [1] * 2
    middle = cells([torch.zeros(1, 1, 1, 2)], (8,), start=0.5)
    assert middle.centre.tolist() == [[4, 4], [12, 4]]


def test_a_cell_is_inside_a_box_if_its_centre_is_and_not_on_an_edge() -> None:
    assert inside(GRID, torch.tensor([[-1.0, -1, 8, 9]])).nonzero().flatten().tolist() == [0, 3, 6]
    assert inside(GRID, torch.tensor([[7.0, 7, 9, 9], [15.0, 7, 17, 9]])).nonzero().flatten().tolist() == [4, 5]
    assert inside(GRID, torch.tensor([[0.0, -1, 16, 9], [-1.0, 0, 9, 8]])).nonzero().flatten().tolist() == [1, 4]
    assert not inside(GRID, torch.zeros(0, 4)).any()


def test_fine_cells_overlap_more_than_half_as_much_as_the_best_cell_of_their_box() -> None:
    # Of 64 pixels around (8, 8), as the square of cell 4 is: its IoU is 1, and 8 pixels away it is 7/9 or 49/79.
    box = torch.tensor([[-24.0, -24, 40, 40]])
    assert fine_cells(box, EVERYWHERE).nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5]
    # The coarse squares overlap it by 56 x 56 of 128 x 128 pixels at most, but a box of their size best.
    large = torch.tensor([[-64.0, -64, 64, 64]])
    assert fine_cells(large, EVERYWHERE).nonzero().flatten().tolist() == [6, 7]
    assert fine_cells(torch.cat([box, large]), EVERYWHERE).all()


def test_fine_agrees_with_the_definition_for_any_boxes() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(20, 2, generator=generator) * 20
    boxes = torch.cat([low, low + torch.rand(20, 2, generator=generator) * 60], 1)
    squares = torch.cat([GRID.centre - 4 * GRID.stride[:, None], GRID.centre + 4 * GRID.stride[:, None]], 1)
    for box in boxes:
        iou = box_iou(box[None], squares)[0]
        assert torch.equal(fine_cells(box[None], EVERYWHERE), iou > iou.max() / 2)


def test_cells_in_the_padding_are_neither_fine_nor_the_best_that_others_are_measured_by() -> None:
    large, valid = torch.tensor([[-64.0, -64, 64, 64]]), EVERYWHERE.clone()
    valid[6:] = False
    assert fine_cells(large, valid).nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_no_boxes_and_boxes_far_away_have_no_fine_cells() -> None:
    assert not fine_cells(torch.zeros(0, 4), EVERYWHERE).any()
    assert not fine_cells(torch.tensor([[900.0, 900, 950, 950]]), EVERYWHERE).any()


def test_a_cell_counts_if_one_of_its_anchors_does() -> None:
    two = targets([], [])
    three = replace(two, row=torch.tensor([4, 5, 30]), valid=torch.zeros(48, dtype=torch.bool))
    three.valid[[3, 47]] = True
    assert positive_cells(three, 8).nonzero().tolist() == [[0, 1], [1, 2]]
    assert valid_cells(three, 8).nonzero().tolist() == [[0, 1], [1, 7]]


def test_all_is_the_mean_of_each_level_summed() -> None:
    student, teacher = random_outputs(1), random_outputs(2)
    pairs = zip(student.features, teacher.features, strict=True)
    expected = sum((s - t).square().mean() for s, t in pairs)
    found = Imitation(Figures(), Figures(), weight=3.0, region="all")(student, teacher, targets([], []))
    torch.testing.assert_close(found, 3 * expected)


def test_main_is_the_mean_over_the_positives_of_each_level_summed() -> None:
    student, teacher = random_outputs(1), random_outputs(2)
    a, b, c = differences(student, teacher, (0, 0, 0, 1), (0, 1, 1, 2), (1, 0, 0, 1))
    found = Imitation(Figures(), Figures(), weight=3.0, region="main")(
        student, teacher, targets([], [], rows=(1, 13, 7))
    )
    assert found.item() == pytest.approx(3 * ((a + b) / 2 + c))


def test_inside_is_the_mean_over_the_cells_in_boxes_of_their_own_image() -> None:
    student, teacher = random_outputs(1), random_outputs(2)
    a, b, c = differences(student, teacher, (0, 0, 1, 1), (0, 1, 0, 2), (1, 1, 0, 1))
    wanted = targets([[7.0, 7, 9, 9]], [[15.0, -1, 17, 1]])
    found = Imitation(Figures(), Figures(), weight=1.0, region="inside")(student, teacher, wanted)
    assert found.item() == pytest.approx((a + b) / 2 + c)


def test_where_distances_start_in_the_middle_of_a_cell_that_is_its_centre() -> None:
    student, teacher = random_outputs(1), random_outputs(2)
    (a,) = differences(student, teacher, (0, 0, 1, 1))
    pair = Figures(start=0.5), Figures(start=0.5)
    found = Imitation(*pair, weight=1.0, region="inside")(student, teacher, targets([[11.0, 11, 13, 13]], []))
    assert found.item() == pytest.approx(a)


def test_fine_is_the_mean_over_the_fine_cells() -> None:
    student, teacher = random_outputs(1), random_outputs(2)
    a, b = differences(student, teacher, (1, 1, 0, 0), (1, 1, 0, 1))
    found = Imitation(Figures(), Figures(), weight=1.0)(student, teacher, targets([], [[-64.0, -64, 64, 64]]))
    assert found.item() == pytest.approx((a + b) / 2)


@pytest.mark.parametrize("region", ["inside", "main", "fine"])
def test_an_empty_region_is_an_exact_zero_with_a_zero_gradient(region: Any) -> None:
    student = random_outputs(1)
    found = Imitation(Figures(), Figures(), region=region)(student, random_outputs(2), targets([], []))
    assert found.shape == () and found.item() == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(found, student.features))


@pytest.mark.parametrize("region", ["all", "inside", "main", "fine"])
def test_the_batch_may_be_doubled_and_a_teacher_that_agrees_asks_for_nothing(of_images: Pick, region: Any) -> None:
    student, teacher, loss = random_outputs(1), random_outputs(2), Imitation(Figures(), Figures(), region=region)
    boxes: tuple[Any, Any] = ([[-3.0, -3, 12, 12]], [[-64.0, -64, 64, 64]])
    once = loss(student, teacher, targets(*boxes, rows=(1, 8)))
    pair = of_images(student, [0, 1, 0, 1]), of_images(teacher, [0, 1, 0, 1])
    torch.testing.assert_close(loss(*pair, targets(*boxes, *boxes, rows=(1, 8, 17, 24))), once)
    assert once > 0 and loss(student, random_outputs(1), targets(*boxes, rows=(1, 8))).item() == 0


def test_the_gradient_agrees_with_finite_differences_and_the_teacher_has_none() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(5, 3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(lambda s: cell_errors(s, y.detach()), (x,))
    cell_errors(x, y).sum().backward()
    assert y.grad is None


def test_half_precision_is_widened_before_the_difference() -> None:
    x, y = torch.full((1, 4), 1.0).bfloat16(), torch.full((1, 4), 1.0078125).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cell_errors(x, y)
    assert found.dtype == torch.float32 and found.item() == 4 * 0.0078125**2


def test_a_narrower_student_is_made_as_wide() -> None:
    loss = Imitation(Figures(channels=4), Figures(channels=6), region="all").double()
    student = random_outputs(1)
    generator = torch.Generator().manual_seed(0)
    maps: list[Tensor] = [torch.randn(2, 6, *s, generator=generator, dtype=torch.float64) for s in ((2, 3), (1, 2))]
    loss(student, Outputs(maps), targets([], [])).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in loss.parameters())


def test_other_strides_are_refused_with_both() -> None:
    with pytest.raises(Invalid, match=r"strides, but the student's is \(4, 8\) and the teacher's is \(8, 16\)"):
        Imitation(Figures(strides=(4, 8)), Figures())


@pytest.mark.parametrize("args", [{"weight": -1}, {"region": "decouple"}])
def test_a_study_with_an_argument_out_of_range_is_refused_at_that_argument(args: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refusal:
        Call(name="Imitation", args=args).complete(distill)
    assert refusal.value.where == ("Imitation", *args)
