"""Losses of second stages as one writes them first: all regions are compared, those that do not count times zero.

See `plain`. The detectors' own stages draw the regions and judge them, in both ways once: so both ways draw the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainers.outputs import Outputs, Regions, Targets

Said = tuple[Tensor, Tensor]  # class logits (R, K+1), background first, and box deltas (R, 4*(K+1))


def averaged_kd(loss: Any, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
    """The teacher's softmax and its logarithm apart from one another, a mean over regions and classes."""
    drawn = regions([teacher], teacher, targets)
    (mine, _), (taught, _) = judged(student, teacher, drawn, targets)
    return loss.weight * divergence(mine, taught, loss.temperature).mean() / mine.shape[1]


def masked_cls_defeat(loss: Any, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
    """Divergences of all regions times a mask, for those on objects and for the others."""
    drawn = regions([teacher], teacher, targets)
    (mine, _), (taught, _) = judged(student, teacher, drawn, targets)
    positive = (torch.cat(drawn.labels) > 0).float()
    total: Any = 0
    for mask, weight, heat in zip((positive, 1 - positive), loss.cls_weights, loss.temperatures, strict=True):
        total = total + weight * (divergence(mine, taught, heat) * mask).sum() / mask.sum().clamp(min=1)
    return total


def masked_region_tadf(loss: Any, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
    """Losses of all regions times masks of where the teacher is better; for boxes also of the objects."""
    drawn = regions([student, teacher], student, targets)
    (mine, boxes), (taught, lesson) = judged(student, teacher, drawn, targets)
    labels, real = torch.cat(drawn.labels), torch.cat(drawn.deltas)
    row = torch.arange(len(labels), device=labels.device)

    right = taught.softmax(1)[row, labels] > mine.softmax(1)[row, labels]
    cls = (divergence(mine, taught, loss.temperature) * right).sum()

    boxes, lesson = (deltas.view(len(labels), -1, 4)[row, labels] for deltas in (boxes, lesson))
    own, theirs = ((deltas - real).abs().sum(1) for deltas in (boxes, lesson))
    nearest = torch.minimum((boxes - lesson).abs().sum(1), own)
    box = (nearest * (theirs < own) * (labels > 0)).sum()
    return (loss.cls_weight * cls + loss.box_weight * box) / len(labels)


def regions(proposers: list[Outputs], drawer: Outputs, targets: Targets) -> Regions:
    """What the drawer takes of what these propose."""
    truth = targets.truth
    with torch.no_grad():
        proposed = [one.by.propose(one, truth.sizes) for one in proposers]
        return drawer.by.sample([torch.cat(image) for image in zip(*proposed, strict=True)], truth)


def judged(student: Outputs, teacher: Outputs, drawn: Regions, targets: Targets) -> tuple[Said, Said]:
    """What both say of these regions, the teacher without gradient."""
    mine = student.by.judge(student.features, drawn.boxes, targets.truth.sizes)
    with torch.no_grad():
        return mine, teacher.by.judge(teacher.features, drawn.boxes, targets.truth.sizes)


def divergence(mine: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """T^2 * KL of softened softmaxes, summed over the classes. (R, K+1) twice -> (R,)."""
    mine, taught = mine / temperature, taught / temperature
    share = taught.softmax(1)
    return temperature**2 * (share * taught.log_softmax(1) - share * mine.log_softmax(1)).sum(1)
