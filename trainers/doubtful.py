"""The box about whose edges a teacher doubts most, and what others say of them there: what LD is about.

Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022, https://arxiv.org/abs/2102.12252
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainers import build
from trainers.data.batches import in_order
from trainers.data.split import Split
from trainers.data.subsets import these
from trainers.evaluate import fetched, original
from trainers.matched import matched
from trainers.outputs import Detections, Network, Outputs
from trainers.spec import Recipe


class Said(NamedTuple):
    """What a detector says of one image."""

    boxes: Tensor  # (A, 4), of every location, in pixels of the original image
    edges: Tensor  # (A, 4, S): how likely each distance of each edge is
    found: Detections


class Doubt(NamedTuple):
    """A detection, and how little its edges are known."""

    entropy: float  # mean over the edges, in nats
    image: int  # in the split
    row: int  # that said it
    object: int  # that it found


def doubtful(
    detectors: Sequence[Network], recipes: Sequence[Recipe], split: Split, *, threshold: float, device: torch.device
) -> dict[str, Any] | None:
    """Among the teacher's right detections in these images that whose edge distributions have the greatest entropy,
    with what those others say at the same location whose distributions have the same bins there. The teacher is first.

    None where nobody can be compared: boxes as four numbers, other strides, or nothing found.
    """
    teacher = detectors[0]
    alike = [number for number, one in enumerate(detectors) if comparable(one, teacher)]
    if len(alike) < 2:
        return None
    doubts = [
        doubt
        for image in range(len(split))
        for doubt in _doubts(say(teacher, split, image, recipes[0], device=device), split, image, threshold)
    ]
    if not doubts:
        return None
    worst = max(doubts)
    lines: list[dict[str, Any]] = []
    for number in alike:
        said = say(detectors[number], split, worst.image, recipes[number], device=device)
        if worst.row >= len(said.edges):  # its images are resized to another size
            continue
        box, edges = said.boxes[worst.row].double(), said.edges[worst.row].double()
        lines.append({"panel": number, "box": box.tolist(), "edges": edges.tolist()})
    taught = torch.tensor(lines[0]["edges"])
    for line in lines:
        own = torch.tensor(line["edges"])
        divergence = (taught * (taught.clamp(min=1e-12).log() - own.clamp(min=1e-12).log())).sum(1).mean()
        line["divergence"] = divergence.item()
    truth = split.boxes(worst.image)[worst.object].tolist()
    return {
        "image": worst.image,
        "label": int(split.labels(worst.image)[worst.object]),
        "truth": truth,
        "truth_bins": in_bins(truth, lines[0]["box"], taught),
        "entropy": worst.entropy,
        "lines": lines,
    }


def comparable(one: Network, teacher: Network) -> bool:
    """Whether their locations, and the bins there, are the same."""

    def kind(detector: Network) -> tuple[Any, ...]:
        return detector.bins, detector.start, detector.anchors, tuple(detector.strides)

    return all(hasattr(each, "boxes") and each.bins > 0 for each in (one, teacher)) and kind(one) == kind(teacher)


@torch.no_grad()
def say(detector: Network, split: Split, image: int, recipe: Recipe, *, device: torch.device) -> Said:
    """What a detector says of each location of an image, in float32."""
    batches = in_order(these(split, [image]), batch=1, resize=recipe.resize, divisor=build.divisor(detector))
    ((images, truth),) = batches
    outputs: Outputs = detector(images.to(device))
    (found,), scale = fetched(detector.detect(outputs, truth.sizes)), truth.scales[0]
    boxes = outputs.by.boxes(outputs).float().cpu() / torch.tensor([*scale, *scale])
    edges = outputs.edge_rows(detector.bins).float().softmax(-1).cpu()
    return Said(boxes, edges, original(found, scale))


def _doubts(said: Said, split: Split, image: int, threshold: float) -> list[Doubt]:
    """The right detections in an image. Of the locations one is named by its box, before it was cut to the image."""
    entropy = -(said.edges * said.edges.clamp(min=1e-12).log()).sum(-1).mean(-1)  # (A,)
    height, width = split.sizes[image]
    cut = torch.minimum(said.boxes.clamp(min=0), torch.tensor([width, height, width, height]))
    made = []
    for box in matched(said.found, split, image):
        if box.object >= 0 and box.score >= threshold:
            row = int((cut - torch.tensor(box.corners)).abs().sum(1).argmin())
            made.append(Doubt(entropy[row].item(), image, row, box.object))
    return made


def in_bins(truth: Sequence[float], box: Sequence[float], edges: Tensor) -> list[float]:
    """How far the true edges are from the location that said a box by edges (4, S), in bins. -> left, top, right,
    bottom; below 0 where the location lies outside."""
    left, top, right, bottom = (edges @ torch.arange(edges.shape[1], dtype=edges.dtype)).tolist()
    made = [0.0] * 4
    for axis, (before, after) in enumerate(((left, right), (top, bottom))):
        unit = max((box[axis + 2] - box[axis]) / max(before + after, 1e-6), 1e-6)  # pixels of a bin
        centre = box[axis] + before * unit
        made[axis], made[axis + 2] = (centre - truth[axis]) / unit, (truth[axis + 2] - centre) / unit
    return made
