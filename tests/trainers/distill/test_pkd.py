"""PKD is one minus the correlation of features, channel by channel."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainers.call import Invalid
from trainers.distill import PKD
from trainers.distill.pkd import decorrelation, standardised
from trainers.outputs import Outputs, Targets, Truth

NOTHING = Truth([], [], [], [], [])
EMPTY = torch.zeros(0, dtype=torch.long)
TARGETS = Targets(EMPTY, EMPTY, EMPTY, torch.zeros(0, 4), EMPTY.bool(), 0, NOTHING)


@dataclass(frozen=True)
class Figures:
    strides: tuple[int, ...] = (8, 16, 32, 64, 128)
    channels: int = 4


def features(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pearson(x: Tensor, y: Tensor) -> list[float]:
    """The coefficient of each channel, from its definition."""
    found = []
    for channel in range(x.shape[1]):
        a, b = x[:, channel].flatten(), y[:, channel].flatten()
        a, b = a - a.mean(), b - b.mean()
        found.append(((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()).item())
    return found


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 1, 2, 2), (3, 8, 1, 7)])
def test_it_is_one_minus_pearsons_r_over_all_images_and_cells(shape: tuple[int, ...]) -> None:
    x, y = features(0, *shape), features(1, *shape)
    m = shape[0] * shape[2] * shape[3]
    expected = (m - 1) / m * sum(1 - r for r in pearson(x, y)) / shape[1]
    assert decorrelation(x, y).item() == pytest.approx(expected, rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.1, 100), shift=st.floats(-50, 50), which=st.integers(0, 3))
def test_scale_and_shift_of_a_channel_make_no_difference(scale: float, shift: float, which: int) -> None:
    x, y = features(0, 2, 4, 5, 5), features(1, 2, 4, 5, 5)
    changed = x.clone()
    changed[:, which] = changed[:, which] * scale + shift
    assert decorrelation(changed, y).item() == pytest.approx(decorrelation(x, y).item(), rel=1e-4)
    assert decorrelation(y, changed).item() == pytest.approx(decorrelation(y, x).item(), rel=1e-4)


def test_the_opposite_pattern_is_twice_as_far_as_none() -> None:
    x = features(0, 2, 4, 8, 8)
    assert decorrelation(x, -x).item() == pytest.approx(2 * 127 / 128, rel=1e-4)


def test_statistics_are_of_the_whole_batch_and_not_of_each_image() -> None:
    x, y = features(0, 2, 4, 8, 8), features(1, 2, 4, 8, 8)
    x[1] += 3
    y[1] += 3  # two images that differ in the same way
    alone = (decorrelation(x[:1], y[:1]) + decorrelation(x[1:], y[1:])) / 2
    assert decorrelation(x, y) < 0.6 * alone


def test_the_gradient_is_that_of_a_loss_with_statistics_that_move_along() -> None:
    x, y = features(0, 2, 3, 3, 2).requires_grad_(), features(1, 2, 3, 3, 2)
    assert torch.autograd.gradcheck(lambda s: decorrelation(s, y), (x,))
    decorrelation(x, y).backward()
    # Moving along a channel's own pattern, or all its values alike, changes nothing.
    assert x.grad is not None
    assert x.grad.sum((0, 2, 3)).abs().max() < 1e-6
    assert (x.grad * x).sum((0, 2, 3)).abs().max() < 1e-6


def test_a_constant_channel_is_finite_and_counts_as_uncorrelated() -> None:
    x, y = features(0, 1, 1, 8, 8), torch.ones(1, 1, 8, 8, dtype=torch.float64)
    assert decorrelation(x, y).item() == pytest.approx(0.5 * 63 / 64, rel=1e-4)
    x = y.clone().requires_grad_()
    decorrelation(x, features(0, 1, 1, 8, 8)).backward()
    assert x.grad is not None and x.grad.isfinite().all()


def pyramid(seed: int, *sides: int, channels: int = 4) -> Outputs:
    return Outputs([features(seed + side, 2, channels, side, side).float() for side in sides])


def test_the_first_four_levels_are_compared_and_summed() -> None:
    student, teacher = pyramid(0, 16, 8, 4, 2, 1), pyramid(1, 16, 8, 4, 2, 1)
    expected = sum(decorrelation(s, t) for s, t in zip(student.features[:4], teacher.features[:4], strict=True))
    torch.testing.assert_close(PKD(Figures(), Figures(), weight=6.0)(student, teacher, TARGETS), 6 * expected)


def test_chosen_levels_are_compared_alone() -> None:
    student, teacher = pyramid(0, 16, 8, 4, 2, 1), pyramid(1, 16, 8, 4, 2, 1)
    loss = PKD(Figures(), Figures(), weight=1.0, levels=(2,))
    torch.testing.assert_close(loss(student, teacher, TARGETS), decorrelation(student.features[2], teacher.features[2]))


@pytest.mark.parametrize(("resize", "side"), [("student", 16), ("teacher", 8)])
def test_a_finer_teacher_teaches_level_by_level_after_one_of_the_two_was_resized(resize: str, side: int) -> None:
    two_stage = Figures(strides=(4, 8))
    student, teacher = pyramid(0, 8, 4), pyramid(1, 16, 8)
    loss = PKD(Figures(strides=(8, 16)), two_stage, weight=1.0, levels=(0,), resize=resize)
    pair = [o.features[0] for o in (student, teacher)]
    pair = [torch.nn.functional.interpolate(x, size=(side, side), mode="bilinear") for x in pair]
    torch.testing.assert_close(loss(student, teacher, TARGETS), decorrelation(*pair))


def test_pyramids_of_another_width_are_refused_with_both_figures() -> None:
    with pytest.raises(Invalid, match=r"channels of the pyramid.*4.*8"):
        PKD(Figures(), Figures(channels=8))


@pytest.mark.parametrize("levels", [(), (0, 3), (0, 0)])
def test_levels_that_only_one_of_them_has_or_that_are_named_twice_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(Invalid, match="one or more of 0 to 2, each once"):
        PKD(Figures(strides=(4, 8, 16)), Figures(), levels=levels)


def test_of_short_pyramids_all_levels_are_compared() -> None:
    assert PKD(Figures(strides=(4, 8, 16)), Figures()).levels == (0, 1, 2)


@pytest.mark.parametrize(("temperature", "far"), [(8.0, 0.05), (256.0, 0.002)])
def test_it_is_the_divergence_of_softened_distributions_over_cells_at_a_high_temperature(
    temperature: float, far: float
) -> None:
    x, y = features(0, 2, 3, 4, 5), features(1, 2, 3, 4, 5)
    log_p, log_q = (
        (standardised(z).transpose(0, 1).flatten(1) / temperature).log_softmax(1) for z in (x, y)
    )  # (C, B*H*W)
    divergence = temperature**2 * (log_q.exp() * (log_q - log_p)).sum(1).mean()
    assert divergence.item() == pytest.approx(decorrelation(x, y).item(), rel=far)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.1, 100), which=st.integers(0, 3))
def test_the_opposite_of_a_channel_is_one_plus_its_correlation(scale: float, which: int) -> None:
    x, y = features(0, 2, 4, 5, 5), features(1, 2, 4, 5, 5)
    turned = x.clone()
    turned[:, which] *= -scale
    r = pearson(x, y)[which]
    assert (decorrelation(turned, y) - decorrelation(x, y)).item() == pytest.approx(49 / 50 * 2 * r / 4, rel=1e-4)


def test_the_gradient_follows_the_formula() -> None:
    x, y = features(0, 2, 3, 4, 5).requires_grad_(), features(1, 2, 3, 4, 5)
    decorrelation(x, y).backward()
    r = torch.tensor(pearson(x.detach(), y), dtype=torch.float64).view(1, 3, 1, 1)
    deviation = x.detach().std((0, 2, 3), keepdim=True)
    expected = (r * standardised(x.detach()) - standardised(y)) / (3 * 40 * deviation)
    torch.testing.assert_close(x.grad, expected, rtol=1e-4, atol=1e-7)


def test_a_teacher_that_agrees_asks_for_nothing() -> None:
    x = features(0, 2, 3, 4, 5).requires_grad_()
    found = decorrelation(x, x.detach().clone())
    (gradient,) = torch.autograd.grad(found, x)
    assert found.item() == 0 and (gradient == 0).all()


def test_a_doubled_batch_differs_only_by_the_count_of_values() -> None:
    x, y = features(0, 2, 3, 4, 5), features(1, 2, 3, 4, 5)
    twice = decorrelation(x.repeat(2, 1, 1, 1), y.repeat(2, 1, 1, 1)) / (79 / 80)
    assert twice.item() == pytest.approx(decorrelation(x, y).item() / (39 / 40), rel=1e-4)


def test_a_level_of_a_single_value_has_no_pattern_and_does_no_harm() -> None:
    x = features(0, 1, 3, 1, 1).requires_grad_()
    found = decorrelation(x, features(1, 1, 3, 1, 1))
    (gradient,) = torch.autograd.grad(found, x)
    assert found.item() == 0 and gradient.isfinite().all()


def test_statistics_are_of_full_precision_under_autocast_and_so_is_resizing() -> None:
    loss = PKD(Figures(), Figures(strides=(4, 8, 16, 32, 64)))
    student, teacher = (
        Outputs([(30 + x).bfloat16() for x in o.features]) for o in (pyramid(0, 8, 4, 2, 1), pyramid(1, 16, 8, 4, 2))
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(student, teacher, TARGETS)
    exact = loss(*(Outputs([x.double() for x in o.features]) for o in (student, teacher)), TARGETS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=0)


def test_nothing_asks_the_device_for_a_value() -> None:
    # Tensors on `meta` have shapes but no values: reading one raises.
    maps = [torch.empty(2, 4, side, side, device="meta", requires_grad=True) for side in (8, 4, 2, 1)]
    found = PKD(Figures(), Figures())(Outputs(maps), Outputs([x.detach() for x in maps]), TARGETS)
    found.backward()
    assert found.shape == ()
