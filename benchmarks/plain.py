"""Distillation losses as one writes them first: masks over whole maps, loops over images and boxes.

Each takes the loss that it says plainly, for its knobs and adapters, and what a loss is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainers.outputs import Outputs, Targets

Plain = Callable[[Any, Outputs, Outputs, Targets], Tensor]


def chosen(targets: Targets) -> Tensor:
    """1 at the positives, 0 elsewhere. -> (B*A,)."""
    mask = torch.zeros(len(targets.valid), device=targets.row.device)
    mask[targets.row] = 1
    return mask


def dense_ld(loss: Any, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
    """Divergences of all edges of all cells, those that are no positives times zero."""
    temperature = loss.temperature
    mine = (student.edge_rows(loss.bins) / temperature).log_softmax(-1)
    taught = (teacher.edge_rows(loss.bins) / temperature).softmax(-1)
    losses = temperature**2 * (taught * (taught.log() - mine)).mean((1, 2))
    scores = student.class_rows().detach().sigmoid().amax(1)
    return loss.weight * (scores * losses * chosen(targets)).sum()


def dense_kd(loss: Any, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
    """Divergences of all cells, level by level, those that are no positives times zero."""
    losses = loss.divergence(student.class_rows(), teacher.class_rows(), temperature=loss.temperature)
    masks, every = chosen(targets), losses.unflatten(0, (targets.images, -1))
    sizes = [level[0, 0].numel() for level in student.cls]
    total = losses.new_zeros(())
    for level, mask in zip(every.split(sizes, 1), masks.unflatten(0, every.shape).split(sizes, 1), strict=True):
        total = total + (level * mask).sum() / mask.sum().clamp(min=1)
    return loss.weight * total


def reshaped_pkd(loss: Any, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
    """Channels first, as rows; mean and deviation one after the other."""

    def standardised(features: Tensor) -> Tensor:
        rows = features.transpose(0, 1).flatten(1)
        rows = (rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True) + 1e-6)
        return rows.unflatten(1, (len(features), *features.shape[2:])).transpose(0, 1)

    losses = [
        (standardised(student.features[level]) - standardised(teacher.features[level])).square().mean() / 2
        for level in loss.levels
    ]
    return loss.weight * sum(losses)
