"""General instances: where two detectors disagree, and what their features say of it.

Dai et al., "General Instance Distillation for Object Detection", CVPR 2021, https://arxiv.org/abs/2103.02340
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.distill.box_masks import home
from trainers.distill.means import nothing

CANDIDATES = 3000  # that may suppress one another: more than enough for ten to be left
POINTS = 10  # of RoIAlign along each side of an instance


def instances(student: Tensor, teacher: Tensor, student_box: Tensor, teacher_box: Tensor) -> tuple[Tensor, Tensor]:
    """How much each location is an instance, and its box.

    Class logits (R, K) and boxes (R, 4), each of both -> max_k |q_k - p_k| of their scores (R,), and the box of the one
    that scores higher in that class, the teacher's if they agree (R, 4).
    """
    more = teacher.sigmoid() - student.sigmoid()
    most = more.abs().argmax(1, keepdim=True)
    more = more.gather(1, most)  # (R, 1)
    return more.squeeze(1).abs(), torch.where(more >= 0, teacher_box, student_box)


def chosen(score: Tensor, box: Tensor, row: Tensor, *, count: int, iou: float) -> Tensor:
    """Which of these rows (G,) are left when the better suppress those that overlap them by more than `iou`.

    Scores (R,) and boxes (R, 4) of all rows -> at most `count` rows, best first.
    """
    from torchvision.ops import nms  # seconds to import, and a plan suppresses nothing

    best = score[row].topk(min(CANDIDATES, len(row)))
    row = row[best.indices]
    return row[nms(box[row], best.values, iou)[:count]]


def pooled(features: list[Tensor], boxes: Tensor, image: Tensor, strides: tuple[int, ...]) -> Tensor:
    """RoIAlign of boxes (R, 4) in images (R,), each on the level for its size. L of (B, C, H, W) -> (R, C, 10, 10).

    The levels are those of the paper on pyramids, `home`; the rows come level after level.
    """
    from torchvision.ops import roi_align

    level = home(boxes, strides, inclusive=False)
    regions = torch.cat([image[:, None].to(boxes), boxes], dim=1)
    found = []
    for number, (x, stride) in enumerate(zip(features, strides, strict=True)):
        here = regions[level == number].to(x)
        found.append(roi_align(x, here, POINTS, 1 / stride, sampling_ratio=2, aligned=True))
    return torch.cat(found)


def relations(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean smooth L1 difference of the distances between each two instances, divided by their mean.

    (R, D) twice -> (). Neither the scale of the features nor their place counts, and with R < 3 it is 0.
    """
    if len(student) < 2:
        return nothing(student)
    mine, theirs = torch.pdist(student), torch.pdist(teacher)
    return F.smooth_l1_loss(mine / mine.mean().clamp(min=1e-6), theirs / theirs.mean().clamp(min=1e-6))
