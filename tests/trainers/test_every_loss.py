"""What holds for every distillation loss that `trainers.distill` offers, whichever they are.

Each is tried on a small real student and a wider real teacher, whose tensors are made leaves: so that every gradient
that a loss gives can be seen, and a second stage can be asked.
"""

import gc
import sys
import weakref
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.test_every_detector import make as make_detector
from trainers import distill
from trainers.call import Call, Invalid, offers
from trainers.outputs import Outputs, Targets, Truth
from trainers.within import tensors

OFFERED = offers(distill)
EVERY_LOSS = pytest.mark.parametrize("name", sorted(OFFERED))
IMAGES, SIDE, CHANNELS = 2, 64, 16  # the side of an image in pixels

Kind = tuple[str, dict[str, Any]]  # a detector and what makes it small

# The detectors that a loss is tried on, GFL if it is not named here.
GFL: Kind = ("GFL", {"reg_max": 8})
FASTER: Kind = ("FasterRCNN", {"extra": 1, "hidden": 64, "pooled": 5, "sampled": 10**6})  # all regions: none is drawn
ON: dict[str, Kind] = {"Mimic": FASTER}
# On two stages, these do other or more things than on one.
CASES = [(name, ON.get(name, GFL)) for name in sorted(OFFERED)]
CASES += [(name, FASTER) for name in ("DeFeat", "KD", "PKD", "TADF")]


def title(name: str, on: Kind) -> str:
    return f"{name} on {on[0]}"


EVERY = pytest.mark.parametrize(("name", "on"), CASES, ids=[title(*case) for case in CASES])

# What becomes of a teacher whose pyramid is wider than the student's. A new loss needs a line here.
WIDER = {
    "CWD": "adapters",
    "CrossKD": "refused",
    "DeFeat": "adapters",
    "FGD": "adapters",
    "FGFI": "adapters",
    "GI": "adapters",
    "Imitation": "adapters",
    "KD": "not read",
    "LD": "not read",
    "Mimic": "adapters",
    "PKD": "refused",
    "TADF": "adapters",
}
# Parameters of adapters, by the end of their names, that no gradient reaches: what they add to all cells of a map alike
# is lost in a softmax over the cells.
LOST = {"CWD": ".bias", "FGD": ".where.bias"}


class Pair:
    """A student and a teacher of one kind, the one in `ON` if none is given, and the loss between them.

    `channels` are those of the teacher's pyramid; the student's has 16.
    """

    def __init__(self, name: str, on: Kind | None = None, *, channels: int = CHANNELS, **args: Any) -> None:
        torch.manual_seed(0)  # the same weights and adapters every time
        kind, own = on or ON.get(name, GFL)
        self.student = make_detector(kind, own, width=4, channels=CHANNELS).train()
        self.teacher = make_detector(kind, own, width=8, channels=channels).eval().requires_grad_(False)
        call = Call(name=name, args=args).complete(distill)
        self.loss: nn.Module = call.of(distill, self.student, self.teacher)
        self.see()

    def see(self) -> None:
        """Small images, in which every box belongs to the finest level."""
        self.images = torch.rand(IMAGES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
        self.truth = truth()

    def see_all_levels(self) -> None:
        """Images with a box for each level, and with room for the largest anchors."""
        self.images = torch.rand(IMAGES, 3, 384, 384, generator=torch.Generator().manual_seed(1))
        real = [[[2.0, 2, 30, 30], [20.0, 10, 180, 170]], [[4.0, 8, 240, 250], [30.0, 30, 94, 100]]]
        labels = [torch.tensor([0, 1]), torch.tensor([2, 0])]
        self.truth = replace(
            self.truth, boxes=[torch.tensor(b) for b in real], labels=labels, sizes=[(384, 384)] * IMAGES
        )

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
        return type(value)(walk(one) for one in value)

    return replace(outputs, **{name: walk(getattr(outputs, name)) for name in TENSORS})


def leaves(outputs: Outputs) -> list[Tensor]:
    return list(tensors([getattr(outputs, name) for name in TENSORS]))


def weights_of(name: str) -> dict[str, float | None]:
    """The arguments that weight a loss or its parts, with their defaults. None: it depends on the detectors."""
    knobs = Call(name=name).complete(distill).args
    found = {knob: value for knob, value in knobs.items() if "weight" in knob and isinstance(value, float | None)}
    assert found, f"{name} has no weight"
    return found


def test_there_are_losses() -> None:
    assert {"KD", "LD"} <= set(OFFERED)
    assert {name for name, _ in CASES} == set(OFFERED)


def test_every_loss_is_in_the_list_of_what_becomes_of_wider_teachers() -> None:
    assert set(WIDER) == set(OFFERED)


def test_every_tensor_of_the_outputs_is_looked_at() -> None:
    assert {field.name for field in fields(Outputs)} == {*TENSORS, "anchors", "by"}


@EVERY_LOSS
def test_it_is_a_module_and_its_file_links_its_paper(name: str) -> None:
    assert issubclass(OFFERED[name], nn.Module)
    assert "https://" in (sys.modules[OFFERED[name].__module__].__doc__ or "")


@EVERY
def test_it_is_one_finite_number(name: str, on: Kind) -> None:
    pair = Pair(name, on)
    value = pair.value(*pair.said())
    assert value.shape == () and value.isfinite() and value > 0


@EVERY
def test_the_student_learns_and_the_teacher_does_not(name: str, on: Kind) -> None:
    pair = Pair(name, on)
    # CrossKD learns through the teacher's own head, whose parameters want no gradient in any training.
    pair.teacher.requires_grad_(name != "CrossKD")
    student, teacher, targets = pair.said()
    pair.value(student, teacher, targets).backward()
    learnt = [leaf.grad for leaf in leaves(student) if leaf.grad is not None]
    assert any((gradient != 0).any() for gradient in learnt)
    assert all(gradient.isfinite().all() for gradient in learnt)
    assert all(leaf.grad is None for leaf in leaves(teacher))
    assert all(parameter.grad is None for parameter in pair.teacher.parameters())


@EVERY
def test_it_keeps_neither_detector(name: str, on: Kind) -> None:
    pair = Pair(name, on)
    pair.value(*pair.said()).backward()
    both = (pair.student, pair.teacher)
    parts = [weakref.ref(x) for one in both for x in (*one.modules(), *one.parameters(), *one.buffers())]
    del both, pair.student, pair.teacher
    gc.collect()
    assert [type(part()) for part in parts if part() is not None] == []


@EVERY_LOSS
def test_its_adapters_learn(name: str) -> None:
    if WIDER[name] == "refused":
        with pytest.raises(Invalid, match=f"channels.*{CHANNELS}.*24"):
            Pair(name, channels=24)
        return
    pair = Pair(name, channels=24)
    parameters = dict(pair.loss.named_parameters())
    assert bool(parameters) == (WIDER[name] == "adapters")
    if not parameters:
        return
    optimizer = torch.optim.SGD(parameters.values(), lr=0.01)
    highest = dict.fromkeys(parameters, 0.0)
    for see in (pair.see, pair.see_all_levels):  # twice: some start with weights of 0, and nothing comes through these
        see()
        optimizer.zero_grad()
        pair.value(*pair.said()).backward()
        for key, parameter in parameters.items():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key
            highest[key] = max(highest[key], parameter.grad.abs().max().item())
        optimizer.step()
    lost = {key for key in parameters if key.endswith(LOST.get(name, "nothing"))}
    assert bool(lost) == (name in LOST)
    for key, value in highest.items():
        assert (value < 1e-5 * max(highest.values())) if key in lost else value > 0, key


@EVERY
def test_weight_zero_leaves_no_gradient(name: str, on: Kind) -> None:
    silent = Pair(name, on, **dict.fromkeys(weights_of(name), 0.0))
    assert silent.value(*silent.said()) == 0
    assert all((gradient == 0).all() for gradient in silent.gradients())


@EVERY
def test_twice_the_weight_is_twice_the_loss_and_twice_the_gradient(name: str, on: Kind) -> None:
    weights = weights_of(name)
    if on == FASTER:  # with one stage, what depends on the detectors is 0, or a share of what another argument weights
        weights = {knob: 1.0 if value is None else value for knob, value in weights.items()}
    doubled = {knob: 2 * value for knob, value in weights.items() if value is not None}
    once, twice = Pair(name, on, **weights), Pair(name, on, **doubled)
    torch.testing.assert_close(twice.value(*twice.said()), 2 * once.value(*once.said()))
    for double, single in zip(twice.gradients(), once.gradients(), strict=True):
        torch.testing.assert_close(double, 2 * single)


@EVERY
def test_it_says_the_same_twice(name: str, on: Kind) -> None:
    pair = Pair(name, on)
    said = pair.said()
    assert torch.equal(pair.value(*said), pair.value(*said))


@EVERY
def test_it_changes_nothing_that_it_reads(name: str, on: Kind) -> None:
    pair = Pair(name, on)
    student, teacher, targets = pair.said()
    read = [*leaves(student), *leaves(teacher), *pair.teacher.state_dict().values()]
    before = [tensor.detach().clone() for tensor in read]
    pair.value(student, teacher, targets).backward()
    assert all(torch.equal(a, b) for a, b in zip(before, read, strict=True))


@EVERY
def test_a_batch_without_boxes_does_no_harm(name: str, on: Kind) -> None:
    pair = Pair(name, on)
    pair.truth = truth(boxes=False)
    value = pair.value(*pair.said())
    assert value.shape == () and value.isfinite() and value.requires_grad
    assert all(gradient.isfinite().all() for gradient in pair.gradients())


@EVERY
def test_half_precision_costs_little(name: str, on: Kind) -> None:
    pair = Pair(name, on)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = pair.said(lambda x: x.bfloat16())
        value = pair.value(*half)
    assert value.dtype == torch.float32
    value.backward()
    assert all(leaf.grad.isfinite().all() for leaf in leaves(half[0]) if leaf.grad is not None)
    if on != FASTER:  # rounding changes which regions a first stage proposes
        full = pair.value(*(changed(o, Tensor.float) for o in half[:2]), half[2])
        torch.testing.assert_close(value, full, rtol=0.02, atol=0)


@EVERY
def test_the_order_of_the_images_is_irrelevant(name: str, on: Kind) -> None:
    pair = Pair(name, on)
    value = pair.value(*pair.said())
    pair.images = pair.images.flip(0)
    real = pair.truth
    pair.truth = replace(real, boxes=real.boxes[::-1], labels=real.labels[::-1])
    torch.testing.assert_close(pair.value(*pair.said()), value, rtol=1e-4, atol=1e-6)
