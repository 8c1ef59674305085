"""Which of an image's boxes each anchor answers for, by overlap: mmdetection's MaxIoUAssigner.

Ren et al., "Faster R-CNN", NeurIPS 2015, https://arxiv.org/abs/1506.01497, section 3.1.2; the details, a least overlap
and what happens when boxes share their best anchor, are mmdetection's.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BACKGROUND, IGNORED = -1, -2  # these numbers are those of torchvision's Matcher too


class MaxIoU(NamedTuple):
    """To be called in place of torchvision's Matcher: overlaps (N, A) of N boxes and A anchors -> (A,).

    An anchor answers for the box that it overlaps most, if by an IoU of `positive`; below `negative` it is BACKGROUND,
    between them IGNORED. But the anchors that overlap a box most of all, if by `least`, answer for that box, or for
    the last of several such boxes; torchvision gives them to the box that they overlap most, and asks for no least.
    An anchor that must not answer overlaps nothing.
    """

    positive: float
    negative: float
    least: float = 0.0

    def __call__(self, overlap: Tensor) -> Tensor:
        """-> (A,): 0..N-1, BACKGROUND or IGNORED."""
        if not len(overlap):
            return torch.full(overlap.shape[1:], BACKGROUND, device=overlap.device)
        iou, number = overlap.max(dim=0)
        number = number.masked_fill(iou < self.positive, IGNORED).masked_fill(iou < self.negative, BACKGROUND)

        most = overlap.amax(1, keepdim=True)
        # mmdetection, asking for no least, gives every anchor to a box that no anchor overlaps.
        best = (overlap == most) & (most >= self.least) & (most > 0)
        box = torch.arange(len(overlap), device=overlap.device)[:, None]
        last = box.where(best, -1).amax(0)
        return last.where(last >= 0, number)
