"""What holds for every distillation loss that `trainers.distill` offers, whichever they are.

Each is tried on a small real student and a wider real teacher, whose tensors are made leaves: so that every gradient
that a loss gives can be seen, and a second stage can be asked.
"""

import sys
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.test_every_detector import make as make_detector
from trainers import distill
from trainers.call import Call, offers
from trainers.export import tensors
from trainers.outputs import Outputs, Targets, Truth

OFFERED = offers(distill)
EVERY = pytest.mark.parametrize("name", sorted(OFFERED))
IMAGES, SIDE, CHANNELS = 2, 64, 16  # the side of an image in pixels

# The detectors that a loss is tried on, GFL if it is not named here.
GFL = ("GFL", {"reg_max": 8})
FASTER = ("FasterRCNN", {"extra": 1, "hidden": 64, "pooled": 5, "sampled": 10**6})  # all regions: nothing is drawn
ON: dict[str, tuple[str, dict[str, Any]]] = {"Mimic": FASTER}
TWO_STAGE = pytest.mark.parametrize("name", sorted(name for name, kind in ON.items() if kind == FASTER))


class Pair:
    """A student and a teacher, and the loss between them."""

    def __init__(self, name: str, **args: Any) -> None:
        torch.manual_seed(0)  # the same weights and adapters every time
        kind, own = ON.get(name, GFL)
        self.student = make_detector(kind, own, width=4).train()
        self.teacher = make_detector(kind, own, width=8).eval().requires_grad_(False)
        call = Call(name=name, args=args).complete(distill)
        self.loss: nn.Module = call.of(distill, self.student, self.teacher)
        self.images = torch.rand(IMAGES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
        self.truth = truth()

    def said(self, change: Callable[[Tensor], Tensor] = lambda x: x) -> tuple[Outputs, Outputs, Targets]:
        """What both say, as leaves that want a gradient, and what the student should have said."""
        with torch.no_grad():
            student, teacher = self.student(self.images), self.teacher(self.images)
        student, teacher = changed(student, change), changed(teacher, change)
        return student, teacher, self.student.assign(student, self.truth)

    def value(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        torch.manual_seed(1)  # for what is drawn
        value: Tensor = self.loss(student, teacher, targets)
        return value

    def gradients(self) -> list[Tensor]:
        """Of the loss by all that the student says, zeros where it reads nothing."""
        said = self.said()
        value = self.value(*said)
        if not value.requires_grad:
            return [torch.zeros_like(leaf) for leaf in leaves(said[0])]
        return list(torch.autograd.grad(value, leaves(said[0]), allow_unused=True, materialize_grads=True))


def truth(*, boxes: bool = True) -> Truth:
    """Two boxes in the first image and one in the second, or none."""
    real = [torch.tensor([[2.0, 2, 30, 30], [20.0, 10, 60, 50]]), torch.tensor([[4.0, 8, 60, 64]])]
    labels = [torch.tensor([0, 1]), torch.tensor([2])]
    if not boxes:
        real, labels = [b[:0] for b in real], [n[:0] for n in labels]
    return Truth(real, labels, [(SIDE, SIDE)] * IMAGES, list(range(IMAGES)), [(1.0, 1.0)] * IMAGES)


TENSORS = ("features", "maps", "cls", "box", "own", "towers")  # the fields of `Outputs` that hold some


def changed(outputs: Outputs, change: Callable[[Tensor], Tensor]) -> Outputs:
    """The outputs with every tensor changed, each a leaf that wants a gradient."""

    def walk(value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(value).detach().clone().requires_grad_()
        if isinstance(value, dict):
            return {key: walk(one) for key, one in value.items()}
        return [walk(one) for one in value]

    return replace(outputs, **{name: walk(getattr(outputs, name)) for name in TENSORS})


def leaves(outputs: Outputs) -> list[Tensor]:
    return list(tensors([getattr(outputs, name) for name in TENSORS]))


def weights_of(name: str) -> dict[str, float]:
    """The arguments that weight a loss or its parts, with their defaults."""
    knobs = Call(name=name).complete(distill).args
    found = {knob: value for knob, value in knobs.items() if "weight" in knob and isinstance(value, float)}
    assert found, f"{name} has no weight"
    return found


def test_there_are_losses() -> None:
    assert {"KD", "LD"} <= set(OFFERED)
    assert set(ON) <= set(OFFERED)


def test_every_tensor_of_the_outputs_is_looked_at() -> None:
    assert {field.name for field in fields(Outputs)} == {*TENSORS, "anchors", "by"}


@EVERY
def test_it_is_a_module_and_its_file_links_its_paper(name: str) -> None:
    assert issubclass(OFFERED[name], nn.Module)
    assert "https://" in (sys.modules[OFFERED[name].__module__].__doc__ or "")


@EVERY
def test_it_is_one_finite_number(name: str) -> None:
    pair = Pair(name)
    value = pair.value(*pair.said())
    assert value.shape == () and value.isfinite() and value > 0


@EVERY
def test_the_student_learns_and_the_teacher_does_not(name: str) -> None:
    pair = Pair(name)
    student, teacher, targets = pair.said()
    pair.value(student, teacher, targets).backward()
    learnt = [leaf.grad for leaf in leaves(student) if leaf.grad is not None]
    assert any((gradient != 0).any() for gradient in learnt)
    assert all(gradient.isfinite().all() for gradient in learnt)
    assert all(leaf.grad is None for leaf in leaves(teacher))
    assert all(parameter.grad is None for parameter in pair.teacher.parameters())


@EVERY
def test_it_keeps_neither_detector(name: str) -> None:
    pair = Pair(name)
    mine = {id(p) for p in pair.loss.parameters()} | {id(b) for b in pair.loss.buffers()}
    for detector in (pair.student, pair.teacher):
        assert not mine & {id(x) for x in (*detector.parameters(), *detector.buffers())}
        assert detector not in vars(pair.loss).values()


@EVERY
def test_its_adapters_learn(name: str) -> None:
    pair = Pair(name)
    pair.value(*pair.said()).backward()
    for parameter_name, parameter in pair.loss.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name


@EVERY
def test_weight_zero_leaves_no_gradient(name: str) -> None:
    silent = Pair(name, **dict.fromkeys(weights_of(name), 0.0))
    assert all((gradient == 0).all() for gradient in silent.gradients())


@EVERY
def test_twice_the_weight_is_twice_the_loss_and_twice_the_gradient(name: str) -> None:
    once, twice = Pair(name), Pair(name, **{knob: 2 * value for knob, value in weights_of(name).items()})
    torch.testing.assert_close(twice.value(*twice.said()), 2 * once.value(*once.said()))
    for double, single in zip(twice.gradients(), once.gradients(), strict=True):
        torch.testing.assert_close(double, 2 * single)


@EVERY
def test_it_says_the_same_twice(name: str) -> None:
    pair = Pair(name)
    said = pair.said()
    assert torch.equal(pair.value(*said), pair.value(*said))


@EVERY
def test_it_changes_nothing_that_it_reads(name: str) -> None:
    pair = Pair(name)
    student, teacher, targets = pair.said()
    read = [*leaves(student), *leaves(teacher), *pair.teacher.state_dict().values()]
    before = [tensor.detach().clone() for tensor in read]
    pair.value(student, teacher, targets).backward()
    assert all(torch.equal(a, b) for a, b in zip(before, read, strict=True))


@EVERY
def test_a_batch_without_boxes_does_no_harm(name: str) -> None:
    pair = Pair(name)
    pair.truth = truth(boxes=False)
    value = pair.value(*pair.said())
    assert value.shape == () and value.isfinite() and value.requires_grad
    assert all(gradient.isfinite().all() for gradient in pair.gradients())


@EVERY
def test_half_precision_costs_little(name: str) -> None:
    pair = Pair(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = pair.said(lambda x: x.bfloat16())
        value = pair.value(*half)
    assert value.dtype == torch.float32
    value.backward()
    assert all(leaf.grad.isfinite().all() for leaf in leaves(half[0]) if leaf.grad is not None)
    if name not in ON:  # rounding changes which regions a first stage proposes
        full = pair.value(*(changed(o, Tensor.float) for o in half[:2]), half[2])
        torch.testing.assert_close(value, full, rtol=0.02, atol=0)


@EVERY
def test_the_order_of_the_images_is_irrelevant(name: str) -> None:
    pair = Pair(name)
    value = pair.value(*pair.said())
    pair.images = pair.images.flip(0)
    real = pair.truth
    pair.truth = replace(real, boxes=real.boxes[::-1], labels=real.labels[::-1])
    torch.testing.assert_close(pair.value(*pair.said()), value, rtol=1e-4, atol=1e-6)
