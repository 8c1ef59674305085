"""ATSS, the detector: one anchor a cell, positives chosen by their statistics, and a centerness beside the classes.

Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample
Selection", CVPR 2020, https://arxiv.org/abs/1912.02424; as mmdetection trains it. With distributions of its edges it
is what LD distils (Zheng et al., CVPR 2022, https://arxiv.org/abs/2102.12252).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from trainers.call import Count, Fraction, Index, NonNegative
from trainers.detectors.anchors import anchors, inside
from trainers.detectors.centerness import at_cells, centerness, distribution_loss, edges, factored, losses
from trainers.detectors.deltas import Deltas
from trainers.detectors.focal import integral
from trainers.detectors.gfl import PRIOR, around, atss_targets, box_loss, tower, valuable
from trainers.detectors.nms import best_pairs, keep_best
from trainers.detectors.towers import both, climb
from trainers.detectors.valuable import in_each
from trainers.fpn import FPN, MAPS, Backbone, levels
from trainers.outputs import Detections, Outputs, Overlap, Region, Targets, Truth, rows

DELTAS = Deltas(centre=1 / 0.1, side=1 / 0.2)  # by their deviations, so that a head learns numbers of about 1


class ATSS(nn.Module):
    """FPN and two towers that all levels share. An anchor has a side of 8 strides.

    Boxes are deltas of their anchors; with `reg_max`, distributions of the distances from the cell's centre to the
    four edges, counted in strides, 0..reg_max.
    """

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
        reg_max: Index = 0,
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
        self.bins = reg_max + 1 if reg_max else 0
        self.anchors = 1
        self.start = 0.0
        self.backbone = backbone
        self.neck = FPN(backbone.channels[-MAPS:], channels=channels, extra=extra)
        self.head = Head(channels, convs, num_classes, 4 * max(1, self.bins), len(self.strides))
        self.box_weight, self.dfl_weight = box_weight, dfl_weight
        self.score_threshold, self.nms_iou = score_threshold, nms_iou
        self.top_k, self.max_detections = top_k, max_detections

    def forward(self, images: Tensor) -> Outputs:
        """Images of 0..1, (B, 3, height, width) of any size -> Outputs, `own` with the logits of `centerness`."""
        maps = self.backbone(images)
        features = self.neck(maps[-MAPS:])
        if self.features_only:
            return Outputs(features, maps=maps, by=self)
        cls, box, kept = both(self.head.cls_tower, self.head.box_tower, features, self.keep_towers)
        cls, box, centred = self.head.predict(cls, box)
        return Outputs(features, cls, box, maps, {"centerness": centred}, towers=kept, by=self)

    def finish(self, cls: list[Tensor], box: list[Tensor], *, after: int) -> Outputs:
        """What the head says, given what `towers` has after so many convolutions, each L of (B, C, H, W)."""
        cls, box = (climb(t, x, after=after)[0] for t, x in ((self.head.cls_tower, cls), (self.head.box_tower, box)))
        cls, box, centred = self.head.predict(cls, box)
        return Outputs([], cls, box, own={"centerness": centred}, by=self)

    def boxes(self, outputs: Outputs) -> Tensor:
        """The boxes that all rows say, in pixels of the padded batch, with gradient. -> (B*A, 4) in float32."""
        grid = anchors(outputs.cls, self.strides)
        values = rows(outputs.box).float()
        image = len(values) // len(grid.stride)
        return self._boxes(values, grid.box.repeat(image, 1), grid.stride.repeat(image))

    @torch.no_grad()
    def centred(self, outputs: Outputs, targets: Targets) -> Tensor:
        """The real centerness of the positives. -> (P,)"""
        grid = anchors(outputs.cls, self.strides)
        return centerness(edges(grid.centre[targets.row % len(grid.stride)], targets.box))

    @torch.no_grad()
    def valuable(self, outputs: Outputs, targets: Targets, *, gamma: float, overlap: Overlap) -> Region:
        """The valuable localization region, by the thresholds of ATSS. A positive may be in it: see `near`."""
        return valuable(outputs, targets, self.strides, gamma=gamma, overlap=overlap)

    @torch.no_grad()
    def assign(self, outputs: Outputs, truth: Truth) -> Targets:
        """ATSS over the cells that do not lie in the padding."""
        return atss_targets(outputs, truth, self.strides)

    def losses(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """Focal loss, cross entropy of the centerness, GIoU, distribution focal loss, in float32 even under autocast.

        The first two are divided by the number of positives, an image counting at least one; the others are weighted
        by the positives' centerness and divided by its sum.
        """
        values = rows(outputs.box).index_select(0, targets.row).float()  # (P, 4) or (P, 4*S)
        with torch.autocast(values.device.type, enabled=False):
            grid = anchors(outputs.cls, self.strides)
            cell = targets.row % len(grid.stride)
            predicted = self._boxes(values, grid.box[cell], grid.stride[cell])
            by_box = {"box": self.box_weight * box_loss("giou", predicted, targets.box)}
            distance = edges(grid.centre[cell], targets.box)
            if self.bins:
                bins = values.unflatten(1, (4, self.bins))
                by_box["dfl"] = self.dfl_weight * distribution_loss(bins, distance / grid.stride[cell, None])

            positives = in_each(targets.row // len(grid.stride), targets.images)
            target = centerness(distance)
            count = positives.clamp(min=1).sum()
            return losses(outputs, targets, by_box, counted=targets.learnt, count=count, weight=target, target=target)

    @torch.no_grad()
    def detect(self, outputs: Outputs, sizes: list[tuple[int, int]]) -> list[Detections]:
        """The best boxes of each image, by class score times centerness. Cells in the padding say nothing."""
        grid = anchors(outputs.cls, self.strides)
        valid = inside(grid, sizes)
        logits = outputs.class_rows().float().unflatten(0, valid.shape)
        scores, cells, labels = best_pairs(logits, valid, grid.cells, top_k=self.top_k)
        return keep_best(
            self._boxes(at_cells(outputs.box, cells), grid.box[cells], grid.stride[cells]),
            factored(scores, cells, outputs, score_threshold=self.score_threshold),
            labels,
            sizes,
            score_threshold=0.0,  # of classes alone, and so it has been applied
            nms_iou=self.nms_iou,
            max_detections=self.max_detections,
        )

    def _boxes(self, values: Tensor, anchor: Tensor, stride: Tensor) -> Tensor:
        """What the head says (..., 4) or (..., 4*S) of anchors (..., 4) with strides (...) -> boxes (..., 4)."""
        if self.bins:
            distance = integral(values.unflatten(-1, (4, self.bins))) * stride[..., None]
            return around((anchor[..., :2] + anchor[..., 2:]) / 2, distance)
        return DELTAS.decode(values.reshape(-1, 4), anchor.reshape(-1, 4)).view(values.shape)


class Head(nn.Module):
    """A tower for classes and one for boxes and centerness: the same weights at every level, but for a box's scale."""

    def __init__(self, channels: int, convs: int, num_classes: int, numbers: int, levels: int) -> None:
        super().__init__()
        self.cls_tower = tower(channels, convs)
        self.box_tower = tower(channels, convs)
        self.cls = nn.Conv2d(channels, num_classes, 3, 1, 1)
        self.box = nn.Conv2d(channels, numbers, 3, 1, 1)
        self.centerness = nn.Conv2d(channels, 1, 3, 1, 1)
        self.scales = nn.Parameter(torch.ones(levels))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
        for conv, value in ((self.cls, math.log(PRIOR / (1 - PRIOR))), (self.box, 0.0), (self.centerness, 0.0)):
            nn.init.constant_(conv.get_parameter("bias"), value)

    def predict(self, cls: list[Tensor], box: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """The ends of the towers -> class logits, deltas or edge logits, and logits of centerness.

        Each L of (B, ., H, W), with K, 4 or 4*S, and 1 channels.
        """
        said = [self.box(x) * scale for x, scale in zip(box, self.scales, strict=True)]
        return [self.cls(x) for x in cls], said, [self.centerness(x) for x in box]
