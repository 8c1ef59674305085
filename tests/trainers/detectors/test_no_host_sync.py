"""No one-stage detector makes a training step wait for a GPU, but where this file says so and why."""

from collections.abc import Callable
from typing import Any

import torch

from tests.trainers import pretend_device
from tests.trainers.test_every_dense import scene
from tests.trainers.test_every_detector import CASES, make, over
from tests.trainers.waits import watched
from trainers.detectors.handed import handed

POSITIVES = "how many locations answer for a box: their rows are gathered, and all else is as long"
GUESSES = "how many cells guess a box, for the same reason"
MATCHER = "torchvision's matcher asks in each of two images which anchors are a box's best, and writes by masks"

# What a step of each waits for, how often, and why. MimicDet, Faster and Mask R-CNN suppress and draw in a step.
WAITS: dict[str, dict[str, tuple[int, str]]] = {
    "GFL": {"nonzero": (1, POSITIVES)},
    "GFLv2": {"nonzero": (1, POSITIVES)},
    "ATSS": {"nonzero": (1, POSITIVES)},
    "FCOS": {"nonzero": (1, POSITIVES)},
    "RetinaNet": {"nonzero": (1, POSITIVES)},
    "RepPoints": {"nonzero": (2, f"{POSITIVES}; {GUESSES}")},
}
OF_TORCHVISION = {"RetinaNet": {"nonzero": (3, f"{POSITIVES}; {MATCHER}"), "mask as index": (4, MATCHER)}}
ONE_STAGE = [case for case in CASES if case[0] in WAITS]


def expected(name: str, own: dict[str, Any]) -> dict[str, int]:
    waits = OF_TORCHVISION.get(name, WAITS[name]) if own.get("conventions") == "torchvision" else WAITS[name]
    return {what: times for what, (times, _) in waits.items()}


@over(ONE_STAGE)
def test_a_step_waits_only_for_what_is_written_here(name: str, own: dict[str, Any]) -> None:
    model = make(name, own).train()
    images, truth = scene()
    with watched() as seen:
        outputs = model(images)
        losses = model.losses(outputs, model.assign(outputs, truth))
        torch.stack(list(losses.values())).sum().backward()
    assert dict(seen) == expected(name, own)


def count_elsewhere(name: str, own: dict[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    """What the first step of a size waits for on another device, where anchors are made, and what the second does."""
    device = pretend_device.device()
    model = make(name, own).to(device).train()
    images, truth = scene()
    found = []
    for _ in range(2):
        there, real = images.to(device), truth.to(device)
        with watched() as seen:
            outputs = model(there)
            torch.stack(list(model.losses(outputs, model.assign(outputs, real)).values())).sum().backward()
        found.append(dict(seen))
    return found[0], found[1]


@over([case for case in ONE_STAGE if case[1].get("conventions") != "torchvision" or case[0] == "FCOS"])
def test_on_another_device_no_number_of_the_host_is_waited_for(
    elsewhere: Callable[..., Any], name: str, own: dict[str, Any]
) -> None:
    _, again = elsewhere(count_elsewhere, name, own)
    assert again == expected(name, own)


def hand_over(waiting: bool) -> dict[str, int]:
    device = pretend_device.device()
    with watched() as seen:
        if waiting:
            torch.tensor([1.0, 2.0]).to(device)
        else:
            made = handed([1.0, 2.0], device)
    assert waiting or made.cpu().tolist() == [1.0, 2.0]
    return dict(seen)


def test_a_copy_that_is_waited_for_is_seen_and_what_is_handed_over_is_none(elsewhere: Callable[..., Any]) -> None:
    assert elsewhere(hand_over, True) == {"copy": 1}
    assert elsewhere(hand_over, False) == {}
