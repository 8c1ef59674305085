"""Distillation losses as one writes them first: masks over whole maps, loops over images and boxes.

Each takes the loss that it says plainly, for its knobs and adapters, and what a loss is given. They hold for the
arguments that `losses.py` gives, on one worker and in single precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.outputs import Outputs, Targets, Truth

Plain = Callable[[Any, Outputs, Outputs, Targets], Tensor]


def dense_ld(loss: Any, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
    """Divergences of all edges of all cells, those outside of the regions times zero."""
    temperature = loss.temperature
    mine = (student.edge_rows(loss.bins) / temperature).log_softmax(-1)
    taught = (teacher.edge_rows(loss.bins) / temperature).softmax(-1)
    losses = temperature**2 * (taught * (taught.log() - mine)).mean((1, 2))
    weights = loss.weight * student.class_rows().detach().sigmoid().amax(1) * chosen(targets.row, targets)
    if loss.vlr_weight:
        near = student.by.valuable(student, targets, gamma=loss.gamma, overlap=loss.overlap)
        weights = weights + loss.vlr_weight * torch.zeros_like(weights).index_put((near.row,), near.weight)
    return (losses * weights).sum()


def dense_kd(loss: Any, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
    """Divergences of all cells, level by level, those that are no positives times zero."""
    losses = loss.divergence(student.class_rows(), teacher.class_rows())
    masks, every = chosen(targets.row, targets), losses.unflatten(0, (targets.images, -1))
    sizes = [level[0, 0].numel() for level in student.cls]
    total = losses.new_zeros(())
    for level, mask in zip(every.split(sizes, 1), masks.unflatten(0, every.shape).split(sizes, 1), strict=True):
        total = total + (level * mask).sum() / mask.sum().clamp(min=1)
    return loss.weight * total


def chosen(row: Tensor, targets: Targets) -> Tensor:
    """1 at these rows, 0 elsewhere. -> (B*A,)."""
    return torch.zeros(len(targets.valid), device=row.device).index_fill(0, row, 1)


def reshaped_pkd(loss: Any, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
    """Channels first, as rows; mean and deviation one after the other."""

    def standardised(features: Tensor) -> Tensor:
        rows = features.transpose(0, 1).flatten(1)
        rows = (rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True) + 1e-6)
        return rows.unflatten(1, (len(features), *features.shape[2:])).transpose(0, 1)

    losses = [
        (standardised(student.features[level]) - standardised(teacher.features[level])).square().mean() / 2
        for level in loss.levels
    ]
    return loss.weight * sum(losses)


def softmax_cwd(loss: Any, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
    """The teacher's softmax and its logarithm apart from one another."""
    total: Any = 0
    for level in loss.levels:
        mine, taught = (o.features[level].flatten(2) / loss.temperature for o in (student, teacher))
        share = taught.softmax(2)
        total = total + (share * taught.log_softmax(2) - share * mine.log_softmax(2)).sum() / mine.shape[1]
    return loss.weight * loss.temperature**2 * total / targets.images


def masked_defeat(loss: Any, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
    """A loop over boxes paints masks; errors of all cells and channels times the masks."""

    def decoupled(pairs: list[tuple[Tensor, Tensor]], masks: list[Tensor], weights: tuple[float, float]) -> Tensor:
        parts: Any = 0
        for (mine, taught), mask in zip(pairs, masks, strict=True):
            errors = (mine - taught).square()
            for weight, where in zip(weights, (mask, 1 - mask), strict=True):
                every = where[:, None].repeat(1, mine.shape[1], 1, 1)
                parts = parts + weight * (errors * every).sum() / (2 * every.sum().clamp(min=mine.shape[1]))
        return parts / len(pairs)

    neck = [(a(student.features[n]), teacher.features[n]) for a, n in zip(loss.neck, loss.levels, strict=True)]
    masks = [painted(targets.truth, x, loss.strides, level) for (x, _), level in zip(neck, loss.levels, strict=True)]
    total = decoupled(neck, masks, loss.neck_weights)
    maps = [(a(student.maps[n]), teacher.maps[n]) for a, n in zip(loss.backbone, loss.stages, strict=True)]
    fine = painted(targets.truth, student.maps[0], (loss.finest,), 0)[:, None]
    masks = [F.interpolate(fine, size=x.shape[2:]).squeeze(1) for x, _ in maps]
    return total + decoupled(maps, masks, loss.masked_weights)


def masked_tadf(loss: Any, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
    """A loop over boxes draws Gaussians; errors of all cells and channels times the highest."""
    total: Any = 0
    count: Any = 0
    for adapt, number in zip(loss.adapters, loss.levels, strict=True):
        mine, taught = adapt(student.features[number]), teacher.features[number]
        weight = torch.zeros_like(mine[:, 0])
        for image, (x1, y1, x2, y2) in rectangles(targets.truth, mine, loss.strides, number):
            x, y = (torch.arange(a, b, device=mine.device) + 0.5 for a, b in ((x1, x2), (y1, y2)))
            right = torch.exp(-((x - (x1 + x2) / 2) / ((x2 - x1) / 2)).square() / 2)
            down = torch.exp(-((y - (y1 + y2) / 2) / ((y2 - y1) / 2)).square() / 2)
            part = weight[image, y1:y2, x1:x2]
            weight[image, y1:y2, x1:x2] = torch.maximum(part, down[:, None] * right)
        total = total + ((mine - taught).square() * weight[:, None]).sum() / mine.shape[1]
        count = count + weight.sum()
    return loss.feature_weight * total / (2 * count.clamp(min=1))


def rectangles(
    truth: Truth, like: Tensor, strides: tuple[int, ...], level: int
) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
    """The image of each box that belongs to a level, and the cells of a map (B, C, H, W) that it covers."""
    height, width = like.shape[2:]
    for image, boxes in enumerate(truth.boxes):
        for x1, y1, x2, y2 in boxes.tolist():
            if home((x1, y1, x2, y2), strides) == level:
                a, b = (min(int(x / strides[level]), width) for x in (x1, x2))
                c, d = (min(int(y / strides[level]), height) for y in (y1, y2))
                if a >= b or c >= d:
                    a, c = min(a, width - 1), min(c, height - 1)
                    b, d = a + 1, c + 1
                yield image, (a, c, b, d)


def painted(truth: Truth, like: Tensor, strides: tuple[int, ...], level: int) -> Tensor:
    """1 where a box that belongs to a level covers a map (B, C, H, W). -> (B, H, W)."""
    mask = torch.zeros_like(like[:, 0])
    for image, (x1, y1, x2, y2) in rectangles(truth, like, strides, level):
        mask[image, y1:y2, x1:x2] = 1
    return mask


def home(box: tuple[float, float, float, float], strides: tuple[int, ...]) -> int:
    """The level that a box belongs to."""
    x1, y1, x2, y2 = box
    side = math.sqrt((x2 - x1 + 1) * (y2 - y1 + 1))
    return max(0, min(len(strides) - 1, math.floor(math.log2(side / (14 * strides[0]) + 1e-6))))


def looped_fgfi(loss: Any, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
    """A loop over boxes, each against all anchors of its level; errors of all cells times a mask."""
    total: Any = 0
    count: Any = 0
    for adapt, level in zip(loss.adapters, loss.levels, strict=True):
        mine, taught, stride = adapt(student.features[level]), teacher.features[level], loss.strides[level]
        height, width = mine.shape[2:]
        y, x = (torch.arange(n, device=mine.device) * float(stride) for n in (height, width))
        centre = torch.cartesian_prod(y, x).flip(1)[:, None]  # (H*W, 1, 2)
        ratio = torch.tensor([0.5, 1.0, 2.0], device=mine.device).sqrt()
        half = torch.stack([4 * stride / ratio, 4 * stride * ratio], dim=1)  # (3, 2)
        anchors = torch.cat([centre - half, centre + half], dim=2).flatten(0, 1)
        mask = torch.zeros_like(mine[:, 0])
        for image, boxes in enumerate(targets.truth.boxes):
            for box in boxes:
                if home(tuple(box.tolist()), loss.strides) == level:
                    iou = inclusive_iou(anchors, box)
                    near = (iou > loss.phi * iou.max()).view(height, width, 3).any(2)
                    mask[image] = torch.maximum(mask[image], near.float())
        total = total + ((mine - taught).square() * mask[:, None]).sum()
        count = count + mask.sum()
    return loss.weight * total / (2 * count.clamp(min=1))


def inclusive_iou(anchors: Tensor, box: Tensor) -> Tensor:
    """Of boxes (N, 4) with one (4,), whose last pixels belong to them. -> (N,)."""
    low, high = torch.maximum(anchors[:, :2], box[:2]), torch.minimum(anchors[:, 2:], box[2:])
    both = (high - low + 1).clamp(min=0).prod(1)
    return both / ((anchors[:, 2:] - anchors[:, :2] + 1).prod(1) + (box[2:] - box[:2] + 1).prod() - both)


def masked_imitation(loss: Any, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
    """Squares of all cells against each box in a loop; errors of all cells times a mask, level by level."""
    from torchvision.ops import box_iou

    squares = []
    for level, stride in zip(student.features, loss.strides, strict=True):
        y, x = (torch.arange(n, device=level.device) * float(stride) for n in level.shape[2:])
        centre = torch.cartesian_prod(y, x).flip(1)
        squares.append(torch.cat([centre - 4 * stride, centre + 4 * stride], dim=1))
    sizes, every = [len(level) for level in squares], torch.cat(squares)
    valid = targets.valid.unflatten(0, (targets.images, -1))
    mask = torch.zeros(targets.images, len(every), device=every.device)
    for image, boxes in enumerate(targets.truth.boxes):
        for box in boxes:
            iou = box_iou(box[None], every)[0] * valid[image]
            mask[image] = torch.maximum(mask[image], (iou > iou.max() / 2).float())
    total: Any = 0
    for mine, taught, part in zip(student.features, teacher.features, mask.split(sizes, 1), strict=True):
        errors = (mine - taught).square().flatten(2) * part[:, None]
        total = total + errors.sum() / (part.sum().clamp(min=1) * mine.shape[1])
    return loss.weight * total


def looped_fgd(loss: Any, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
    """A loop over boxes paints masks; each side's features times roots of attention and masks, then squared errors."""

    def attentions(features: Tensor) -> tuple[Tensor, Tensor]:
        number, channels, height, width = features.shape
        spatial = features.abs().mean(1).view(number, -1) / loss.temperature
        channel = features.abs().mean((2, 3)) / loss.temperature
        return (spatial.softmax(1) * height * width).view(number, height, width), channel.softmax(1) * channels

    total: Any = 0
    for number, (level, stride) in enumerate(zip(loss.levels, loss.strides, strict=True)):
        mine, taught = student.features[level], teacher.features[level]
        (spatial, channel), (own_spatial, own_channel) = attentions(taught), attentions(mine)
        fore = torch.zeros_like(spatial)
        for image, boxes in enumerate(targets.truth.boxes):
            for box in boxes.tolist():
                x1, y1, x2, y2 = (*(math.floor(v / stride) for v in box[:2]), *(math.ceil(v / stride) for v in box[2:]))
                part = fore[image, y1 : y2 + 1, x1 : x2 + 1]
                share = torch.full_like(part, 1 / ((x2 - x1 + 1) * (y2 - y1 + 1)))
                fore[image, y1 : y2 + 1, x1 : x2 + 1] = torch.maximum(part, share)
        back = (fore == 0).float()
        back = back / back.sum((1, 2), keepdim=True).clamp(min=1)
        for weight, mask in ((loss.parts.foreground, fore), (loss.parts.background, back)):
            left, right = (x * spatial[:, None].sqrt() * channel[..., None, None].sqrt() for x in (mine, taught))
            left, right = left * mask[:, None].sqrt(), right * mask[:, None].sqrt()
            total = total + weight * (left - right).square().sum()
        apart = (own_spatial - spatial).abs().sum() + (own_channel - channel).abs().sum()
        total = total + loss.parts.attention * apart
        ours, theirs = loss.contexts[2 * number](mine), loss.contexts[2 * number + 1](taught)
        total = total + loss.parts.relation * (ours - theirs).square().sum()
    return loss.weight * total / targets.images


def cropped_mimic(loss: Any, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
    """A loop over proposals, each cut out of the errors of all cells."""
    with torch.no_grad():
        regions = loss.choose(student, targets)
    errors = [
        (regress(student.features[mine]) - teacher.features[its]).square().mean(1)
        for regress, (mine, its) in zip(loss.adapters, loss.pairs, strict=True)
    ]
    total: Any = 0
    for image, boxes in enumerate(regions):
        for x1, y1, x2, y2 in boxes.tolist():
            side = math.sqrt((x2 - x1) * (y2 - y1))
            fits = math.floor(math.log2(max(side, 1e-9) / (14 * loss.strides[0][0])) + 1e-6)
            level = max(0, min(len(errors) - 1, fits))
            stride, (height, width) = loss.strides[level][0], errors[level].shape[1:]
            a, c = (min(max(math.floor(v / stride), 0), n - 1) for v, n in ((x1, width), (y1, height)))
            b, d = min(max(math.ceil(x2 / stride), a + 1), width), min(max(math.ceil(y2 / stride), c + 1), height)
            total = total + errors[level][image, c:d, a:b].mean()
    return loss.weight * total / (2 * sum(map(len, regions)))
