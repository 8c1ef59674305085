"""Faster R-CNN: a first stage proposes regions, a second one says what they show and where it ends.

Ren et al., "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks", NeurIPS 2015,
https://arxiv.org/abs/1506.01497, on the pyramid of Lin et al., https://arxiv.org/abs/1612.03144
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from trainers.call import Count, Fraction, Index
from trainers.detectors import proposals, regions
from trainers.detectors.proposals import CONVENTIONS, Grid
from trainers.detectors.regions import Pooler
from trainers.fpn import FPN, Backbone, levels
from trainers.outputs import Detections, Outputs, Regions, Targets, Truth


class FasterRCNN(nn.Module):
    """FPN on all maps of the backbone, and torchvision's two stages under torchvision's names.

    The first stage judges three anchors a cell on every level; regions are read from the levels that have a map.
    What a cell says is in `Outputs.own`: `objectness`, L of (B, 3, H, W), and `deltas`, L of (B, 12, H, W).
    `sampled` regions of an image train the second stage. `conventions` decides on losses, RoIAlign, anchors and the
    number of proposals: see `Convention`.
    """

    features_only = False
    apart = "the regions drawn of"  # see `build.apart`

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        channels: Count = 256,
        extra: Index = 1,
        hidden: Count = 1024,
        pooled: Count = 7,
        sampled: Count = 512,
        conventions: Literal["mmdetection", "torchvision"] = "mmdetection",
        score_threshold: Fraction = 0.05,
        nms_iou: Fraction = 0.5,
        max_detections: Count = 100,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.strides = levels(backbone.strides, extra)
        self.channels = channels
        self.bins = 0
        self.start = 0.0
        self.anchors = 0
        self.conventions, self.convention = conventions, CONVENTIONS[conventions]
        self.pooled = pooled
        self.backbone = backbone
        self.neck = FPN(backbone.channels, channels=channels, extra=extra, extra_from="pool")
        self.rpn = proposals.network(channels, self.strides, self.convention)
        self.roi_heads = regions.heads(
            channels,
            num_classes,
            Pooler(backbone.strides, pooled, self.convention),
            hidden=hidden,
            sampled=sampled,
            score_threshold=score_threshold,
            nms_iou=nms_iou,
            max_detections=max_detections,
        )

    def forward(self, images: Tensor) -> Outputs:
        """Images of 0..1, (B, 3, height, width) of any size -> Outputs of the first stage."""
        maps = self.backbone(images)
        features = self.neck(maps)
        if self.features_only:
            return Outputs(features, maps=maps, by=self)
        objectness, deltas = self.rpn.head(features)
        return Outputs(features, maps=maps, own={"objectness": objectness, "deltas": deltas}, anchors=0, by=self)

    @torch.no_grad()
    def assign(self, outputs: Outputs, truth: Truth) -> Targets:
        """Which anchors answer for which box. Rows count the three anchors of each cell."""
        return proposals.match(self.rpn, self._grid(outputs, truth.sizes), truth)

    def losses(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """Cross entropy and box loss of both stages, in float32 even under autocast. What they are taken over is
        drawn at random."""
        truth = targets.truth
        grid = self._grid(outputs, truth.sizes)
        with torch.autocast(grid.boxes.device.type, enabled=False):
            cls, box = proposals.losses(self.rpn, outputs, targets, grid, beta=self.convention.beta)
        drawn = self.sample(proposals.propose(self.rpn, outputs, grid, truth.sizes), truth)
        return {"rpn_cls": cls, "rpn_box": box, **self.region_losses(outputs.features, drawn, truth)}

    def region_losses(self, features: list[Tensor], drawn: Regions, truth: Truth) -> dict[str, Tensor]:
        """The losses of the second stage on these regions."""
        logits, deltas = self.judge(features, drawn.boxes, truth.sizes)
        with torch.autocast(logits.device.type, enabled=False):
            cls, box = regions.losses(logits, deltas, drawn, beta=self.convention.beta)
        return {"cls": cls, "box": box}

    @torch.no_grad()
    def detect(self, outputs: Outputs, sizes: list[tuple[int, int]]) -> list[Detections]:
        """The best boxes of each image: every proposal in the shape that each class gives it."""
        proposed = self.propose(outputs, sizes)
        logits, deltas = self.judge(outputs.features, proposed, sizes)
        found = self.roi_heads.postprocess_detections(logits, deltas, proposed, sizes)
        return [Detections(box, score, label - 1) for box, score, label in zip(*found, strict=True)]

    def propose(self, outputs: Outputs, sizes: list[tuple[int, int]]) -> list[Tensor]:
        """What the first stage proposes, best first and cut to the images. -> B of (N, 4), without gradient.

        At most 1000 an image, or in training what the conventions keep.
        """
        return proposals.propose(self.rpn, outputs, self._grid(outputs, sizes), sizes)

    def sample(self, proposed: list[Tensor], truth: Truth) -> Regions:
        """Regions to learn from: `sampled` of an image's proposals and real boxes, as far as there are so many, with at
        most a quarter on an object; drawn at random."""
        return regions.sample(self.roi_heads, proposed, truth)

    def judge(
        self, features: list[Tensor], proposed: list[Tensor], sizes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """What the second stage says of regions, B of (N, 4), image after image; float32, with gradient.

        -> class logits (R, K+1) of a softmax, background first, and box deltas (R, 4*(K+1)), class after class.
        """
        logits, deltas = self.second_stage(self.pool(features, proposed, sizes))
        return logits.float(), deltas.float()

    def pool(self, features: list[Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        """RoIAlign of regions, B of (N, 4), each on the level that fits its size. -> (R, C, pooled, pooled)."""
        pooled: Tensor = self.roi_heads.box_roi_pool(features, boxes, sizes)
        return pooled

    def second_stage(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Regions (R, C, pooled, pooled) -> class logits (R, K+1) and box deltas (R, 4*(K+1))."""
        logits, deltas = self.second_network()(pooled)
        return logits, deltas

    def second_network(self) -> nn.Module:
        """What `second_stage` runs."""
        return nn.Sequential(self.roi_heads.box_head, self.roi_heads.box_predictor)

    def most_regions(self, features: list[Tensor]) -> Tensor:
        """What the second stage gets of one image at most, with any content: for counting what it costs."""
        return features[0].new_zeros(self.rpn.post_nms_top_n(), self.channels, self.pooled, self.pooled)

    def _grid(self, outputs: Outputs, sizes: list[tuple[int, int]]) -> Grid:
        return proposals.grid(self.rpn, outputs.features, self.strides, sizes, self.convention)
