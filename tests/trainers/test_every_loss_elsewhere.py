"""Every loss teaches on another device what it teaches on the CPU, and mixes no tensor of the one with the other's."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from tests.trainers import pretend_device
from tests.trainers.detectors.scenes import noise
from tests.trainers.test_every_detector import make
from tests.trainers.test_every_loss import CHANNELS, EVERY, WIDER, Kind, Pair
from tests.trainers.trainings import taught
from trainers import distill
from trainers.call import Call, Term
from trainers.outputs import Network, Truth
from trainers.task import Losses, Task
from trainers.teaching import Teaching

STAGE = taught("LD", guides={"who": "all"})
# Of a loss, whichever it is: one that listens to the first guide, one to the second at half its weight, a silent one.
TERMS = {"near": Term(name="LD"), "root": Term(name="LD", ramp=2), "silent": Term(name="LD", epochs=(2, None))}
LISTENS = {"near": 0, "root": 1, "silent": 0}


def prepared(name: str, on: Kind) -> tuple[Task, list[Network]]:
    """What learns, and both its guides: wider than it where a loss takes that."""
    channels = 24 if WIDER[name] == "adapters" else CHANNELS
    pair = Pair(name, on, channels=channels)
    root = make(*on, width=12, channels=channels).eval().requires_grad_(False)
    second = Call(name=name).complete(distill).of(distill, pair.student, root)
    losses = {"near": pair.loss, "root": second, "silent": copy.deepcopy(pair.loss)}
    return Task(pair.student, losses, LISTENS), [pair.teacher, root]


def learn(task: Task, guides: list[Network], images: Tensor, truth: Truth) -> tuple[Losses, dict[str, list[Tensor]]]:
    """The losses of a first step, and the gradients of each that counts alone and of all together."""
    lesson = Teaching(guides, TERMS, LISTENS, STAGE, steps=1)(images, 0)
    torch.manual_seed(0)  # for what is drawn
    losses = task(images, truth, lesson)
    gradients = {}
    for name, loss in {**losses.by_name, "total": losses.total}.items():
        if name != "silent":
            task.zero_grad()
            loss.backward(retain_graph=True)
            gradients[name] = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in task.parameters()]
    assert all(p.grad is not None for p in task.parameters()), "the total reaches all, silent adapters too"
    return losses, gradients


def check_twin_on_another_device(name: str, on: Kind) -> None:
    device = pretend_device.device()
    images, truth = noise((64, 64), (33, 50), (64, 64), padded=(64, 64))
    truth.boxes[2], truth.labels[2] = truth.boxes[2][:0], truth.labels[2][:0]
    task, guides = prepared(name, on)
    moved = copy.deepcopy(task).to(device), [copy.deepcopy(guide).to(device) for guide in guides]
    expected, gradients = learn(task, guides, images, truth)
    found, moved_gradients = learn(*moved, images.to(device), truth.to(device))
    assert found.counting == expected.counting == {"near", "root"}
    assert torch.equal(found.positives, expected.positives)
    assert expected.by_name["silent"] == 0 < min(expected.by_name["near"], expected.by_name["root"])
    for key, loss in expected.by_name.items():
        assert found.by_name[key].device.type == pretend_device.NAME, key
        torch.testing.assert_close(found.by_name[key].cpu(), loss, rtol=1e-5, atol=0, msg=key)
    for key, of_loss in gradients.items():
        largest = max(gradient.abs().max().item() for gradient in of_loss)
        assert largest > 0, key
        for gradient, other in zip(of_loss, moved_gradients[key], strict=True):
            assert other.device.type == pretend_device.NAME, key
            atol = max(1e-5 * gradient.abs().max().item(), 1e-7 * largest)
            torch.testing.assert_close(other.cpu(), gradient, rtol=1e-3, atol=atol, msg=key)


@EVERY
def test_on_another_device_it_mixes_no_tensor_with_the_cpus_and_computes_the_same(
    elsewhere: Callable[..., None], name: str, on: Kind
) -> None:
    elsewhere(check_twin_on_another_device, name, on)
