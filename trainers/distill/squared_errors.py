"""How far a student's features are from its teacher's, everywhere or at some cells."""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

from trainers.distill.soft import full_precision


def cell_errors(student: Tensor, teacher: Tensor) -> Tensor:
    """The squared differences of each cell, or row, summed over the channels. (B, C, ...) twice -> (B, ...)."""
    return (full_precision(student) - full_precision(teacher.detach())).square().sum(1)


def errors_at(student: Tensor, teacher: Tensor, cell: Tensor) -> Tensor:
    """The same at some cells alone: numbers (M,) of the B*H*W, row by row. (B, C, H, W) twice -> (M,)."""
    number = student.shape[-2] * student.shape[-1]
    image, place = cell // number, cell % number
    # Rows of a flattened map would be a copy of the whole map.
    mine, taught = (x.flatten(2)[image, :, place] for x in (student, teacher.detach()))  # (M, C)
    return cell_errors(mine, taught)


def errors_by_level(student: list[Tensor], teacher: list[Tensor], cell: Tensor) -> list[Tensor]:
    """The same of pyramids: numbers (M,) of the B*A cells, image by image, level after level, row by row.

    L of (B, C, H, W) twice -> L of (M_l,), M in all. How many lie on each level is waited for, once.
    """
    *ends, every = accumulate(x.shape[2] * x.shape[3] for x in student)
    image, place = cell // every, cell % every
    level = torch.zeros_like(cell)
    for end in ends:
        level += place >= end
    counts = (level[:, None] == torch.arange(len(student), device=cell.device)).sum(0).tolist()
    errors = []
    here = level.argsort(stable=True).split(counts)
    for mine, taught, index, start, end in zip(student, teacher, here, [0, *ends], [*ends, every], strict=True):
        errors.append(errors_at(mine, taught, image[index] * (end - start) + place[index] - start))
    return errors


def where(mask: Tensor) -> Tensor:
    """The numbers of the cells in a mask, or of the rows. (B, H, W) or (R,) bool -> (M,)."""
    return mask.flatten().nonzero().squeeze(1)
