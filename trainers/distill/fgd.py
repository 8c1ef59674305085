"""FGD: learn the teacher's features where and in the channels that it looks at, in objects and around them apart.

Yang, Li, Jiang, Gong, Yuan, Zhao, Yuan, "Focal and Global Knowledge Distillation for Detectors", CVPR 2022
https://arxiv.org/abs/2111.11837
The global context block: Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", ICCV
Workshops 2019, https://arxiv.org/abs/1904.11492
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from trainers.call import Index, NonNegative, Positive
from trainers.distill.adapters import Adapters
from trainers.distill.attention import Context, attention, attention_difference, weighted_difference
from trainers.distill.box_masks import Boxes, every_box
from trainers.distill.means import mean_count, nothing
from trainers.distill.pair import EVERY, shared_levels, some_part
from trainers.distill.soft import full_precision
from trainers.outputs import Detector, Outputs, Targets, Truth


class Weights(NamedTuple):
    """The paper's alpha, beta, gamma and lambda."""

    foreground: float
    background: float
    attention: float
    relation: float


TWO_STAGE = Weights(5e-5, 2.5e-5, 5e-5, 5e-7)
ANCHORS = Weights(1e-3, 5e-4, 1e-3, 5e-6)  # the paper's; as released, the third is 5e-4
DISTRIBUTIONS = Weights(1e-3, 5e-4, 5e-4, 5e-6)
ANCHOR_FREE = Weights(1.6e-3, 8e-4, 8e-4, 8e-6)


class FGD(nn.Module):
    """weight * the sum over levels and parts of the part's own weight times a sum, a mean over images only:

    - `foreground_weight` (alpha) and `background_weight` (beta): of squared differences of features, times the
      teacher's spatial and channel attention, times a mask. In the foreground the mask is 1 / the cells of the box, of
      several boxes the highest; in the background 1 / the cells of the image that no box touches.
    - `attention_weight` (gamma): of absolute differences of both attentions.
    - `relation_weight` (lambda): of squared differences of features to which a global context was added. Both sides
      learn a context block of their own, which at first adds nothing. With 0 there are none.

    A weight that is left out is that of the released configuration for the student's kind: two stages 5e-5, 2.5e-5,
    5e-5, 5e-7; several anchors a cell (RetinaNet) 1e-3, 5e-4, 1e-3, 5e-6, where gamma is the paper's and the released
    one is 5e-4; distributions of edges (GFL) 1e-3, 5e-4, 5e-4, 5e-6; else (FCOS, RepPoints) 1.6e-3, 8e-4, 8e-4, 8e-6.
    `temperature` is that of the attention; the configuration for FCOS has 0.8. They are tuned for images of 800 x 1333
    and 256 channels: the sums grow with both.

    `levels`: all in one stage, the first four in two, as there. Their cells must be of one size on both sides; a 1x1
    convolution a level makes up for pyramids of another width. `scale` says how boxes become cells, from the one that
    the upper left corner falls into to the one after that which the lower right corner falls into:

    - `padded`: by the stride of the level, which is where things are in its map.
    - `image`: a map is taken for the image without its padding, as in the released code: where images of a batch
      differ in size, the masks of the smaller ones reach too far right and down.
    """

    features_only = True

    def __init__(
        self,
        student: Detector,
        teacher: Detector,
        *,
        weight: NonNegative = 1.0,
        foreground_weight: NonNegative | None = None,
        background_weight: NonNegative | None = None,
        attention_weight: NonNegative | None = None,
        relation_weight: NonNegative | None = None,
        temperature: Positive = 0.5,
        levels: tuple[Index, ...] | None = None,
        scale: Literal["padded", "image"] = "padded",
    ) -> None:
        super().__init__()
        default = EVERY if student.anchors and teacher.anchors else 4
        self.levels = shared_levels(student, teacher, levels, default=default)
        given = (foreground_weight, background_weight, attention_weight, relation_weight)
        parts = zip(given, published(student), strict=True)
        self.parts = Weights(*(usual if own is None else own for own, usual in parts))
        if weight:
            some_part(self.parts, "FGD")
        self.weight = weight
        self.adapt = Adapters(student.channels, teacher.channels, levels=len(self.levels))
        sides = 2 * len(self.levels) if self.parts.relation else 0
        self.contexts = nn.ModuleList(Context(teacher.channels) for _ in range(sides))
        self.strides = tuple(student.strides[level] for level in self.levels)
        self.temperature = temperature
        self.scale = scale

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        """-> (), already weighted."""
        with torch.autocast(student.features[0].device.type, enabled=False):  # sums of millions of squares
            mine = self.adapt([full_precision(student.features[level]) for level in self.levels])
            taught = [full_precision(teacher.features[level].detach()) for level in self.levels]
            boxes = every_box(targets.truth)
            sizes = sizes_of(targets.truth) if self.scale == "image" else None
            pairs = enumerate(zip(mine, taught, strict=True))
            losses = [self.level(number, *pair, boxes, sizes) for number, pair in pairs]
            total = torch.stack(losses).sum()
            return self.weight * total / mean_count(targets.images, total)

    def level(self, number: int, mine: Tensor, taught: Tensor, boxes: Boxes, sizes: Tensor | None) -> Tensor:
        """What the features (B, C, H, W) of one of the levels cost, summed over the images. -> ()."""
        parts = self.parts
        loss = nothing(mine)
        theirs = attention(taught, temperature=self.temperature)
        if parts.foreground or parts.background:
            cells = in_cells(boxes.box.to(mine), mine, self.strides[number], sizes)
            foreground, background = masks(cells, boxes.image, like=theirs.spatial)
            mask = parts.foreground * foreground + parts.background * background
            loss = loss + weighted_difference(mine, taught, theirs, mask)
        if parts.attention:
            own = attention(mine, temperature=self.temperature)
            loss = loss + parts.attention * attention_difference(own, theirs)
        if parts.relation:
            left, right = self.contexts[2 * number], self.contexts[2 * number + 1]
            loss = loss + parts.relation * (left(mine) - right(taught)).square().sum()
        return loss


def published(student: Detector) -> Weights:
    """The published weights for this kind of detector."""
    if not student.anchors:
        return TWO_STAGE
    if student.anchors > 1:
        return ANCHORS
    return DISTRIBUTIONS if student.bins else ANCHOR_FREE


def sizes_of(truth: Truth) -> Tensor:
    """Of the image of each box its width and height without padding, image by image. -> (N, 2)."""
    # Numbers of Python's are filled in on the device; a tensor made of them would be waited for.
    sides = [
        torch.stack([torch.full_like(boxes[:, 0], side) for side in (width, height)], dim=1)
        for boxes, (height, width) in zip(truth.boxes, truth.sizes, strict=True)
    ]
    return torch.cat(sides)


def in_cells(box: Tensor, features: Tensor, stride: int, sizes: Tensor | None) -> Tensor:
    """Boxes as coordinates in maps (B, C, H, W): by their stride, or of their images' (width, height) `sizes` (N, 2).

    (N, 4) -> (N, 4).
    """
    if sizes is None:
        return box / stride
    height, width = features.shape[2:]
    across, down = (width / sizes[:, :1], height / sizes[:, 1:])  # (N, 1) each
    return torch.stack([box[:, 0::2] * across, box[:, 1::2] * down], dim=2).flatten(1)


def masks(boxes: Tensor, image: Tensor, *, like: Tensor) -> tuple[Tensor, Tensor]:
    """The foreground and the background of maps like (B, H, W).

    Boxes (N, 4) in cells and the images (N,) that they are in -> (B, H, W) twice, each at least 0; the background sums
    to 1 in each image where there is one. A box counts every cell that it should have, those outside the map too.
    """
    low, high = boxes[:, :2].floor(), boxes[:, 2:].ceil()
    number, height, width = like.shape
    y, x = (torch.arange(n, device=boxes.device) for n in (height, width))
    tall = (y >= low[:, 1:]) & (y <= high[:, 1:])  # (N, H)
    wide = (x >= low[:, :1]) & (x <= high[:, :1])  # (N, W)
    share = (tall[:, :, None] & wide[:, None]) / (high - low + 1).prod(1)[:, None, None]
    foreground = like.new_zeros(number, height * width)
    index = image[:, None].expand(-1, height * width)
    foreground = foreground.scatter_reduce(0, index, share.flatten(1).to(like), "amax").view(like.shape)
    rest = (foreground == 0).to(like)
    return foreground, rest / rest.sum((1, 2), keepdim=True).clamp(min=1)
