"""How far a student's features are from its teacher's, everywhere or at some cells."""

from __future__ import annotations

from torch import Tensor

from trainers.distill.soft import full_precision


def cell_errors(student: Tensor, teacher: Tensor) -> Tensor:
    """The squared differences of each cell, or row, summed over the channels. (B, C, ...) twice -> (B, ...)."""
    return (full_precision(student) - full_precision(teacher.detach())).square().sum(1)


def errors_at(student: Tensor, teacher: Tensor, cell: Tensor) -> Tensor:
    """The same at some cells alone: numbers (M,) of the B*H*W, row by row. (B, C, H, W) twice -> (M,)."""
    mine, taught = (x.movedim(1, -1).flatten(0, 2).index_select(0, cell) for x in (student, teacher.detach()))
    return cell_errors(mine, taught)


def where(mask: Tensor) -> Tensor:
    """The numbers of the cells in a mask, or of the rows. (B, H, W) or (R,) bool -> (M,)."""
    return mask.flatten().nonzero().squeeze(1)
