"""The valuable localization region: locations near a box that are not good enough to answer for it, but nearly.

Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022, https://arxiv.org/abs/2102.12252,
section 3.3 and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

import torch
from torch import Tensor

from trainers.detectors.anchors import Anchors, paired_iou
from trainers.detectors.atss import candidates, thresholds
from trainers.detectors.handed import handed
from trainers.outputs import Overlap, Region, Targets, Truth

PAIRS = 1 << 22  # of an anchor and a box that are looked at together; each takes some fifty bytes


def near(
    grid: Anchors, targets: Targets, threshold: Tensor, *, gamma: float, overlap: Overlap, positives: bool = True
) -> Region:
    """The anchors whose `closeness` to a box is gamma * threshold or more, and less than the threshold of that box.

    `threshold` (N,): that of ATSS for each box of the batch, image by image. An anchor weighs as much as its IoU with
    its box, the highest if it is near several; without any overlap it is left out, and so is the padding.

    A positive of one box may be near another box, and even near its own: its IoU has reached the threshold, but its
    closeness is less where the centres are apart. `positives` says whether it then counts.
    """
    parts = zip(targets.truth.boxes, threshold.split([len(boxes) for boxes in targets.truth.boxes]), strict=True)
    weights: list[Tensor] = []
    for images in together(list(parts), most=PAIRS // len(grid.box)):
        boxes, limit = (torch.cat(column) for column in zip(*images, strict=True))
        iou = paired_iou(grid.box, boxes[:, None])  # (N, A)
        close, limit = closeness(grid.box, boxes[:, None], overlap, iou), limit[:, None]
        near = iou * ((close >= gamma * limit) & (close < limit))
        for one in near.split([len(boxes) for boxes, _ in images]):
            weights.append(one.amax(0) if len(one) else grid.box.new_zeros(len(grid.box)))
    weight = torch.cat(weights) * targets.valid
    if not positives:
        weight[targets.row] = 0
    row = weight.nonzero().squeeze(1)
    return Region(row, weight[row])


def together(images: list[tuple[Tensor, Tensor]], *, most: int) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Boxes (N, 4) and what there is of each (N,), image by image, in groups of at most so many boxes; or of one image,
    if it has more."""
    group: list[tuple[Tensor, Tensor]] = []
    for one in images:
        if group and sum(len(boxes) for boxes, _ in (*group, one)) > most:
            yield group
            group = []
        group.append(one)
    yield group


def box_thresholds(grid: Anchors, targets: Targets) -> Tensor:
    """The threshold of ATSS for each box of the batch, also where other rules chose the positives. -> (N,)."""
    boxes = torch.cat(targets.truth.boxes)
    valid = targets.valid.unflatten(0, (targets.images, -1))
    number, real = candidates(grid, valid[image_of(targets.truth)], boxes)
    return thresholds(paired_iou(grid.box[number], boxes[:, None]), real)


def closeness(anchor: Tensor, box: Tensor, overlap: Overlap, iou: Tensor | None = None) -> Tensor:
    """How near anchors are to boxes, in pairs. (..., 4) twice, with broadcasting, and their IoU if known -> (...).

    `diou`: the paper's IoU - d^2 / c^2, where d is how far apart the centres are and c the diagonal of the smallest box
    around both. `iof_diou`: the released code's, which takes the part of the *anchor* that the box covers instead of
    the IoU: larger for anchors that lie within a box.
    """
    shared = paired_iou(anchor, box) if iou is None else iou
    if overlap == "iof_diou":
        low, high = torch.maximum(anchor[..., :2], box[..., :2]), torch.minimum(anchor[..., 2:], box[..., 2:])
        shared = (high - low).clamp(min=0).prod(-1) / (anchor[..., 2:] - anchor[..., :2]).prod(-1).clamp(min=1e-6)
    apart = (anchor[..., :2] + anchor[..., 2:] - box[..., :2] - box[..., 2:]) / 2
    around = torch.maximum(anchor[..., 2:], box[..., 2:]) - torch.minimum(anchor[..., :2], box[..., :2])
    return shared - apart.square().sum(-1) / around.square().sum(-1).clamp(min=1e-6)


def image_of(truth: Truth) -> Tensor:
    """The number of the image that each box is in, image by image. -> (N,)."""
    numbers = [image for image, boxes in enumerate(truth.boxes) for _ in range(len(boxes))]
    return handed(numbers, truth.boxes[0].device, dtype=torch.long)


def in_each(image: Tensor, images: int) -> Tensor:
    """How many of these numbers of images (P,) are 0, 1, and so on, for so many images. -> (B,) in float32.

    `bincount` would wait for a GPU to know the largest.
    """
    counts = torch.zeros(images, device=image.device)
    return counts.index_add_(0, image, torch.ones_like(image, dtype=counts.dtype))


def first_of(truth: Truth) -> Tensor:
    """The number of each image's first box among the boxes of all images. -> (B,)."""
    counts = [len(boxes) for boxes in truth.boxes]
    return handed([0, *accumulate(counts[:-1])], truth.boxes[0].device, dtype=torch.long)
