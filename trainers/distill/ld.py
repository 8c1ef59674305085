"""LD: learn where boxes may end from the teacher's distributions of their edges.

Zheng, Ye, Wang, Ren, Zuo, Hou, Cheng, "Localization Distillation for Dense Object Detection", CVPR 2022
https://arxiv.org/abs/2102.12252
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from trainers import workers
from trainers.call import Fraction, Invalid, NonNegative
from trainers.distill.means import mean_count, mean_weight, nothing
from trainers.distill.pair import agree, can_be_valuable, dense, same_anchors, same_strides, valuable
from trainers.distill.soft import Temperature, full_precision, soft_kl
from trainers.outputs import Detector, Outputs, Overlap, Region, Targets

Normaliser = Literal["reference", "per_image", "by_weight"]
Edges = Literal["separate", "joint"]

PUBLISHED_IMAGES = 3  # images on each GPU in the published runs: the strength that `weight` was tuned for


class LD(nn.Module):
    """weight * the main region + vlr_weight * the valuable one; of each: strength * sum_i w_i * KL_i.

    The main region are the positives, and w_i is the student's highest class score at i, without a gradient. The
    valuable localization region (VLR, section 3.3) is near them: the student's detector knows it. There w_i is the
    IoU of anchor and box; FCOS, which has no anchors, takes the class score again. KL_i is the mean of `soft_kl` over
    the four edges, at the `temperature` T.

    `weight` is the paper's lambda of the main region, .25 there. The paper's .25 of the valuable region is divided by
    16 in the released code where that of the main region is divided by the 4 edges, so it is `vlr_weight` .0625 here.
    Published for other detectors: ATSS .0375, FCOS .0625, RetinaNet .15 with `weight` 5, `edges` joint and
    `vlr_overlap` iof_diou (and KD at a temperature of 8). A part of weight 0 is not computed.

    `vlr_gamma`: how much of a box's threshold an anchor must reach to be valuable; 0.25 was best, 1 leaves no region.
    `vlr_overlap`: what must reach it. `diou` is the paper's; `iof_diou`, which trained the released checkpoints, finds
    more anchors within a box. FCOS reads neither.

    `edges`: `separate` softens each edge's distribution by itself. `joint` soft-maxes the 4 * S logits of a location
    at once and divides the mean over them by the 4 edges all the same, as the released code does for RetinaNet: about
    a sixteenth of the other, and how edges compare with one another counts, which no box depends on.

    `normaliser` sets the strength of both regions, each by itself. None depends on how many workers share a batch:

    - `reference`: 1. The released code sums over the locations and divides by nothing but the 4 edges, so
      the loss grows with the batch while the detection losses do not (its authors call that a bug and
      advise against more than 3 images a GPU). Here the sum runs over the *whole* batch of all workers;
      published runs sum over the 3 images of each GPU and average over GPUs, so theirs is this only for a
      batch of 3.
    - `per_image`: 3 / images in the whole batch. The strength of the published runs, whatever the batch.
    - `by_weight`: 1 / sum of w_i over the whole batch, as GFL divides its box losses: a weighted mean. It
      depends on neither the batch nor the number of locations. That sum is about 5 to 20 for the main region in the
      published runs, so `weight` must be that much larger for their strength.
    """

    def __init__(
        self,
        student: Detector,
        teacher: Detector,
        *,
        weight: NonNegative = 0.25,
        temperature: Temperature = 10.0,
        normaliser: Normaliser = "reference",
        edges: Edges = "separate",
        vlr_weight: NonNegative = 0.0625,
        vlr_gamma: Fraction = 0.25,
        vlr_overlap: Overlap = "diou",
    ) -> None:
        super().__init__()
        for role, detector in (("student", student), ("teacher", teacher)):
            if detector.bins == 0:
                raise Invalid(
                    f"LD compares distributions of edges, and the {role} predicts boxes as four numbers: write "
                    "reg_max: 16 for RetinaNet, ATSS or FCOS, use a detector that has them anyway, such as GFL, or a "
                    "loss that reads no boxes, such as KD"
                )
        dense(student, teacher, "LD")
        same_strides(student, teacher)
        same_anchors(student, teacher)
        agree("number of bins", student.bins, teacher.bins, instead="it is reg_max + 1, so give both the same reg_max")
        agree(
            "start of distances in a cell",
            student.start,
            teacher.start,
            instead="FCOS counts from the middle of a cell and teaches only FCOS (of the same conventions); take a "
            "loss that reads no boxes, such as KD",
        )
        can_be_valuable(student, vlr_weight)
        self.weight, self.vlr_weight = weight, vlr_weight
        self.temperature = temperature
        self.normaliser = normaliser
        self.edges = edges
        self.gamma, self.overlap = vlr_gamma, vlr_overlap
        self.bins = student.bins

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """-> (), already weighted; an exact zero, with a zero gradient, where there is nothing to learn."""
        mine, taught = student.edge_rows(self.bins), teacher.edge_rows(self.bins)
        total = nothing(mine)
        for weight, region in self.regions(student, targets):
            edges = (every.index_select(0, region.row) for every in (mine, taught))  # rows are unique: `[]` would sort
            losses = edge_kl(*edges, temperature=self.temperature, edges=self.edges)
            counts = scores(student, region.row) if region.weight is None else region.weight
            scale = strength(counts, images=targets.images, normaliser=self.normaliser)
            total = total + weight * scale * (counts * losses).sum()
        return total

    def foresee(self, student: Outputs, targets: Targets) -> None:
        """Look for the valuable region, by shapes alone."""
        self.regions(student, targets)

    def regions(self, student: Outputs, targets: Targets) -> list[tuple[float, Region]]:
        """Where there is something to learn, and how much it weighs."""
        found = []
        if self.weight:
            found.append((self.weight, Region(targets.row, None)))
        if self.vlr_weight:
            near = valuable(student, targets, gamma=self.gamma, overlap=self.overlap)
            found.append((self.vlr_weight, near))
        return found


def edge_kl(student: Tensor, teacher: Tensor, *, temperature: float, edges: Edges) -> Tensor:
    """How far the edges of each location are from what is taught. Logits (R, 4, S) twice -> (R,)."""
    if edges == "joint":
        return soft_kl(student.flatten(1), teacher.flatten(1), temperature=temperature) / student.shape[1]
    return soft_kl(student, teacher, temperature=temperature).mean(1)


def scores(student: Outputs, row: Tensor) -> Tensor:
    """The highest class score of each row, without a gradient; of GFLv2 that of class and quality. (R,) -> (R,)."""
    if hasattr(student.by, "row_scores"):
        every: Tensor = student.by.row_scores(student, row)
    else:
        every = full_precision(student.class_rows().detach()[row]).sigmoid()
    return every.amax(1)


def strength(counts: Tensor, *, images: int, normaliser: Normaliser) -> Tensor | int:
    """What multiplies one worker's weighted sum, so that the mean over workers is what `LD` documents.

    counts (R,): this worker's row weights; images: how many this worker has.
    """
    if normaliser == "reference":
        return workers.count()
    if normaliser == "per_image":
        return PUBLISHED_IMAGES / mean_count(images, counts)
    return 1 / mean_weight(counts)
