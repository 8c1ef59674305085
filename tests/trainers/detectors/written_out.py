"""What several detectors compute, number by number in the words of their papers."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou, complete_box_iou_loss, generalized_box_iou_loss

from tests.trainers.detectors.scenes import STRIDES
from trainers.detectors.max_iou import BACKGROUND, IGNORED
from trainers.outputs import Outputs, Targets


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def softmax(z: Sequence[float]) -> list[float]:
    e = [math.exp(v) for v in z]
    return [v / sum(e) for v in e]


def overlap(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """IoU and GIoU of two boxes."""
    width, height = (max(0.0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    hull = math.prod(max(a[k + 2], b[k + 2]) - min(a[k], b[k]) for k in (0, 1))
    return width * height / union, width * height / union - (hull - union) / hull


def edges(x: float, y: float, box: Sequence[float]) -> tuple[float, float, float, float]:
    """How far left, up, right and down they lie from a point."""
    return x - box[0], y - box[1], box[2] - x, box[3] - y


def centerness(x: float, y: float, box: Sequence[float]) -> float:
    left, top, right, bottom = edges(x, y, box)
    return math.sqrt(min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom))


def max_iou(table: list[list[float]], positive: float, negative: float, least: float = 0.0) -> list[int]:
    """What each anchor, a row of IoUs, answers for: one box after the other, as in mmdetection."""
    owner = []
    for row in table:
        best = max(row, default=0.0)
        owner.append(row.index(best) if best >= positive else IGNORED if best >= negative else BACKGROUND)
    for number, of_box in enumerate(zip(*table, strict=True)):
        most = max(of_box)
        for anchor, iou in enumerate(of_box):
            if iou == most >= least and most > 0:
                owner[anchor] = number
    return owner


def cross_entropy(p: float, target: float) -> float:
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def focal(logits: Sequence[float], label: int | None) -> float:
    """Of all classes of one location, where alpha is a quarter and gamma two."""
    total = 0.0
    for k, p in enumerate(map(sigmoid, logits)):
        total -= 0.25 * (1 - p) ** 2 * math.log(p) if k == label else 0.75 * p**2 * math.log(1 - p)
    return total


def bins_of(values: Sequence[float]) -> list[Sequence[float]]:
    """The logits of each of the four edges."""
    step = len(values) // 4
    return [values[e * step : (e + 1) * step] for e in range(4)]


def distances(values: Sequence[float]) -> list[float]:
    """What the distributions of the four edges expect, in strides."""
    return [sum(k * p for k, p in enumerate(softmax(one))) for one in bins_of(values)]


def distribution_focal(values: Sequence[float], wanted: Sequence[float]) -> float:
    """A mean over the four edges. What is wanted, in strides, is cut to just before the last bin."""
    total = 0.0
    for z, d in zip(bins_of(values), wanted, strict=True):
        p = softmax(z)
        d = min(max(d, 0), len(p) - 1 - 0.1)
        k = math.floor(d)
        total -= ((k + 1 - d) * math.log(p[k]) + (d - k) * math.log(p[k + 1])) / 4
    return total


def generalized_focal(outputs: Outputs, targets: Targets, *, ciou: bool = False) -> dict[str, float]:
    """The losses of GFL location by location, and of GFLv2, where `own["quality"]` is a factor of each score."""
    owner = {row: p for p, row in enumerate(targets.row.tolist())}
    counts = [0] * targets.images
    sums = dict.fromkeys(("qfl", "box", "dfl", "weight"), 0.0)
    ones = [torch.ones_like(x[:, :1]) for x in outputs.cls]
    row = 0
    for image in range(targets.images):
        for cls, box, good, stride in zip(
            outputs.cls, outputs.box, outputs.own.get("quality", ones), STRIDES, strict=True
        ):
            for i in range(cls.shape[2]):
                for j in range(cls.shape[3]):
                    factor = good[image, 0, i, j].item()
                    scores = [factor * sigmoid(z) for z in cls[image, :, i, j].tolist()]
                    wanted = [0.0] * len(scores)
                    if (p := owner.get(row)) is not None:
                        counts[image] += 1
                        values = box[image, :, i, j].tolist()
                        d, weight = distances(values), max(scores)
                        predicted = torch.tensor([[j - d[0], i - d[1], j + d[2], i + d[3]]])
                        real = targets.box[p][None] / stride
                        wanted[targets.label[p]] = box_iou(predicted, real).item()
                        loss = complete_box_iou_loss if ciou else generalized_box_iou_loss
                        sums["weight"] += weight
                        sums["box"] += weight * loss(predicted, real).item()
                        sums["dfl"] += weight * distribution_focal(values, edges(j, i, real[0].tolist()))
                    for q, s in zip(wanted, scores, strict=True):
                        sums["qfl"] += abs(q - s) ** 2 * cross_entropy(s, q)
                    row += 1
    assert row == len(targets.valid)
    return {
        "qfl": sums["qfl"] / sum(max(1, count) for count in counts),
        "box": 2 * sums["box"] / sums["weight"],
        "dfl": 0.25 * sums["dfl"] / sums["weight"],
    }


def focal_of_nothing(levels: list[Tensor]) -> Tensor:
    """What the focal loss of all these logits sums to where nothing is there."""
    z = torch.cat([x.detach().flatten() for x in levels])
    return (0.75 * z.sigmoid() ** 2 * torch.nn.functional.softplus(z)).sum()
