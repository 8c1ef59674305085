"""The second stage of two: features of any region in one size, the regions to learn from, and their losses.

RoIAlign: He et al., "Mask R-CNN", ICCV 2017, https://arxiv.org/abs/1703.06870
The level that a region is read from: Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017,
equation 1, https://arxiv.org/abs/1612.03144
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers import workers
from trainers.detectors.ignored import on_ignored
from trainers.detectors.proposals import Convention
from trainers.outputs import Regions, Truth

POSITIVE = 0.5  # IoU from which a region is on an object
SIDE = 14  # strides: regions of this side up to twice of it are read from a level; 56 pixels where a cell has 4


class Pooler(nn.Module):
    """RoIAlign on the level that fits a region's size.

    torchvision's MultiScaleRoIAlign cannot align, and guesses the strides from the sizes of the first images.
    """

    def __init__(self, strides: tuple[int, ...], size: int, convention: Convention) -> None:
        super().__init__()
        self.strides, self.size = strides, size
        self.sampling, self.aligned = convention.sampling, convention.aligned

    def level(self, boxes: Tensor) -> Tensor:
        """floor(log2(sqrt(area) / 56)) where the finest stride is 4, clamped. (R, 4) -> (R,) of 0..L-1."""
        side = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
        # A side of exactly twice as many strides must not be rounded down.
        level = ((side / (SIDE * self.strides[0])).log2() + 1e-6).floor()
        return level.clamp(0, len(self.strides) - 1).long()

    def forward(self, features: list[Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        """L or more of (B, C, H, W), B of (N, 4) -> (R, C, size, size), float32, image by image.

        The sizes are there because torchvision's pooler, whose place this takes, wants them.
        """
        from torchvision.ops import roi_align  # seconds to import, and a plan pools nothing

        image = torch.cat([torch.full_like(box[:, :1], i) for i, box in enumerate(boxes)])
        every = torch.cat(boxes)
        regions, level = torch.cat([image, every], dim=1), self.level(every)
        pooled = features[0].new_zeros(len(every), features[0].shape[1], self.size, self.size, dtype=torch.float32)
        for number, (x, stride) in enumerate(zip(features, self.strides, strict=False)):
            here = (level == number).nonzero().squeeze(1)
            read = roi_align(x.float(), regions[here], self.size, 1 / stride, self.sampling, self.aligned)
            pooled[here] = read  # in place, and `index_copy_` would keep `read` for its gradient
        return pooled


def heads(
    channels: int,
    num_classes: int,
    pooler: Pooler,
    *,
    hidden: int,
    sampled: int,
    score_threshold: float,
    nms_iou: float,
    max_detections: int,
) -> Any:
    """torchvision's RoIHeads for boxes. Its own forward pass is not used, its parts are."""
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.roi_heads import RoIHeads

    return RoIHeads(
        pooler,
        TwoMLPHead(channels * pooler.size**2, hidden),
        FastRCNNPredictor(hidden, num_classes + 1),
        fg_iou_thresh=POSITIVE,
        bg_iou_thresh=POSITIVE,
        batch_size_per_image=sampled,
        positive_fraction=0.25,
        bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),  # deltas are counted in deviations of .1, .1, .2, .2
        score_thresh=score_threshold,
        nms_thresh=nms_iou,
        detections_per_img=max_detections,
    )


@torch.no_grad()
def sample(roi_heads: Any, proposals: list[Tensor], truth: Truth) -> Regions:
    """Up to `sampled` of an image's proposals and real boxes, at most a quarter of them on an object.

    None is background that lies on what is to be ignored.
    """
    if truth.ignored is not None:
        images = zip(proposals, truth.boxes, truth.ignored, truth.sizes, strict=True)
        proposals = [found[~_left_out(found, boxes, ignored, size)] for found, boxes, ignored, size in images]
    wanted = [{"boxes": b, "labels": n + 1, "masks": None} for b, n in zip(truth.boxes, truth.labels, strict=True)]
    boxes, matched, labels, deltas = roi_heads.select_training_samples(proposals, wanted)
    return Regions(boxes, matched, labels, list(deltas))


def _left_out(proposals: Tensor, boxes: Tensor, ignored: Tensor, size: tuple[int, int]) -> Tensor:
    """Which proposals (R, 4) lie on an ignored object and not on a real one. -> (R,) bool."""
    from torchvision.ops import box_iou

    found = on_ignored(proposals, ignored, size)
    return found & (box_iou(proposals, boxes).amax(1) < POSITIVE) if len(boxes) else found


def losses(logits: Tensor, deltas: Tensor, regions: Regions, *, beta: float) -> tuple[Tensor, Tensor]:
    """Cross entropy of the regions (R, K+1), and the box loss of those on an object (R, 4*(K+1)).

    Both are divided by the number of regions, a mean over the workers.
    """
    labels, wanted = torch.cat(regions.labels), torch.cat(regions.deltas)
    number = workers.mean(logits.new_full((), len(labels))).clamp(min=1)
    cls = F.cross_entropy(logits, labels, reduction="sum")
    positive = (labels > 0).nonzero().squeeze(1)
    mine = deltas.unflatten(1, (-1, 4))[positive, labels[positive]]
    box = F.smooth_l1_loss(mine, wanted[positive], beta=beta, reduction="sum")
    return cls / number, box / number
