"""ATSS: each box finds its own threshold between positives and negatives.

Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample
Selection", CVPR 2020, https://arxiv.org/abs/1912.02424
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.detectors.anchors import Anchors, paired_iou

MARGIN = 0.01  # pixels that a centre must lie inside a box


def candidates(anchors: Anchors, valid: Tensor, boxes: Tensor, *, nearest: int = 9) -> tuple[Tensor, Tensor]:
    """The anchors of each level that are nearest to each box, centre to centre.

    valid (N, A): the cells of the image that each box is in; boxes (N, 4). -> the numbers (N, M) of these
    anchors, M over all levels, and whether each is valid: a level may have too few that are.
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    far = (anchors.centre - centre[:, None]).square().sum(-1).masked_fill(~valid, torch.inf)  # (N, A)
    numbers, start = [], 0
    for level in far.split(anchors.cells, dim=1):
        number = level.topk(min(nearest, level.shape[1]), dim=1, largest=False, sorted=False).indices
        numbers.append(number + start)
        start += level.shape[1]
    number = torch.cat(numbers, dim=1)
    return number, valid.gather(1, number)


def thresholds(iou: Tensor, real: Tensor) -> Tensor:
    """Mean plus unbiased standard deviation of the IoUs of each box's real candidates. (N, M) twice -> (N,).

    A single candidate has no deviation, and so is its own threshold.
    """
    count = real.sum(1)
    mean = (iou * real).sum(1) / count
    variance = ((iou - mean[:, None]).square() * real).sum(1) / (count - 1).clamp(min=1)
    return mean + variance.sqrt()


def assign(
    anchors: Anchors, valid: Tensor, boxes: Tensor, image: Tensor, *, nearest: int = 9
) -> tuple[Tensor, Tensor, Tensor]:
    """Which anchors answer for which box, over a whole batch.

    valid (B, A); boxes (N, 4) of all images, each with the number (N,) of its image. -> rows (P,) as
    `Outputs.class_rows` counts them, rising; the number (P,) of the box that each row answers for; the IoU
    threshold (N,) of each box. A box may get no row. A row that several boxes want goes to the one that it
    overlaps most, the first of equals.
    """
    number, real = candidates(anchors, valid[image], boxes, nearest=nearest)
    iou = paired_iou(anchors.box[number], boxes[:, None])  # (N, M)
    threshold = thresholds(iou, real)

    centre = anchors.centre[number]
    depth = torch.cat([centre - boxes[:, None, :2], boxes[:, None, 2:] - centre], dim=-1).amin(-1)
    positive = real & (iou >= threshold[:, None]) & (depth > MARGIN)

    # All candidates, of which only some are positive: how many, the host would have to wait for.
    row = (image[:, None] * valid.shape[1] + number).flatten()
    overlap, positive = iou.flatten(), positive.flatten()
    most = overlap.new_zeros(valid.numel()).scatter_reduce(0, row, overlap.where(positive, 0), "amax")
    box = torch.arange(len(boxes), device=row.device).repeat_interleave(number.shape[1], output_size=len(row))
    box = box.masked_fill(~positive | (overlap < most[row]), len(boxes))  # loses to every real box
    owner = box.new_full((valid.numel(),), len(boxes)).scatter_reduce(0, row, box, "amin")
    row = (owner < len(boxes)).nonzero().squeeze(1)
    return row, owner[row], threshold
