"""GFLv2: GFL whose class scores are multiplied by a quality that it reads off the shape of its edge distributions.

Li et al., "Generalized Focal Loss V2: Learning Reliable Localization Quality Estimation for Dense Object
Detection", CVPR 2021, https://arxiv.org/abs/2011.12885
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from trainers.call import Count, Fraction, Index, Invalid, NonNegative
from trainers.detectors.gfl import Head, atss_targets, boxes, detections, losses, valuable
from trainers.detectors.precision import full_precision
from trainers.detectors.towers import both
from trainers.fpn import FPN, MAPS, Backbone, levels
from trainers.outputs import Detections, Outputs, Overlap, Region, Targets, Truth, rows

NEVER_SURE = 1e-6  # a quality is at least this and at most 1 - this, so that its logarithms are finite


class GFLv2(nn.Module):
    """GFL and a small network that all levels share: from the `top` highest bins of each edge to a quality.

    A location scores sigmoid(class logit) * quality, in its losses, in the weight of its box and when it detects.
    `Outputs.cls` are the class logits alone, as distillation reads them, and `own["quality"]` the qualities, 0..1.
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
        reg_max: Count = 16,
        top: Count = 4,
        hidden: Count = 64,
        box_loss: Literal["giou", "ciou"] = "giou",
        box_weight: NonNegative = 2.0,
        dfl_weight: NonNegative = 0.25,
        score_threshold: Fraction = 0.05,
        nms_iou: Fraction = 0.6,
        top_k: Count = 1000,
        max_detections: Count = 100,
    ) -> None:
        super().__init__()
        if top > reg_max + 1:
            raise Invalid(
                f"an edge has {reg_max + 1} bins (reg_max {reg_max}), of which {top} cannot be read", ("top",)
            )
        self.num_classes = num_classes
        self.strides = levels(backbone.strides[-MAPS:], extra)
        self.channels, self.convs = channels, convs
        self.bins = reg_max + 1
        self.anchors = 1
        self.start = 0.0
        self.backbone = backbone
        self.neck = FPN(backbone.channels[-MAPS:], channels=channels, extra=extra)
        self.head = Head(channels, convs, num_classes, self.bins, len(self.strides))
        self.head.add_module("quality", predictor(4 * (top + 1), hidden))
        self.top = top
        self.box_loss = box_loss
        self.box_weight, self.dfl_weight = box_weight, dfl_weight
        self.score_threshold, self.nms_iou = score_threshold, nms_iou
        self.top_k, self.max_detections = top_k, max_detections

    def forward(self, images: Tensor) -> Outputs:
        """Images of 0..1, (B, 3, height, width) of any size -> Outputs, `own` with `quality`, L of (B, 1, H, W)."""
        maps = self.backbone(images)
        features = self.neck(maps[-MAPS:])
        if self.features_only:
            return Outputs(features, maps=maps, by=self)
        cls, box, kept = both(self.head.cls_tower, self.head.box_tower, features, self.keep_towers)
        cls, box = self.head.predict(cls, box)
        return Outputs(features, cls, box, maps, {"quality": self.quality(box)}, towers=kept, by=self)

    def quality(self, box: list[Tensor]) -> list[Tensor]:
        """What the shapes of edge distributions, L of (B, 4*S, H, W), say of them. -> L of (B, 1, H, W), 0..1."""
        predict = self.head.get_submodule("quality")
        with full_precision(box[0]):  # bfloat16 has no number between 0.996 and 1
            return [predict(statistics(x.float(), self.bins, self.top)) for x in box]

    def finish(self, cls: list[Tensor], box: list[Tensor], *, after: int) -> Outputs:
        """What the head says, given what `towers` has after so many convolutions, each L of (B, C, H, W)."""
        cls, box = self.head.finish(cls, box, after=after)
        return Outputs([], cls, box, own={"quality": self.quality(box)}, by=self)

    def boxes(self, outputs: Outputs) -> Tensor:
        """The boxes that all rows say, in pixels of the padded batch, with gradient. -> (B*A, 4) in float32."""
        return boxes(outputs, self.strides, self.bins)

    @torch.no_grad()
    def valuable(self, outputs: Outputs, targets: Targets, *, gamma: float, overlap: Overlap) -> Region:
        """The valuable localization region, by the thresholds of ATSS. A positive may be in it: see `near`."""
        return valuable(outputs, targets, self.strides, gamma=gamma, overlap=overlap)

    @torch.no_grad()
    def row_scores(self, outputs: Outputs, row: Tensor) -> Tensor:
        """What these rows (R,) score for each class: the products, 0..1. -> (R, K) in float32."""
        logits, quality = outputs.class_rows()[row].float(), rows(outputs.own["quality"])[row].float()
        return product_logit(logits, quality).sigmoid()

    @torch.no_grad()
    def assign(self, outputs: Outputs, truth: Truth) -> Targets:
        """ATSS over the cells that do not lie in the padding."""
        return atss_targets(outputs, truth, self.strides)

    def losses(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """GFL's losses of the products, in float32 even under autocast.

        The quality focal loss reaches the edges too, through the quality.
        """
        return losses(
            outputs,
            targets,
            scored(outputs),
            strides=self.strides,
            bins=self.bins,
            kind=self.box_loss,
            box_weight=self.box_weight,
            dfl_weight=self.dfl_weight,
        )

    @torch.no_grad()
    def detect(self, outputs: Outputs, sizes: list[tuple[int, int]]) -> list[Detections]:
        """The best boxes of each image, by the products. Cells in the padding say nothing."""
        return detections(
            outputs,
            scored(outputs),
            sizes,
            strides=self.strides,
            bins=self.bins,
            top_k=self.top_k,
            score_threshold=self.score_threshold,
            nms_iou=self.nms_iou,
            max_detections=self.max_detections,
        )


def predictor(numbers: int, hidden: int) -> nn.Sequential:
    """The distribution-guided quality predictor: statistics (B, numbers, H, W) -> quality of 0..1 (B, 1, H, W)."""
    first, second = nn.Conv2d(numbers, hidden, 1), nn.Conv2d(hidden, 1, 1)
    for conv in (first, second):
        nn.init.normal_(conv.weight, std=0.01)
        nn.init.zeros_(conv.get_parameter("bias"))
    return nn.Sequential(first, nn.ReLU(), second, nn.Sigmoid())


def statistics(box: Tensor, bins: int, top: int) -> Tensor:
    """Of each edge the `top` highest probabilities, falling, and their mean.

    Logits (B, 4*S, H, W) -> (B, 4*(top+1), H, W), edge after edge.
    """
    highest = box.unflatten(1, (4, bins)).softmax(2).topk(top, dim=2).values
    return torch.cat([highest, highest.mean(2, keepdim=True)], dim=2).flatten(1, 2)


def scored(outputs: Outputs) -> Tensor:
    """The logits of what each location scores for each class. -> (B*A, K) in float32."""
    return product_logit(outputs.class_rows().float(), rows(outputs.own["quality"]).float())


def product_logit(logit: Tensor, quality: Tensor) -> Tensor:
    """The logit of sigmoid(logit) * quality, with broadcasting: log(I / (exp(-z) + 1 - I)).

    The cross entropy of a probability is that of its logit, and only the latter is exact, with a gradient, for
    probabilities that float32 rounds to 0.
    """
    quality = quality.clamp(min=NEVER_SURE, max=1 - NEVER_SURE)
    return quality.log() - torch.logaddexp(-logit, (-quality).log1p())
