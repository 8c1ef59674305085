"""Which refined anchors teach MimicDet: the best ranked (B_s), a few for the T-head (B_t), fewer for mimicry (B_m).

Lu et al., "MimicDet: Bridging the Gap Between One-Stage and Two-Stage Object Detection", ECCV 2020,
https://arxiv.org/abs/2009.11528, sections 3.3 and 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.detectors.ignored import on_ignored
from trainers.outputs import Truth

OVERLAP = 0.8  # IoU above which the worse of two refined anchors is left out
EXTENT = 2  # how many times as many anchors as are wanted are looked at for that
POSITIVE = 0.6  # IoU from which a refined anchor answers for a box
SHARE = 0.25  # of positives in the sample for the T-head, at most: 1:3


@dataclass(frozen=True)
class Proposals:
    """The refined anchors of a batch that take part in training: B_s."""

    row: Tensor  # (R,), as `Outputs.class_rows` counts: the S-head's pixel is the anchor's own cell
    level: Tensor  # (R,), 0..L-1
    image: Tensor  # (R,), 0..B-1
    refined: Tensor  # (R, 4)
    positive: Tensor  # (R,) bool: whether it answers for a box
    label: Tensor  # (R,), 0..K-1, or K for background
    box: Tensor  # (R, 4): the box that it answers for; the refined anchor itself where it is background
    sampled: Tensor  # (T,), 0..R-1: B_t
    mimicked: Tensor  # (M,), 0..T-1: B_m


def propose(
    refined: Tensor,
    scores: Tensor,
    valid: Tensor,
    level: Tensor,
    truth: Truth,
    *,
    background: int,
    limit: int,
    sampled: int,
    mimicked: int,
) -> Proposals:
    """Refined anchors (B, A, 4), their scores (B, A), which are valid (B, A), their levels (A,) -> B_s, B_t and B_m.

    Of each image at most `limit`, of these at most `sampled`, and of these at most `mimicked`. None is background that
    lies on what is to be ignored.
    """
    from torchvision.ops import box_iou  # seconds to import

    parts: list[tuple[Tensor, ...]] = []
    before = chosen = 0  # how many the images before have in B_s and in B_t
    for image, (boxes, labels) in enumerate(zip(truth.boxes, truth.labels, strict=True)):
        cell = ranked(refined[image], scores[image], valid[image], limit=limit)
        found = refined[image, cell]
        owner = match(box_iou(boxes, found))
        if truth.ignored is not None:
            kept = (owner >= 0) | ~on_ignored(found, truth.ignored[image], truth.sizes[image])
            cell, found, owner = cell[kept], found[kept], owner[kept]
        positive = owner >= 0
        label, box = torch.full_like(owner, background), found.clone()
        label[positive], box[positive] = labels[owner[positive]], boxes[owner[positive]]
        some = sample(positive, count=sampled)
        few = choice(torch.arange(len(some), device=some.device), mimicked)
        row, number = cell + image * valid.shape[1], torch.full_like(cell, image)
        parts.append((row, level[cell], number, found, positive, label, box, some + before, few + chosen))
        before, chosen = before + len(cell), chosen + len(some)
    return Proposals(*(torch.cat(part) for part in zip(*parts, strict=True)))


def ranked(refined: Tensor, scores: Tensor, valid: Tensor, *, limit: int) -> Tensor:
    """The numbers of the best refined anchors of an image, best first, less those that overlap a better one.

    (A, 4), (A,), (A,) -> (R,), R <= limit.
    """
    from torchvision.ops import nms  # seconds to import

    best = scores.masked_fill(~valid, -torch.inf).topk(min(EXTENT * limit, len(scores))).indices
    best = best[valid[best]]
    return best[nms(refined[best], scores[best], OVERLAP)[:limit]]


def match(iou: Tensor) -> Tensor:
    """The box that each refined anchor answers for: the one it overlaps most. (N, R) -> (R,), 0..N-1, or -1 for none.

    It must do so by an IoU of 0.6, or be the best that a box has.
    """
    if not len(iou):
        return torch.full(iou.shape[1:], -1, device=iou.device)
    most, owner = iou.max(0)
    best = (iou == iou.amax(1, keepdim=True)) & (iou > 0)
    return owner.masked_fill((most < POSITIVE) & ~best.any(0), -1)


def sample(positive: Tensor, *, count: int) -> Tensor:
    """`count` numbers at random, a quarter of them positives if there are so many. (R,) bool -> (T,), T <= count."""
    inner, outer = positive.nonzero().squeeze(1), (~positive).nonzero().squeeze(1)
    inner = choice(inner, int(count * SHARE) or 1)
    return torch.cat([inner, choice(outer, count - len(inner))])


def choice(numbers: Tensor, count: int) -> Tensor:
    """At most `count` of these numbers (R,), at random."""
    return numbers[torch.randperm(len(numbers), device=numbers.device)[:count]]


def hardest(loss: Tensor, image: Tensor, *, count: int) -> Tensor:
    """The numbers of the `count` highest losses of each image. (R,), (R,) -> (H,)."""
    order = loss.argsort(descending=True, stable=True)
    order = order[image[order].argsort(stable=True)]  # image by image, the highest first
    sorted_image = image[order]
    first = torch.searchsorted(sorted_image, sorted_image)  # where the image of each one begins
    return order[torch.arange(len(order), device=order.device) - first < count]
