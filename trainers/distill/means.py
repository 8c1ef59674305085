"""Sums and means of a loss: what they are divided by, so that several workers give what one gives with the whole batch.

DDP averages gradients over the workers, so what is divided by a count on the average worker is a mean over all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers import workers
from trainers.distill.soft import full_precision
from trainers.outputs import Outputs


def mean_count(count: Tensor | int, like: Tensor) -> Tensor:
    """How many images, cells or regions there are on the average worker; any shape, in the full precision of `like`.

    Never 0, so that one can divide by it: n workers with one between them have 1/n each. Weights may be counted
    instead, if those on any worker come to 1 at least or to nothing.
    """
    wide = torch.promote_types(like.dtype, torch.float32)
    # A number of Python's is filled in on the device; a copy of it would be waited for.
    count = count.to(wide) if isinstance(count, Tensor) else like.new_full((), count, dtype=wide)
    return workers.mean(count).clamp(min=1 / workers.count())


def mean_weight(weights: Tensor) -> Tensor:
    """What weights (R,), which may be as small as they like, come to on the average worker, and never 0. -> ()."""
    return workers.mean(weights.sum()).clamp(min=1e-6)


def sum_of_means(losses: Tensor, group: Tensor, *, groups: int) -> Tensor:
    """The mean of each group over all workers, summed over the groups. (P,), (P,) of 0..groups-1 -> ().

    Rows are divided before they are summed, so that an empty group is no 0 / 0.
    """
    sizes = workers.mean(losses.new_zeros(groups).index_add(0, group, torch.ones_like(losses)))
    return (losses / sizes[group]).sum()


def sum_of_list_means(groups: list[Tensor]) -> Tensor:
    """The same of groups that are apart already. G of (P_g,) -> ()."""
    sizes = mean_count(torch.stack([losses.new_full((), len(losses)) for losses in groups]), groups[0])
    return (torch.stack([losses.sum() for losses in groups]) / sizes).sum()


def nothing(x: Tensor) -> Tensor:
    """() An exact zero that gives x a gradient of zero, in float32 or wider. x has a dimension at least."""
    return full_precision(x[:0]).sum()


def total_of(parts: list[Tensor], student: Outputs) -> Tensor:
    """The sum of the parts of a loss, each (), or `nothing` if it has none."""
    return torch.stack(parts).sum() if parts else nothing(student.features[0])
