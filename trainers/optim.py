"""Optimizers by name, and the rate of each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim.optimizer import ParamsT

from trainers import schedules
from trainers.call import Fraction, NonNegative
from trainers.spec import Recipe

__all__ = ["SGD", "AdamW"]  # what a study may name


class SGD(torch.optim.SGD):
    """Stochastic gradient descent; the defaults are those of the detection field."""

    def __init__(
        self,
        parameters: ParamsT,
        lr: float,
        *,
        momentum: Fraction = 0.9,
        weight_decay: NonNegative = 1e-4,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters, lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, fused=True)
        decay_apart(self)
        if momentum:
            # Where float16 overflows in the first step, torch's fused kernel would leave them as the memory was.
            for parameter in (p for group in self.param_groups for p in group["params"]):
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


class AdamW(torch.optim.AdamW):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    def __init__(
        self,
        parameters: ParamsT,
        lr: float,
        *,
        betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999),
        weight_decay: NonNegative = 0.05,
    ) -> None:
        super().__init__(parameters, lr, betas=betas, weight_decay=weight_decay, fused=True)
        decay_apart(self)


NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)
LOOKS = 1000  # steps of a training of which the rate is looked at


def groups(network: nn.Module, recipe: Recipe) -> list[nn.Parameter] | list[dict[str, Any]]:
    """All of it that learns; where the recipe has biases learn otherwise, these apart, and how they do.

    The biases of norms are none of them, as in mmdetection.
    """
    learning = [p for p in network.parameters() if p.requires_grad]
    if recipe.bias_lr == recipe.bias_decay == 1:
        return learning
    layers = (layer for layer in network.modules() if not isinstance(layer, NORMS))
    biases = {id(layer.bias) for layer in layers if isinstance(getattr(layer, "bias", None), nn.Parameter)}
    return [
        {"params": [p for p in learning if id(p) not in biases], "rate": 1.0, "decay": 1.0},
        {"params": [p for p in learning if id(p) in biases], "rate": recipe.bias_lr, "decay": recipe.bias_decay},
    ]


def decay_apart(optimizer: torch.optim.Optimizer) -> None:
    """Give each group that has one its own `decay`, a part of the optimizer's."""
    for group in optimizer.param_groups:
        group["weight_decay"] *= group.get("decay", 1.0)


def turn(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Have it take its next step at this rate, and groups with a `rate` at so many times it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate", 1.0)


def aligned(optimizer: torch.optim.Optimizer) -> None:
    """Lay what an optimizer remembers out as its parameters are, in place: its fused kernels read both side by side.

    It may come from a machine on which they were laid out differently.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value).detach()


def rates(recipe: Recipe, steps: int) -> Callable[[int], float]:
    """The learning rate of the n-th step (from 0) of a training with so many steps an epoch.

    The schedule's rate, times a linear warm-up from `warmup_from` over the first `warmup` steps.
    """
    schedule = recipe.schedule.of(schedules)

    def rate(step: int) -> float:
        factor: float = schedule(step / steps, recipe.epochs)
        if step < recipe.warmup:
            factor *= recipe.warmup_from + (1 - recipe.warmup_from) * step / recipe.warmup
        return recipe.lr * factor

    return rate


def peak(recipe: Recipe, steps: int) -> float:
    """The largest rate of a training with so many steps an epoch, in parts of `lr`; looked at in a thousand places."""
    rate, total = rates(recipe, steps), recipe.epochs * steps
    return max(rate(step) for step in range(0, total, max(1, total // LOOKS))) / recipe.lr
