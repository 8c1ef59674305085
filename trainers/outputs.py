"""What a detector computed, and what it should have: the only things that a distillation loss may read.

Shapes use one legend everywhere: B images, L levels of the pyramid, C channels, H W cells of a level, A locations of
all levels together (level after level, row after row), K classes, N boxes, P positive locations, S = bins of one edge.
Boxes are (x1, y1, x2, y2) in pixels of the padded batch; edges come in the order left, top, right, bottom.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from trainers.data.lanes import Lane

Overlap = Literal["diou", "iof_diou"]
Network = Any  # an nn.Module that is a Detector and has a `backbone`; typing cannot say "both"


@dataclass(frozen=True)
class Outputs:
    """What a network says about a batch, before any decoding."""

    features: list[Tensor]  # L of (B, C, H, W): the pyramid that the head reads
    cls: list[Tensor] = field(default_factory=list)  # L of (B, a*K, H, W): class logits of sigmoids, anchor by anchor
    box: list[Tensor] = field(default_factory=list)  # L of (B, a*4*S, H, W): edge distributions, or a*4 deltas
    maps: list[Tensor] = field(default_factory=list)  # of the backbone, finest first
    own: dict[str, Any] = field(default_factory=dict)  # tensors that only this kind of detector has, such as centerness
    anchors: int = 1  # a: predictions a cell
    towers: dict[int, tuple[list[Tensor], list[Tensor]]] = field(default_factory=dict)  # see `Dense.keep_towers`
    by: Network = None  # the detector that said this, for what it can do with it further: see `Dense` and `TwoStage`

    def class_rows(self) -> Tensor:
        """All class logits as rows. -> (B*A, K), image by image, then level, row, column and anchor."""
        return rows(self.cls, self.anchors)

    def edge_rows(self, bins: int) -> Tensor:
        """All edge logits as rows. -> (B*A, 4, bins), in the order of `class_rows`."""
        return rows(self.box, self.anchors).unflatten(1, (4, bins))


def rows(levels: list[Tensor], anchors: int = 1) -> Tensor:
    """L of (B, a*C, H, W) -> (B*A, C), where each of H*W cells of a level counts for a rows."""
    cells = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)  # (B, cells, a*C)
    return cells.flatten(0, 1).unflatten(1, (anchors, -1)).flatten(0, 1)


@dataclass(frozen=True)
class Truth:
    """What is really in the images of a batch."""

    boxes: list[Tensor]  # B of (N, 4)
    labels: list[Tensor]  # B of (N,), 0..K-1
    sizes: list[tuple[int, int]]  # B of (height, width) without padding
    ids: list[int]  # B image ids, for messages and for the metric
    scales: list[tuple[float, float]]  # B of (x, y): pixels of the batch for one pixel of the original image
    masks: list[Tensor] | None = None  # B of (N, height, width) bool, of the padded batch; None: the data has none
    # B of (M, 4): crowds and others that are neither to be found nor background; None: nothing is to be ignored
    ignored: list[Tensor] | None = None
    lane: Lane | None = None  # by which it came to a device, and where nobody waits for what is computed there

    def to(self, device: torch.device) -> Truth:
        """The same on another device, or where it is already."""
        boxes = [b.to(device, non_blocking=True) for b in self.boxes]
        labels = [n.to(device, non_blocking=True) for n in self.labels]
        masks = None if self.masks is None else [m.to(device, non_blocking=True) for m in self.masks]
        ignored = None if self.ignored is None else [b.to(device, non_blocking=True) for b in self.ignored]
        lane = self.lane if self.lane and self.lane.device.type == device.type else None
        return Truth(boxes, labels, self.sizes, self.ids, self.scales, masks, ignored, lane)


@dataclass(frozen=True)
class Targets:
    """Which locations answer for which box. `row` counts as `Outputs.class_rows` does."""

    row: Tensor  # (P,)
    level: Tensor  # (P,), 0..L-1
    label: Tensor  # (P,), 0..K-1
    box: Tensor  # (P, 4): the box that the location answers for
    valid: Tensor  # (B*A,) bool: locations that do not lie in the padding
    levels: int  # L
    truth: Truth
    own: dict[str, Any] = field(default_factory=dict)  # what only this kind of detector's losses read
    ignored: Tensor | None = None  # (B*A,) bool: locations that are neither positive nor negative; None: there are none

    @property
    def images(self) -> int:
        """B."""
        return len(self.truth.boxes)

    @property
    def learnt(self) -> Tensor:
        """The locations whose classes are learnt: not in the padding, and not ignored. -> (B*A,) bool."""
        return self.valid if self.ignored is None else self.valid & ~self.ignored


@dataclass(frozen=True)
class Detections:
    """What is found in one image, best first."""

    boxes: Tensor  # (N, 4)
    scores: Tensor  # (N,), 0..1
    labels: Tensor  # (N,), 0..K-1


class Detector(Protocol):
    """What the loop and the losses know of a detector."""

    num_classes: int
    strides: tuple[int, ...]  # pixels a cell, level by level
    channels: int  # C of the pyramid
    bins: int  # S of an edge's distribution; 0 when boxes are predicted as four numbers
    start: float  # where in a cell the distances to edges start: 0 at its upper left corner, 0.5 in its middle
    anchors: int  # a: predictions a cell; 0 for a detector without sigmoid class logits at each cell (`cls` is empty)

    features_only: bool  # while it is true `forward` leaves the head out; who always says all has no such attribute
    by_shape: bool  # `assign` and `valuable` read no more of outputs than shapes; who reads more has no such attribute

    def forward(self, images: Tensor) -> Outputs:
        """(B, 3, height, width) -> Outputs."""

    def assign(self, outputs: Outputs, truth: Truth) -> Targets:
        """Which locations answer for which box; needs no gradient."""

    def losses(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """The detection losses by name, each () and already weighted."""

    def detect(self, outputs: Outputs, sizes: list[tuple[int, int]]) -> list[Detections]:
        """Decode, suppress and clip to the image sizes (height, width)."""


class Region(NamedTuple):
    """Rows beside the positives from which there is something to learn."""

    row: Tensor  # (V,), as `Outputs.class_rows` counts, rising
    weight: Tensor | None  # (V,): how much each counts; None: by its class score


class Dense(Detector, Protocol):
    """A one-stage detector, and what it can do with `Outputs` that it made: `outputs.by` is such a one.

    Not every one can do everything: a loss asks when it is built (`hasattr`).
    """

    # After which convolutions, with the norm and before the ReLU that follow, `Outputs.towers` has what the head's two
    # towers say, that for classes and that for boxes, each L of (B, C, H, W). 0: the features.
    keep_towers: frozenset[int]
    convs: int  # how many convolutions each of both towers has

    def boxes(self, outputs: Outputs) -> Tensor:
        """The boxes that all rows say, in pixels of the padded batch, with gradient. -> (B*A, 4)."""

    def finish(self, cls: list[Tensor], box: list[Tensor], *, after: int) -> Outputs:
        """What the head says, given what `towers` has after so many convolutions, each L of (B, C, H, W)."""

    def centred(self, outputs: Outputs, targets: Targets) -> Tensor:
        """The real centerness of the positives; needs no gradient. -> (P,)"""

    def valuable(self, outputs: Outputs, targets: Targets, *, gamma: float, overlap: Overlap) -> Region:
        """The valuable localization region of LD; needs no gradient."""

    def row_scores(self, outputs: Outputs, row: Tensor) -> Tensor:
        """What these rows (R,) score for each class where that is less than the sigmoid of `cls`. -> (R, K), 0..1."""


class Regions(NamedTuple):
    """What the second stage of a detector learns from, image by image; R regions in all."""

    boxes: list[Tensor]  # B of (N, 4)
    matched: list[Tensor]  # B of (N,): which box of the image each is compared with; 0 where there is none
    labels: list[Tensor]  # B of (N,), 0..K: background first, class k is k + 1
    deltas: list[Tensor]  # B of (N, 4): from the region to its box


class TwoStage(Detector, Protocol):
    """A two-stage detector, and what its second stage can do: `outputs.by` is such a one.

    Sizes are `Truth.sizes`: (height, width) of the images without padding.
    """

    def propose(self, outputs: Outputs, sizes: list[tuple[int, int]]) -> list[Tensor]:
        """What the first stage proposes, best first. -> B of (N, 4), without gradient."""

    def sample(self, proposed: list[Tensor], truth: Truth) -> Regions:
        """Regions to learn from, drawn at random from proposals and real boxes."""

    def pool(self, features: list[Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        """What the second stage reads of regions, B of (N, 4). -> (R, C, size, size)."""

    def judge(
        self, features: list[Tensor], proposed: list[Tensor], sizes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """What it says of them: class logits (R, K+1), background first, and box deltas (R, 4*(K+1))."""
