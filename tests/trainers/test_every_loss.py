"""What holds for every distillation loss that `trainers.distill` offers, whichever they are."""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainers import distill, spec
from trainers.outputs import Outputs, Targets, Truth

OFFERED = spec.offers(distill)
EVERY = pytest.mark.parametrize("name", sorted(OFFERED))
STRIDES = (8, 16, 32)
IMAGES, SIDE, CLASSES, CHANNELS, BINS = 2, 64, 3, 4, 5  # the side of an image in pixels
LOCATIONS = sum((SIDE // s) ** 2 for s in STRIDES)  # of one image


class Figures(nn.Module):
    """A detector that has a weight, so that a loss which keeps it is caught, and computes nothing."""

    num_classes, strides, channels, bins, start, anchors = CLASSES, STRIDES, CHANNELS, BINS, 0.0, 1

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


def make(name: str, **args: Any) -> nn.Module:
    """The loss, with the same adapters every time."""
    torch.manual_seed(0)
    call = spec.Call(name=name, args=args).complete(distill)
    return call.of(distill, Figures(), Figures())


def random_outputs(seed: int, *, dtype: torch.dtype = torch.float32) -> Outputs:
    """Leaves that want a gradient."""
    generator = torch.Generator().manual_seed(seed)

    def levels(channels: int) -> list[Tensor]:
        shapes = [(IMAGES, channels, SIDE // s, SIDE // s) for s in STRIDES]
        return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]

    return Outputs(features=levels(CHANNELS), cls=levels(CLASSES), box=levels(4 * BINS))


def truth() -> Truth:
    """What `targets` answers for."""
    boxes = [torch.tensor([[2.0, 2, 30, 30], [20.0, 10, 60, 50]]), torch.tensor([[4.0, 8, 60, 64]])]
    boxes += [torch.zeros(0, 4)] * (IMAGES - 2)
    labels = [torch.tensor([0, 1]), torch.tensor([2])] + [torch.zeros(0, dtype=torch.long)] * (IMAGES - 2)
    return Truth(boxes, labels, [(SIDE, SIDE)] * IMAGES, list(range(IMAGES)), [(1.0, 1.0)] * IMAGES)


def targets(*, found: bool = True) -> Targets:
    """Two boxes in the first image and one in the second, each with a few locations on one level; or none."""
    rows = [9, 10, 17, 70, LOCATIONS + 82] if found else []
    return Targets(
        row=torch.tensor(rows, dtype=torch.long),
        level=torch.tensor([0, 0, 0, 1, 2][: len(rows)], dtype=torch.long),
        label=torch.tensor([0, 0, 0, 1, 2][: len(rows)], dtype=torch.long),
        box=torch.tensor([[2.0, 2, 30, 30]] * 3 + [[20.0, 10, 60, 50], [4.0, 8, 60, 64]])[: len(rows)],
        valid=torch.ones(IMAGES * LOCATIONS, dtype=torch.bool),
        levels=len(STRIDES),
        truth=truth(),
    )


def leaves(outputs: Outputs) -> list[Tensor]:
    return [*outputs.features, *outputs.cls, *outputs.box]


def gradients(loss: nn.Module, **changes: Any) -> list[Tensor]:
    """Of the loss by all that the student says, zeros where it reads nothing."""
    student, teacher = random_outputs(1), random_outputs(2)
    value = loss(student, teacher, targets(**changes))
    return list(torch.autograd.grad(value, leaves(student), allow_unused=True, materialize_grads=True))


def weights_of(name: str) -> dict[str, float]:
    """The arguments that weight a loss or its parts, with their defaults."""
    knobs = spec.Call(name=name).complete(distill).args
    found = {knob: value for knob, value in knobs.items() if "weight" in knob and isinstance(value, float)}
    assert found, f"{name} has no weight"
    return found


def test_there_are_losses():
    assert {"KD", "LD"} <= set(OFFERED)


@EVERY
def test_it_is_a_module_and_its_file_links_its_paper(name):
    assert issubclass(OFFERED[name], nn.Module)
    assert "https://" in (sys.modules[OFFERED[name].__module__].__doc__ or "")


@EVERY
def test_it_is_one_finite_number(name):
    value = make(name)(random_outputs(1), random_outputs(2), targets())
    assert value.shape == () and value.isfinite() and value > 0


@EVERY
def test_the_student_learns_and_the_teacher_does_not(name):
    student, teacher = random_outputs(1), random_outputs(2)
    make(name)(student, teacher, targets()).backward()
    learnt = [leaf.grad for leaf in leaves(student) if leaf.grad is not None]
    assert any((gradient != 0).any() for gradient in learnt)
    assert all(gradient.isfinite().all() for gradient in learnt)
    assert all(leaf.grad is None for leaf in leaves(teacher))


@EVERY
def test_it_keeps_neither_detector(name):
    assert not any(isinstance(module, Figures) for module in make(name).modules())


@EVERY
def test_weight_zero_leaves_no_gradient(name):
    silent = make(name, **dict.fromkeys(weights_of(name), 0.0))
    assert all((gradient == 0).all() for gradient in gradients(silent))


@EVERY
def test_twice_the_weight_is_twice_the_loss_and_twice_the_gradient(name):
    once, twice = make(name), make(name, **{knob: 2 * value for knob, value in weights_of(name).items()})
    student, teacher = random_outputs(1), random_outputs(2)
    torch.testing.assert_close(twice(student, teacher, targets()), 2 * once(student, teacher, targets()))
    for double, single in zip(gradients(twice), gradients(once), strict=True):
        torch.testing.assert_close(double, 2 * single)


@EVERY
def test_it_says_the_same_twice(name):
    loss = make(name)
    student, teacher = random_outputs(1), random_outputs(2)
    assert torch.equal(loss(student, teacher, targets()), loss(student, teacher, targets()))


@EVERY
def test_it_changes_nothing_that_it_reads(name):
    read = random_outputs(1), random_outputs(2)
    before = [leaf.detach().clone() for outputs in read for leaf in leaves(outputs)]
    make(name)(*read, targets()).backward()
    after = [leaf for outputs in read for leaf in leaves(outputs)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@EVERY
def test_a_batch_without_positives_does_no_harm(name):
    student = random_outputs(1)
    value = make(name)(student, random_outputs(2), targets(found=False))
    assert value.shape == () and value.isfinite() and value.requires_grad
    assert all(gradient.isfinite().all() for gradient in gradients(make(name), found=False))


@EVERY
def test_half_precision_costs_little(name):
    half = random_outputs(1, dtype=torch.bfloat16), random_outputs(2, dtype=torch.bfloat16)
    loss = make(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(*half, targets())
    assert value.dtype == torch.float32
    value.backward()
    assert all(leaf.grad.isfinite().all() for leaf in leaves(half[0]) if leaf.grad is not None)
    full = loss(*(changed(o, Tensor.float) for o in half), targets())
    torch.testing.assert_close(value, full, rtol=0.02, atol=0)


@EVERY
def test_the_order_of_the_images_is_irrelevant(name):
    loss = make(name)
    student, teacher, wanted = random_outputs(1), random_outputs(2), targets()
    rows = torch.where(wanted.row < LOCATIONS, wanted.row + LOCATIONS, wanted.row - LOCATIONS)
    swapped = loss(*(changed(o, lambda level: level.flip(0)) for o in (student, teacher)), replace(wanted, row=rows))
    torch.testing.assert_close(swapped, loss(student, teacher, wanted))


def changed(outputs: Outputs, change: Callable[[Tensor], Tensor]) -> Outputs:
    """The outputs with every level changed."""
    return Outputs(*([change(level) for level in levels] for levels in (outputs.features, outputs.cls, outputs.box)))
