"""The two divergences: values by hand, gradients by formula, invariances, precision."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainers.distill.soft import bernoulli_kl, full_precision, soft_kl

BOTH = pytest.mark.parametrize("divergence", [soft_kl, bernoulli_kl])
SOFTEN = {soft_kl: lambda z: z.softmax(-1), bernoulli_kl: torch.sigmoid}
temperatures = st.floats(1, 50)
logits = st.lists(st.floats(-30, 30), min_size=4, max_size=4).map(lambda z: torch.tensor(z, dtype=torch.float64))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_softmax_by_hand():
    # q = (1/4, 3/4), p = (1/2, 1/2): KL = 1/4 log 1/2 + 3/4 log 3/2, of which the mean over two bins is half.
    by_hand = (0.25 * math.log(0.5) + 0.75 * math.log(1.5)) / 2
    assert soft_kl(torch.zeros(2), torch.tensor([0.0, math.log(3)]), temperature=1).item() == pytest.approx(by_hand)


def test_temperature_divides_the_logits_and_its_square_multiplies_the_loss():
    # At T = 2 logits of 2 log 3 are the log 3 of above.
    by_hand = 4 * (0.25 * math.log(0.5) + 0.75 * math.log(1.5)) / 2
    teacher = torch.tensor([0.0, 2 * math.log(3)])
    assert soft_kl(torch.zeros(2), teacher, temperature=2).item() == pytest.approx(by_hand)


def test_bernoulli_by_hand():
    # Class 0: q = 3/4, p = 1/2. Class 1: the same. Class 2: q = p.
    one = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    student, teacher = torch.tensor([0.0, 0.0, 5.0]), torch.tensor([math.log(3), -math.log(3), 5.0])
    assert bernoulli_kl(student, teacher, temperature=1).item() == pytest.approx(2 * one / 3)
    assert bernoulli_kl(2 * student, 2 * teacher, temperature=2).item() == pytest.approx(4 * 2 * one / 3)


def test_the_divergence_is_from_the_teacher_to_the_student():
    a, b = torch.tensor([0.0, 3.0, 1.0]), torch.tensor([2.0, 0.0, 0.0])
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=b), torch.distributions.Categorical(logits=a)
    )
    assert soft_kl(a, b, temperature=1).item() == pytest.approx(expected.item() / 3)
    assert soft_kl(a, b, temperature=1).item() != pytest.approx(soft_kl(b, a, temperature=1).item())


def test_bernoulli_is_the_mean_over_classes_of_torchs_own():
    a, b = draw(6, 5, seed=1), draw(6, 5, seed=2)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Bernoulli(logits=b / 3), torch.distributions.Bernoulli(logits=a / 3)
    )
    torch.testing.assert_close(bernoulli_kl(a, b, temperature=3), 9 * expected.mean(-1))


def test_the_textbooks_kl_is_as_many_times_ours_as_there_are_bins():
    a, b, t = draw(6, 17, seed=1), draw(6, 17, seed=2), 10.0
    textbook = F.kl_div(F.log_softmax(a / t, -1), F.softmax(b / t, -1), reduction="batchmean") * t**2
    torch.testing.assert_close(17 * soft_kl(a, b, temperature=t).mean(), textbook)


def test_yes_or_no_is_twice_the_mean_over_two_bins():
    a, b = draw(7, 1, seed=1), draw(7, 1, seed=2)
    pair = soft_kl(F.pad(a, (0, 1)), F.pad(b, (0, 1)), temperature=4)
    torch.testing.assert_close(bernoulli_kl(a, b, temperature=4), 2 * pair)


@BOTH
@given(a=logits, b=logits, temperature=temperatures)
def test_it_is_never_negative_and_zero_only_for_equal_logits(divergence, a, b, temperature):
    assert divergence(a, b, temperature=temperature) >= -1e-10
    assert divergence(a, a, temperature=temperature) == 0


@given(a=logits, b=logits, temperature=temperatures, shift=st.floats(-100, 100), other=st.floats(-100, 100))
def test_softmax_does_not_see_a_constant_on_either_side(a, b, temperature, shift, other):
    before = soft_kl(a, b, temperature=temperature)
    torch.testing.assert_close(soft_kl(a + shift, b + other, temperature=temperature), before, atol=1e-8, rtol=1e-8)


def test_bernoulli_does_see_a_constant():
    a = draw(3, 4)
    assert (bernoulli_kl(a + 1, a, temperature=2) > 0.01).all()


@given(a=logits, b=logits, temperature=temperatures)
def test_softmax_does_not_see_the_order_of_the_bins(a, b, temperature):
    order = torch.tensor([2, 0, 3, 1])
    shuffled = soft_kl(a[order], b[order], temperature=temperature)
    torch.testing.assert_close(shuffled, soft_kl(a, b, temperature=temperature), atol=1e-9, rtol=1e-9)


@BOTH
@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
def test_the_gradient_is_t_times_p_minus_q_over_n(divergence, temperature):
    a, b = draw(6, 5, seed=1).requires_grad_(), draw(6, 5, seed=2)
    (gradient,) = torch.autograd.grad(divergence(a, b, temperature=temperature).sum(), a)
    soften = SOFTEN[divergence]
    formula = temperature * (soften(a / temperature) - soften(b / temperature)) / 5
    torch.testing.assert_close(gradient, formula)


@BOTH
def test_the_gradient_agrees_with_finite_differences(divergence):
    a, b = draw(2, 3, seed=1).requires_grad_(), draw(2, 3, seed=2)
    assert torch.autograd.gradcheck(lambda z: divergence(z, b, temperature=3.0), (a,))


@BOTH
def test_the_teacher_gets_no_gradient(divergence):
    a, b = draw(6, 5, seed=1).requires_grad_(), draw(6, 5, seed=2).requires_grad_()
    divergence(a, b, temperature=2.0).sum().backward()
    assert b.grad is None
    assert a.grad is not None and a.grad.abs().sum() > 0


@BOTH
def test_equal_logits_have_a_zero_gradient(divergence):
    a = draw(6, 5).requires_grad_()
    divergence(a, a.detach().clone(), temperature=2.0).sum().backward()
    torch.testing.assert_close(a.grad, torch.zeros_like(a), atol=1e-14, rtol=0)


def test_hot_softmax_is_half_the_variance_of_the_difference_over_n():
    a, b = draw(6, 17, seed=1), draw(6, 17, seed=2)
    limit = (a - b).var(-1, correction=0) / (2 * 17)
    torch.testing.assert_close(soft_kl(a, b, temperature=1e4), limit, rtol=1e-2, atol=0)
    nearer, near = (soft_kl(a, b, temperature=t).sub(limit).abs().max() for t in (1e4, 1e3))
    assert nearer < near / 5


def test_hot_bernoulli_is_an_eighth_of_the_mean_squared_difference():
    a, b = draw(6, 5, seed=1), draw(6, 5, seed=2)
    torch.testing.assert_close(bernoulli_kl(a, b, temperature=1e4), (a - b).square().mean(-1) / 8, rtol=1e-3, atol=0)


def test_one_bin_says_nothing():
    assert soft_kl(torch.tensor([[-3.0]]), torch.tensor([[8.0]]), temperature=2).item() == 0


@BOTH
def test_a_teacher_that_is_certain_gives_neither_infinity_nor_nan(divergence):
    student = torch.tensor([1e4, -1e4, 0.0]).requires_grad_()
    loss = divergence(student, torch.tensor([-1e4, 1e4, 0.0]), temperature=1.0)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


@BOTH
def test_any_leading_shape_is_kept(divergence):
    assert divergence(draw(2, 4, 3), draw(2, 4, 3), temperature=1.0).shape == (2, 4)
    assert divergence(draw(0, 3), draw(0, 3), temperature=1.0).shape == (0,)


@BOTH
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened_before_anything_else(divergence, half):
    a, b = draw(6, 17, seed=1).to(half), (draw(6, 17, seed=1) + 0.1 * draw(6, 17, seed=2)).to(half)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = divergence(a, b, temperature=10.0)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), divergence(a.double(), b.double(), temperature=10.0), rtol=1e-3, atol=0)


def test_double_stays_double():
    assert full_precision(draw(2)).dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert soft_kl(draw(2, 3), draw(2, 3), temperature=2.0).dtype == torch.float64
