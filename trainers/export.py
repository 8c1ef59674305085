"""The graphs of a detector from images to raw predictions, for other runtimes; decoding stays outside.

A detector of two stages has two: between them its proposals are decoded, and RoIAlign reads the pyramid there.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from trainers.outputs import Network, Outputs
from trainers.within import tensors


class Raw(nn.Module):
    """A detector whose outputs are a flat tuple: class logits, boxes, then what is its own.

    A detector of two stages gives the pyramid first: its second stage reads it.
    """

    def __init__(self, detector: Network) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs: Outputs = self.detector(images)
        return tuple(tensors(list(parts(self.detector, outputs).values())))


def parts(detector: Network, outputs: Outputs) -> dict[str, list[Tensor]]:
    """What a graph gives, level by level, in its order; what is empty is left out."""
    pyramid = outputs.features if hasattr(detector, "second_network") else []
    every = {"pyramid": pyramid, "cls": outputs.cls, "box": outputs.box, **outputs.own}
    return {name: list(levels) for name, levels in every.items() if len(levels)}


def graph(detector: Network, size: tuple[int, int], *, multiple: int = 0) -> ExportedProgram:
    """The graph for batches of any length of images of 0..1 of this (height, width), a multiple of all strides.

    `multiple`: of any size, if both sides are multiples of it. What is there in training alone, or for the second
    stage, is neither computed nor among its weights.
    """
    example = torch.zeros(2, 3, *size, device=next(detector.parameters()).device)
    raw = Raw(without(detector, (*training_only(detector), *second_stage(detector)))).eval()
    shape: dict[int, Any] = {0: Dim("batch", min=1)}
    if multiple:
        shape |= {2: multiple * Dim("rows", min=1), 3: multiple * Dim("columns", min=1)}
    return torch.export.export(raw, (example,), dynamic_shapes=(shape,))


def second_graph(detector: Network) -> ExportedProgram:
    """The graph of a second stage, for any number of regions: (R, C, pooled, pooled) -> what `second_stage` says.

    With the weights of that stage alone.
    """
    second = copy.deepcopy(detector.second_network()).eval()
    example = next(second.parameters()).new_zeros(2, detector.channels, detector.pooled, detector.pooled)
    return torch.export.export(second, (example,), dynamic_shapes=({0: Dim("regions", min=1)},))


def second_stage(detector: Network) -> tuple[str, ...]:
    """How the names of the parameters begin that only the second stage reads."""
    return ("roi_heads.",) if hasattr(detector, "second_network") else ()


def training_only(detector: Network) -> tuple[str, ...]:
    """How the names of the parameters begin that evaluation never reads."""
    return tuple(detector.training_only()) if hasattr(detector, "training_only") else ()


def without(detector: Network, prefixes: tuple[str, ...]) -> Network:
    """A copy with nothing where the parts were whose names begin so."""
    detector = copy.deepcopy(detector)
    for prefix in prefixes:
        parent, _, name = prefix.removesuffix(".").rpartition(".")
        setattr(detector.get_submodule(parent), name, nn.Identity())
    return detector
