"""What MimicDet's heads learn beside classes: boxes from the truth, and the S-head to speak as the T-head does.

Lu et al., "MimicDet: Bridging the Gap Between One-Stage and Two-Stage Object Detection", ECCV 2020,
https://arxiv.org/abs/2009.11528, sections 3.3 and 3.4.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from trainers.detectors.deltas import Deltas
from trainers.detectors.mimicdet_proposals import Proposals


def box_loss(deltas: Tensor, proposals: Proposals, number: Tensor, coder: Deltas) -> Tensor:
    """The L1 of deltas (T, 4) that `coder` decodes, summed over the positives among these proposals (T,). -> ()."""
    positive = proposals.positive[number].nonzero().squeeze(1)
    real = number[positive]
    wanted = coder.encode(proposals.box[real], proposals.refined[real])
    return (deltas[positive] - wanted).abs().sum()


def dissimilarity(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine of each pair. (M, C) twice -> (M,), 0..2."""
    return 1 - F.cosine_similarity(student, teacher, dim=1, eps=1e-6)
