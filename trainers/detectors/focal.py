"""The losses of GFL: classification and quality as one, and boxes as distributions of their edges.

Li et al., "Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense Object
Detection", NeurIPS 2020, https://arxiv.org/abs/2006.04388
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

BETA = 2.0  # of the quality focal loss


def quality_focal_loss(logits: Tensor, quality: Tensor) -> Tensor:
    """|q - sigmoid(z)|^beta BCE(z, q), summed over the classes: equation 4. (R, K), q of 0..1 (R, K) -> (R,).

    The first factor has a gradient too.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return ((quality - logits.sigmoid()).abs().pow(BETA) * cross_entropy).sum(1)


def distribution_focal_loss(logits: Tensor, distance: Tensor) -> Tensor:
    """Cross entropy with the two bins around the distance, the nearer one weighing more: equation 6.

    (..., S), distances of 0 <= y < S - 1 in bins (...) -> (...).
    """
    left = distance.floor()
    right = distance - left
    both = torch.stack([left, left + 1], dim=-1).long()
    log_p = logits.log_softmax(-1).gather(-1, both)
    return -(log_p[..., 0] * (1 - right) + log_p[..., 1] * right)


def integral(logits: Tensor) -> Tensor:
    """The expected bin of each distribution. (..., S) -> (...), 0..S-1."""
    bins = torch.arange(logits.shape[-1], device=logits.device, dtype=logits.dtype)
    return logits.softmax(-1) @ bins
