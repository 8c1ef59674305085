"""What the steps of an epoch lose, on average; and what is not finite is found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from trainers import workers
from trainers.clock import Clock
from trainers.nonfinite import NonFinite, Step, wrong


class Meter:
    """Means of the losses of an epoch, kept on the device; looks for non-finite ones every few steps. It can be taken
    up where another was left, by that one's `state`."""

    def __init__(
        self,
        *,
        every: int,
        scale: Callable[[], float | None] = lambda: None,
        left: dict[str, Any] | None = None,
        device: torch.device | str = "cpu",
        clock: Clock | None = None,
    ) -> None:
        """`scale` is asked for the loss scale when something is wrong, and not before: the device has to be waited
        for."""
        self.clock = clock or Clock()
        self.every, self.scale = every, scale
        self.names: list[str] = []
        self.recent: list[Tensor] = []
        self.which: list[Step] = []  # the recent ones
        self.sum: Tensor | None = None
        self.settled = 0  # steps that are in the sum
        self.left_out = 0  # steps that are in no sum
        self.started = self.clock.now()
        if left is not None:
            self.names, self.settled, self.left_out = list(left["names"]), left["settled"], left["left_out"]
            self.recent = [one.to(device) for one in left["recent"]]
            self.which = [Step(*one) for one in left["which"]]
            self.sum = None if left["sum"] is None else left["sum"].to(device)
            self.started -= left["seconds"]

    @property
    def steps(self) -> int:
        """So many of the epoch are over."""
        return self.settled + len(self.recent) + self.left_out

    @property
    def seconds(self) -> float:
        """Since the epoch began, without the time for which it was interrupted."""
        return self.clock.now() - self.started

    def state(self) -> dict[str, Any]:
        """What is to be known to go on after this step; of several workers their means, so all call it."""
        return {
            "names": self.names,
            "recent": [workers.mean(one) for one in self.recent],
            "which": [tuple(one) for one in self.which],
            "sum": None if self.sum is None else workers.mean(self.sum),
            "settled": self.settled,
            "left_out": self.left_out,
            "seconds": self.seconds,
        }

    def add(self, losses: Mapping[str, Tensor], step: Step) -> None:
        """The losses of a step, each (). Raises `NonFinite` when it looks and one is, or one before was, no number."""
        self.names = list(losses)
        self.recent.append(torch.stack(list(losses.values())))
        self.which.append(step)
        if len(self.recent) >= self.every:  # more of them where the state is of another kind of device
            self._settle()

    def leave_out(self) -> None:
        """A step that is over, and counts for nothing."""
        self.left_out += 1

    def _settle(self) -> None:
        values = torch.stack(self.recent).double()
        if not torch.isfinite(values).all():
            row = int((~torch.isfinite(values)).any(1).nonzero()[0])
            name, value = wrong(dict(zip(self.names, values[row].tolist(), strict=True)))
            raise NonFinite(self.which[row].said(name, value, self.scale()))
        self.sum = values.sum(0) if self.sum is None else self.sum + values.sum(0)
        self.settled += len(self.recent)
        self.recent, self.which = [], []

    def means(self) -> dict[str, float]:
        """Of all steps that were added, over all workers. Raises `NonFinite`, also if there were none."""
        if self.recent:
            self._settle()
        if self.sum is None:
            raise NonFinite("every step of an epoch was left out")
        total = workers.mean(self.sum).tolist()
        return {f"train/{name}": value / self.settled for name, value in zip(self.names, total, strict=True)}
