"""LD: learn where boxes may end from the teacher's distributions of their edges.

Zheng, Ye, Wang, Ren, Zuo, Hou, Cheng, "Localization Distillation for Dense Object Detection", CVPR 2022
https://arxiv.org/abs/2102.12252
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from trainers import workers
from trainers.distill.pair import agree, dense
from trainers.distill.soft import Temperature, full_precision, soft_kl
from trainers.outputs import Detector, Outputs, Targets
from trainers.spec import Invalid, NonNegative

Normaliser = Literal["reference", "per_image", "by_weight"]

PUBLISHED_IMAGES = 3  # images on each GPU in the published runs: the strength that `weight` was tuned for


class LD(nn.Module):
    """weight * strength * sum_i w_i * mean_e KL_ie, over the positive locations i and their four edges e.

    KL_ie is `soft_kl` between the bins of an edge; w_i is the student's highest class score at i, without a
    gradient. `weight` is the paper's lambda, `temperature` its T: its main LD, without the valuable region.

    `normaliser` sets the strength. None of them depends on how many workers share a batch:

    - `reference`: 1. The released code sums over the positives and divides by nothing but the 4 edges, so
      the loss grows with the batch while the detection losses do not (its authors call that a bug and
      advise against more than 3 images a GPU). Here the sum runs over the *whole* batch of all workers;
      published runs sum over the 3 images of each GPU and average over GPUs, so theirs is this only for a
      batch of 3.
    - `per_image`: 3 / images in the whole batch. The strength of the published runs, whatever the batch.
    - `by_weight`: 1 / sum of w_i over the whole batch, as GFL divides its box losses: a weighted mean. It
      depends on neither the batch nor the number of positives. That sum is about 5 to 20 in the published
      runs, so `weight` must be that much larger for their strength.
    """

    def __init__(
        self,
        student: Detector,
        teacher: Detector,
        *,
        weight: NonNegative = 0.25,
        temperature: Temperature = 10.0,
        normaliser: Normaliser = "reference",
    ) -> None:
        super().__init__()
        for role, detector in (("student", student), ("teacher", teacher)):
            if detector.bins == 0:
                raise Invalid(
                    f"LD compares distributions of edges, and the {role} predicts boxes as four numbers: "
                    "use detectors with bins, such as GFL, or a loss that reads no boxes, such as KD"
                )
        dense(student, teacher, "LD")
        agree("strides", student.strides, teacher.strides)
        agree("number of bins", student.bins, teacher.bins)
        agree("start of distances in a cell", student.start, teacher.start)
        self.weight = weight
        self.temperature = temperature
        self.normaliser = normaliser
        self.bins = student.bins

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """-> (), already weighted; an exact zero, with a zero gradient, without positives."""
        edges = student.edge_rows(self.bins)[targets.row]  # (P, 4, bins)
        taught = teacher.edge_rows(self.bins)[targets.row]
        losses = soft_kl(edges, taught, temperature=self.temperature).mean(1)  # (P,)
        scores = full_precision(student.class_rows().detach()[targets.row]).sigmoid().amax(1)  # (P,)
        scale = strength(scores, images=targets.images, normaliser=self.normaliser)
        return self.weight * scale * (scores * losses).sum()


def strength(scores: Tensor, *, images: int, normaliser: Normaliser) -> Tensor | int:
    """What multiplies one worker's weighted sum, so that the mean over workers is what `LD` documents.

    scores (P,): this worker's row weights; images: how many this worker has.
    """
    if normaliser == "reference":
        return workers.count()
    if normaliser == "per_image":
        return PUBLISHED_IMAGES / workers.mean(scores.new_full((), images))
    return 1 / workers.mean(scores.sum()).clamp(min=1e-6)
