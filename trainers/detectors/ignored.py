"""What lies on something that is neither to be found nor a mistake: a crowd, a difficult object, a group.

Nothing is learnt there, as in mmdetection's assigners with `ignore_iof_thr`; but what answers for a real box still
learns, and of what reaches beyond its image only the part within counts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.outputs import Truth

COVERED = 0.5  # the part of a location's box that lies on one such object


def on_ignored(boxes: Tensor, ignored: Tensor, size: tuple[int, int]) -> Tensor:
    """Which boxes (R, 4) lie on one of the ignored objects (M, 4) of an image of (height, width). -> (R,) bool."""
    from torchvision.ops import clip_boxes_to_image  # seconds to import

    if not len(ignored):
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    boxes = clip_boxes_to_image(boxes, size)
    low = torch.maximum(boxes[:, None, :2], ignored[:, :2])
    high = torch.minimum(boxes[:, None, 2:], ignored[:, 2:])
    shared = (high - low).clamp(min=0).prod(2).amax(1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return (area > 0) & (shared >= COVERED * area)


def neither(boxes: Tensor, truth: Truth, positive: Tensor, points: Tensor | None = None) -> Tensor | None:
    """Which locations learn no class, because they lie on something ignored and answer for no box.

    boxes (A, 4): those of the locations in every image; positive (P,): rows that answer for a box; points (A, 2): of
    locations that are rather points, which lie on whatever they are in, be it smaller than their boxes. -> (B*A,) bool,
    or None if nothing is to be ignored.
    """
    if truth.ignored is None:
        return None
    found = torch.cat(
        [on_ignored(boxes, ignored, size) for ignored, size in zip(truth.ignored, truth.sizes, strict=True)]
    )
    if points is not None:
        found = found | torch.cat([_within(points, ignored) for ignored in truth.ignored])
    return found.index_fill(0, positive, False)


def _within(points: Tensor, boxes: Tensor) -> Tensor:
    """Which points (A, 2) lie in one of the boxes (M, 4). -> (A,) bool."""
    return ((points[:, None] >= boxes[:, :2]) & (points[:, None] < boxes[:, 2:])).all(2).any(1)
