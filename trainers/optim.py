"""Optimizers by name, and the rate of each step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from trainers import schedules
from trainers.call import Fraction, NonNegative
from trainers.spec import Recipe

__all__ = ["SGD", "AdamW"]  # what a study may name


class SGD(torch.optim.SGD):
    """Stochastic gradient descent; the defaults are those of the detection field."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        *,
        momentum: Fraction = 0.9,
        weight_decay: NonNegative = 1e-4,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters, lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, fused=True)
        if momentum:
            # Where float16 overflows in the first step, torch's fused kernel would leave them as the memory was.
            for parameter in (p for group in self.param_groups for p in group["params"]):
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


class AdamW(torch.optim.AdamW):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        *,
        betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999),
        weight_decay: NonNegative = 0.05,
    ) -> None:
        super().__init__(parameters, lr, betas=betas, weight_decay=weight_decay, fused=True)


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
