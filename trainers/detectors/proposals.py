"""The first stage of two: anchors in three shapes, which of them answer for a box, and which become proposals.

Ren et al., "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks", NeurIPS 2015,
https://arxiv.org/abs/1506.01497
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from trainers import workers
from trainers.detectors.anchors import SIDE, anchors, inside
from trainers.detectors.ignored import neither
from trainers.detectors.max_iou import MaxIoU
from trainers.outputs import Outputs, Targets, Truth, rows

RATIOS = (0.5, 1.0, 2.0)  # height / width of the anchors of a cell
SHAPES = len(RATIOS)


class Convention(NamedTuple):
    """Where the usual implementations differ."""

    beta: float  # below which the box loss is a square, in deltas; 0: L1
    sampling: int  # points that RoIAlign reads along each side of a bin; 0: one for each cell that it covers
    aligned: bool  # RoIAlign knows that the middle of a cell, and not its corner, has the cell's value
    kept: int  # proposals of an image in training; 1000 in evaluation
    exact: bool  # anchors of nominal strides, not rounded; those in the padding do not count; MaxIoU matches


CONVENTIONS = {
    "mmdetection": Convention(beta=0.0, sampling=0, aligned=True, kept=1000, exact=True),
    "torchvision": Convention(beta=1 / 9, sampling=2, aligned=False, kept=2000, exact=False),
}


class Grid(NamedTuple):
    """The anchors of a batch: level after level, row after row, cell after cell, shape after shape."""

    boxes: Tensor  # (A, 4)
    level: Tensor  # (A,)
    counts: list[int]  # how many each level has
    valid: Tensor  # (B, A) bool: those that count


def network(channels: int, strides: tuple[int, ...], convention: Convention) -> Any:
    """torchvision's RegionProposalNetwork. Its own forward pass is not used, its parts are, some of them changed."""
    from torchvision.models.detection.rpn import AnchorGenerator, RegionProposalNetwork, RPNHead  # seconds to import

    generator = AnchorGenerator(tuple((SIDE * stride,) for stride in strides), (RATIOS,) * len(strides))
    if convention.exact:
        generator.cell_anchors = [unrounded(SIDE * stride) for stride in strides]
    rpn = RegionProposalNetwork(
        generator,
        RPNHead(channels, SHAPES),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 2000, "testing": 1000},
        post_nms_top_n={"training": convention.kept, "testing": 1000},
        nms_thresh=0.7,
    )
    if convention.exact:
        rpn.proposal_matcher = MaxIoU(positive=0.7, negative=0.3, least=0.3)
    return rpn


def unrounded(side: float) -> Tensor:
    """The anchors of a cell around the origin, each of side * side square pixels. -> (3, 4)."""
    # Made on the CPU even while a model is built without numbers: anchors are no weights that could be loaded.
    corner = torch.tensor([(side / math.sqrt(r) / 2, side * math.sqrt(r) / 2) for r in RATIOS], device="cpu")
    return torch.cat([-corner, corner], dim=1)


def grid(
    rpn: Any, levels: list[Tensor], strides: tuple[int, ...], sizes: list[tuple[int, int]], convention: Convention
) -> Grid:
    """The anchors of maps L of (B, C, H, W), for images of these (height, width).

    torchvision measures the strides: pixels of the padded image by cells, rounded down. The padded image is as
    large as the finest level says, which is exact where it is padded to multiples of that level's stride.
    """
    cells = anchors(levels, strides)
    shapes = [(x.shape[2], x.shape[3]) for x in levels]
    height, width = shapes[0][0] * strides[0], shapes[0][1] * strides[0]
    steps = [
        (s, s) if convention.exact else (height // h, width // w) for s, (h, w) in zip(strides, shapes, strict=True)
    ]
    rpn.anchor_generator.set_cell_anchors(torch.float32, levels[0].device)
    boxes = torch.cat(rpn.anchor_generator.grid_anchors(shapes, steps))
    valid = inside(cells, sizes).repeat_interleave(SHAPES, dim=1)
    if not convention.exact:
        valid = torch.ones_like(valid)
    return Grid(boxes, cells.level.repeat_interleave(SHAPES), [SHAPES * n for n in cells.cells], valid)


def match(rpn: Any, grid: Grid, truth: Truth) -> Targets:
    """Each anchor answers for the box that it overlaps most, if by .7 or more, or if no anchor overlaps a box more.

    In mmdetection's conventions the latter must overlap it by .3, so that a small box may have none, and answer for
    that box, or for the last of several. `own["object"]`, (B, A), is 1 for these, 0 for those that overlap no box by
    .3 and do not lie on what is to be ignored, and -1 for the rest.
    """
    from torchvision.ops import box_iou

    kind = grid.valid.float() - 1
    row, label, box = [], [], []
    for image, (boxes, labels) in enumerate(zip(truth.boxes, truth.labels, strict=True)):
        if not len(boxes):
            continue
        valid = grid.valid[image].nonzero().squeeze(1)
        number = rpn.proposal_matcher(box_iou(boxes, grid.boxes[valid]))  # -1: background, -2: neither
        kind[image, valid] = (number + 1).clamp(max=1).float()
        positive = (number >= 0).nonzero().squeeze(1)
        row.append(image * len(grid.boxes) + valid[positive])
        label.append(labels[number[positive]])
        box.append(boxes[number[positive]])
    # An image without boxes leaves nothing in these lists.
    every = torch.cat([*row, grid.level.new_empty(0)])
    ignored = neither(grid.boxes, truth, every)
    if ignored is not None:
        kind = kind.masked_fill(ignored.view_as(kind), -1)
    return Targets(
        row=every,
        level=grid.level[every % len(grid.boxes)],
        label=torch.cat([*label, grid.level.new_empty(0)]),
        box=torch.cat([*box, grid.boxes.new_empty(0, 4)]),
        valid=grid.valid.flatten(),
        levels=len(grid.counts),
        truth=truth,
        own={"object": kind},
        ignored=ignored,
    )


def losses(rpn: Any, outputs: Outputs, targets: Targets, grid: Grid, *, beta: float) -> tuple[Tensor, Tensor]:
    """Binary cross entropy and box loss of up to 256 anchors drawn from each image, at most half of them positive.

    Both are divided by how many were drawn, a mean over the workers.
    """
    objectness = rows(outputs.own["objectness"], SHAPES).squeeze(1).float()  # (B*A,)
    deltas = rows(outputs.own["deltas"], SHAPES).float()  # (B*A, 4)
    kind = targets.own["object"]
    positive, negative = (torch.cat(drawn).nonzero().squeeze(1) for drawn in rpn.fg_bg_sampler(list(kind)))
    both = torch.cat([positive, negative])
    number = workers.mean(both.new_full((), len(both), dtype=torch.float32)).clamp(min=1)
    cls = F.binary_cross_entropy_with_logits(objectness[both], kind.flatten()[both], reduction="sum")
    wanted = rpn.box_coder.encode_single(targets.box, grid.boxes[targets.row % len(grid.boxes)])
    wanted = wanted[torch.searchsorted(targets.row, positive)]  # the rows of targets rise
    box = F.smooth_l1_loss(deltas[positive], wanted, beta=beta, reduction="sum")
    return cls / number, box / number


@torch.no_grad()
def propose(rpn: Any, outputs: Outputs, grid: Grid, sizes: list[tuple[int, int]]) -> list[Tensor]:
    """The best boxes of each image, best first, cut to it and of no class. -> B of (N, 4)."""
    objectness = rows(outputs.own["objectness"], SHAPES).float().view(grid.valid.shape)
    deltas = rows(outputs.own["deltas"], SHAPES).float()
    boxes = rpn.box_coder.decode(deltas, [grid.boxes] * len(sizes)).view(len(sizes), -1, 4)
    objectness = objectness.masked_fill(~grid.valid, -torch.inf)
    found, scores = rpn.filter_proposals(boxes, objectness, sizes, grid.counts)
    return [box[score > 0] for box, score in zip(found, scores, strict=True)]  # in the padding it is 0
