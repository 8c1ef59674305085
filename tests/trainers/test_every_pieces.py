"""Every detector and every loss has the same gradient from a batch in pieces as from one in one piece."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainers.detectors.scenes import noise
from tests.trainers.test_every_detector import EVERY as EVERY_DETECTOR
from tests.trainers.test_every_detector import make, part_of
from tests.trainers.test_every_loss import EVERY, Kind, Pair
from trainers import backbones, build, detectors, pieces, within
from trainers.call import Call
from trainers.outputs import Outputs, Truth
from trainers.pieces import Pieces, Whole
from trainers.spec import Model
from trainers.task import Lesson, Task

OFF = torch.amp.grad_scaler.GradScaler(enabled=False)
IMAGES = (0, 1, 2)
BOXES = (2, 0, 1)  # of each image: a piece may have none
Batch = Whole | Pieces
Learn = Callable[[Task, Tensor, Truth, Lesson | None], Batch]


def in_pieces(size: int) -> Learn:
    def learn(task: Task, images: Tensor, truth: Truth, lesson: Lesson | None) -> Batch:
        return Pieces(task, images, truth, lesson, size=size, inside=nullcontext)

    return learn


def step(task: Task, learn: Learn, lesson: Callable[[Tensor], Lesson | None]) -> tuple[Batch, dict[str, Tensor]]:
    """A batch of three images, and the gradient that it gives each parameter."""
    task.zero_grad(set_to_none=True)
    torch.manual_seed(1)
    images, truth = part_of(IMAGES, BOXES)
    batch = learn(task, images, truth, lesson(images))
    batch.backward(OFF)
    return batch, {name: p.grad for name, p in task.named_parameters() if p.grad is not None}


def check_alike(task: Task, lesson: Callable[[Tensor], Lesson | None] = lambda images: None) -> None:
    """Losses and gradients within the noise of summation order, and the random numbers where they were."""
    whole, expected = step(task, Whole, lesson)
    drawn = torch.get_rng_state()
    assert expected.keys() == {name for name, p in task.named_parameters() if p.requires_grad}
    rounding = 1e-6 * max(gradient.abs().max().item() for gradient in expected.values())
    for size in (2, 1):
        batch, found = step(task, in_pieces(size), lesson)
        assert torch.equal(torch.get_rng_state(), drawn)
        for name, loss in whole.losses.by_name.items():
            torch.testing.assert_close(batch.losses.by_name[name], loss, rtol=1e-5, atol=1e-7, msg=name)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            atol = max(1e-4 * gradient.abs().max().item(), rounding)
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=atol, msg=name)


@EVERY_DETECTOR
def test_a_detector_learns_the_same_in_pieces(name: str, own: dict[str, Any]) -> None:
    check_alike(Task(make(name, own), {}).train())


def swin(often: float, *, frozen: int = 0) -> Task:
    """A student that leaves blocks out so often."""
    torch.manual_seed(0)
    gfl = Call(name="GFL", args={"channels": 8, "convs": 1, "extra": 0, "reg_max": 4}).complete(detectors)
    blocks = Call(name="Swin", args={"size": "micro", "drop_path": often}).complete(backbones)
    student = build.network(Model(detector=gfl, backbone=blocks), 3)
    student.backbone.freeze(frozen)
    return Task(student, {}).train()


def test_a_student_that_leaves_nothing_out_learns_the_same_in_pieces() -> None:
    check_alike(swin(0.0))


def test_one_that_draws_what_it_leaves_out_learns_something_else_and_it_is_said() -> None:
    task = swin(0.5)
    found = [step(task, learn, lambda images: None)[1].values() for learn in (Whole, in_pieces(2))]
    whole, parts = (torch.cat([gradient.flatten() for gradient in each]) for each in found)
    assert (whole - parts).norm() > 0.01 * whole.norm()
    (doubt,) = pieces.doubts(task, size=2, images=3)
    assert doubt.startswith("what the student leaves out at random is drawn for 2 of a worker's 3 images at once")


def test_of_whom_nothing_is_left_out_nothing_is_said() -> None:
    for task in (swin(0.0), swin(0.5).eval(), swin(0.5, frozen=4).train()):
        assert not list(pieces.doubts(task, size=2, images=3))


@EVERY
def test_a_loss_teaches_the_same_in_pieces(name: str, on: Kind) -> None:
    pair = Pair(name, on)
    task = Task(pair.student, {"it": pair.loss}).train()

    def lesson(images: Tensor) -> Lesson:
        with torch.no_grad():
            return Lesson([pair.teacher(images)], detection=0.0)

    check_alike(task, lesson)


@EVERY
def test_a_loss_that_is_only_looked_at_has_the_same_gradient_at_pyramid_and_maps(name: str, on: Kind) -> None:
    pair = Pair(name, on)
    task = Task(pair.student, {"it": pair.loss}).train()
    images, truth = part_of(IMAGES, BOXES)
    with torch.no_grad():
        lesson = Lesson([pair.teacher(images)], looked_at=frozenset({"it"}))

    def squares(learn: Learn) -> list[float]:
        torch.manual_seed(1)
        batch = learn(task, images, truth, lesson)
        looks = batch.losses.looks
        assert looks is not None
        pairs = [(loss, at) for loss in (looks.losses["it"], looks.detection) for at in (looks.features, looks.maps)]
        return [sum(g.square().sum().item() for g in batch.gradients(loss, at, OFF)) for loss, at in pairs]

    whole = squares(Whole)
    assert max(whole[:2]) > 0 and min(whole[2:]) > 0
    for size in (2, 1):
        assert squares(in_pieces(size)) == pytest.approx(whole, rel=1e-3)
    assert not any(p.grad is not None for p in task.parameters())


@EVERY
def test_guides_say_the_same_of_pieces_as_of_the_whole(name: str, on: Kind) -> None:
    pair = Pair(name, on)
    images, _ = part_of(IMAGES, BOXES)
    asked = list[int]()

    @torch.no_grad()
    def lessons(part: Tensor, step: int) -> Lesson:
        asked.append(len(part))
        return Lesson([None, pair.teacher(part)], {"it": 0.5})

    joined = pieces.lesson(lessons, images, 7, size=2)
    assert joined is not None and joined.strength == {"it": 0.5} and asked == [2, 1]
    silent, said = joined.said
    assert silent is None and said is not None and said.by is pair.teacher
    expected = lessons(images, 7).said[1]
    assert expected is not None and said.anchors == expected.anchors
    for mine, whole in zip(within.said(said), within.said(expected), strict=True):
        torch.testing.assert_close(mine, whole, rtol=1e-4, atol=1e-5)


def test_every_tensor_of_outputs_is_among_what_is_said() -> None:
    assert {field.name for field in fields(Outputs)} == {*within.SAID, "anchors", "by"}


class Saved:
    """How many bytes of tensors a graph keeps for its way back, and the most at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def hooks(self) -> torch.autograd.graph.saved_tensors_hooks:
        def pack(x: Tensor) -> "Kept":
            return Kept(x, self)

        def unpack(kept: "Kept") -> Tensor:
            return kept.x

        return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


class Kept:
    """A tensor that a graph keeps; it is counted for as long as the graph is there."""

    def __init__(self, x: Tensor, saved: Saved) -> None:
        self.x, self.saved = x.detach(), saved  # with its own graph it would keep itself
        saved.now += x.nbytes
        saved.most = max(saved.most, saved.now)

    def __del__(self) -> None:
        self.saved.now -= self.x.nbytes


def most(task: Task, learn: Learn, images: Tensor, truth: Truth) -> int:
    saved = Saved()
    with saved.hooks():
        learn(task, images, truth, None).backward(OFF)
    return saved.most


def test_pieces_keep_far_fewer_bytes_at_once() -> None:
    task = Task(make("GFL", {"reg_max": 8}, width=32), {}).train()
    images, truth = noise(*[(128, 128)] * 8)
    whole, *parts = (most(task, learn, images, truth) for learn in (Whole, in_pieces(4), in_pieces(1)))
    assert parts[0] < 0.6 * whole and parts[1] < 0.3 * whole, (whole, parts)
