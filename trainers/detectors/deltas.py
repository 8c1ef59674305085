"""Boxes as four deltas from their anchors: how far the centre lies away in the anchor's sides, and logarithms of sides.

Girshick et al., "Rich feature hierarchies for accurate object detection and semantic segmentation", CVPR 2014,
https://arxiv.org/abs/1311.2524, appendix C. The figures are those of torchvision's BoxCoder, which hands numbers to a
GPU in every step and has the host wait for each.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

LARGEST = math.log(1000 / 16)  # of a side's logarithm, so that an exponential stays finite


class Deltas(NamedTuple):
    """What a head learns are the deltas, those of centres times `centre` and those of sides times `side`."""

    centre: float = 1.0
    side: float = 1.0

    def encode(self, box: Tensor, anchor: Tensor) -> Tensor:
        """The deltas from anchors to boxes, in pairs. (R, 4) twice -> (R, 4): x, y, width, height."""
        (middle, sides), (start, unit) = _centred(box), _centred(anchor)
        return torch.cat([self.centre * (middle - start) / unit, self.side * (sides / unit).log()], dim=1)

    def decode(self, deltas: Tensor, anchor: Tensor) -> Tensor:
        """The boxes that deltas (R, 4) make of anchors (R, 4). -> (R, 4), of the deltas' type."""
        start, unit = _centred(anchor.to(deltas.dtype))
        middle = deltas[:, :2] / self.centre * unit + start
        half = 0.5 * ((deltas[:, 2:] / self.side).clamp(max=LARGEST).exp() * unit)
        return torch.cat([middle - half, middle + half], dim=1)


def _centred(box: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and sides of boxes. (R, 4) -> (R, 2) twice."""
    sides = box[:, 2:] - box[:, :2]
    return box[:, :2] + 0.5 * sides, sides
