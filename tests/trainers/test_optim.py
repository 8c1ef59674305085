"""Optimizers do what their equations say, and the rate of each step is the one figured by hand."""

import pytest
import torch
from torch import nn

from tests.trainers.stages import recipe
from trainers import optim
from trainers.call import Call, Invalid
from trainers.optim import SGD, AdamW, rates


def steps(optimizer: torch.optim.Optimizer, weight: nn.Parameter, gradients: list[float]) -> list[float]:
    values = []
    for gradient in gradients:
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
        values.append(weight.item())
    return values


def test_sgd_is_momentum_with_decay_in_the_gradient() -> None:
    weight = nn.Parameter(torch.ones(1))
    optimizer = SGD([weight], 0.1, momentum=0.9, weight_decay=0.01)
    # velocity 0.5 + 0.01 * 1 = 0.51, then 0.9 * 0.51 + (0.5 + 0.01 * 0.949) = 0.96849
    assert steps(optimizer, weight, [0.5, 0.5]) == pytest.approx([1 - 0.051, 0.949 - 0.096849])


def test_adamw_takes_steps_of_the_rate_and_decays_apart() -> None:
    weight = nn.Parameter(torch.ones(1))
    optimizer = AdamW([weight], 0.1, weight_decay=0.5)
    # the first step is the rate whatever the gradient's size, after a decay of 0.1 * 0.5
    assert steps(optimizer, weight, [1e-3]) == pytest.approx([0.95 - 0.1], abs=1e-5)


def test_the_defaults_are_the_fields() -> None:
    assert Call(name="SGD").complete(optim).args == {"momentum": 0.9, "weight_decay": 1e-4, "nesterov": False}
    assert Call(name="AdamW").complete(optim).args == {"betas": [0.9, 0.999], "weight_decay": 0.05}


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_a_study_builds_an_optimizer_by_name(name: str) -> None:
    weight = nn.Parameter(torch.ones(1))
    built = Call(name=name).complete(optim).of(optim, [weight], 0.3)
    assert type(built).__name__ == name and built.param_groups[0]["lr"] == 0.3


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("SGD", {"momentum": 1.1}),
        ("SGD", {"lr": 0.1}),
        ("SGD", {"weight_decay": -1}),
        ("AdamW", {"betas": [0.9]}),
        ("AdamW", {"betas": [0.9, 1.0]}),
        ("Adam", {}),
        ("rates", {}),
    ],
)
def test_what_is_no_optimizer_is_refused(name: str, args: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        Call(name=name, args=args).complete(optim)


def test_the_rate_rises_linearly_over_the_warm_up_and_then_is_the_schedules() -> None:
    rate = rates(recipe(lr=0.4, warmup=4, warmup_from=0.2, schedule="Constant", epochs=3), 2)
    # 0.2, 0.4, 0.6 and 0.8 of the rate
    assert [rate(step) for step in range(6)] == pytest.approx([0.08, 0.16, 0.24, 0.32, 0.4, 0.4])


def test_without_a_warm_up_the_first_step_has_the_full_rate() -> None:
    assert rates(recipe(lr=0.4, warmup=0, schedule="Constant"), 5)(0) == 0.4


def test_the_warm_up_multiplies_the_schedule_and_may_outlast_the_training() -> None:
    cosine = rates(recipe(lr=1.0, warmup=4, warmup_from=0.0, schedule="Cosine", epochs=2), 2)
    assert [cosine(step) for step in range(4)] == pytest.approx(
        [0, 0.25 * (1 + 0.5**0.5) / 2, 0.5 * 0.5, 0.75 * (1 - 0.5**0.5) / 2]
    )
    long = rates(recipe(lr=1.0, warmup=100, warmup_from=0.0, schedule="Constant", epochs=2), 2)
    assert long(3) == pytest.approx(0.03)


def test_steps_of_an_epoch_share_its_rate_and_the_drop_comes_with_the_right_step() -> None:
    rate = rates(recipe(lr=0.02, warmup=0, schedule="Step", epochs=12), 7)
    values = [rate(step) for step in range(12 * 7)]
    assert values == pytest.approx([0.02] * 56 + [0.002] * 21 + [0.0002] * 7)
