"""How far boxes are from those that they should be: 1 - GIoU and 1 - CIoU.

The figures are those of torchvision.ops, whose masks, used as indices, have the host wait for a GPU ten times a step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPS = 1e-7


def giou_loss(predicted: Tensor, box: Tensor) -> Tensor:
    """1 - GIoU of boxes in pairs. (P, 4) twice -> (P,), 0..2.

    Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019, https://arxiv.org/abs/1902.09630
    """
    shared, union = _shared(predicted, box)
    around = _area(*_around(*_corners(predicted), *_corners(box)))
    return 1 - (shared / (union + EPS) - (around - union) / (around + EPS))


def ciou_loss(predicted: Tensor, box: Tensor) -> Tensor:
    """1 - CIoU of boxes in pairs; its factor of the aspect ratios has no gradient. (P, 4) twice -> (P,).

    Zheng et al., "Distance-IoU Loss", AAAI 2020, https://arxiv.org/abs/1911.08287
    """
    shared, union = _shared(predicted, box)
    iou = shared / (union + EPS)
    (low, high), (real_low, real_high) = _corners(predicted), _corners(box)
    start, end = _around(low, high, real_low, real_high)
    diagonal = (end - start).square().sum(-1) + EPS
    apart = ((high + low) / 2 - (real_low + real_high) / 2).square().sum(-1)

    angle = _slope(box) - _slope(predicted)
    aspect = 4 / math.pi**2 * angle.square()
    factor = (aspect / (1 - iou + aspect + EPS)).detach()
    return 1 - iou + apart / diagonal + factor * aspect


def _corners(box: Tensor) -> tuple[Tensor, Tensor]:
    """(P, 4) -> (P, 2) twice: the least x and y, and the largest."""
    return box[..., :2], box[..., 2:]


def _area(low: Tensor, high: Tensor) -> Tensor:
    """Of boxes between corners (P, 2). -> (P,)"""
    width, height = (high - low).unbind(-1)
    return width * height


def _shared(predicted: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union of boxes in pairs. (P, 4) twice -> (P,) twice."""
    (low, high), (real_low, real_high) = _corners(predicted), _corners(box)
    start, end = torch.maximum(low, real_low), torch.minimum(high, real_high)
    shared = _area(start, end).where((end > start).all(-1), 0)
    return shared, _area(low, high) + _area(real_low, real_high) - shared


def _around(low: Tensor, high: Tensor, real_low: Tensor, real_high: Tensor) -> tuple[Tensor, Tensor]:
    """The corners of the smallest boxes around two. (P, 2) each -> (P, 2) twice."""
    return torch.minimum(low, real_low), torch.maximum(high, real_high)


def _slope(box: Tensor) -> Tensor:
    """The angle whose tangent is width by height. (P, 4) -> (P,)"""
    low, high = _corners(box)
    width, height = (high - low).unbind(-1)
    return (width / height).atan()
