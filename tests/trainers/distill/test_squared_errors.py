"""How far features are apart at some cells, and that other cells are not looked at."""

import math

import pytest
import torch
from torch import Tensor

from trainers.distill.squared_errors import cell_errors, errors_at, errors_by_level, where


def maps(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64).requires_grad_()


def test_cells_are_numbered_image_by_image_and_row_by_row() -> None:
    mask = torch.tensor([[[False, True], [False, False]], [[True, False], [False, True]]])
    assert where(mask).tolist() == [1, 4, 7]


def test_errors_of_chosen_cells_are_those_of_a_loop_over_channels() -> None:
    student, teacher = maps(0).detach(), maps(1).detach()
    slow = [
        sum((float(student[b, c, y, x]) - float(teacher[b, c, y, x])) ** 2 for c in range(3))
        for b, y, x in ((0, 0, 1), (1, 1, 1))
    ]
    torch.testing.assert_close(errors_at(student, teacher, torch.tensor([1, 7])).tolist(), slow)
    torch.testing.assert_close(cell_errors(student, teacher).flatten()[[1, 7]].tolist(), slow)


def test_cells_that_are_not_chosen_may_hold_anything() -> None:
    student, teacher = maps(0).detach(), maps(1).detach()
    student[1], teacher[0, :, 1] = math.nan, math.inf
    student.requires_grad_()
    found = errors_at(student, teacher, torch.tensor([0, 1])).sum()
    found.backward()
    assert found.isfinite() and student.grad is not None and student.grad.isfinite().all()
    assert (student.grad[1] == 0).all()


def test_cells_of_pyramids_are_numbered_image_by_image_and_their_errors_come_level_by_level() -> None:
    student, teacher = ([maps(seed), maps(seed + 1)[:, :, :1, :1]] for seed in (0, 2))
    fine, coarse = (cell_errors(*pair).detach() for pair in zip(student, teacher, strict=True))
    # Five cells an image: four fine ones, then the coarse one. A cell that is asked for twice counts twice.
    found = errors_by_level(student, teacher, torch.tensor([8, 4, 1, 9, 1]))
    assert [level.tolist() for level in found] == [
        pytest.approx([fine[1, 1, 1].item(), fine[0, 0, 1].item(), fine[0, 0, 1].item()]),
        pytest.approx([coarse[0, 0, 0].item(), coarse[1, 0, 0].item()]),
    ]
    assert [len(level) for level in errors_by_level(student, teacher, torch.tensor([3]))] == [1, 0]


def test_the_gradient_at_chosen_cells_agrees_with_finite_differences_and_the_teacher_has_none() -> None:
    student, teacher = maps(0), maps(1)
    cell = torch.tensor([7, 1, 7])
    assert torch.autograd.gradcheck(lambda x: errors_at(x, teacher.detach(), cell), (student,))
    errors_at(student, teacher, cell).sum().backward()
    assert teacher.grad is None


def test_half_precision_is_widened_before_the_difference() -> None:
    student, teacher = torch.full((1, 1, 1, 1), 256.0), torch.full((1, 1, 1, 1), 257.0)
    found = cell_errors(student.bfloat16(), teacher.float())
    assert found.dtype == torch.float32 and found.item() == 1
