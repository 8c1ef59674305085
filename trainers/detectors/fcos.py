"""FCOS: every point in the middle of a box says how far its four edges are.

Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019, https://arxiv.org/abs/1904.01355, and
"FCOS: A Simple and Strong Anchor-free Object Detector", TPAMI 2020, https://arxiv.org/abs/2006.09214. With
distributions of its edges it is what LD distils (Zheng et al., CVPR 2022, https://arxiv.org/abs/2102.12252).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from trainers.call import Count, Fraction, Index, Invalid, NonNegative
from trainers.detectors.anchors import Anchors, anchors, inside, paired_iou
from trainers.detectors.centerness import at_cells, centerness, distribution_loss, edges, factored, losses
from trainers.detectors.focal import integral
from trainers.detectors.gfl import PRIOR, around, box_loss
from trainers.detectors.handed import handed
from trainers.detectors.ignored import neither
from trainers.detectors.nms import best_pairs, keep_best
from trainers.detectors.towers import both, climb
from trainers.detectors.valuable import image_of
from trainers.fpn import FPN, MAPS, Backbone, levels
from trainers.norm import group_norm
from trainers.outputs import Detections, Outputs, Overlap, Region, Targets, Truth, rows

Conventions = Literal["mmdetection", "paper", "torchvision"]
RADIUS = 1.5  # strides that a point may be away from its box's centre, on each axis
FARTHEST = 8  # strides that the farthest edge may be away; the level before ends at half of that


class FCOS(nn.Module):
    """FPN and torchvision's two towers, which all levels share, in one of three conventions.

    - `mmdetection`: its recipe center-normbbox-centeronreg-giou, the paper of 2020. Points lie in the middle of cells,
      only those near a box's centre are positive, a distance is relu(x) strides, the loss is GIoU.
    - `paper`: the ICCV paper, mmdetection's gn-head. All points in a box are positive, a distance is exp(x) pixels, the
      loss is -log IoU, centerness comes from the tower of classes, convolutions before norms have no bias. There
      `nms_iou` is 0.5.
    - `torchvision`: its weights fit and mean the same. Points lie at cells' corners, no level has a scale, the score is
      the geometric mean of class and centerness, boxes are not weighted. There `score_threshold` is 0.2.

    With `reg_max`, which torchvision does not know, distances are distributions, counted in strides, 0..reg_max.
    """

    features_only = False
    by_shape = True
    keep_towers: frozenset[int] = frozenset()

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        conventions: Conventions = "mmdetection",
        channels: Count = 256,
        convs: Index = 4,
        extra: Index = 2,
        reg_max: Index = 0,
        dfl_weight: NonNegative = 0.25,
        score_threshold: Fraction = 0.05,
        nms_iou: Fraction = 0.6,
        top_k: Count = 1000,
        max_detections: Count = 100,
    ) -> None:
        super().__init__()
        if reg_max and conventions == "torchvision":
            raise Invalid("torchvision's conventions have no distributions: reg_max must be 0", ("reg_max",))
        self.num_classes = num_classes
        self.strides = levels(backbone.strides[-MAPS:], extra)
        self.channels, self.convs = channels, convs
        self.bins = reg_max + 1 if reg_max else 0
        self.anchors = 1
        self.start = 0.0 if conventions == "torchvision" else 0.5
        self.conventions = conventions
        self.backbone = backbone
        self.neck = FPN(backbone.channels[-MAPS:], channels=channels, extra=extra, relu=True)
        self.head = Head(channels, convs, num_classes, self.bins, len(self.strides), conventions)
        self.dfl_weight = dfl_weight
        self.score_threshold, self.nms_iou = score_threshold, nms_iou
        self.top_k, self.max_detections = top_k, max_detections

    def forward(self, images: Tensor) -> Outputs:
        """Images of 0..1, (B, 3, height, width) of any size -> Outputs, `own` with the logits of `centerness`.

        `box` has distances to the edges, at least 0, in strides or in the paper's pixels, or their distributions.
        """
        maps = self.backbone(images)
        features = self.neck(maps[-MAPS:])
        if self.features_only:
            return Outputs(features, maps=maps, by=self)
        classes, boxes = self.head.classification_head, self.head.regression_head
        cls, box, kept = both(classes.conv, boxes.conv, features, self.keep_towers)
        cls, box, centred = self.head.predict(cls, box)
        return Outputs(features, cls, box, maps, {"centerness": centred}, towers=kept, by=self)

    def finish(self, cls: list[Tensor], box: list[Tensor], *, after: int) -> Outputs:
        """What the head says, given what `towers` has after so many convolutions, each L of (B, C, H, W)."""
        classes, boxes = self.head.classification_head, self.head.regression_head
        ends = climb(classes.conv, cls, after=after)[0], climb(boxes.conv, box, after=after)[0]
        cls, box, centred = self.head.predict(*ends)
        return Outputs([], cls, box, own={"centerness": centred}, by=self)

    def boxes(self, outputs: Outputs) -> Tensor:
        """The boxes that all rows say, in pixels of the padded batch, with gradient. -> (B*A, 4) in float32."""
        grid = self._grid(outputs)
        values = rows(outputs.box).float().unflatten(0, (-1, len(grid.stride)))
        return around(self._points(grid), self._distance(values, grid.stride[:, None])).flatten(0, 1)

    @torch.no_grad()
    def centred(self, outputs: Outputs, targets: Targets) -> Tensor:
        """The real centerness of the positives. -> (P,)"""
        grid = self._grid(outputs)
        return centerness(edges(self._points(grid)[targets.row % len(grid.stride)], targets.box))

    @torch.no_grad()
    def valuable(self, outputs: Outputs, targets: Targets, *, gamma: float, overlap: Overlap) -> Region:
        """The points that lie in a box and answer for none, each to weigh as much as its class score.

        As the released code of LD has it for FCOS, which knows neither gamma nor overlap there.
        """
        boxes, image = torch.cat(targets.truth.boxes), image_of(targets.truth)
        point = self._points(self._grid(outputs))
        within = edges(point, boxes[:, None]).amin(2) > 0  # (N, A)
        found = torch.zeros(targets.images, len(point), dtype=torch.int32, device=point.device)
        found = found.index_add_(0, image, within.int()).flatten() * targets.valid
        found[targets.row] = 0
        return Region(found.nonzero().squeeze(1), None)

    @torch.no_grad()
    def assign(self, outputs: Outputs, truth: Truth) -> Targets:
        """Each point answers for the smallest box that it lies in and that its level is for.

        A point lies on what is to be ignored if it does, or the square of eight strides around it.
        """
        grid = self._grid(outputs)
        valid = inside(grid, truth.sizes)
        owners, start = [], 0
        for boxes in truth.boxes:
            owner = self._owner(grid, boxes)
            owners.append(torch.where(owner < 0, owner, owner + start))
            start += len(boxes)
        owned = torch.cat(owners)
        row = (owned >= 0).nonzero().squeeze(1)
        box, label = torch.cat(truth.boxes)[owned[row]], torch.cat(truth.labels)[owned[row]]
        level = grid.level[row % valid.shape[1]]
        ignored = neither(grid.box, truth, row, self._points(grid))
        return Targets(row, level, label, box, valid.flatten(), len(self.strides), truth, ignored=ignored)

    def losses(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """Focal loss, cross entropy of the centerness, box and distribution focal loss, in float32 even under autocast.

        The first two are divided by the number of positives; the others are weighted by the positives' centerness, in
        torchvision's conventions by 1, and divided by the weights' sum. The padding counts as background, as it does in
        mmdetection and torchvision.
        """
        values = rows(outputs.box).index_select(0, targets.row).float()  # (P, 4) or (P, 4*S)
        with torch.autocast(values.device.type, enabled=False):
            grid = self._grid(outputs)
            cell = targets.row % len(grid.stride)
            point, stride = self._points(grid)[cell], grid.stride[cell, None]
            predicted = around(point, self._distance(values, stride))
            if self.conventions == "paper":
                by_box = {"box": -paired_iou(predicted, targets.box).clamp(min=1e-6).log()}
            else:
                by_box = {"box": box_loss("giou", predicted, targets.box)}
            distance = edges(point, targets.box)
            if self.bins:
                bins = values.unflatten(1, (4, self.bins))
                by_box["dfl"] = self.dfl_weight * distribution_loss(bins, distance / stride)

            target = centerness(distance)
            ones = torch.ones_like(target)
            weight = ones if self.conventions == "torchvision" else target
            counted = torch.ones_like(targets.valid) if targets.ignored is None else ~targets.ignored
            return losses(outputs, targets, by_box, counted=counted, count=ones.sum(), weight=weight, target=target)

    @torch.no_grad()
    def detect(self, outputs: Outputs, sizes: list[tuple[int, int]]) -> list[Detections]:
        """The best boxes of each image. Points in the padding say nothing, but in torchvision's conventions they do."""
        grid = self._grid(outputs)
        valid = inside(grid, sizes)
        logits = outputs.class_rows().float().unflatten(0, valid.shape)
        threshold = self.score_threshold
        if self.conventions == "torchvision":
            centred = rows(outputs.own["centerness"]).float().unflatten(0, valid.shape)
            joint = (logits.sigmoid() * centred.sigmoid()).sqrt().logit()
            scores, cells, labels = best_pairs(joint, torch.ones_like(valid), grid.cells, top_k=self.top_k)
        else:
            scores, cells, labels = best_pairs(logits, valid, grid.cells, top_k=self.top_k)
            scores = factored(scores, cells, outputs, score_threshold=threshold)
            threshold = 0.0  # of classes alone, and so it has been applied
        distance = self._distance(at_cells(outputs.box, cells), grid.stride[cells, None])
        return keep_best(
            around(self._points(grid)[cells], distance),
            scores,
            labels,
            sizes,
            score_threshold=threshold,
            nms_iou=self.nms_iou,
            max_detections=self.max_detections,
        )

    def _grid(self, outputs: Outputs) -> Anchors:
        """The corners of cells. In torchvision they are as far apart as fits the padded batch, and so nearer on the
        extra levels: it divides a batch's size, a multiple of the coarsest map's stride, by that of the level."""
        grid = anchors(outputs.cls, self.strides)
        if self.conventions != "torchvision":
            return grid
        coarsest = len(self.neck.laterals) - 1
        height, width = (n * self.strides[coarsest] for n in outputs.cls[coarsest].shape[2:])
        shapes = zip(outputs.cls, self.strides, strict=True)
        nearer = [(width // x.shape[3] / stride, height // x.shape[2] / stride) for x, stride in shapes]
        centre = grid.centre * handed(nearer, grid.centre.device)[grid.level]
        half = (grid.box[:, 2:] - grid.box[:, :2]) / 2
        return replace(grid, centre=centre, box=torch.cat([centre - half, centre + half], dim=1))

    def _points(self, grid: Anchors) -> Tensor:
        """Where distances are measured from. -> (A, 2)."""
        return grid.centre if self.conventions == "torchvision" else grid.centre + grid.stride[:, None] // 2

    def _distance(self, values: Tensor, stride: Tensor) -> Tensor:
        """What the head says, (..., 4) or (..., 4*S), and strides (..., 1) -> distances in pixels, (..., 4)."""
        if self.bins:
            return integral(values.unflatten(-1, (4, self.bins))) * stride
        return values if self.conventions == "paper" else values * stride

    def _owner(self, grid: Anchors, boxes: Tensor) -> Tensor:
        """The number of the box of an image, (N, 4), that each point answers for, or -1. -> (A,)."""
        if not len(boxes):
            return torch.full_like(grid.level, -1)
        point, stride = self._points(grid)[:, None], grid.stride[:, None]
        distance = edges(point.expand(-1, len(boxes), -1), boxes.expand(len(point), -1, -1))  # (A, N, 4)
        match = distance.amin(-1) > 0
        if self.conventions != "paper":
            centre = (boxes[:, :2] + boxes[:, 2:]) / 2
            match &= (point - centre).abs().amax(-1) < RADIUS * stride

        farthest, high = distance.amax(-1), stride * FARTHEST
        low = (high / 2).masked_fill(grid.level[:, None] == 0, 0)
        high = high.masked_fill(grid.level[:, None] == len(self.strides) - 1, torch.inf)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        if self.conventions == "torchvision":
            match &= (farthest > low) & (farthest < high)
            area = 1e8 - (1e8 - area)  # so it compares areas, in float32: they are equal when they differ by little
        else:
            match &= (farthest >= low) & (farthest <= high)
        smallest, number = area.expand_as(match).masked_fill(~match, torch.inf).min(dim=1)
        return number.masked_fill(smallest.isinf(), -1)


class Head(nn.Module):
    """torchvision's two heads, read level by level; at a level they differ only by the scale of its distances."""

    def __init__(
        self, channels: int, convs: int, num_classes: int, bins: int, levels: int, conventions: Conventions
    ) -> None:
        super().__init__()
        from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSRegressionHead  # seconds to import

        self.classification_head = FCOSClassificationHead(channels, 1, num_classes, convs, PRIOR, group_norm)
        self.regression_head = FCOSRegressionHead(channels, 1, convs, group_norm)
        if bins:
            self.regression_head.bbox_reg = nn.Conv2d(channels, 4 * bins, 3, 1, 1)
            nn.init.normal_(self.regression_head.bbox_reg.weight, std=0.01)
        # From 0 an edge may start negative everywhere: relu would hide it from its loss for ever.
        start = 0.0 if bins or conventions == "paper" else 1.0
        nn.init.constant_(self.regression_head.bbox_reg.get_parameter("bias"), start)
        if conventions == "paper":
            for conv in (*self.classification_head.conv, *self.regression_head.conv):
                if isinstance(conv, nn.Conv2d):
                    conv.register_parameter("bias", None)
        self.scales = None if conventions == "torchvision" else nn.Parameter(torch.ones(levels))
        self.bins, self.conventions = bins, conventions

    def predict(
        self, for_classes: list[Tensor], for_boxes: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """The ends of the towers -> class logits, distances or their distributions, and logits of centerness."""
        cls, box, centred = [], [], []
        scales = [1.0] * len(for_boxes) if self.scales is None else self.scales
        for for_class, for_box, scale in zip(for_classes, for_boxes, scales, strict=True):
            cls.append(self.classification_head.cls_logits(for_class))
            centred.append(self.regression_head.bbox_ctrness(for_class if self.conventions == "paper" else for_box))
            said = self.regression_head.bbox_reg(for_box) * scale
            if not self.bins:  # a distance has no sign; bfloat16 would round hundreds of pixels
                said = said.float().exp() if self.conventions == "paper" else said.float().relu()
            box.append(said)
        return cls, box, centred
