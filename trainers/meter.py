"""What the steps of an epoch lose, on average; and what is not finite is found."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from trainers import workers


class NonFinite(ArithmeticError):
    """A loss became NaN or infinite."""


class Meter:
    """Means of the losses of an epoch, kept on the device; looks for non-finite ones every few steps. It can be taken
    up where another was left, by that one's `state`."""

    def __init__(
        self, *, every: int, epoch: int, left: dict[str, Any] | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self.every = every
        self.epoch = epoch
        self.names: list[str] = []
        self.recent: list[Tensor] = []
        self.sum: Tensor | None = None
        self.settled = 0  # steps that are in the sum
        self.started = time.perf_counter()
        if left is not None:
            self.names, self.settled = list(left["names"]), left["settled"]
            self.recent = [one.to(device) for one in left["recent"]]
            self.sum = None if left["sum"] is None else left["sum"].to(device)
            self.started -= left["seconds"]

    @property
    def steps(self) -> int:
        """So many of the epoch are made."""
        return self.settled + len(self.recent)

    @property
    def seconds(self) -> float:
        """Since the epoch began, without the time for which it was interrupted."""
        return time.perf_counter() - self.started

    def state(self) -> dict[str, Any]:
        """What is to be known to go on after this step; of several workers their means, so all call it."""
        return {
            "names": self.names,
            "recent": [workers.mean(one) for one in self.recent],
            "sum": None if self.sum is None else workers.mean(self.sum),
            "settled": self.settled,
            "seconds": self.seconds,
        }

    def add(self, losses: dict[str, Tensor]) -> None:
        self.names = list(losses)
        self.recent.append(torch.stack(list(losses.values())))
        if len(self.recent) == self.every:
            self._settle()

    def _settle(self) -> None:
        values = torch.stack(self.recent).double()
        if not torch.isfinite(values).all():
            step, column = (~torch.isfinite(values)).nonzero()[0].tolist()
            # The sum comes first; name the part of it that went wrong.
            wrong = [n for n, v in zip(self.names, values[step].tolist(), strict=True) if not abs(v) < float("inf")]
            name = wrong[1] if wrong[0] == "loss" and len(wrong) > 1 else self.names[column]
            value = values[step, self.names.index(name)].item()
            raise NonFinite(f"{name} became {value} in epoch {self.epoch}, step {self.settled + step + 1}")
        self.sum = values.sum(0) if self.sum is None else self.sum + values.sum(0)
        self.settled += len(self.recent)
        self.recent = []

    def means(self) -> dict[str, float]:
        if self.recent:
            self._settle()
        assert self.sum is not None, "an epoch has at least one step"
        total = workers.mean(self.sum).tolist()
        return {f"train/{name}": value / self.settled for name, value in zip(self.names, total, strict=True)}
