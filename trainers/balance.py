"""How much a loss counts that is to weigh as much as detection does: `alpha: auto`.

Each loss's gradient at the student's features is measured in the first batches that have objects, and so is that of
the detection losses; what the loss is multiplied by from then on is a ratio of the medians. Until then it only looks:
a guess from the first batch or two may be off by far (a loss's own region may be nearly empty there), and a few batches
without it cost nothing. It is Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep
Multitask Networks", ICML 2018, https://arxiv.org/abs/1711.02257, done once: the weight stays as it is found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from trainers import workers
from trainers.call import Auto, Term
from trainers.task import Lesson, Losses
from trainers.teaching import time_of

LOOKS = 10  # batches in which a loss is measured,
PART = 10  # but no more than one in so many of those in which it is to count


Gradients = Callable[[Tensor, Sequence[Tensor], torch.amp.grad_scaler.GradScaler], list[Tensor]]


class Balance:
    """The alphas that are found in training. `ratios` and `looks` say by a loss's name what part of the detection
    losses' gradient its own is to be, and in how many batches both are measured."""

    def __init__(self, ratios: Mapping[str, float], looks: Mapping[str, int]) -> None:
        self.ratios, self.looks = dict(ratios), dict(looks)
        self.norms: dict[str, list[list[float]]] = {name: [] for name in ratios}  # [detection, loss] of each batch
        self.alphas: dict[str, float] = {}

    def state(self) -> dict[str, Any]:
        return {"norms": {name: list(pairs) for name, pairs in self.norms.items()}, "alphas": dict(self.alphas)}

    def restore(self, state: dict[str, Any]) -> None:
        self.norms, self.alphas = dict(state["norms"]), dict(state["alphas"])

    def applied(self, lesson: Lesson | None) -> Lesson | None:
        """The lesson in which each loss counts as it is balanced, and is only looked at as long as that is unknown."""
        if lesson is None or not self.ratios:
            return lesson
        said = lesson.strength or {}
        known = {name: alpha * said.get(name, 1.0) for name, alpha in self.alphas.items()}
        open_ones = frozenset(self.ratios.keys() - self.alphas.keys())
        return lesson._replace(strength={**said, **known}, looked_at=open_ones)

    def look(
        self, losses: Losses, scaler: torch.amp.grad_scaler.GradScaler, gradients_of: Gradients | None = None
    ) -> None:
        """Measure what the task was asked to look at, by `gradients_of` or `gradients`; all workers do so together.

        Where: at the pyramid that the student's head reads, all levels together, or at the backbone's maps for a loss
        that reads nothing later. A batch without objects says nothing, nor does one in which a gradient is zero, or is
        not finite because float16 was scaled too far.
        """
        looks = losses.looks
        if looks is None:
            return
        measure = gradients_of or gradients
        early = [measure(loss, looks.features, scaler) for loss in looks.losses.values()]
        # Some worker's part of the batch may have nothing for a loss, but all measure it at the same place.
        depend = workers.mean(looks.detection.new_tensor([float(len(one)) for one in early])).tolist()
        squares = [losses.positives.to(looks.detection.device, torch.float64)]
        for loss, own, depends in zip(looks.losses.values(), early, depend, strict=True):
            at = looks.features if depends else looks.maps
            both = measure(looks.detection, at, scaler), own if depends else measure(loss, at, scaler)
            squares += [sum((g.double().square().sum() for g in one), 0 * squares[0]) for one in both]
        # Scaled as in training, since without it float16 may have none; the scale may change from batch to batch.
        positives, *found = (workers.mean(torch.stack(squares)) / scaler.get_scale() ** 2).tolist()
        if not positives:
            return
        for name, *pair in zip(looks.losses, found[::2], found[1::2], strict=True):
            # Of a batch that is shared, each worker's gradient is so many times that of its part of the whole.
            norms = [(square / workers.count()) ** 0.5 for square in pair]
            if all(0 < norm < float("inf") for norm in norms):
                self.norms[name].append(norms)
            if len(self.norms[name]) == self.looks[name]:
                detection, loss = (median(column) for column in zip(*self.norms[name], strict=True))
                self.alphas[name] = self.ratios[name] * detection / loss


def balanced(terms: Mapping[str, Term], *, steps: int, epochs: int) -> Balance:
    """Of the losses by name those whose alpha is to be found, in a training of so many epochs of so many steps."""
    ratios, looks = {}, {}
    for name, term in terms.items():
        if isinstance(term.alpha, Auto):
            start, end = time_of(term, steps=steps, epochs=epochs)
            ratios[name], looks[name] = term.alpha.auto, max(1, min(LOOKS, (end - start) // PART))
    return Balance(ratios, looks)


def gradients(loss: Tensor, at: Sequence[Tensor], scaler: torch.amp.grad_scaler.GradScaler) -> list[Tensor]:
    """Of a loss at those of the tensors on which it depends; the graph is kept."""
    at = [x for x in at if x.requires_grad]
    if not at or not loss.requires_grad:
        return []
    found = torch.autograd.grad(scaler.scale(loss), at, retain_graph=True, allow_unused=True)
    return [one for one in found if one is not None]
