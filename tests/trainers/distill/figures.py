"""Detectors that are only figures, and random outputs and targets for them: 8 locations on two levels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.outputs import Outputs, Region, Targets, Truth

SHAPES = ((2, 3), (1, 2))
LOCATIONS = 8  # of which the first six lie on level 0


@dataclass(frozen=True)
class Figures:
    """What a loss may read of a detector."""

    num_classes: int = 3
    strides: tuple[int, ...] = (8, 16)
    channels: int = 4
    bins: int = 5
    start: float = 0.0
    anchors: int = 1


@dataclass(frozen=True)
class Near(Figures):
    """A detector that finds these rows valuable, each as much as said, or as its class score is high."""

    rows: tuple[int, ...] = ()
    counts: tuple[float, ...] | None = None

    def valuable(self, outputs: Outputs, targets: Targets, *, gamma: float, overlap: str) -> Region:
        """Wherever the boxes are."""
        counts = None if self.counts is None else torch.tensor(self.counts, dtype=torch.float64)
        return Region(torch.tensor(self.rows, dtype=torch.long), counts)


def random_outputs(seed: int, *, images: int = 2, classes: int = 3, bins: int = 5) -> Outputs:
    """Leaves in float64 that want a gradient."""
    generator = torch.Generator().manual_seed(seed)

    def levels(channels: int) -> list[Tensor]:
        draws = [torch.randn(images, channels, *s, generator=generator, dtype=torch.float64) for s in SHAPES]
        return [draw.mul(2).requires_grad_() for draw in draws]

    return Outputs(features=levels(4), cls=levels(classes), box=levels(4 * bins))


def no_boxes(images: int) -> Truth:
    """Images with nothing in them."""
    boxes, labels = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    return Truth([boxes] * images, [labels] * images, [(64, 64)] * images, list(range(images)), [(1.0, 1.0)] * images)


def targets_at(*rows: int, images: int = 2) -> Targets:
    """Targets whose positives are these rows."""
    row = torch.tensor(rows, dtype=torch.long)
    return Targets(
        row=row,
        level=(row % LOCATIONS >= 6).long(),
        label=torch.zeros_like(row),
        box=torch.tensor([4.0, 4.0, 20.0, 20.0]).expand(len(rows), 4),
        valid=torch.ones(images * LOCATIONS, dtype=torch.bool),
        levels=2,
        truth=no_boxes(images),
    )
