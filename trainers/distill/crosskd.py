"""CrossKD: let the teacher's head finish what the student's head began, and make that say what the teacher says.

Wang, Chen, Zheng, Li, Cheng, Hou, "CrossKD: Cross-Head Knowledge Distillation for Object Detection", CVPR 2024
https://arxiv.org/abs/2306.11369
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers import workers
from trainers.box_losses import giou_loss
from trainers.call import Index, Invalid, NonNegative
from trainers.distill.pair import agree, dense, same_strides, some_part
from trainers.distill.pkd import EPS, moments
from trainers.distill.soft import Temperature, full_precision, soft_kl
from trainers.outputs import Dense, Network, Outputs, Targets, rows

Overlap = Literal["giou", "iou"]
Normaliser = Literal["positives", "centerness"]


class CrossKD(nn.Module):
    """What the student's towers say after `after` convolutions goes through the rest of the teacher's, which is frozen.

    These cross-head predictions are compared with the teacher's own; the student's own learn from real boxes alone:

    - `cls_weight` * the quality focal loss with beta 1 of the class scores, summed over all rows and classes and
      divided by the positives of the whole batch of all workers, an image counting at least one.
    - `edges_weight` * the mean over the four edges of the divergence between their distributions, softened by
      `temperature` and summed over the bins, where the teacher has distributions: a mean over all rows, weighted by the
      teacher's highest class score.
    - `boxes_weight` * how far the boxes are from the teacher's, where it has none: `overlap` giou, 1 - GIoU, or iou,
      -log IoU; a sum so weighted, divided by the positives.
    - `centerness_weight` * the cross entropy with the teacher's centerness at the positives, divided by their number,
      where the teacher has one.

    Rows in the padding are left out, and so are those that a detector's own class loss ignores. With `normaliser`
    centerness the sum of the positives' real centerness in the whole batch stands for their number, or 1 where there
    are none, if the student has centerness. The defaults are the published ones of GFL, ATSS and RetinaNet; FCOS has
    {after: 2, cls_weight: 0.4, boxes_weight: 0.75, overlap: iou, centerness_weight: 0, normaliser: centerness}.

    `after` is 3 there, of 4 convolutions, and it is one less than the teacher has if it is left out, but no more than
    the student has. `align` gives each channel the teacher's mean and deviation first, before the ReLU, as the released
    code does. The statistics are those of each worker's own part of the batch: this loss then depends on how a batch is
    spread.
    """

    later = frozenset({"normaliser"})  # see `Call.complete`

    def __init__(
        self,
        student: Dense,
        teacher: Dense,
        *,
        cls_weight: NonNegative = 1.0,
        edges_weight: NonNegative = 4.0,
        boxes_weight: NonNegative = 1.0,
        centerness_weight: NonNegative = 1.0,
        temperature: Temperature = 1.0,
        overlap: Overlap = "giou",
        after: Index | None = None,
        align: bool = True,
        normaliser: Normaliser = "positives",
    ) -> None:
        super().__init__()
        dense(student, teacher, "CrossKD")
        for role, detector, needed in (("student", student, "keep_towers"), ("teacher", teacher, "finish")):
            if not hasattr(detector, needed):
                raise Invalid(
                    f"CrossKD hands what the student's towers say to the teacher's, and the {role} has none that could "
                    "be cut: use detectors such as GFL, or a loss that reads features, such as PKD"
                )
        same_strides(student, teacher)
        agree("channels of the towers", student.channels, teacher.channels)
        agree("number of classes", student.num_classes, teacher.num_classes)
        if normaliser == "centerness" and not hasattr(student, "centred"):
            raise Invalid("the student has no centerness, as FCOS and ATSS have: write positives", ("normaliser",))
        self.normaliser = normaliser
        self.after = cut(student, teacher, after)
        for tower in (student, teacher):
            tower.keep_towers |= {self.after}
        self.edges_weight = edges_weight if teacher.bins else 0.0
        self.boxes_weight = 0.0 if teacher.bins else boxes_weight
        self.cls_weight, self.centerness_weight = cls_weight, centerness_weight
        if any((cls_weight, edges_weight, boxes_weight, centerness_weight)):
            centred = centerness_weight if hasattr(teacher, "centred") else 0.0
            some_part((cls_weight, self.edges_weight, self.boxes_weight, centred), "CrossKD")
        self.bins = teacher.bins
        self.temperature = temperature
        self.overlap = overlap
        self.align = align
        self.apart = "the statistics of" if align else ""  # see `build.apart`

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """-> (), already weighted."""
        towers = zip(student.towers[self.after], teacher.towers[self.after], strict=True)
        guests = [[self.guest(*pair) for pair in zip(*tower, strict=True)] for tower in towers]
        with frozen(teacher.by):
            crossed = teacher.by.finish(*guests, after=self.after)
        with torch.autocast(guests[0][0].device.type, enabled=False):
            return self.compare(crossed, teacher, targets, self.count(student, targets))

    def guest(self, mine: Tensor, theirs: Tensor) -> Tensor:
        """What the teacher gets to read of the student at one level. (B, C, H, W) twice -> the same."""
        return aligned(full_precision(mine), full_precision(theirs.detach())) if self.align else mine

    def count(self, student: Outputs, targets: Targets) -> Tensor:
        """What sums are divided by, a mean over the workers. -> ()."""
        if self.normaliser == "centerness":
            total = workers.mean(student.by.centred(student, targets).sum())
            return total.where(total > 0, 1 / workers.count())
        image = targets.row // (len(targets.valid) // targets.images)
        positives = full_precision(student.cls[0]).new_zeros(targets.images)
        positives = positives.index_add_(0, image, torch.ones_like(image).to(positives))
        return workers.mean(positives.clamp(min=1).sum())

    def compare(self, crossed: Outputs, teacher: Outputs, targets: Targets, count: Tensor) -> Tensor:
        """How far the cross-head predictions are from the teacher's, weighted. -> ()."""
        logits, taught = full_precision(crossed.class_rows()), full_precision(teacher.class_rows().detach())
        counted = targets.learnt
        score = taught.sigmoid().amax(1) * counted  # (B*A,)

        loss = logits[:0].sum()
        if self.cls_weight:
            loss = loss + self.cls_weight * (class_loss(logits, taught) @ counted.to(logits)) / count
        if self.edges_weight:
            total = workers.mean(score.sum()).clamp(min=1e-6)
            edges = self.edge_loss(crossed, teacher)
            loss = loss + self.edges_weight * (edges @ score) / total
        if self.boxes_weight:
            with frozen(teacher.by):
                boxes = teacher.by.boxes(crossed)
            apart = box_loss(self.overlap, boxes, teacher.by.boxes(teacher).detach())
            loss = loss + self.boxes_weight * (apart @ score.to(apart)) / count
        if self.centerness_weight and "centerness" in teacher.own:
            said, wanted = (
                full_precision(rows(o.own["centerness"]).index_select(0, targets.row)) for o in (crossed, teacher)
            )
            centred = F.binary_cross_entropy_with_logits(said, wanted.detach().sigmoid(), reduction="sum")
            loss = loss + self.centerness_weight * centred / count
        return loss

    def edge_loss(self, crossed: Outputs, teacher: Outputs) -> Tensor:
        """The mean over the edges of the divergence of their distributions, summed over the bins. -> (B*A,)."""
        edges, taught = (o.edge_rows(self.bins) for o in (crossed, teacher))
        return self.bins * soft_kl(edges, taught, temperature=self.temperature).mean(1)


def cut(student: Dense, teacher: Dense, after: int | None) -> int:
    """After how many convolutions the student's towers are cut. Raises `Invalid` when one has not so many."""
    if after is None:
        return min(student.convs, max(teacher.convs - 1, 0))
    if after > min(student.convs, teacher.convs):
        raise Invalid(
            f"the towers have {student.convs} (student) and {teacher.convs} (teacher) convolutions: write at most "
            "the fewer of them",
            ("after",),
        )
    return after


@contextmanager
def frozen(teacher: Network) -> Iterator[None]:
    """What is computed meanwhile gives the teacher's parameters no gradient, even if they want one.

    Those of a teacher do not; this makes sure of it.
    """
    wanting = [parameter for parameter in teacher.parameters() if parameter.requires_grad]
    for parameter in wanting:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanting:
            parameter.requires_grad_(True)


def aligned(student: Tensor, teacher: Tensor) -> Tensor:
    """The student's features with the mean and the deviation that the teacher's have in each channel.

    (B, C, H, W) twice -> the same. Both are taken over the whole batch, as in PKD.
    """
    deviation, mean = moments(student)
    their_deviation, their_mean = moments(teacher)
    return (student - mean) / (deviation + EPS) * their_deviation + their_mean


def class_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The quality focal loss with beta 1: |q - p| * BCE(p, q), summed over the classes.

    p = sigmoid(student), q = sigmoid(teacher); logits (R, K) twice -> (R,). The first factor has a gradient too.
    """
    wanted = teacher.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(student, wanted, reduction="none")
    return ((wanted - student.sigmoid()).abs() * cross_entropy).sum(1)


def box_loss(overlap: str, boxes: Tensor, taught: Tensor) -> Tensor:
    """1 - GIoU or -log IoU of boxes in pairs, these at most -log 1e-6. (R, 4) twice -> (R,)."""
    if overlap == "giou":
        return giou_loss(boxes, taught)
    low, high = torch.maximum(boxes[:, :2], taught[:, :2]), torch.minimum(boxes[:, 2:], taught[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (taught[:, 2:] - taught[:, :2]).prod(1) - shared
    return -(shared / union.clamp(min=1e-6)).clamp(min=1e-6).log()
