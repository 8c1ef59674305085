"""Centerness, which FCOS and ATSS share: how near to the middle of its box a location lies, learnt as a score.

Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019, https://arxiv.org/abs/1904.01355
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from trainers import workers
from trainers.detectors.focal import distribution_focal_loss
from trainers.outputs import Outputs, Targets, rows


def edges(point: Tensor, box: Tensor) -> Tensor:
    """How far the edges of its box are from each point. (..., 2), (..., 4) -> (..., 4)."""
    return torch.cat([point - box[..., :2], box[..., 2:] - point], dim=-1)


def centerness(distance: Tensor) -> Tensor:
    """1 in the middle of a box, 0 at its edges: equation 3. Distances to the edges, (..., 4), above 0 -> (...)."""
    near = torch.minimum(distance[..., :2], distance[..., 2:])
    far = torch.maximum(distance[..., :2], distance[..., 2:])
    return (near / far).prod(-1).sqrt()


def distribution_loss(logits: Tensor, distance: Tensor) -> Tensor:
    """The distribution focal loss of GFL, a mean over the edges. (P, 4, S), distances in bins (P, 4) -> (P,).

    A distance beyond the last bin counts as 0.1 short of it.
    """
    return distribution_focal_loss(logits, distance.clamp(min=0, max=logits.shape[-1] - 1.1)).mean(1)


def losses(
    outputs: Outputs,
    targets: Targets,
    by_box: dict[str, Tensor],
    *,
    counted: Tensor,
    count: Tensor,
    weight: Tensor,
    target: Tensor,
) -> dict[str, Tensor]:
    """Focal loss, cross entropy of the centerness, and what each positive's box costs (P,), by name.

    counted (B*A,): 1 for the locations whose classes learn; count (): what the first two are divided by; weight (P,):
    of each positive's box, whose sum divides the rest; target (P,): the centerness to be learnt. The divisors are means
    over the workers.
    """
    from torchvision.ops import sigmoid_focal_loss  # seconds to import, and a plan computes no loss

    logits = outputs.class_rows().float()
    real = torch.zeros_like(logits)
    real[targets.row, targets.label] = 1
    cls = sigmoid_focal_loss(logits, real, alpha=0.25, gamma=2).sum(1) @ counted.float()
    said = rows(outputs.own["centerness"]).squeeze(1).index_select(0, targets.row).float()
    centred = F.binary_cross_entropy_with_logits(said, target, reduction="sum")
    count, total = workers.mean(torch.stack([count, weight.sum()]))
    count, total = count.clamp(min=1 / workers.count()), total.clamp(min=1e-6)
    found = {name: loss @ weight / total for name, loss in by_box.items()}
    return {"cls": cls / count, "centerness": centred / count, **found}


def factored(scores: Tensor, cells: Tensor, outputs: Outputs, *, score_threshold: float) -> Tensor:
    """Scores of classes times the centerness of their cells; 0 where the class alone is below the threshold.

    Scores and cells (B, M), as of `best_pairs` -> (B, M).
    """
    factor = rows(outputs.own["centerness"]).float().view(len(cells), -1).gather(1, cells).sigmoid()
    return scores * factor * (scores > score_threshold)


def at_cells(levels: list[Tensor], cells: Tensor) -> Tensor:
    """What maps, L of (B, C, H, W), say at cells (B, M). -> (B, M, C) in float32."""
    values = rows(levels).float().unflatten(0, (len(cells), -1))
    return values.gather(1, cells[:, :, None].expand(-1, -1, values.shape[2]))
