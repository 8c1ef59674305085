"""The box around points, and how much of its gradient reaches them."""

import pytest
import torch
from torch import Tensor

from tests.trainers.detectors.points_written_out import literal_box
from trainers.detectors.points import gradient_times, moment_box


def test_a_box_lies_around_the_mean_of_its_points_by_their_deviation() -> None:
    points = torch.randn(5, 18, generator=torch.Generator().manual_seed(0)) * 3
    transfer = torch.tensor([0.3, -0.2])
    found = moment_box(points, transfer)
    torch.testing.assert_close(found, torch.tensor([literal_box(p) for p in points.tolist()]))
    as_map = points.T.reshape(1, 18, 1, 5)
    assert torch.equal(moment_box(as_map, transfer)[0, :, 0].T, found)


def test_points_have_their_whole_gradient_and_the_transfer_a_hundredth_of_it() -> None:
    points = torch.randn(2, 18, dtype=torch.float64, requires_grad=True)
    transfer = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 4, dtype=torch.float64)
    (moment_box(points, transfer) * weight).sum().backward()
    assert points.grad is not None and transfer.grad is not None

    def change(of: Tensor, at: tuple[int, ...], step: float = 1e-6) -> float:
        values = []
        for sign in (1, -1):
            moved = [x.detach().clone() for x in (points, transfer)]
            moved[0 if of is points else 1][at] += sign * step
            values.append((moment_box(*moved) * weight).sum().item())
        return (values[0] - values[1]) / (2 * step)

    assert points.grad[1, 7].item() == pytest.approx(change(points, (1, 7)), rel=1e-5)
    assert transfer.grad[0].item() == pytest.approx(0.01 * change(transfer, (0,)), rel=1e-5)
    assert transfer.grad[1].item() == pytest.approx(0.01 * change(transfer, (1,)), rel=1e-5)


def test_points_in_one_place_have_finite_gradients() -> None:
    points, transfer = torch.zeros(1, 18, requires_grad=True), torch.zeros(2, requires_grad=True)
    moment_box(points, transfer).square().sum().backward()
    assert points.grad is not None and points.grad.isfinite().all()


def test_a_gradient_is_multiplied_and_its_value_is_not() -> None:
    x = torch.randn(100, requires_grad=True)
    y = gradient_times(0.1, x)
    assert torch.equal(y, x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.full((100,), 0.1))
