"""Optimizers do what their equations say, and the rate of each step is the one figured by hand."""

from collections.abc import Iterable

import pytest
import torch
from torch import nn

from tests.trainers.stages import recipe
from trainers import optim
from trainers.call import Call, Invalid
from trainers.optim import SGD, AdamW, groups, peak, rates, turn


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


class Layers(nn.Module):
    """A convolution and norms, each with weight and bias, a layer without a bias, and one that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(4)])
        self.plain = nn.Linear(4, 4, bias=False)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(4))
        for parameter in self.parameters():
            parameter.data.fill_(1.0)


def named(layers: Layers, parameters: Iterable[nn.Parameter]) -> list[str]:
    names = {id(parameter): name for name, parameter in layers.named_parameters()}
    return [names[id(parameter)] for parameter in parameters]


def test_all_that_learns_is_one_group_unless_biases_learn_otherwise() -> None:
    layers = Layers()
    found = groups(layers, recipe())
    assert [id(p) for p in found] == [id(p) for p in layers.parameters() if p.requires_grad]
    assert len(SGD(found, 0.1).param_groups) == 1


@pytest.mark.parametrize("knobs", [{"bias_lr": 2.0}, {"bias_decay": 0.0}, {"bias_lr": 2.0, "bias_decay": 0.0}], ids=str)
def test_biases_are_apart_but_for_those_of_norms_and_frozen_ones(knobs: dict[str, float]) -> None:
    layers = Layers()
    rest, biases = SGD(groups(layers, recipe(**knobs)), 0.1).param_groups
    assert named(layers, biases["params"]) == ["conv.bias"]
    every = {name for name, p in layers.named_parameters() if p.requires_grad}
    assert set(named(layers, rest["params"])) == every - {"conv.bias"}
    assert len(rest["params"]) == len(every) - 1 and "norms.1.bias" in every


def test_biases_take_steps_of_their_own_rate_and_decay() -> None:
    layers = Layers()
    optimizer = SGD(groups(layers, recipe(bias_lr=2.0, bias_decay=0.5)), 0.1, momentum=0.9, weight_decay=0.01)
    weight, bias, norm = 1.0, 1.0, 1.0
    speeds = [0.0, 0.0, 0.0]
    for rate in (0.1, 0.05):
        turn(optimizer, rate)
        for parameter in layers.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)
        optimizer.step()
        speeds = [
            0.9 * v + 0.5 + d * w for v, d, w in zip(speeds, (0.01, 0.005, 0.01), (weight, bias, norm), strict=True)
        ]
        weight, bias, norm = weight - rate * speeds[0], bias - 2 * rate * speeds[1], norm - rate * speeds[2]
    assert layers.conv.weight[0, 0].item() == pytest.approx(weight)
    assert layers.conv.bias is not None and layers.conv.bias[0].item() == pytest.approx(bias)
    assert layers.norms[1].bias[0].item() == pytest.approx(norm)
    assert layers.frozen.bias[0].item() == 1


def test_adamw_decays_biases_by_their_part() -> None:
    layers = Layers()
    optimizer = AdamW(groups(layers, recipe(bias_lr=2.0, bias_decay=0.5)), 0.1, weight_decay=0.5)
    turn(optimizer, 0.1)
    for parameter in layers.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    optimizer.step()
    # a step of the rate after a decay of 0.1 * 0.5; of 0.2 after 0.2 * 0.25
    assert layers.conv.weight[0, 0].item() == pytest.approx(0.95 - 0.1, abs=1e-5)
    assert layers.conv.bias is not None and layers.conv.bias[0].item() == pytest.approx(0.95 - 0.2, abs=1e-5)


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_what_an_optimizer_remembered_is_no_further_part_of_a_part(kind: type[SGD] | type[AdamW]) -> None:
    made = [kind(groups(Layers(), recipe(bias_lr=2.0, bias_decay=0.5)), 0.1, weight_decay=0.5) for _ in range(2)]
    made[1].load_state_dict(made[0].state_dict())
    for optimizer in made:
        turn(optimizer, 0.3)
        assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.25]
        assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.6]


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


def test_the_largest_rate_is_found_also_of_a_long_training() -> None:
    assert peak(recipe(lr=0.4, warmup=100, warmup_from=0.0, schedule="Constant", epochs=2), 2) == pytest.approx(0.03)
    assert peak(recipe(lr=0.4, warmup=0, schedule="Step", epochs=12), 7) == 1
    assert peak(recipe(lr=0.4, warmup=500, schedule="OneCycle", epochs=12), 7393) == pytest.approx(1, abs=1e-4)
