"""A student beside its teacher, which trains on noise as a stage does: the same loop, feed, losses and lanes.

GFL on ResNets, as the papers have it. Needs neither Ray nor MLflow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from detector_step import CLASSES, DEVICE, GPU
from torch import Tensor

from trainers import backbones, detectors, distill
from trainers.asked import Asked
from trainers.call import Call
from trainers.clock import Clock
from trainers.data.assemble import Part
from trainers.data.batches import Batch, Batches
from trainers.data.canvases import Canvases
from trainers.data.lanes import lane_to, sent
from trainers.feeding import Feed, Share
from trainers.loop import Training
from trainers.outputs import Network
from trainers.spec import Recipe
from trainers.speed import Compiled, channels_last, next_batch
from trainers.task import Lesson, Look, Task
from trainers.teaching import Lessons
from trainers.within import rebuilt, said

METHODS: dict[str, tuple[str, ...]] = {
    "LD": ("LD",),
    "LD+KD": ("LD", "KD"),
    "PKD": ("PKD",),
    "DeFeat": ("DeFeat",),
    "none": (),
}
BOXES = 8  # an image
ENDLESS = 10**6  # steps of an epoch


class Way(NamedTuple):
    """How steps are made. Plain: eagerly, in float32, in the ordinary layout, part after part, by one student."""

    fast: bool = True  # on a GPU: bfloat16, channels last, batches on a stream of their own
    compiled: bool = False
    siblings: int = 1  # students that share batches and their teacher


WAYS = {
    "plain": Way(fast=False),
    "fast": Way(),
    "compiled": Way(compiled=True),
    "4 fast": Way(siblings=4),
    "4 compiled": Way(compiled=True, siblings=4),
}


def noise(batch: int, sides: tuple[int, int]) -> Part:
    """Images with boxes 16 to 200 pixels wide, as a loader process hands them over."""
    generator = torch.Generator().manual_seed(0)
    room = tuple(-(-side // 32) * 32 for side in sides)
    pixels = torch.randint(0, 256, (batch, 3, *room), dtype=torch.uint8, generator=generator)
    boxes, labels = [], []
    for _ in range(batch):
        side = 16 + (min(200, *sides) - 16) * torch.rand(BOXES, 2, generator=generator)
        corner = torch.rand(BOXES, 2, generator=generator) * (torch.tensor(sides[::-1]) - side).clamp(min=0)
        boxes.append(torch.cat([corner, corner + side], dim=1).numpy())
        labels.append(torch.randint(0, CLASSES, (BOXES,), generator=generator).numpy())
    return Part(pixels, boxes, labels, [sides] * batch, list(range(batch)), [(1.0, 1.0)] * batch, [], [], {})


class Noise(Batches):
    """Batches that are always the same, and made anew for each step as others are."""

    def __init__(self, raw: Part, *, fast: bool) -> None:
        self.seed, self.raw = 0, raw
        self.lane = lane_to(DEVICE) if fast else None
        self.canvases = Canvases()

    @property
    def steps(self) -> int:
        return ENDLESS

    def one(self) -> Batch:
        """A batch on the device."""
        if self.lane is not None:
            return sent(self.raw, self.lane)
        images, truth = self.raw.batch(self.canvases)
        return images.to(DEVICE), truth.to(DEVICE)

    def epoch(self, n: int, *, start: int = 0) -> Iterator[Batch]:
        while True:
            yield self.one()


class Taught:
    """Students of one teacher, ResNets of these depths, each with its own training."""

    def __init__(self, student: int, teacher: int, losses: tuple[str, ...], raw: Part, way: Way) -> None:
        torch.manual_seed(0)
        self.noise = Noise(raw, fast=way.fast)
        self.recipe = Recipe(lr=0.001, warmup=0, freeze=1, fixed_norm=True, precision="bf16" if way.fast else "fp32")
        self.guide = gfl(teacher).eval().requires_grad_(False)
        if way.fast and GPU:
            channels_last(self.guide)
        self.look: Look = Compiled(self.guide) if way.compiled else self.guide
        self.asked = Asked(self.guide, self.look)
        self.feed = Feed(self.noise, device=DEVICE)
        self.trainings = [self._training(student, losses, way) for _ in range(way.siblings)]
        self.taught = bool(losses)

    def _training(self, student: int, losses: tuple[str, ...], way: Way) -> Training:
        mine = gfl(student)
        if not way.fast:
            mine.by_shape = False  # what answers for a box is asked when it is needed
        mine.backbone.freeze(self.recipe.freeze)
        mine.backbone.fix_norm()
        terms = {name: Call(name=name).complete(distill).of(distill, mine, self.guide) for name in losses}
        if not all(getattr(loss, "features_only", False) for loss in terms.values()):
            self.asked.read_by(self)
        if way.fast and GPU:
            channels_last(mine)
        task = Task(mine, terms).to(DEVICE)
        if way.compiled:
            task.fast = Compiled(mine)
        clock = Clock()
        return Training(task, self.recipe, self.feed.share(clock, print), device=DEVICE, clock=clock)

    def steps(self) -> Iterator[None]:
        """Steps of all students, one after another, for ever."""
        turns = [one.turns(self.lesson_of(one)) for one in self.trainings]
        while True:
            for turn in turns:
                next(turn)
            yield

    def lesson_of(self, training: Training) -> Lessons:
        """What a student's teacher says of a batch, which its siblings share."""
        assert isinstance(training.batches, Share)
        ask = training.batches.asked(self.asked)

        @torch.no_grad()
        def lesson(images: Tensor, step: int) -> Lesson | None:
            return Lesson([ask(images)]) if self.taught else None

        return lesson

    def step(self, lap: Callable[[str], None]) -> None:
        """A step of the first student alone; `lap` is told when a part of it is over."""
        one = self.trainings[0]
        next_batch(DEVICE)
        images, truth = self.noise.one()
        lap("data")
        with one.inside():
            with torch.no_grad():
                lesson = Lesson([self.asked(images)]) if self.taught else None
            lap("teacher")
            outputs = one.task.way(images, measured=False)(images)
            lap("student")
            losses = one.task.judge(outputs, truth, lesson).total
        lap("losses")
        one.optimizer.zero_grad(set_to_none=True)
        losses.backward()
        lap("backward")
        one.optimizer.step()
        lap("step")

    def distillation(self) -> Iterator[None]:
        """The distillation losses of a batch alone, and their gradient at what the student says, again and again."""
        one = self.trainings[0]
        images, truth = self.noise.one()
        with one.inside(), torch.no_grad():
            outputs, taught = one.task.student(images), self.asked(images)
            assigned = one.task.student.assign(outputs, truth)
        leaves = [x.detach().requires_grad_() for x in said(outputs)]
        outputs = rebuilt(outputs, iter(leaves))

        while True:
            targets = replace(assigned, own=dict(assigned.own))  # which would remember the valuable region
            with one.inside():
                value = torch.stack([loss(outputs, taught, targets) for loss in one.task.distill.values()]).sum()
            torch.autograd.grad(value, leaves, allow_unused=True)
            yield

    def flops(self) -> int:
        """Of a step of all students: convolutions and products of matrices alone."""
        one = self.trainings[0]
        fast, one.task.fast, self.asked.look = one.task.fast, None, self.guide  # what is compiled is not counted
        whole = counted(lambda: self.step(lambda part: None))
        images, _ = self.noise.one()
        guide = counted(lambda: self.asked(images)) if self.taught else 0
        one.task.fast, self.asked.look = fast, self.look
        return guide + len(self.trainings) * (whole - guide)


def counted(work: Callable[[], object]) -> int:
    """The floating-point operations of some work."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def gfl(depth: int) -> Network:
    """GFL on a ResNet of this depth."""
    resnet = Call(name="ResNet", args={"depth": depth}).complete(backbones)
    return Call(name="GFL").complete(detectors).of(detectors, resnet.of(backbones), CLASSES).to(DEVICE)
