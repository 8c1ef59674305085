"""TADF: learn features most in the middle of objects, and of shared regions what the teacher says better.

Sun, Tang, Zhang, Xiong, Tian, "Distilling Object Detectors with Task Adaptive Regularization", 2020
https://arxiv.org/abs/2006.13108. No code was published, and not all of the paper was at hand. From it are: features
weighted by a Gaussian in each box, regions that student and teacher share, what is borrowed being only what the student
cannot do well, and a weight that falls while training, which is no part of this loss. The limit of the box
distillation is that of DeFeat's code, https://github.com/ggjy/DeFeat.pytorch. Choices, as everything else:
- The Gaussian lies in the rectangle of cells that a box covers, on its one level (`box_masks`); its deviations are half
  the rectangle's sides, and it is measured at the middles of cells. Where boxes overlap, the higher one counts.
- Features: half a weighted mean, over the cells of all levels and their channels. Adapters without ReLU, since a
  pyramid's levels have none. The default weight is that of DeFeat's foreground.
- The proposals of both are put together, and the student's sampler draws from them and from the real boxes.
- Classes: a divergence between softmaxes. The teacher is better where its probability of the right class is higher.
- Boxes: deltas of the right class, by the L1 of all four. The teacher is better where it is nearer to the real box.
- Both are divided by the number of regions, as the detector's own losses are: with weight 1 they are about as strong.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainers.call import Index, NonNegative
from trainers.distill.adapters import adapter
from trainers.distill.box_masks import Boxes, by_level, cells, every_box, home, size
from trainers.distill.means import mean_count, total_of
from trainers.distill.pair import agree, chosen, same_strides, some_part
from trainers.distill.soft import Temperature, full_precision, soft_kl
from trainers.distill.squared_errors import errors_at, where
from trainers.distill.two_stage import both_judge, drawn, region_weight
from trainers.outputs import Detector, Outputs, Targets


class TADF(nn.Module):
    """The sum of three parts, each with a weight, of which 0 leaves the part out:

    - `feature_weight` * half the mean squared difference of pyramids, weighted by a Gaussian in each box (`gaussians`).
    - `cls_weight` * the divergence of class logits of regions (`class_losses`).
    - `box_weight` * how far boxes of regions on objects are from the teacher's, or from the real ones if these are
      nearer (`box_losses`): where the student is nearer to the real box than to the teacher's, the teacher gives way.

    `cls_weight` and `box_weight` None: 1 for a pair of two-stage detectors, and 0 for others, which have no regions.
    `selective`: regions where the teacher is no better than the student count for nothing; otherwise all do. `levels`
    of the pyramid, None: all. Channels may differ, strides not.

    Counts are those of the whole batch of all workers. Regions are drawn at random, by each worker for its own images.
    """

    def __init__(
        self,
        student: Detector,
        teacher: Detector,
        *,
        feature_weight: NonNegative = 4.0,
        cls_weight: NonNegative | None = None,
        box_weight: NonNegative | None = None,
        temperature: Temperature = 1.0,
        selective: bool = True,
        levels: tuple[Index, ...] | None = None,
    ) -> None:
        super().__init__()
        self.feature_weight = feature_weight
        self.cls_weight, self.box_weight = (
            region_weight(knob, weight, student, teacher, default=1.0, loss="TADF")
            for knob, weight in (("cls_weight", cls_weight), ("box_weight", box_weight))
        )
        if None in (cls_weight, box_weight):
            some_part((feature_weight, self.cls_weight, self.box_weight), "TADF")
        self.temperature = temperature
        self.selective = selective
        self.adapters = nn.ModuleList()
        if feature_weight:
            same_strides(student, teacher)
            self.strides = tuple(student.strides)
            numbers = range(len(self.strides))
            self.levels = chosen("levels", levels, numbers, default=numbers)
            self.adapters.extend(adapter(student.channels, teacher.channels, relu=False) for _ in self.levels)
        self.apart = "the regions drawn of" if self.cls_weight or self.box_weight else ""  # see `build.apart`
        if self.cls_weight or self.box_weight:
            agree("number of classes", student.num_classes, teacher.num_classes)

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """-> (), already weighted."""
        parts = []
        if self.feature_weight:
            parts.append(self.feature_weight * self.of_features(student, teacher, every_box(targets.truth)))
        if self.cls_weight or self.box_weight:
            parts += self.of_regions(student, teacher, targets)
        return total_of(parts, student)

    def of_features(self, student: Outputs, teacher: Outputs, boxes: Boxes) -> Tensor:
        """Half the weighted mean squared difference of the pyramids. -> ()."""
        of_level = by_level(boxes, home(boxes.box, self.strides), len(self.strides))
        errors, weights = [], []
        for adapt, number in zip(self.adapters, self.levels, strict=True):
            mine, taught = adapt(student.features[number]), teacher.features[number]
            weight = gaussians(of_level[number], self.strides[number], size(mine))
            cell = where(weight > 0)
            weights.append(weight.flatten()[cell])
            errors.append(weights[-1] * errors_at(mine, taught, cell) / mine.shape[1])
        total = torch.cat(errors).sum()
        return total / (2 * mean_count(torch.cat(weights).sum(), total))

    def of_regions(self, student: Outputs, teacher: Outputs, targets: Targets) -> list[Tensor]:
        """The parts on regions, each () and already weighted."""
        found = drawn(student, targets.truth, proposers=(student, teacher))
        said, taught = both_judge(student, teacher, found.boxes, targets.truth)
        labels = torch.cat(found.labels)
        number = mean_count(len(labels), said[0])
        parts = []
        if self.cls_weight:
            losses = class_losses(said[0], taught[0], labels, temperature=self.temperature, selective=self.selective)
            parts.append(self.cls_weight * losses.sum() / number)
        if self.box_weight:
            positive = where(labels > 0)
            deltas, lesson = (x.unflatten(1, (-1, 4))[positive, labels[positive]] for x in (said[1], taught[1]))
            losses = box_losses(deltas, lesson, torch.cat(found.deltas)[positive], selective=self.selective)
            parts.append(self.box_weight * losses.sum() / number)
        return parts


def gaussians(boxes: Boxes, stride: int, shape: tuple[int, int]) -> Tensor:
    """How much each cell of a map of this (height, width) counts, 0..1. -> (B, H, W).

    In the rectangle of w * h cells that a box covers: exp(-(x / (w / 2))^2 / 2 - (y / (h / 2))^2 / 2), with x and y
    from its middle to the cell's; elsewhere 0.
    """
    x1, y1, x2, y2 = cells(boxes.box, stride, shape).unbind(1)
    height, width = shape
    down, right = bell(y1, y2, height), bell(x1, x2, width)
    weight = down[:, :, None] * right[:, None, :]  # (N, H, W)
    highest = weight.new_zeros(boxes.images, height, width)
    return highest.scatter_reduce(0, boxes.image[:, None, None].expand_as(weight), weight, "amax")


def bell(low: Tensor, high: Tensor, number: int) -> Tensor:
    """The Gaussian of so many cells in a row, 0 outside of low..high - 1, which are (N,). -> (N, number) float32."""
    cell = torch.arange(number, device=low.device)
    inside = (cell >= low[:, None]) & (cell < high[:, None])
    middle, half = ((low + high) / 2)[:, None], ((high - low) / 2)[:, None]
    return torch.exp(-((cell + 0.5 - middle) / half).square() / 2) * inside


def class_losses(student: Tensor, teacher: Tensor, labels: Tensor, *, temperature: float, selective: bool) -> Tensor:
    """T^2 * KL(q || p) of class logits (R, K+1), summed over classes. -> (M,), of the regions that count.

    q = softmax(teacher / T) and p of the student. labels (R,): the right classes, 0 the background. `selective`: only
    regions where softmax(teacher) has more for the right class than softmax(student) has.
    """
    if selective:
        right = [full_precision(x.detach()).log_softmax(1).gather(1, labels[:, None]) for x in (student, teacher)]
        row = where(right[1] > right[0])
        student, teacher = student[row], teacher[row]
    return soft_kl(student, teacher, temperature=temperature) * student.shape[1]


def box_losses(student: Tensor, teacher: Tensor, real: Tensor, *, selective: bool) -> Tensor:
    """The L1 from the student's deltas to the teacher's or to the real ones, whichever is less. (P, 4) thrice -> (M,).

    `selective`: only regions where the teacher's are nearer to the real ones than the student's are.
    """
    student, teacher, real = (full_precision(x) for x in (student, teacher.detach(), real))
    if selective:
        row = where((teacher - real).abs().sum(1) < (student.detach() - real).abs().sum(1))
        student, teacher, real = student[row], teacher[row], real[row]
    return torch.minimum((student - teacher).abs().sum(1), (student - real).abs().sum(1))
