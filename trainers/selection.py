"""Which epoch's weights a training keeps: the last one's, or those of the best on the validation images."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from trainers.spec import Best, Recipe


class Selection:
    """The epoch that is kept so far, counted from 1, what was measured of it, and its weights.

    Nothing where the last epoch is kept, whatever it scores. Of equal scores the first is kept.
    """

    def __init__(self, recipe: Recipe, *, score: str) -> None:
        self.selects = recipe.select != "last"
        self.by = recipe.select.best if isinstance(recipe.select, Best) else score  # without val/
        self.epoch: int | None = None
        self.metrics: dict[str, float] = {}
        self.weights: dict[str, Tensor] = {}

    def offer(self, epoch: int, metrics: dict[str, float], product: nn.Module) -> None:
        """Keep this epoch, measured just now, if it is better than all before."""
        if not self.selects:
            return
        name = f"val/{self.by}"
        if self.epoch is None or above(metrics[name], self.metrics[name]):
            self.epoch, self.metrics = epoch, metrics
            self.weights = kept(product)

    def state(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "metrics": self.metrics, "weights": self.weights}

    def restore(self, state: dict[str, Any]) -> None:
        self.epoch, self.metrics, self.weights = state["epoch"], state["metrics"], state["weights"]


def above(score: float, other: float) -> bool:
    """Whether it is the higher one; any number is higher than none."""
    return score > other or (math.isnan(other) and not math.isnan(score))


def kept(product: nn.Module) -> dict[str, Tensor]:
    """A copy of a detector's weights on the CPU."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in product.state_dict().items()}
