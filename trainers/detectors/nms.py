"""From dense predictions to the few boxes that are kept."""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.detectors.handed import handed
from trainers.outputs import Detections


def best_pairs(logits: Tensor, valid: Tensor, cells: tuple[int, ...], *, top_k: int) -> tuple[Tensor, ...]:
    """The `top_k` best pairs of cell and class of each level.

    Class logits (B, A, K), valid cells (B, A), how many cells each level has. -> scores, cells and classes,
    each (B, M). Pairs in the padding score 0.
    """
    classes = logits.shape[2]
    values, indices, start = [], [], 0
    for level in logits.masked_fill(~valid[:, :, None], -torch.inf).split(cells, dim=1):
        level = level.flatten(1)
        best = level.topk(min(top_k, level.shape[1]), dim=1, sorted=False)
        values.append(best.values)
        indices.append(best.indices + start)
        start += level.shape[1]
    index = torch.cat(indices, dim=1)
    return torch.cat(values, dim=1).sigmoid(), index // classes, index % classes


def keep_best(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    sizes: list[tuple[int, int]],
    *,
    score_threshold: float,
    nms_iou: float,
    max_detections: int,
) -> list[Detections]:
    """Clip to the images, suppress class by class, keep the best. (B, M, 4), (B, M), (B, M) -> B results."""
    from torchvision.ops import batched_nms  # seconds to import, and a plan suppresses nothing

    limit = handed([(width, height, width, height) for height, width in sizes], boxes.device, dtype=boxes.dtype)
    boxes = torch.minimum(boxes.clamp(min=0), limit[:, None])
    found = []
    for box, score, label in zip(boxes, scores, labels, strict=True):
        keep = (score > score_threshold).nonzero().squeeze(1)
        box, score, label = box[keep], score[keep], label[keep]
        keep = batched_nms(box, score, label, nms_iou)[:max_detections]
        found.append(Detections(box[keep], score[keep], label[keep]))
    return found
