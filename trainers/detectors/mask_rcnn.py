"""Mask R-CNN: Faster R-CNN with a branch that draws what a region shows; only its boxes are used here.

He et al., "Mask R-CNN", ICCV 2017, https://arxiv.org/abs/1703.06870
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from trainers import workers
from trainers.call import Count, Fraction, Index, Invalid
from trainers.detectors.faster_rcnn import FasterRCNN
from trainers.detectors.regions import Pooler
from trainers.fpn import Backbone
from trainers.outputs import Outputs, Regions, Targets, Truth

POOLED = 14  # cells along a region that the branch reads; its masks have twice as many


class MaskRCNN(FasterRCNN):
    """Faster R-CNN that learns masks too, which makes its pyramid a better one. `detect` does not draw them."""

    needs_masks = True  # of the data

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
        from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor  # seconds to import

        super().__init__(
            backbone,
            num_classes,
            channels=channels,
            extra=extra,
            hidden=hidden,
            pooled=pooled,
            sampled=sampled,
            conventions=conventions,
            score_threshold=score_threshold,
            nms_iou=nms_iou,
            max_detections=max_detections,
        )
        self.roi_heads.mask_roi_pool = Pooler(backbone.strides, POOLED, self.convention)
        self.roi_heads.mask_head = MaskRCNNHeads(channels, (channels,) * 4, 1)
        self.roi_heads.mask_predictor = MaskRCNNPredictor(channels, channels, num_classes + 1)

    def assign(self, outputs: Outputs, truth: Truth) -> Targets:
        """As in Faster R-CNN. Raises `Invalid` if the data has no masks."""
        if truth.masks is None:
            raise Invalid("MaskRCNN needs masks, and not every object of this data has one; take FasterRCNN")
        return super().assign(outputs, truth)

    def region_losses(self, features: list[Tensor], drawn: Regions, truth: Truth) -> dict[str, Tensor]:
        """And the mask loss: binary cross entropy of the right class's mask, a mean over regions on an object."""
        from torchvision.models.detection.roi_heads import maskrcnn_loss

        assert truth.masks is not None, "assign has seen them"
        positive = [(labels > 0).nonzero().squeeze(1) for labels in drawn.labels]
        boxes = [box[here] for box, here in zip(drawn.boxes, positive, strict=True)]
        matched = [number[here] for number, here in zip(drawn.matched, positive, strict=True)]
        heads = self.roi_heads
        logits = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(features, boxes, truth.sizes))).float()
        with torch.autocast(logits.device.type, enabled=False):
            mask = maskrcnn_loss(logits, boxes, truth.masks, [label + 1 for label in truth.labels], matched)
            number = logits.new_full((), len(logits))
            mask = mask * number / workers.mean(number).clamp(min=1 / workers.count())
        return {**super().region_losses(features, drawn, truth), "mask": mask}
