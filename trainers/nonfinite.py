"""Losses that are no numbers: which, when and on which images; and steps that a recipe lets a training leave out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainers import workers
from trainers.norm import Statistics

SHOWN = 8  # images in a message


class NonFinite(ArithmeticError):
    """A loss became NaN or infinite."""


class Step(NamedTuple):
    """A step of a training, for messages."""

    epoch: int  # from 1
    number: int  # in its epoch, from 1
    ids: Sequence[int]  # of its images, or of those of this worker
    rate: float

    def said(self, name: str, value: object, scale: float | None) -> str:
        """`scale`: what losses are multiplied by in float16; None: by nothing."""
        more = f" and {len(self.ids) - SHOWN} more" if len(self.ids) > SHOWN else ""
        images = f"images {', '.join(map(str, self.ids[:SHOWN]))}{more}"
        scaled = "" if scale is None else f", loss scale {scale:g}"
        return (
            f"{name} became {value} in epoch {self.epoch}, step {self.number} "
            f"({images}; learning rate {self.rate:.3g}{scaled})"
        )


def wrong(losses: Mapping[str, float]) -> tuple[str, float]:
    """Which is no number, and what it is. Of the sum, `loss`, it is the part that went wrong, if one did."""
    found = [(name, value) for name, value in losses.items() if not abs(value) < float("inf")]
    return found[1] if found[0][0] == "loss" and len(found) > 1 else found[0]


class Tolerance:
    """The steps that are left out because a loss or the gradient was no number, up to as many as are allowed.

    Such a step changes neither weights, optimizer, averages nor the statistics of batch norms. To know it costs that
    the device is waited for, twice a step; where no step may be left out, nothing is looked at here.
    """

    def __init__(self, allowed: int) -> None:
        self.allowed, self.skipped = allowed, 0
        self.refused = False  # the losses of this step
        self.statistics: Statistics | None = None  # those of before this step

    def begin(self, task: nn.Module) -> None:
        """Remember the statistics that a step changes before anybody knows what it is."""
        if self.allowed:
            self.statistics = Statistics(task)

    def refuses(self, total: Tensor) -> bool:
        """Whether the sum of a batch's losses, (), is no number: for any of the workers, and so for all."""
        if self.allowed:
            bad = (~torch.isfinite(total.detach())).float()
            self.refused = bool(workers.largest(bad).item())
        return self.refused

    def refuses_gradient(self, learning: Sequence[nn.Parameter], scaler: torch.amp.grad_scaler.GradScaler) -> bool:
        """Whether the gradient, which is the same for all workers, is no number; that of float16 is the scaler's."""
        if not self.allowed or scaler.is_enabled():
            return False
        norms = [p.grad.norm() for p in learning if p.grad is not None]
        return bool(norms) and not bool(torch.isfinite(torch.stack(norms)).all().item())

    def leave_out(self, reason: str) -> str:
        """Forget the step; -> what to say. Raises `NonFinite` if no more may be left out."""
        if self.skipped == self.allowed:
            raise NonFinite(f"{reason}; {self.skipped} steps were left out before, and no more may be")
        self.skipped += 1
        assert self.statistics is not None, "the step has begun"
        self.statistics.put_back()
        return f"a step is left out, the {self.skipped}. of {self.allowed} that may be: {reason}"
