"""Losses that read heads as one writes them first: level by level, image by image, masks over whole maps.

See `plain`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.outputs import Outputs, Targets

CANDIDATES = 3000  # of an image, that a suppression of instances looks at
SIDE = 14  # strides: an instance of this side up to twice of it is read from a level


def levelled_crosskd(loss: Any, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
    """Level by level; losses of all rows, those of the padding times zero."""

    def guest(mine: Tensor, taught: Tensor) -> Tensor:
        dims = (0, 2, 3)
        centred = (mine - mine.mean(dims, keepdim=True)) / (mine.std(dims, keepdim=True) + 1e-6)
        return centred * taught.std(dims, keepdim=True) + taught.mean(dims, keepdim=True)

    towers = zip(student.towers[loss.after], teacher.towers[loss.after], strict=True)
    guests = [[guest(*pair) for pair in zip(*tower, strict=True)] for tower in towers]
    crossed = teacher.by.finish(*guests, after=loss.after)

    sizes = [level[0, 0].numel() for level in teacher.cls]
    valid = targets.valid.view(targets.images, -1).split(sizes, 1)
    cls: Any = 0
    edges: Any = 0
    total: Any = 0
    levels = zip(crossed.cls, teacher.cls, crossed.box, teacher.box, valid, strict=True)
    for said, taught, bent, lesson, inner in levels:
        inner = inner.view(-1, *said.shape[2:]).float()  # (B, H, W)
        score = taught.sigmoid()
        cross_entropy = F.binary_cross_entropy_with_logits(said, score, reduction="none")
        cls = cls + ((score - said.sigmoid()).abs() * cross_entropy * inner[:, None]).sum()

        mine, theirs = (x.unflatten(1, (4, loss.bins)) / loss.temperature for x in (bent, lesson))  # (B, 4, S, H, W)
        share = theirs.softmax(2)
        apart = (share * theirs.log_softmax(2) - share * mine.log_softmax(2)).sum(2).mean(1)  # (B, H, W)
        weight = score.amax(1) * inner
        edges = edges + loss.temperature**2 * (apart * weight).sum()
        total = total + weight.sum()

    positives = torch.bincount(targets.row // sum(sizes), minlength=targets.images)
    return loss.cls_weight * cls / positives.clamp(min=1).sum() + loss.edges_weight * edges / total


def masked_gi(loss: Any, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
    """A loop over images; errors of all cells times a mask, and distances of all instances from all."""
    rows, boxes = zip(*instances(loss, student, teacher, targets), strict=True)
    total: Any = 0
    if loss.cells_weight:
        sizes = [level[0, 0].numel() for level in student.cls]
        mask = torch.stack([torch.zeros(sum(sizes), device=row.device).index_fill(0, row, 1) for row in rows])
        for mine, taught, part in zip(student.features, teacher.features, mask.split(sizes, 1), strict=True):
            errors = (mine - taught).square().mean(1).flatten(1)
            total = total + loss.cells_weight * (errors * part).sum() / mask.sum().clamp(min=1)
    if loss.regions_weight or loss.relation_weight:
        mine, taught = (cropped(o.features, boxes, loss.strides) for o in (student, teacher))
        total = total + loss.regions_weight * (mine - taught).square().mean((0, 2, 3)).sum()
        pairs = torch.ones(len(mine), len(mine), dtype=torch.bool, device=mine.device).triu(1)
        mine, taught = (torch.cdist(x.flatten(1), x.flatten(1))[pairs] for x in (mine, taught))
        total = total + loss.relation_weight * F.smooth_l1_loss(mine / mine.mean(), taught / taught.mean())
    return total


@torch.no_grad()
def instances(loss: Any, student: Outputs, teacher: Outputs, targets: Targets) -> list[tuple[Tensor, Tensor]]:
    """Of each image which of its rows are chosen, and their boxes."""
    from torchvision.ops import nms

    mine, taught = student.class_rows().sigmoid(), teacher.class_rows().sigmoid()
    score, number = (taught - mine).abs().max(1)
    row = torch.arange(len(score), device=score.device)
    surer = taught[row, number] >= mine[row, number]
    box = torch.where(surer[:, None], teacher.by.boxes(teacher), student.by.boxes(student))
    images = [values.unflatten(0, (targets.images, -1)) for values in (score, box, targets.valid)]
    chosen = []
    for scores, boxes, valid in zip(*images, strict=True):
        rows = valid.nonzero().squeeze(1)
        rows = rows[scores[rows].argsort(descending=True)[:CANDIDATES]]
        rows = rows[nms(boxes[rows], scores[rows], loss.iou)[: loss.count]]
        chosen.append((rows, boxes[rows]))
    return chosen


def cropped(features: list[Tensor], boxes: tuple[Tensor, ...], strides: tuple[int, ...]) -> Tensor:
    """10 x 10 points in each box, on the level for its size. L of (B, C, H, W), B of (N, 4) -> (R, C, 10, 10)."""
    from torchvision.ops import roi_align

    sides = [(box[:, 2:] - box[:, :2]).prod(1).sqrt() for box in boxes]
    levels = [(side / (SIDE * strides[0]) + 1e-6).log2().floor().clamp(0, len(strides) - 1) for side in sides]
    read = []
    for number, (x, stride) in enumerate(zip(features, strides, strict=True)):
        here = [box[level == number] for box, level in zip(boxes, levels, strict=True)]
        read.append(roi_align(x, here, 10, 1 / stride, 2, True))
    return torch.cat(read)
