"""How far a student's features are from its teacher's at some cells, and how many cells there are on all workers."""

from __future__ import annotations

import torch
from torch import Tensor

from trainers import workers
from trainers.distill.soft import full_precision
from trainers.outputs import Outputs


def cell_errors(student: Tensor, teacher: Tensor) -> Tensor:
    """The squared differences of each cell, summed over the channels. (B, C, H, W) twice -> (B, H, W)."""
    return (full_precision(student) - full_precision(teacher.detach())).square().sum(1)


def errors_at(student: Tensor, teacher: Tensor, cell: Tensor) -> Tensor:
    """The same at some cells alone: numbers (M,) of the B*H*W, row by row. (B, C, H, W) twice -> (M,)."""
    mine, taught = (x.movedim(1, -1).flatten(0, 2).index_select(0, cell) for x in (student, teacher.detach()))
    return (full_precision(mine) - full_precision(taught)).square().sum(1)


def where(mask: Tensor) -> Tensor:
    """The numbers of the cells in a mask. (B, H, W) bool -> (M,)."""
    return mask.flatten().nonzero().squeeze(1)


def mean_count(count: Tensor, like: Tensor) -> Tensor:
    """How many cells or regions there are on the average worker; any shape, in the full precision of `like`.

    Never 0, so that one can divide by it: n workers with one between them have 1/n each. Weights may be counted
    instead, if those on any worker come to 1 at least or to nothing.
    """
    count = count.to(torch.promote_types(like.dtype, torch.float32))
    return workers.mean(count).clamp(min=1 / workers.count())


def nothing(student: Outputs) -> Tensor:
    """() An exact zero that gives the student a gradient of zero, in float32 or wider."""
    return full_precision(student.features[0].flatten()[:0]).sum()


def total_of(parts: list[Tensor], student: Outputs) -> Tensor:
    """The sum of the parts of a loss, each (), or `nothing` if it has none."""
    return torch.stack(parts).sum() if parts else nothing(student)
