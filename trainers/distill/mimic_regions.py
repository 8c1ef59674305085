"""What Mimic compares: which proposals, on which level, and how far two networks are apart inside of them.

Li, Jin, Yan, "Mimicking Very Efficient Network for Object Detection", CVPR 2017
https://openaccess.thecvf.com/content_cvpr_2017/html/Li_Mimicking_Very_Efficient_CVPR_2017_paper.html
A region is a row (image, x1, y1, x2, y2), of pixels, as torchvision's pooling takes it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from trainers.distill.squared_errors import cell_errors

POSITIVE = 0.5  # the overlap with a real box from which on a proposal is positive
BINS = (1, 2, 4)  # along each side of a region, level by level of the spatial pyramid


def chosen(proposed: Tensor, real: Tensor, *, count: int, balanced: bool) -> Tensor:
    """Of an image's proposals, (N, 4), best first, the first `count`. real (M, 4): its boxes. -> (at most count, 4).

    balanced: the first of those that overlap a real box by `POSITIVE` and the first of the others, half of each. Where
    one kind has fewer, all of it is taken and the other fills up.
    """
    from torchvision.ops import box_iou  # seconds to import, and a plan compares nothing

    if not balanced:
        return proposed[:count]
    overlap = F.pad(box_iou(proposed, real), (0, 1)).amax(1)  # there may be no real box
    positive = overlap >= POSITIVE
    positives, negatives = positive.sum(), (~positive).sum()
    half = count // 2
    most = torch.where(positive, (count - negatives).clamp(min=half), (count - positives).clamp(min=count - half))
    place = torch.where(positive, positive.cumsum(0), (~positive).cumsum(0))  # among its kind, from 1
    return proposed[place <= most]


def numbered(boxes: list[Tensor]) -> Tensor:
    """B of (N, 4) -> regions (R, 5), image after image."""
    return torch.cat([F.pad(box, (1, 0), value=image) for image, box in enumerate(boxes)])


def covered(regions: Tensor, *, stride: int, height: int, width: int) -> Tensor:
    """The cells that a region touches: (R, 5) -> (R, 4), of left, upper, right and lower; the last two are excluded.

    At least one cell, and none that the map does not have.
    """
    left, upper, right, lower = (regions[:, 1:] / stride).unbind(1)
    x, y = (low.floor().clamp(min=0, max=end - 1) for low, end in ((left, width), (upper, height)))
    right, lower = right.ceil().maximum(x + 1).clamp(max=width), lower.ceil().maximum(y + 1).clamp(max=height)
    return torch.stack([x, y, right, lower], dim=1)


def coverage(cells: Tensor, image: Tensor, share: Tensor, *, images: int, height: int, width: int) -> Tensor:
    """The sum, for each cell, of the shares of the regions that cover it.

    cells (R, 4) as of `covered`, image (R,), share (R,) -> (images, height, width). A region is a rectangle, and all
    images stand on top of one another: one product of two matrices of zeros and ones, exact for any share.
    """
    x = torch.arange(width, device=cells.device)
    y = torch.arange(images * height, device=cells.device)
    left, upper, right, lower = cells.T[:, :, None]  # (R, 1) each
    top = image[:, None] * height
    columns = (x >= left) & (x < right)  # (R, width)
    rows = (y >= top + upper) & (y < top + lower)  # (R, images * height)
    found = (rows.to(share.dtype) * share[:, None]).T @ columns.to(share.dtype)
    return found.unflatten(0, (images, height))


def crop_distance(student: Tensor, teacher: Tensor, regions: Tensor, *, stride: int, per_value: bool) -> Tensor:
    """sum_i (1 / m_i) ||u_i - v_i||^2, u_i and v_i being what region i covers of two maps (B, C, H, W). -> ().

    m_i is how many values that is; without `per_value` it is 1. It is the same as a sum over cells of the squared
    difference, weighted by the 1 / m_i of all regions there, which costs no crop and no loop.
    """
    images, channels, height, width = student.shape
    cells = covered(regions.to(student.dtype), stride=stride, height=height, width=width)
    values = channels * (cells[:, 2:] - cells[:, :2]).prod(1)
    share = 1 / values if per_value else torch.ones_like(values)
    weight = coverage(cells, regions[:, 0].to(cells), share, images=images, height=height, width=width)
    return (cell_errors(student, teacher) * weight).sum()


def region_distance(student: Tensor, teacher: Tensor, *, per_value: bool) -> Tensor:
    """The same for regions that have a size in common. (R, C, S) twice -> ()."""
    return cell_errors(student, teacher).sum() / (student[0].numel() if per_value and len(student) else 1)


def aligned(features: Tensor, regions: Tensor, *, stride: int, size: int) -> Tensor:
    """RoIAlign with one point for each cell, as mmdetection has it. (B, C, H, W), (R, 5) -> (R, C, size * size)."""
    from torchvision.ops import roi_align

    return roi_align(features, regions.to(features.dtype), size, 1 / stride, 0, True).flatten(2)


def pyramid_pooled(features: Tensor, regions: Tensor, *, stride: int) -> Tensor:
    """The largest values in 1, 2 x 2 and 4 x 4 parts of what a region covers. (B, C, H, W), (R, 5) -> (R, C, 21).

    Parts of regions with fewer cells overlap, as in `adaptive_max_pool2d`. He, Zhang, Ren, Sun, "Spatial Pyramid
    Pooling in Deep Convolutional Networks for Visual Recognition", https://arxiv.org/abs/1406.4729
    """
    from torchvision.ops import roi_pool

    height, width = features.shape[-2:]
    cells = covered(regions.to(features.dtype), stride=stride, height=height, width=width)
    cells[:, 2:] -= 1  # there the last cell is included
    whole = torch.cat([regions[:, :1].to(features.dtype), cells], dim=1)
    return torch.cat([roi_pool(features, whole, bins, 1.0).flatten(2) for bins in BINS], dim=2)


def class_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """The squared distance of the class probabilities, summed over regions. Logits (R, K+1) twice -> ().

    Of probabilities, because a constant added to all logits of a region says nothing, and because they are bounded.
    """
    return (student.softmax(1) - teacher.softmax(1)).square().sum()


def box_distance(student: Tensor, teacher: Tensor, logits: Tensor) -> Tensor:
    """The squared distance of the box deltas of the object class that the teacher finds likeliest, summed over regions.

    Deltas (R, 4*(K+1)), class after class and background first, twice, and the teacher's logits (R, K+1) -> (). No
    other class's deltas were ever trained on such a region.
    """
    best = logits[:, 1:].argmax(1) + 1
    mine, taught = (
        deltas.unflatten(1, (-1, 4))[torch.arange(len(best), device=best.device), best] for deltas in (student, teacher)
    )
    return (mine - taught).square().sum()
