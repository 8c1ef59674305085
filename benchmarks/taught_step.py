"""A student's training step beside its teacher, part by part, with all that makes it faster and as one writes it first.

GFL on ResNets, as the papers have it: LD, LD and KD, PKD, and DeFeat. `plain` is the eager formulation in float32, in
the ordinary layout, without compiling. A distillation loss's part are its value and its gradient at what the student
says, of the whole step; on a GPU its kernels' time is what the device is busy with. torchvision's RetinaNet makes its
own step beside them, eagerly. The device's peak is measured with one large product of matrices. Needs neither Ray nor
MLflow. On a CPU the defaults are small, its seconds are those of one thread, and only --compile makes a difference.

    python benchmarks/taught_step.py --students 18 50 --batches 2 4 8 16 --sides 800 1333 --compile
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # where the package is not installed

import torch
from table import lay_out, show
from train_step import CLASSES, DEVICE, GPU, resident, rival, seconds

from trainers import backbones, detectors, distill, optim
from trainers.call import Call
from trainers.data.assemble import Part
from trainers.data.canvases import Canvases
from trainers.data.lanes import lane_to, sent
from trainers.outputs import Truth
from trainers.pieces import rebuilt, said
from trainers.speed import Compiled
from trainers.task import Lesson, Task, total

METHODS = {"none": (), "LD": ("LD",), "LD+KD": ("LD", "KD"), "PKD": ("PKD",), "DeFeat": ("DeFeat",)}
PARTS = ("data", "teacher", "student", "losses", "backward", "step")
GOALS = (
    "goals: an LD step of R18 beside R101 has at least 3 times the plain img/s; distillation is below 5% of a step; "
    "a GPU is busy for more than 90% of it"
)
QUICK = "--quick" in sys.argv
ROUNDS, WARM = (1, 1) if QUICK else (20, 6) if GPU else (3, 1)
SIDE = 256 if QUICK else 8192 if GPU else 1024  # of the matrices
BOXES = 8  # an image


def part(batch: int, sides: tuple[int, int]) -> Part:
    """Noise, with boxes 16 to 200 pixels wide, as a loader process hands it over."""
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


class Steps:
    """A student, its teacher and its losses; `fast` with all that this device has to offer."""

    def __init__(self, student: int, teacher: int, losses: tuple[str, ...], *, fast: bool, compiled: bool) -> None:
        torch.manual_seed(0)
        gfl = Call(name="GFL").complete(detectors)
        resnets = [Call(name="ResNet", args={"depth": depth}).complete(backbones) for depth in (student, teacher)]
        mine, guide = (gfl.of(detectors, resnet.of(backbones), CLASSES).to(DEVICE) for resnet in resnets)
        mine.backbone.freeze(1)
        mine.backbone.fix_norm()
        guide.eval().requires_grad_(False)
        terms = {name: Call(name=name).complete(distill).of(distill, mine, guide) for name in losses}
        if fast and GPU:
            mine, guide = (network.to(memory_format=torch.channels_last) for network in (mine, guide))
        self.task = Task(mine, terms).to(DEVICE).train()
        self.guide: Callable[[torch.Tensor], Any] = guide
        if fast and compiled:
            self.task.fast, self.guide = Compiled(mine), Compiled(guide)
        self.optimizer = optim.SGD([p for p in self.task.parameters() if p.requires_grad], 0.001)
        self.fast, self.taught = fast, bool(losses)

    def precision(self) -> Any:
        return torch.autocast(DEVICE.type, dtype=torch.bfloat16) if self.fast and GPU else nullcontext()

    def data(self, raw: Part) -> tuple[torch.Tensor, Truth]:
        lane = lane_to(DEVICE) if self.fast else None
        if lane is not None:
            return sent(raw, lane)
        images, truth = raw.batch(Canvases())
        return images.to(DEVICE), truth.to(DEVICE)

    def step(self, raw: Part, lap: Callable[[str], None]) -> None:
        """One training step; `lap` is told when a part of it is over."""
        images, truth = self.data(raw)
        lap("data")
        with self.precision():
            with torch.no_grad():
                lesson = Lesson([self.guide(images)]) if self.taught else None
            lap("teacher")
            outputs = self.task.way(images, measured=False)(images)
            lap("student")
            losses = self.task.judge(outputs, truth, lesson)
            sum_of_all = total(losses.by_name)
        lap("losses")
        self.optimizer.zero_grad(set_to_none=True)
        sum_of_all.backward()
        lap("backward")
        self.optimizer.step()
        lap("step")

    def distillation(self, raw: Part) -> Callable[[], None]:
        """What computes the distillation losses of a batch alone, and their gradient at what the student says."""
        images, truth = self.data(raw)
        with self.precision(), torch.no_grad():
            outputs, taught = self.task.student(images), self.guide(images)
            targets = self.task.student.assign(outputs, truth)
        leaves = [x.detach().requires_grad_() for x in said(outputs)]
        outputs = rebuilt(outputs, iter(leaves))

        def work() -> None:
            with self.precision():
                value = torch.stack([loss(outputs, taught, targets) for loss in self.task.distill.values()]).sum()
            torch.autograd.grad(value, leaves, allow_unused=True)

        return work


class Theirs:
    """torchvision's RetinaNet as it comes, and its step."""

    def __init__(self, depth: int, raw: Part, sides: tuple[int, int]) -> None:
        self.model = rival("RetinaNet", depth=depth, sides=sides).to(DEVICE).train()
        self.optimizer = torch.optim.SGD([p for p in self.model.parameters() if p.requires_grad], 0.001)
        images, truth = raw.batch(Canvases())
        self.images = list(images[:, :, : sides[0], : sides[1]].to(DEVICE))
        pairs = zip(truth.boxes, truth.labels, strict=True)
        self.truth = [{"boxes": boxes.to(DEVICE), "labels": labels.to(DEVICE)} for boxes, labels in pairs]

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        total(self.model(self.images, self.truth)).backward()
        self.optimizer.step()


def clock() -> float:
    """Seconds; on a GPU when all is done that was asked for."""
    if GPU:
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def timed(steps: Steps, raw: Part) -> tuple[dict[str, float], float]:
    """Seconds of each part, the device being waited for in between, and of a step in which it is not."""
    found: dict[str, list[float]] = {name: [] for name in PARTS}
    whole = []
    for number in range(ROUNDS + WARM):
        before = clock()

        def lap(name: str) -> None:
            nonlocal before
            now = clock()
            found[name].append(now - before)
            before = now

        steps.step(raw, lap)
        if number >= WARM:
            whole.append(seconds(lambda: steps.step(raw, lambda name: None)))
    return {name: statistics.median(times[WARM:]) for name, times in found.items()}, statistics.median(whole)


def busy(step: Callable[[], Any]) -> float:
    """Seconds of a step's kernels and copies on a GPU."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(ROUNDS):
            step()
        torch.cuda.synchronize()
    events = [one for one in seen.events() if one.device_type.name == "CUDA" and not one.is_user_annotation]
    return sum(one.time_range.elapsed_us() for one in events) / 1e6 / ROUNDS


def median_of(work: Callable[[], Any]) -> float:
    """Seconds."""
    return statistics.median([seconds(work) for _ in range(ROUNDS + WARM)][WARM:])


def peak_flops(*, half: bool) -> float:
    """FLOP/s of one large product of matrices, in bfloat16 or in float32."""
    a = torch.rand(SIDE, SIDE, device=DEVICE, dtype=torch.bfloat16 if half else torch.float32)
    for _ in range(WARM):
        a @ a
    return 2 * SIDE**3 / statistics.median(seconds(lambda: a @ a) for _ in range(ROUNDS))


def flops(steps: Steps, raw: Part) -> int:
    """Of a step: convolutions and products of matrices alone."""
    from torch.utils.flop_counter import FlopCounterMode

    plain, steps.task.fast = steps.task.fast, None
    guide = steps.guide
    steps.guide = guide.network if isinstance(guide, Compiled) else guide
    counter = FlopCounterMode(display=False)
    with counter:
        steps.step(raw, lambda name: None)
    steps.task.fast, steps.guide = plain, guide
    return counter.get_total_flops()


def compare(student: int, teacher: int, batch: int, method: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A line for the fast step, and one for the plain one."""
    raw, rows = part(batch, tuple(args.sides)), []
    for fast in (True, False) if GPU or args.compile else (False,):
        gc.collect()
        if GPU:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        steps = Steps(student, teacher, METHODS[method], fast=fast, compiled=args.compile)
        needed = flops(steps, raw)
        parts, whole = timed(steps, raw)
        memory = torch.cuda.max_memory_allocated() / 2**20 if GPU else resident("VmRSS")
        distilled = median_of(steps.distillation(raw)) if steps.taught else 0.0
        rows.append(
            {
                "student": f"R{student}",
                "teacher": f"R{teacher}" if method != "none" else "-",
                "losses": method,
                "batch": batch,
                "step is": ("fast" + " compiled" * args.compile) if fast else "plain",
                "img/s": batch / whole,
                **{f"{name} ms": 1000 * value for name, value in parts.items()},
                "distillation ms": 1000 * distilled,
                "of step": distilled / whole,
                "busy": busy(partial(steps.step, raw, lambda name: None)) / whole if GPU else "-",
                "MB": memory,
                "of peak": needed / whole / args.peak[fast and GPU],
            }
        )
        del steps
    for row in rows:
        row["times plain"] = row["img/s"] / rows[-1]["img/s"]
    return rows


def theirs(student: int, batch: int, like: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """A line for torchvision's step, with what is known of it."""
    one = Theirs(student, part(batch, tuple(args.sides)), tuple(args.sides))
    taken = median_of(one.step)
    named = {"student": f"R{student}", "losses": "none", "batch": batch, "step is": "torchvision's RetinaNet"}
    busy_part = {"busy": busy(one.step) / taken} if GPU else {}
    return {**dict.fromkeys(like, "-"), **named, "img/s": batch / taken, **busy_part}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, nargs="+", default=[18, 50] if GPU else [18])
    parser.add_argument("--teacher", type=int, default=101 if GPU else 50)
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 4, 8, 16] if GPU else [2])
    parser.add_argument("--sides", type=int, nargs=2, default=[800, 1333] if GPU else [128, 160])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--compile", action="store_true", help="compile the fast step's networks, which takes minutes")
    parser.add_argument("--quick", action="store_true", help="each step once, and no figures are kept: whether it runs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.peak = {half: peak_flops(half=half) for half in ({True, False} if GPU else {False})}
    rows = [
        row
        for student in args.students
        for batch in args.batches
        for method in args.methods
        for row in compare(student, args.teacher, batch, method, args)
    ]
    rows += [theirs(student, batch, rows[0], args) for student in args.students for batch in args.batches]
    peaks = ", ".join(f"{'bfloat16' if half else 'float32'} {rate / 1e12:.3g}" for half, rate in args.peak.items())
    note = f"GFL, images of {args.sides[0]} x {args.sides[1]}, median of {ROUNDS}; peak TFLOP/s: {peaks}"
    own = "fast: bfloat16, channels last, batches on a stream of their own"
    if not GPU:
        own = "Of one CPU thread; MB is all that the process has"
    (lay_out if QUICK else show)("taught_step", rows, note, own, GOALS)


if __name__ == "__main__":
    main()
