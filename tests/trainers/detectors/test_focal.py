"""The losses of GFL by hand, and their gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from trainers.detectors.focal import distribution_focal_loss, integral, quality_focal_loss


def test_quality_focal_loss_by_hand() -> None:
    z, q = 0.4, 0.7
    p = 1 / (1 + math.exp(-z))
    positive = (q - p) ** 2 * -(q * math.log(p) + (1 - q) * math.log(1 - p))
    negative = 0.5**2 * -math.log(0.5)
    loss = quality_focal_loss(torch.tensor([[z, 0.0], [0.0, 0.0]]), torch.tensor([[q, 0.0], [0.0, 0.0]]))
    assert loss.tolist() == pytest.approx([positive + negative, 2 * negative])


def test_where_quality_is_zero_or_one_it_is_the_focal_loss() -> None:
    torch.manual_seed(0)
    z, q = torch.randn(20, 5), torch.randint(0, 2, (20, 5)).float()
    expected = sigmoid_focal_loss(z, q, alpha=-1, gamma=2).sum(1)
    torch.testing.assert_close(quality_focal_loss(z, q), expected)


def test_its_gradient_is_right_and_reaches_the_modulating_factor_too() -> None:
    torch.manual_seed(0)
    z = torch.randn(6, 3, dtype=torch.double, requires_grad=True)
    q = torch.rand(6, 3, dtype=torch.double)
    assert torch.autograd.gradcheck(lambda x: quality_focal_loss(x, q), z)


def test_huge_logits_stay_finite() -> None:
    z = torch.tensor([[300.0, -300.0]], requires_grad=True)
    loss = quality_focal_loss(z, torch.tensor([[0.0, 1.0]]))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert z.grad is not None and z.grad.isfinite().all()


def test_distribution_focal_loss_by_hand() -> None:
    z = torch.tensor([0.5, -1.0, 2.0, 0.0])
    p = [math.exp(v) / sum(math.exp(w) for w in z.tolist()) for v in z.tolist()]
    assert distribution_focal_loss(z, torch.tensor(1.3)).item() == pytest.approx(
        -0.7 * math.log(p[1]) - 0.3 * math.log(p[2])
    )
    assert distribution_focal_loss(z, torch.tensor(2.0)).item() == pytest.approx(-math.log(p[2]))


@given(st.floats(0, 15.9))
def test_its_smallest_value_is_at_the_two_bins_around_the_distance(distance: float) -> None:
    k = math.floor(distance)
    target = torch.zeros(17)
    target[k], target[k + 1] = k + 1 - distance, distance - k
    y = torch.tensor(distance)
    best = target.clamp(min=1e-12).log()
    assert distribution_focal_loss(best, y) <= distribution_focal_loss(best.roll(1), y)
    assert distribution_focal_loss(best, y) <= distribution_focal_loss(torch.zeros(17), y)
    assert integral(best).item() == pytest.approx(distance, abs=1e-4)


def test_it_keeps_the_shape_and_its_gradient_is_right() -> None:
    torch.manual_seed(0)
    z = torch.randn(3, 4, 9, dtype=torch.double, requires_grad=True)
    y = torch.rand(3, 4, dtype=torch.double) * 7.9
    assert distribution_focal_loss(z, y).shape == (3, 4)
    assert torch.autograd.gradcheck(lambda x: distribution_focal_loss(x, y), z)


def test_the_integral_is_the_expected_bin() -> None:
    z = torch.tensor([[0.0, 0.0, 0.0], [-100.0, 0.0, 100.0]])
    assert integral(z).tolist() == pytest.approx([1, 2])
    one_hot = F.one_hot(torch.arange(5), 5) * 200.0
    assert integral(one_hot).tolist() == pytest.approx([0, 1, 2, 3, 4])


def test_nothing_in_gives_nothing_out() -> None:
    assert quality_focal_loss(torch.zeros(0, 3), torch.zeros(0, 3)).shape == (0,)
    assert distribution_focal_loss(torch.zeros(0, 4, 9), torch.zeros(0, 4)).shape == (0, 4)
    assert integral(torch.zeros(0, 4, 9)).shape == (0, 4)
