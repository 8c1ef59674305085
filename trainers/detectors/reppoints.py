"""RepPoints: an object is nine points, guessed first, then refined by what the features say at the guess.

Yang et al., "RepPoints: Point Set Representation for Object Detection", ICCV 2019, https://arxiv.org/abs/1904.11490;
as mmdetection trains it with its `moment` boxes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers import workers
from trainers.call import Count, Fraction, Index, NonNegative
from trainers.detectors.anchors import Anchors, anchors, inside, paired_iou
from trainers.detectors.gfl import PRIOR, tower
from trainers.detectors.ignored import neither
from trainers.detectors.initial import spread
from trainers.detectors.max_iou import IGNORED, MaxIoU
from trainers.detectors.nms import best_pairs, keep_best
from trainers.detectors.points import POINTS, gradient_times, moment_box, regular_grid
from trainers.detectors.points_assign import SCALE, nearest_cells
from trainers.detectors.precision import full_precision
from trainers.detectors.valuable import first_of, image_of, in_each
from trainers.fpn import FPN, MAPS, Backbone, levels
from trainers.outputs import Detections, Outputs, Targets, Truth, rows

GAMMA, ALPHA = 2.0, 0.25
MATCHER = MaxIoU(positive=0.5, negative=0.4)
BETA = 0.11  # where the loss of a box's edge turns from squared to absolute, in SCALE strides


class RepPoints(nn.Module):
    """FPN with group norm, two towers that all levels share, and deformable convolutions that read at the points.

    `Outputs.own` has what is guessed, `init`, and what is refined, `points`: L of (B, 18, H, W), of each point first y,
    then x, in strides from the centre of the cell. `Outputs.box`, L of (B, 4, H, W), are the boxes around the
    refined points, x1, y1, x2, y2, in the same measure. `Targets` are the positives of the refinement.
    """

    features_only = False

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        channels: Count = 256,
        convs: Index = 3,
        extra: Index = 2,
        gradient_mul: Fraction = 0.1,
        init_weight: NonNegative = 0.5,
        refine_weight: NonNegative = 1.0,
        score_threshold: Fraction = 0.05,
        nms_iou: Fraction = 0.5,
        top_k: Count = 1000,
        max_detections: Count = 100,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.strides = levels(backbone.strides[-MAPS:], extra)
        self.channels = channels
        self.bins = 0
        self.anchors = 1
        self.start = 0.0
        self.backbone = backbone
        self.neck = FPN(backbone.channels[-MAPS:], channels=channels, extra=extra, extra_from="input", norm="group")
        self.head = Head(channels, convs, num_classes, gradient_mul)
        self.init_weight, self.refine_weight = init_weight, refine_weight
        self.score_threshold, self.nms_iou = score_threshold, nms_iou
        self.top_k, self.max_detections = top_k, max_detections

    def forward(self, images: Tensor) -> Outputs:
        """Images of 0..1, (B, 3, height, width) of any size -> Outputs."""
        maps = self.backbone(images)
        features = self.neck(maps[-MAPS:])
        if self.features_only:
            return Outputs(features, maps=maps, by=self)
        cls, init, points = (list(levels) for levels in zip(*map(self.head, features), strict=True))
        box = [moment_box(x, self.head.moment_transfer) for x in points]
        return Outputs(features, cls, box, maps, {"init": init, "points": points}, by=self)

    @torch.no_grad()
    def assign(self, outputs: Outputs, truth: Truth) -> Targets:
        """The nearest cell learns to guess a box; the cells whose guess overlaps it learn to refine it and its class.

        `own` has `init_row` (Q,) and `init_box` (Q, 4) of the guess. A cell lies on what is to be ignored if its centre
        does, or the square of eight strides around it.
        """
        grid = anchors(outputs.cls, self.strides)
        valid = inside(grid, truth.sizes)
        boxes, labels = torch.cat(truth.boxes), torch.cat(truth.labels)
        init_row, init_number = nearest_cells(grid, self.strides, valid, boxes, image_of(truth))

        guesses = self.guesses(outputs).unflatten(0, valid.shape) * grid.stride[:, None]  # (B, A, 4)
        guesses = grid.centre.repeat(1, 2) + guesses
        owner = torch.stack(
            [
                MATCHER(paired_iou(box[:, None], guess).masked_fill(~inner, 0))
                for guess, inner, box in zip(guesses, valid, truth.boxes, strict=True)
            ]
        )
        image, cell = (owner >= 0).nonzero(as_tuple=True)
        row = image * valid.shape[1] + cell
        ignored, there = (owner == IGNORED).flatten(), neither(grid.box, truth, row, grid.centre)
        number = first_of(truth)[image] + owner[image, cell]  # of the box among those of all images
        return Targets(
            row=row,
            level=grid.level[cell],
            label=labels[number],
            box=boxes[number],
            valid=valid.flatten(),
            levels=len(self.strides),
            truth=truth,
            own={"init_row": init_row, "init_box": boxes[init_number]},
            ignored=ignored if there is None else ignored | there,
        )

    def losses(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """Focal loss of the classes, and smooth L1 losses of the boxes guessed and refined, in float32.

        The first and the last are divided by the number of positives of the refinement, the other by that of the
        guess; an image counts at least one. Both divisors are means over the workers.
        """
        from torchvision.ops import sigmoid_focal_loss  # seconds to import, and a plan computes no loss

        logits = outputs.class_rows().float()
        init_row, init_box = targets.own["init_row"], targets.own["init_box"]
        guessed = self.guesses(outputs).index_select(0, init_row)
        refined = rows(outputs.box).index_select(0, targets.row).float()
        with torch.autocast(logits.device.type, enabled=False):
            grid = anchors(outputs.cls, self.strides)
            wanted = torch.zeros_like(logits)
            wanted[targets.row, targets.label] = 1
            focal = sigmoid_focal_loss(logits, wanted, ALPHA, GAMMA).sum(1) @ targets.learnt.float()
            init_off = off(guessed, init_row, init_box, grid)
            refine_off = off(refined, targets.row, targets.box, grid)

            count = [
                in_each(row // len(grid.stride), targets.images).clamp(min=1).sum() for row in (init_row, targets.row)
            ]
            init_count, refine_count = workers.mean(torch.stack(count))
            return {
                "focal": focal / refine_count,
                "init": self.init_weight * init_off / init_count,
                "refine": self.refine_weight * refine_off / refine_count,
            }

    @torch.no_grad()
    def detect(self, outputs: Outputs, sizes: list[tuple[int, int]]) -> list[Detections]:
        """The best boxes of each image, around the refined points. Cells in the padding say nothing."""
        grid = anchors(outputs.cls, self.strides)
        valid = inside(grid, sizes)
        logits = outputs.class_rows().float().unflatten(0, valid.shape)
        scores, cells, labels = best_pairs(logits, valid, grid.cells, top_k=self.top_k)
        return keep_best(
            self.boxes(outputs).unflatten(0, valid.shape).gather(1, cells[:, :, None].expand(-1, -1, 4)),
            scores,
            labels,
            sizes,
            score_threshold=self.score_threshold,
            nms_iou=self.nms_iou,
            max_detections=self.max_detections,
        )

    def boxes(self, outputs: Outputs) -> Tensor:
        """The boxes that all rows say, in pixels of the padded batch, with gradient. -> (B*A, 4) in float32."""
        grid = anchors(outputs.cls, self.strides)
        boxes = rows(outputs.box).float().unflatten(0, (-1, len(grid.stride))) * grid.stride[:, None]
        return (grid.centre.repeat(1, 2) + boxes).flatten(0, 1)

    def guesses(self, outputs: Outputs) -> Tensor:
        """The boxes around the points guessed, in strides from their cells. -> (B*A, 4) in float32."""
        return rows([moment_box(x.float(), self.head.moment_transfer) for x in outputs.own["init"]])


def off(box: Tensor, row: Tensor, real: Tensor, grid: Anchors) -> Tensor:
    """How far boxes (P, 4), in strides from their cells (P,), are from the real ones (P, 4), in pixels. -> ()."""
    cell = row % len(grid.stride)
    wanted = (real - grid.centre[cell].repeat(1, 2)) / grid.stride[cell, None]
    return F.smooth_l1_loss(box / SCALE, wanted / SCALE, beta=BETA, reduction="sum")


class Head(nn.Module):
    """A tower for classes and one for points, the same weights at every level."""

    grid: Tensor

    def __init__(self, channels: int, convs: int, num_classes: int, gradient_mul: float) -> None:
        super().__init__()
        from torchvision.ops import DeformConv2d  # seconds to import

        self.cls_tower = tower(channels, convs)
        self.pts_tower = tower(channels, convs)
        self.init_conv = nn.Conv2d(channels, channels, 3, 1, 1)
        self.init_out = nn.Conv2d(channels, 2 * POINTS, 1)
        self.cls_conv = DeformConv2d(channels, channels, 3, 1, 1, bias=False)
        self.cls_out = nn.Conv2d(channels, num_classes, 1)
        self.refine_conv = DeformConv2d(channels, channels, 3, 1, 1, bias=False)
        self.refine_out = nn.Conv2d(channels, 2 * POINTS, 1)
        self.moment_transfer = nn.Parameter(torch.zeros(2))
        self.register_buffer("grid", regular_grid().view(1, -1, 1, 1), persistent=False)
        self.gradient_mul = gradient_mul
        for name, parameter in self.named_parameters():
            if name.endswith("weight") and parameter.dim() == 4:
                nn.init.normal_(parameter, std=spread(channels))
        for conv, value in ((self.init_conv, 0), (self.init_out, 0), (self.refine_out, 0)):
            nn.init.constant_(conv.get_parameter("bias"), value)
        nn.init.constant_(self.cls_out.get_parameter("bias"), math.log(PRIOR / (1 - PRIOR)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A level (B, C, H, W) -> class logits (B, K, H, W), points guessed and refined, each (B, 18, H, W)."""
        for_class, for_points = self.cls_tower(x), self.pts_tower(x)
        guessing = F.relu(self.init_conv(for_points))
        with full_precision(x):  # bfloat16 would round the points to pixels
            init = self.init_out(guessing.float())
            offset = gradient_times(self.gradient_mul, init) - self.grid
            for_class = F.relu(self.cls_conv(for_class.float(), offset))
            for_points = F.relu(self.refine_conv(for_points.float(), offset))
            points = self.refine_out(for_points) + init.detach()
        return self.cls_out(for_class), init, points
