"""Two real workers that share a batch learn from features what one worker with the whole batch learns."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainers.test_every_detector import BATCHES, SPLIT, make, part_of
from tests.trainers.two_workers import together
from trainers import distill
from trainers.call import Call
from trainers.outputs import Network

# Without what is documented to depend on how a batch is spread: alignment, relations, instances per batch.
LOSSES: dict[str, dict[str, Any]] = {
    "CWD": {"CWD": {}},
    "CWD of classes": {"CWD": {"source": "cls"}},
    "CrossKD": {"CrossKD": {"align": False}},
    "CrossKD by centerness": {"CrossKD": {"align": False, "after": 1, "normaliser": "centerness"}},
    "FGD": {"FGD": {"weight": 100.0}},
    "GI": {"GI": {"regions_weight": 1.0}},
    **{f"Imitation {region}": {"Imitation": {"region": region}} for region in ("all", "inside", "main", "fine")},
}


def detectors(loss: str) -> tuple[Network, Network]:
    """A student and its teacher, the same each time, and both sure enough of something to disagree."""
    kind, knobs = ("FCOS", {}) if "centerness" in loss else ("GFL", {"reg_max": 8})
    pair = tuple(make(kind, knobs, width=width) for width in (4, 8))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for detector in pair:
            for parameter in detector.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    student, teacher = pair
    return student.train(), teacher.eval().requires_grad_(False)


def learn(images: Sequence[int]) -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
    """For each loss and batch the loss, and all gradients of the student."""
    found = {}
    for name, call in LOSSES.items():
        student, teacher = detectors(name)
        torch.manual_seed(0)
        loss = Call.model_validate(call).complete(distill).of(distill, student, teacher)
        for batch, boxes in BATCHES.items():
            pixels, truth = part_of(images, boxes)
            student.zero_grad()
            outputs = student(pixels)
            value = loss(outputs, teacher(pixels), student.assign(outputs, truth))
            value.backward()
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in student.parameters()]
            found[name, batch] = value.detach(), torch.cat([gradient.flatten() for gradient in gradients])
    return found


def learn_together(rank: int) -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
    return learn(SPLIT[rank])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], list[Tensor]]:
    """As DDP makes it of what both learn."""
    left, right = together(learn_together, tmp_path_factory.mktemp("workers"))
    return {key: [(a + b) / 2 for a, b in zip(left[key], right[key], strict=True)] for key in left}


@pytest.fixture(scope="module")
def one() -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
    return learn((0, 1, 2))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("batch", BATCHES)
def test_two_workers_learn_what_one_does(one: Any, two: Any, batch: str, name: str) -> None:
    value, gradient = one[name, batch]
    silent = batch == "boxes on neither" and name in ("Imitation inside", "Imitation main", "Imitation fine")
    assert (value > 0) != silent and gradient.any() != silent
    torch.testing.assert_close(two[name, batch][0], value, rtol=1e-4, atol=0)
    torch.testing.assert_close(two[name, batch][1], gradient, rtol=1e-3, atol=1e-5 * gradient.abs().max().item())
