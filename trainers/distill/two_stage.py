"""Losses, or parts of them, that ask the second stage of both detectors about the same regions."""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.call import Invalid
from trainers.outputs import Detector, Outputs, Regions, Truth

ASKED = ("propose", "sample", "judge")  # what such a loss asks of a detector: see `TwoStage`
Judgement = tuple[Tensor, Tensor]  # class logits (R, K+1), background first, and box deltas (R, 4*(K+1))


def has_two_stages(detector: Detector) -> bool:
    """Whether it can say what regions show."""
    return all(hasattr(detector, name) for name in ASKED)


def region_weight(
    knob: str, weight: float | None, student: Detector, teacher: Detector, *, default: float, loss: str
) -> float:
    """What a part of a loss weighs that compares regions. None: `default`, if both detectors have two stages, else 0.

    Raises `Invalid`, at the knob, for a weight where one of the detectors has no second stage.
    """
    lacking = [role for role, one in (("student", student), ("teacher", teacher)) if not has_two_stages(one)]
    if weight is None:
        return 0.0 if lacking else default
    if weight and lacking:
        raise Invalid(
            f"{loss} with {knob} asks a second stage about regions, and the {' and the '.join(lacking)} has none: "
            f"leave {knob} out or set it to 0, take two-stage detectors, such as FasterRCNN, or add a loss that "
            "compares cells, such as KD",
            (knob,),
        )
    return weight


@torch.no_grad()
def drawn(drawer: Outputs, truth: Truth, *, proposers: tuple[Outputs, ...]) -> Regions:
    """Regions that the drawer's sampler takes at random from what these propose and from the real boxes."""
    proposed = [one.by.propose(one, truth.sizes) for one in proposers]
    return drawer.by.sample([torch.cat(of_image) for of_image in zip(*proposed, strict=True)], truth)


def both_judge(student: Outputs, teacher: Outputs, boxes: list[Tensor], truth: Truth) -> tuple[Judgement, Judgement]:
    """What both second stages say of regions B of (N, 4), each by its own features; the teacher without gradient."""
    with torch.no_grad():
        taught = teacher.by.judge(teacher.features, boxes, truth.sizes)
    return student.by.judge(student.features, boxes, truth.sizes), taught
