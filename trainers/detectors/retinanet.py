"""RetinaNet: nine anchors a cell, focal loss for their classes, and boxes as deltas or as distributions of edges.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, https://arxiv.org/abs/1708.02002
Edges for localization distillation: Zheng et al., CVPR 2022, https://arxiv.org/abs/2102.12252, and their code.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainers import workers
from trainers.box_losses import giou_loss
from trainers.call import Count, Fraction, Index, NonNegative
from trainers.detectors.anchors import Anchors, inside
from trainers.detectors.deltas import Deltas
from trainers.detectors.focal import distribution_focal_loss, integral
from trainers.detectors.gfl import around
from trainers.detectors.ignored import neither
from trainers.detectors.initial import spread
from trainers.detectors.max_iou import BACKGROUND, IGNORED, MaxIoU
from trainers.detectors.nine import NINE, Conventions, nine_anchors
from trainers.detectors.nms import best_pairs, keep_best
from trainers.detectors.towers import both, climb, parts
from trainers.detectors.valuable import box_thresholds, first_of, in_each, near
from trainers.fpn import FPN, MAPS, Backbone, levels
from trainers.norm import group_norm
from trainers.outputs import Detections, Outputs, Overlap, Region, Targets, Truth, rows

GAMMA, ALPHA = 2.0, 0.25
POSITIVE, NEGATIVE = 0.5, 0.4  # IoU; between them an anchor is neither
EDGES_WEIGHT = 2.0  # of the GIoU loss of boxes whose edges are distributions


class RetinaNet(nn.Module):
    """FPN and torchvision's RetinaNet head, under torchvision's names, so that its weights fit.

    `conventions` decides how anchors lie, whether those in the padding count, which box has an anchor that several
    need, whether a ReLU comes before the second extra level, and what losses are divided by. torchvision's published
    weights belong to {conventions: torchvision, extra_from: output}; its second ones to {conventions: torchvision,
    tower_norm: group, box_loss: giou}.

    A box is four deltas from its anchor, and learns by `box_loss`. With `reg_max` it is four distances from the
    anchor's centre instead, of 0..reg_max strides as in GFL, and learns by GIoU and by `dfl_weight` times the
    distribution focal loss.
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
        extra: Index = 2,
        extra_from: Literal["input", "output"] = "input",
        conventions: Conventions = "mmdetection",
        tower_norm: Literal["none", "group"] = "none",
        box_loss: Literal["l1", "giou"] = "l1",
        reg_max: Index = 0,
        dfl_weight: NonNegative = 0.25,
        score_threshold: Fraction = 0.05,
        nms_iou: Fraction = 0.5,
        top_k: Count = 1000,
        max_detections: Count = 100,
    ) -> None:
        super().__init__()
        from torchvision.models.detection._utils import Matcher  # seconds to import

        self.num_classes = num_classes
        self.strides = levels(backbone.strides[-MAPS:], extra)
        self.channels = channels
        self.bins = reg_max + 1 if reg_max else 0
        self.anchors = NINE
        self.start = 0.0
        self.conventions = conventions
        self.backbone = backbone
        theirs = conventions == "torchvision"
        self.neck = FPN(backbone.channels[-MAPS:], channels=channels, extra=extra, extra_from=extra_from, relu=theirs)
        self.head = head(channels, num_classes, tower_norm, self.bins)
        self.convs = len(parts(self.head.classification_head.conv))
        self.coder = Deltas()
        self.matcher = Matcher(POSITIVE, NEGATIVE, allow_low_quality_matches=True)
        if not theirs:
            self.matcher = MaxIoU(POSITIVE, NEGATIVE)
        self.box_loss, self.dfl_weight = box_loss, dfl_weight
        self.score_threshold, self.nms_iou = score_threshold, nms_iou
        self.top_k, self.max_detections = top_k, max_detections

    def forward(self, images: Tensor) -> Outputs:
        """Images of 0..1, (B, 3, height, width) of any size -> Outputs."""
        maps = self.backbone(images)
        features = self.neck(maps[-MAPS:])
        if self.features_only:
            return Outputs(features, maps=maps, by=self)
        classes, boxes = self.head.classification_head, self.head.regression_head
        cls, box, kept = both(classes.conv, boxes.conv, features, self.keep_towers)
        cls = [classes.cls_logits(x) for x in cls]
        box = [boxes.bbox_reg(x) for x in box]
        return Outputs(features, cls, box, maps, anchors=NINE, towers=kept, by=self)

    def finish(self, cls: list[Tensor], box: list[Tensor], *, after: int) -> Outputs:
        """What the head says, given what `towers` has after so many convolutions, each L of (B, C, H, W)."""
        classes, boxes = self.head.classification_head, self.head.regression_head
        cls = [classes.cls_logits(x) for x in climb(classes.conv, cls, after=after)[0]]
        box = [boxes.bbox_reg(x) for x in climb(boxes.conv, box, after=after)[0]]
        return Outputs([], cls, box, anchors=NINE, by=self)

    def boxes(self, outputs: Outputs) -> Tensor:
        """The boxes that all rows say, in pixels of the padded batch, with gradient. -> (B*A, 4) in float32."""
        grid, raw = self.grid(outputs), rows(outputs.box, NINE).float()
        return self.decode(raw, torch.arange(len(raw), device=raw.device) % len(grid.box), grid)

    @torch.no_grad()
    def valuable(self, outputs: Outputs, targets: Targets, *, gamma: float, overlap: Overlap) -> Region:
        """The valuable localization region, without positives.

        As in the released code of LD, a box's threshold is that of ATSS over the nine anchors of each level's nearest
        cell, although it does not choose the positives here.
        """
        grid = self.grid(outputs)
        threshold = box_thresholds(grid, targets)
        return near(grid, targets, threshold, gamma=gamma, overlap=overlap, positives=False)

    @torch.no_grad()
    def assign(self, outputs: Outputs, truth: Truth) -> Targets:
        """An anchor answers for the box that it overlaps most, if by an IoU of 0.5; of 0.4 to 0.5 it is ignored.

        The anchors that overlap a box most, all of equals, are positive whatever the IoU: mmdetection's for that box,
        the last one if there are several, torchvision's for the box that they overlap most. Anchors on what is to be
        ignored are ignored, too, if they answer for no box.
        """
        from torchvision.ops import box_iou

        grid = self.grid(outputs)
        valid = self.valid(grid, truth.sizes)
        owners = torch.full(valid.shape, BACKGROUND, device=valid.device)  # (B, A)
        for owner, inner, boxes in zip(owners, valid, truth.boxes, strict=True):
            if len(boxes):
                overlap = box_iou(boxes, grid.box).masked_fill(~inner, -1)  # below every threshold, and nobody's best
                owner.copy_(self.matcher(overlap))
        image, anchor = (owners >= 0).nonzero(as_tuple=True)
        row = image * len(grid.box) + anchor
        ignored, there = (owners == IGNORED).flatten(), neither(grid.box, truth, row)
        number = first_of(truth)[image] + owners[image, anchor]  # of the box among those of all images
        return Targets(
            row=row,
            level=grid.level[anchor],
            label=torch.cat(truth.labels)[number],
            box=torch.cat(truth.boxes)[number],
            valid=valid.flatten(),
            levels=len(self.strides),
            truth=truth,
            ignored=ignored if there is None else ignored | there,
        )

    def losses(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """Focal loss over the anchors that are not ignored, and the loss of the positives' boxes, in float32."""
        from torchvision.ops import sigmoid_focal_loss

        logits = outputs.class_rows().float()
        raw = rows(outputs.box, NINE).index_select(0, targets.row).float()
        with torch.autocast(logits.device.type, enabled=False):
            grid = self.grid(outputs)
            image, anchor = targets.row // len(grid.box), targets.row % len(grid.box)
            share = self.shares(in_each(image, targets.images))

            wanted = torch.zeros_like(logits)
            wanted[targets.row, targets.label] = 1
            focal = sigmoid_focal_loss(logits, wanted, ALPHA, GAMMA).sum(1)
            focal = focal * targets.learnt
            found = {"focal": focal.unflatten(0, (targets.images, -1)).sum(1) @ share}
            for name, loss in self.box_losses(raw, anchor, grid, targets.box).items():
                found[name] = loss @ share[image]
            return found

    def shares(self, positives: Tensor) -> Tensor:
        """What to multiply each image's losses with, given its number of positives. (B,) -> (B,).

        mmdetection divides by the positives of all images, an image counting at least one; torchvision divides an
        image's losses by its own and takes the mean over the images. Both divisors are means over the workers.
        """
        counts = positives.clamp(min=1)
        if self.conventions == "mmdetection":
            return torch.ones_like(counts) / workers.mean(counts.sum())
        return 1 / (counts * workers.mean(counts.new_full((), len(counts))))

    def box_losses(self, raw: Tensor, anchor: Tensor, grid: Anchors, box: Tensor) -> dict[str, Tensor]:
        """Of what the positives (P, 4) or (P, 4*S) of these anchors (P,) say of their boxes (P, 4). -> (P,) each."""
        if not self.bins and self.box_loss == "l1":
            return {"box": (raw - self.coder.encode(box, grid.box[anchor])).abs().sum(1)}
        giou = giou_loss(self.decode(raw, anchor, grid), box)
        if not self.bins:
            return {"box": giou}
        centre, stride = grid.centre[anchor], grid.stride[anchor, None]
        distance = torch.cat([centre - box[:, :2], box[:, 2:] - centre], dim=1) / stride
        distance = distance.clamp(min=0, max=self.bins - 1.1)
        dfl = distribution_focal_loss(raw.unflatten(1, (4, self.bins)), distance).mean(1)
        return {"box": EDGES_WEIGHT * giou, "dfl": self.dfl_weight * dfl}

    @torch.no_grad()
    def detect(self, outputs: Outputs, sizes: list[tuple[int, int]]) -> list[Detections]:
        """The best boxes of each image; with mmdetection's conventions none from cells in the padding."""
        grid = self.grid(outputs)
        valid = self.valid(grid, sizes)
        logits = outputs.class_rows().float().unflatten(0, valid.shape)
        scores, anchors, labels = best_pairs(logits, valid, grid.cells, top_k=self.top_k)
        raw = rows(outputs.box, NINE).unflatten(0, valid.shape)
        raw = raw.gather(1, anchors[:, :, None].expand(-1, -1, raw.shape[2])).float()
        boxes = self.decode(raw.flatten(0, 1), anchors.flatten(), grid).unflatten(0, anchors.shape)
        return keep_best(
            boxes,
            scores,
            labels,
            sizes,
            score_threshold=self.score_threshold,
            nms_iou=self.nms_iou,
            max_detections=self.max_detections,
        )

    def decode(self, raw: Tensor, anchor: Tensor, grid: Anchors) -> Tensor:
        """The boxes that these anchors (R,) say by (R, 4) deltas or (R, 4*S) edges. -> (R, 4)."""
        if self.bins:
            distance = integral(raw.unflatten(1, (4, self.bins))) * grid.stride[anchor, None]
            return around(grid.centre[anchor], distance)
        return self.coder.decode(raw, grid.box[anchor])

    def grid(self, outputs: Outputs) -> Anchors:
        """The anchors of these maps."""
        return nine_anchors(outputs.cls, self.strides, self.conventions)

    def valid(self, grid: Anchors, sizes: list[tuple[int, int]]) -> Tensor:
        """Which anchors count in images of these (height, width). -> (B, A) bool."""
        if self.conventions == "mmdetection":
            return inside(grid, sizes)
        return torch.ones(len(sizes), len(grid.box), dtype=torch.bool, device=grid.box.device)


def head(channels: int, num_classes: int, norm: str, bins: int) -> Any:
    """torchvision's head: two towers of four convolutions that all levels share."""
    from torchvision.models.detection.retinanet import RetinaNetHead

    whole = RetinaNetHead(channels, NINE, num_classes, norm_layer=group_norm if norm == "group" else None)
    if bins:
        conv = nn.Conv2d(channels, NINE * 4 * bins, 3, 1, 1)
        nn.init.zeros_(conv.get_parameter("bias"))
        whole.regression_head.bbox_reg = conv
    for module in whole.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=spread(channels))
    return whole
