"""GFL: a dense detector whose class score is the quality of its box, and whose edges are distributions.

Li et al., "Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense Object
Detection", NeurIPS 2020, https://arxiv.org/abs/2006.04388
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from trainers import workers
from trainers.box_losses import ciou_loss, giou_loss
from trainers.call import Count, Fraction, Index, NonNegative
from trainers.detectors.anchors import anchors, inside, paired_iou
from trainers.detectors.atss import assign
from trainers.detectors.focal import distribution_focal_loss, integral, quality_focal_loss
from trainers.detectors.ignored import neither
from trainers.detectors.nms import best_pairs, keep_best
from trainers.detectors.towers import both, climb
from trainers.detectors.valuable import image_of, in_each, near
from trainers.fpn import FPN, MAPS, Backbone, levels
from trainers.norm import group_norm
from trainers.outputs import Detections, Outputs, Overlap, Region, Targets, Truth

PRIOR = 0.01  # the score of every class before training


class GFL(nn.Module):
    """FPN and two towers that all levels share. The distance of an edge is counted in strides, 0..reg_max."""

    features_only = False
    by_shape = True
    keep_towers: frozenset[int] = frozenset()

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        channels: Count = 256,
        convs: Index = 4,
        extra: Index = 2,
        reg_max: Count = 16,
        box_loss: Literal["giou", "ciou"] = "giou",
        box_weight: NonNegative = 2.0,
        dfl_weight: NonNegative = 0.25,
        score_threshold: Fraction = 0.05,
        nms_iou: Fraction = 0.6,
        top_k: Count = 1000,
        max_detections: Count = 100,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.strides = levels(backbone.strides[-MAPS:], extra)
        self.channels, self.convs = channels, convs
        self.bins = reg_max + 1
        self.anchors = 1
        self.start = 0.0
        self.backbone = backbone
        self.neck = FPN(backbone.channels[-MAPS:], channels=channels, extra=extra)
        self.head = Head(channels, convs, num_classes, self.bins, len(self.strides))
        self.box_loss = box_loss
        self.box_weight, self.dfl_weight = box_weight, dfl_weight
        self.score_threshold, self.nms_iou = score_threshold, nms_iou
        self.top_k, self.max_detections = top_k, max_detections

    def forward(self, images: Tensor) -> Outputs:
        """Images of 0..1, (B, 3, height, width) of any size -> Outputs."""
        maps = self.backbone(images)
        features = self.neck(maps[-MAPS:])
        if self.features_only:
            return Outputs(features, maps=maps, by=self)
        cls, box, kept = both(self.head.cls_tower, self.head.box_tower, features, self.keep_towers)
        cls, box = self.head.predict(cls, box)
        return Outputs(features, cls, box, maps, towers=kept, by=self)

    def finish(self, cls: list[Tensor], box: list[Tensor], *, after: int) -> Outputs:
        """What the head says, given what `towers` has after so many convolutions, each L of (B, C, H, W)."""
        return Outputs([], *self.head.finish(cls, box, after=after), by=self)

    def boxes(self, outputs: Outputs) -> Tensor:
        """The boxes that all rows say, in pixels of the padded batch, with gradient. -> (B*A, 4) in float32."""
        return boxes(outputs, self.strides, self.bins)

    @torch.no_grad()
    def valuable(self, outputs: Outputs, targets: Targets, *, gamma: float, overlap: Overlap) -> Region:
        """The valuable localization region, by the thresholds of ATSS. A positive may be in it: see `near`."""
        return valuable(outputs, targets, self.strides, gamma=gamma, overlap=overlap)

    @torch.no_grad()
    def assign(self, outputs: Outputs, truth: Truth) -> Targets:
        """ATSS over the cells that do not lie in the padding."""
        return atss_targets(outputs, truth, self.strides)

    def losses(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """Quality focal loss, box loss and distribution focal loss, in float32 even under autocast."""
        return losses(
            outputs,
            targets,
            outputs.class_rows().float(),
            strides=self.strides,
            bins=self.bins,
            kind=self.box_loss,
            box_weight=self.box_weight,
            dfl_weight=self.dfl_weight,
        )

    @torch.no_grad()
    def detect(self, outputs: Outputs, sizes: list[tuple[int, int]]) -> list[Detections]:
        """The best boxes of each image. Cells in the padding, which never learnt, say nothing."""
        return detections(
            outputs,
            outputs.class_rows().float(),
            sizes,
            strides=self.strides,
            bins=self.bins,
            top_k=self.top_k,
            score_threshold=self.score_threshold,
            nms_iou=self.nms_iou,
            max_detections=self.max_detections,
        )


class Head(nn.Module):
    """A tower for classes and one for edges: the same weights at every level, but for the scale of edges."""

    def __init__(self, channels: int, convs: int, num_classes: int, bins: int, levels: int) -> None:
        super().__init__()
        self.cls_tower = tower(channels, convs)
        self.box_tower = tower(channels, convs)
        self.cls = nn.Conv2d(channels, num_classes, 3, 1, 1)
        self.box = nn.Conv2d(channels, 4 * bins, 3, 1, 1)
        self.scales = nn.Parameter(torch.ones(levels))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
        for conv, value in ((self.cls, math.log(PRIOR / (1 - PRIOR))), (self.box, 0.0)):
            nn.init.constant_(conv.get_parameter("bias"), value)

    def finish(self, cls: list[Tensor], box: list[Tensor], *, after: int) -> tuple[list[Tensor], list[Tensor]]:
        """`predict` of what the towers make of maps that so many of their convolutions have seen."""
        return self.predict(climb(self.cls_tower, cls, after=after)[0], climb(self.box_tower, box, after=after)[0])

    def predict(self, cls: list[Tensor], box: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The ends of the towers -> class logits, L of (B, K, H, W), and edge logits, L of (B, 4*S, H, W)."""
        edges = [self.box(x) * s for x, s in zip(box, self.scales, strict=True)]
        return [self.cls(x) for x in cls], edges


def tower(channels: int, convs: int) -> nn.Sequential:
    """3x3 convolutions of one width, each with group norm and ReLU."""
    layers: list[nn.Module] = []
    for _ in range(convs):
        conv = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        layers += [conv, group_norm(channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def atss_targets(outputs: Outputs, truth: Truth, strides: tuple[int, ...]) -> Targets:
    """ATSS over the cells that do not lie in the padding.

    `own["threshold"]` (N,) is that of each box, image by image.
    """
    grid = anchors(outputs.cls, strides)
    valid = inside(grid, truth.sizes)
    boxes, labels = torch.cat(truth.boxes), torch.cat(truth.labels)
    row, number, threshold = assign(grid, valid, boxes, image_of(truth))
    level = grid.level[row % valid.shape[1]]
    own = {"threshold": threshold}
    ignored = neither(grid.box, truth, row, grid.centre)
    return Targets(row, level, labels[number], boxes[number], valid.flatten(), len(strides), truth, own, ignored)


def valuable(outputs: Outputs, targets: Targets, strides: tuple[int, ...], *, gamma: float, overlap: Overlap) -> Region:
    """The valuable localization region of these `atss_targets`."""
    grid = anchors(outputs.cls, strides)
    return near(grid, targets, targets.own["threshold"], gamma=gamma, overlap=overlap)


def losses(
    outputs: Outputs,
    targets: Targets,
    logits: Tensor,
    *,
    strides: tuple[int, ...],
    bins: int,
    kind: str,
    box_weight: float,
    dfl_weight: float,
) -> dict[str, Tensor]:
    """The losses of GFL, where logits (B*A, K) in float32 say what each location scores for each class.

    The first is divided by the number of positives, an image counting at least one; the others by the sum
    of the positives' weights, their highest scores. Both divisors are means over the workers.
    """
    edges = outputs.edge_rows(bins).index_select(0, targets.row).float()  # (P, 4, S)
    with torch.autocast(logits.device.type, enabled=False):
        grid = anchors(outputs.cls, strides)
        cell = targets.row % len(grid.stride)
        stride = grid.stride[cell, None]
        centre, box = grid.centre[cell] / stride, targets.box / stride
        predicted = around(centre, integral(edges))

        quality = torch.zeros_like(logits)
        quality[targets.row, targets.label] = paired_iou(predicted.detach(), box)
        qfl = quality_focal_loss(logits, quality) @ targets.learnt.float()

        weight = logits.detach().index_select(0, targets.row).sigmoid().amax(1)
        distance = torch.cat([centre - box[:, :2], box[:, 2:] - centre], dim=1)
        distance = distance.clamp(min=0, max=bins - 1.1)
        dfl = distribution_focal_loss(edges, distance).mean(1) @ weight
        iou = box_loss(kind, predicted, box) @ weight

        positives = in_each(targets.row // len(grid.stride), targets.images)
        count, total = workers.mean(torch.stack([positives.clamp(min=1).sum(), weight.sum()]))
        total = total + 1e-6
        return {"qfl": qfl / count, "box": box_weight * iou / total, "dfl": dfl_weight * dfl / total}


def boxes(outputs: Outputs, strides: tuple[int, ...], bins: int) -> Tensor:
    """The boxes that all rows say, in pixels of the padded batch. -> (B*A, 4) in float32."""
    grid = anchors(outputs.cls, strides)
    distance = integral(outputs.edge_rows(bins).float()).unflatten(0, (-1, len(grid.stride)))
    return around(grid.centre, distance * grid.stride[:, None]).flatten(0, 1)


def detections(
    outputs: Outputs,
    logits: Tensor,
    sizes: list[tuple[int, int]],
    *,
    strides: tuple[int, ...],
    bins: int,
    top_k: int,
    score_threshold: float,
    nms_iou: float,
    max_detections: int,
) -> list[Detections]:
    """The best boxes of each image, where logits (B*A, K) in float32 say what each location scores for each class."""
    grid = anchors(outputs.cls, strides)
    valid = inside(grid, sizes)
    scores, cells, labels = best_pairs(logits.unflatten(0, valid.shape), valid, grid.cells, top_k=top_k)
    every = boxes(outputs, strides, bins).unflatten(0, valid.shape)
    return keep_best(
        every.gather(1, cells[:, :, None].expand(-1, -1, 4)),
        scores,
        labels,
        sizes,
        score_threshold=score_threshold,
        nms_iou=nms_iou,
        max_detections=max_detections,
    )


def around(centre: Tensor, distance: Tensor) -> Tensor:
    """The box whose edges lie so far from its centre. (..., 2), (..., 4) -> (..., 4)."""
    return torch.cat([centre - distance[..., :2], centre + distance[..., 2:]], dim=-1)


def box_loss(kind: str, predicted: Tensor, box: Tensor) -> Tensor:
    """1 - GIoU or 1 - CIoU of boxes in pairs. (P, 4) twice -> (P,)."""
    return (giou_loss if kind == "giou" else ciou_loss)(predicted, box)
