"""MimicDet: a one-stage detector that learns from a two-stage head, which is there in training alone.

Lu et al., "MimicDet: Bridging the Gap Between One-Stage and Two-Stage Object Detection", ECCV 2020,
https://arxiv.org/abs/2009.11528. No code was published. How many anchors are ranked best, sampled and mined, and
the thresholds, follow a reader's notes of the paper, https://amberzzzz.github.io/2020/10/14/MimicDet. Choices:
- The focal loss of the refinement is RetinaNet's and is divided, as its L1, by the positives. A box whose shrunk middle
  holds no cell takes the nearest cell of its level; the smallest of several boxes takes a cell.
- Refined anchors are not clipped to the image, and no gradient reaches the refinement through them or the offsets.
- They are ranked and suppressed over all levels, the best 4000 for 2000. One answers for the box that it overlaps most,
  if by an IoU of 0.6, or if it is the best that some box has: at first few reach 0.6.
- The S-head's hardest (by class loss, positives too) learn classes, all positives boxes. Deltas are counted in tenths
  of a side and fifths of its logarithm, and L1 is divided by what classes are, as in Faster R-CNN.
- A ReLU stands behind each convolution and each layer of `hidden`, before the features are compared, but not behind
  offsets and predictions; there is no norm. Half of the T-head's anchors are mimicked.
- The refinement's score only ranks: the score of a class is final.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers import workers
from trainers.call import Count, Fraction, Index, Invalid, NonNegative
from trainers.detectors.anchors import Anchors, anchors, inside
from trainers.detectors.deltas import Deltas
from trainers.detectors.handed import handed
from trainers.detectors.ignored import neither
from trainers.detectors.mimicdet_heads import Said, SHead, THead, pixels, regions
from trainers.detectors.mimicdet_mimicry import box_loss, dissimilarity
from trainers.detectors.mimicdet_proposals import Proposals, hardest, propose
from trainers.detectors.mimicdet_refinement import Refinement, owners, squares
from trainers.detectors.nms import keep_best
from trainers.detectors.valuable import first_of
from trainers.fpn import FPN, Backbone, levels
from trainers.outputs import Detections, Outputs, Targets, Truth, rows


class MimicDet(nn.Module):
    """A pyramid P2, P3, ... of all maps; level 0 is P3, and an anchor of level l shows the T-head P(l+2).

    `hidden` is the width of both heads' features; `convs` are the T-head's for boxes. `separate` gives the T-head a
    backbone and a pyramid of its own. Of each image `proposals` refined anchors train: the `mined` hardest in the
    S-head, and `sampled` in the T-head, of which the S-head mimics `mimicked`: class logits or features, and box
    features. `detach_teacher`: mimicry changes the S-head's side alone. At the end `top_k` are judged.

    `Outputs.own`: the refinement's `score` and `delta`; the S-head's `cls` (K+1 logits, background last) and `box`
    (deltas from the refined anchors); while training its `cls_features` and `box_features`, and `staggered`, the
    levels that the T-head reads. Each L of (B, ., H, W).
    """

    apart = "the anchors drawn of"  # see `build.apart`

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        channels: Count = 256,
        hidden: Count = 1024,
        convs: Index = 4,
        extra: Index = 2,
        separate: bool = False,
        detach_teacher: bool = True,
        mimic_cls: Literal["logits", "features", "none"] = "logits",
        mimic_box: Literal["features", "none"] = "features",
        refine_weight: NonNegative = 1.0,
        s_weight: NonNegative = 1.0,
        t_weight: NonNegative = 1.0,
        mimic_weight: NonNegative = 1.0,
        proposals: Count = 2000,
        mined: Count = 128,
        sampled: Count = 128,
        mimicked: Count = 64,
        score_threshold: Fraction = 0.005,
        nms_iou: Fraction = 0.6,
        top_k: Count = 1000,
        max_detections: Count = 100,
    ) -> None:
        super().__init__()
        if len(backbone.strides) < 2:
            raise Invalid("MimicDet needs a backbone of at least two maps: the finest is for its T-head alone")
        if separate and not extra:
            raise Invalid("a T-head with a pyramid of its own needs extra levels, at least 1", ("extra",))
        self.num_classes = num_classes
        self.strides = levels(backbone.strides, extra)[1:]
        self.channels = channels
        self.bins = 0
        self.start = 0.0
        self.anchors = 0
        self.backbone = backbone
        used = backbone.channels[1:] if separate else backbone.channels
        self.neck = FPN(used, channels=channels, extra=extra, extra_from="input", relu=True)
        self.refinement = Refinement(channels)
        self.s_head = SHead(channels, num_classes, hidden=hidden, levels=len(self.strides))
        self.t_head = THead(channels, num_classes, hidden=hidden, convs=convs)
        if separate:
            self.t_neck = FPN(backbone.channels, channels=channels, extra=extra - 1, extra_from="input", relu=True)
            self.renew_teacher()
        self.separate, self.detach_teacher = separate, detach_teacher
        names = (
            {"logits": "cls", "features": "cls_features"}.get(mimic_cls),
            {"features": "box_features"}.get(mimic_box),
        )
        self.mimics = [name for name in names if name]
        self.weights = {"refine": refine_weight, "s": s_weight, "t": t_weight, "mimic": mimic_weight}
        self.proposals, self.mined, self.sampled, self.mimicked = proposals, mined, sampled, mimicked
        self.refined_coder, self.coder = Deltas(), Deltas(centre=10.0, side=5.0)
        self.score_threshold, self.nms_iou = score_threshold, nms_iou
        self.top_k, self.max_detections = top_k, max_detections

    def renew_teacher(self) -> None:
        """Make the T-head's own backbone a copy of the other, with its weights and with what is frozen in it."""
        self.t_backbone = copy.deepcopy(self.backbone)

    def training_only(self) -> set[str]:
        """How the names of the parameters begin that evaluation never reads."""
        own = ("t_backbone.", "t_neck.") if self.separate else ("neck.laterals.0.", "neck.outputs.0.")
        return {"t_head.", *own}

    def forward(self, images: Tensor) -> Outputs:
        """Images of 0..1, (B, 3, height, width) of any size -> Outputs. Evaluation builds no P2."""
        maps = self.backbone(images)
        staggered: list[Tensor] = []
        if self.separate:
            features = self.neck(maps[1:])
            if self.training:
                staggered = self.t_neck(self.t_backbone(images))
        elif self.training:
            pyramid = self.neck(maps)
            staggered, features = pyramid[:-1], pyramid[1:]
        else:
            features = self.neck(maps, first=1)
        score, delta = self.refinement(features)
        said = self.s_head(features, [x.detach() for x in delta])
        own = {"score": score, "delta": delta, "cls": said["cls"], "box": said["box"]}
        if self.training:
            own |= {**said, "staggered": staggered}
        return Outputs(features, maps=maps, own=own, by=self)

    @torch.no_grad()
    def assign(self, outputs: Outputs, truth: Truth) -> Targets:
        """The refined anchors among the best ranked that answer for a box, by what the refinement says now.

        `own["proposals"]` are all the best ranked, with the samples for T-head and mimicry; `own["refinement"]` are
        the anchors, rows (Q,), that should have found a box, and these boxes (Q, 4).
        """
        grid = self.grid(outputs)
        valid = inside(grid, truth.sizes)
        owner = torch.stack(
            [owners(grid, cells, boxes, self.strides) for cells, boxes in zip(valid, truth.boxes, strict=True)]
        )
        image, cell = (owner >= 0).nonzero(as_tuple=True)
        wanted = torch.cat(truth.boxes)[first_of(truth)[image] + owner[image, cell]]
        proposals = propose(
            self.refined(outputs, grid),
            self.scores(outputs),
            valid,
            grid.level,
            truth,
            background=self.num_classes,
            limit=self.proposals,
            sampled=self.sampled,
            mimicked=self.mimicked,
        )
        positive = proposals.positive.nonzero().squeeze(1)
        answering, row = image * len(grid.stride) + cell, proposals.row[positive]
        return Targets(
            row=row,
            level=proposals.level[positive],
            label=proposals.label[positive],
            box=proposals.box[positive],
            valid=valid.flatten(),
            levels=len(self.strides),
            truth=truth,
            own={"proposals": proposals, "refinement": (answering, wanted)},
            ignored=neither(squares(grid), truth, torch.cat([answering, row]), grid.centre),
        )

    def losses(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """The losses of refinement, S-head and T-head, each of classes and of boxes, and mimicry, all in float32.

        Their divisors are means over the workers.
        """
        own, proposals = outputs.own, targets.own["proposals"]
        strides = (self.strides[0] // 2, *self.strides[:-1])
        number = proposals.sampled
        level, image, boxes = proposals.level[number], proposals.image[number], proposals.refined[number]
        taught = self.t_head(regions(own["staggered"], strides, level, image, boxes))
        taught = Said(*(x.float() for x in taught))
        said, deltas = (pixels(own[name], proposals.row).float() for name in ("cls", "box"))
        with torch.autocast(said.device.type, enabled=False):
            s_cls = F.cross_entropy(said, proposals.label, reduction="none")
            hard = hardest(s_cls.detach(), proposals.image, count=self.mined)
            answering = targets.own["refinement"][0]
            counts = handed([len(answering), len(hard), len(number), len(proposals.mimicked)], said.device)
            positives, mined, sampled, mimicked = workers.mean(counts.to(said.dtype)).clamp(min=1 / workers.count())
            score, refinement = self.refinement_losses(outputs, targets)
            s_box = box_loss(deltas, proposals, torch.arange(len(deltas), device=deltas.device), self.coder)
            t_cls = F.cross_entropy(taught.cls, proposals.label[number], reduction="sum")
            t_box = box_loss(taught.box, proposals, number, self.coder)
            mimic = self.mimicry(outputs, taught, proposals)
            weight = self.weights
            return {
                "refine_score": weight["refine"] * score / positives,
                "refine_box": weight["refine"] * refinement / positives,
                "s_cls": weight["s"] * s_cls[hard].sum() / mined,
                "s_box": weight["s"] * s_box / mined,
                "t_cls": weight["t"] * t_cls / sampled,
                "t_box": weight["t"] * t_box / sampled,
                "mimic": weight["mimic"] * mimic / mimicked,
            }

    def refinement_losses(self, outputs: Outputs, targets: Targets) -> tuple[Tensor, Tensor]:
        """Focal loss over the cells that count, and L1 of the deltas of those that should find a box, each summed."""
        from torchvision.ops import sigmoid_focal_loss

        row, box = targets.own["refinement"]
        logits = rows(outputs.own["score"]).squeeze(1).float()
        wanted = torch.zeros_like(logits).index_fill(0, row, 1)
        focal = sigmoid_focal_loss(logits, wanted, alpha=0.25, gamma=2) @ targets.learnt.float()
        grid = self.grid(outputs)
        delta = self.refined_coder.encode(box, squares(grid)[row % len(grid.stride)])
        return focal, (rows(outputs.own["delta"])[row].float() - delta).abs().sum()

    def mimicry(self, outputs: Outputs, taught: Said, proposals: Proposals) -> Tensor:
        """1 - cosine of what both heads say of B_m, summed over it and over the paths.

        The S-head's pixel is that of the anchor's own cell on its own level, wherever refinement moved its box.
        """
        row = proposals.row[proposals.sampled[proposals.mimicked]]
        total = taught.cls.new_zeros(())
        for name in self.mimics:
            teacher = getattr(taught, name)[proposals.mimicked]
            teacher = teacher.detach() if self.detach_teacher else teacher
            total = total + dissimilarity(pixels(outputs.own[name], row).float(), teacher).sum()
        return total

    @torch.no_grad()
    def detect(self, outputs: Outputs, sizes: list[tuple[int, int]]) -> list[Detections]:
        """Of each image's best ranked refined anchors every class that scores high enough, decoded and suppressed."""
        grid = self.grid(outputs)
        valid = inside(grid, sizes)
        scores = self.scores(outputs).masked_fill(~valid, -torch.inf)
        best = scores.topk(min(self.top_k, scores.shape[1]), dim=1).indices  # (B, M)

        def picked(values: Tensor) -> Tensor:  # (B, A, C) -> (B, M, C)
            return values.gather(1, best[:, :, None].expand(-1, -1, values.shape[2]))

        logits, deltas = (picked(rows(outputs.own[name]).float().unflatten(0, valid.shape)) for name in ("cls", "box"))
        refined = picked(self.refined(outputs, grid))
        boxes = self.coder.decode(deltas.flatten(0, 1), refined.flatten(0, 1)).view_as(refined)
        classes = logits.softmax(2)[:, :, :-1] * valid.gather(1, best)[:, :, None]  # background is none
        labels = torch.arange(self.num_classes, device=best.device).expand_as(classes)
        return keep_best(
            boxes.repeat_interleave(self.num_classes, dim=1),
            classes.flatten(1),
            labels.flatten(1),
            sizes,
            score_threshold=self.score_threshold,
            nms_iou=self.nms_iou,
            max_detections=self.max_detections,
        )

    def grid(self, outputs: Outputs) -> Anchors:
        """The cells of the S-head's levels."""
        return anchors(outputs.own["score"], self.strides)

    def scores(self, outputs: Outputs) -> Tensor:
        """The refinement's logits, image by image. -> (B, A)."""
        return rows(outputs.own["score"]).float().view(len(outputs.own["score"][0]), -1)

    def refined(self, outputs: Outputs, grid: Anchors) -> Tensor:
        """The refined anchors. -> (B, A, 4)."""
        deltas = rows(outputs.own["delta"]).float()
        boxes = self.refined_coder.decode(deltas, squares(grid).repeat(len(deltas) // len(grid.box), 1))
        return boxes.unflatten(0, (-1, len(grid.box)))
