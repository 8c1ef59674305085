"""A student's training step beside its teacher, part by part, with all that makes it faster and as one writes it first.

GFL on ResNets, as the papers have it: LD, LD and KD, PKD, and DeFeat. `plain` is the eager formulation in float32 (in
which torch lets a GPU's convolutions round their factors, and so does this), in the ordinary layout; `fast` is what a
stage does, `compiled` what it does if its study says so, and `4 fast` are four siblings of one cohort, whose images are
counted together. Steps are those of a stage's own loop, which the host never waits for in between. For the parts it
does, so their sum is more than a step. A distillation loss's part are its value and its gradient at what the student
says, on a GPU the time for which these keep it busy, of a student's share of a step. A GPU is busy while any of its
kernels or copies is under way. torchvision's RetinaNet makes its own step beside them, eagerly. The device's peak is
measured with one large product of matrices. On a CPU the defaults are small, its seconds are those of one thread, and
`fast` is the same as `plain`. Needs neither Ray nor MLflow.

    python benchmarks/train_step.py --students 18 --batches 8 --methods LD
    python benchmarks/train_step.py --students 18 50 --batches 2 4 8 16
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # where the package is not installed

import torch
from detector_step import DEVICE, GPU, resident, rival, seconds
from table import RESULTS, keep, lay_out, machine
from taught import METHODS, WAYS, Taught, noise

from trainers.data.assemble import Part
from trainers.data.canvases import Canvases
from trainers.task import total

PARTS = ("data", "teacher", "student", "losses", "backward", "step")
GOALS = (
    "Goals on a GPU: an LD step of R18 beside R101 has at least 3 times the plain img/s; distillation is below 5% of a "
    "step; it is busy for more than 90% of it"
)
QUICK = "--quick" in sys.argv
WARM = 1 if QUICK else 8 if GPU else 1  # what is compiled is so in the fourth step
BLOCKS, STEPS = (1, 1) if QUICK else (3, 6) if GPU else (3, 1)
SIDE = 256 if QUICK else 8192 if GPU else 1024  # of the matrices


class Theirs:
    """torchvision's RetinaNet as it comes, and its step."""

    def __init__(self, depth: int, raw: Part, sides: tuple[int, int]) -> None:
        self.model = rival("RetinaNet", depth=depth, sides=sides).to(DEVICE).train()
        self.optimizer = torch.optim.SGD([p for p in self.model.parameters() if p.requires_grad], 0.001)
        images, truth = raw.batch(Canvases())
        self.images = list(images[:, :, : sides[0], : sides[1]].to(DEVICE))
        pairs = zip(truth.boxes, truth.labels, strict=True)
        self.truth = [{"boxes": boxes.to(DEVICE), "labels": labels.to(DEVICE)} for boxes, labels in pairs]

    def steps(self) -> Iterator[None]:
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            total(self.model(self.images, self.truth)).backward()
            self.optimizer.step()
            yield


def clock() -> float:
    """Seconds; on a GPU when all is done that was asked for."""
    if GPU:
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def whole(steps: Iterator[None]) -> float:
    """Seconds of a step that nobody waits for, once they are warm."""
    for _ in range(WARM):
        next(steps)
    taken = []
    for _ in range(BLOCKS):
        before = clock()
        for _ in range(STEPS):
            next(steps)
        taken.append((clock() - before) / STEPS)
    return statistics.median(taken)


def parts(taught: Taught) -> dict[str, float]:
    """Seconds of each part of a student's step, the device being waited for in between."""
    found: dict[str, list[float]] = {name: [] for name in PARTS}
    for _ in range(STEPS + 1):
        before = clock()

        def lap(name: str) -> None:
            nonlocal before
            now = clock()
            found[name].append(now - before)
            before = now

        taught.step(lap)
    return {name: statistics.median(times[1:]) for name, times in found.items()}


def busy(steps: Iterator[None], *, kernels: int = 0) -> float:
    """Seconds of a step in which any kernel or copy is under way on a GPU; so many kernels that take most are named."""
    from torch.profiler import ProfilerActivity, profile

    next(steps)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(STEPS):
            next(steps)
        torch.cuda.synchronize()
    if kernels:
        print(seen.key_averages().table(sort_by="self_cuda_time_total", row_limit=kernels, max_name_column_width=90))
    events = [one for one in seen.events() if one.device_type.name == "CUDA" and not one.is_user_annotation]
    return union([(one.time_range.start, one.time_range.end) for one in events]) / 1e6 / STEPS


def union(spans: list[tuple[float, float]]) -> float:
    """How long any of these spans lasts."""
    lasts, until = 0.0, -float("inf")
    for start, end in sorted(spans):
        lasts += max(0.0, end - max(start, until))
        until = max(until, end)
    return lasts


def peak_flops(*, half: bool) -> float:
    """FLOP/s of one large product of matrices, in bfloat16 or in float32."""
    a = torch.randn(SIDE, SIDE, device=DEVICE, dtype=torch.bfloat16 if half else torch.float32)
    for _ in range(WARM):
        a @ a
    return 2 * SIDE**3 / statistics.median(seconds(lambda: a @ a) for _ in range(BLOCKS * STEPS))


def row(student: int, batch: int, method: str, way: str, args: argparse.Namespace) -> dict[str, Any]:
    """A line of the table."""
    if GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    taught = Taught(student, args.teacher, METHODS[method], noise(batch, tuple(args.sides)), WAYS[way])
    siblings, needed = WAYS[way].siblings, taught.flops()
    steps = taught.steps()
    taken = whole(steps)
    memory = torch.cuda.max_memory_allocated() / 2**20 if GPU else resident("VmRSS")
    distilled = 0.0
    if taught.taught:
        alone = taught.distillation()
        distilled = busy(alone) if GPU else whole(alone)
    return {
        "student": f"R{student}",
        "teacher": f"R{args.teacher}" if taught.taught else "-",
        "losses": method,
        "batch": batch,
        "step is": way,
        "img/s": siblings * batch / taken,
        "times plain": "-",
        "busy": busy(steps, kernels=args.kernels) / taken if GPU else "-",
        "of peak": needed / taken / args.peak[GPU and WAYS[way].fast],
        "all ms": 1000 * taken,
        **{f"{name} ms": 1000 * value for name, value in parts(taught).items()},
        "distillation ms": 1000 * distilled,
        "of step": siblings * distilled / taken,
        "MB": memory,
    }


def theirs(student: int, batch: int, like: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """A line for torchvision's step, with what is known of it."""
    steps = Theirs(student, noise(batch, tuple(args.sides)), tuple(args.sides)).steps()
    taken = whole(steps)
    named = {"student": f"R{student}", "losses": "none", "batch": batch, "step is": "torchvision's RetinaNet"}
    figures = {"img/s": batch / taken, "all ms": 1000 * taken}
    return {**dict.fromkeys(like, "-"), **named, **figures, **({"busy": busy(steps) / taken} if GPU else {})}


def earlier() -> list[dict[str, Any]]:
    """The lines that are kept, if they were measured on such a machine."""
    path = RESULTS / "train_step.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    return list(kept["rows"]) if kept.get("machine") == machine() else []


def replaced(rows: list[dict[str, Any]], by: dict[str, Any]) -> list[dict[str, Any]]:
    """The same lines with another one, which takes the place of the same step's."""
    alike = ("student", "teacher", "losses", "batch", "step is")
    return [one for one in rows if any(one[name] != by[name] for name in alike)] + [by]


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same lines, with how many times the images of the plain step each has."""
    alike = ("student", "losses", "batch")
    plain = {tuple(one[name] for name in alike): one["img/s"] for one in rows if one["step is"] == "plain"}
    for one in rows:
        if one["step is"] in WAYS and (base := plain.get(tuple(one[name] for name in alike))):
            one["times plain"] = one["img/s"] / base
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, nargs="+", default=[18, 50] if GPU else [18])
    parser.add_argument("--teacher", type=int, default=101 if GPU else 50)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 2, 16, 4] if GPU else [2])
    parser.add_argument("--sides", type=int, nargs=2, default=[800, 1333] if GPU else [128, 160])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["plain", "fast", "4 fast"] if GPU else ["plain"])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no line is begun any more after so many")
    parser.add_argument("--add", action="store_true", help="keep the lines of earlier runs on this machine")
    parser.add_argument("--kernels", type=int, default=0, help="name so many kernels of each line that take most")
    parser.add_argument("--quick", action="store_true", help="each step once, and no figures are kept: whether it runs")
    args = parser.parse_args()
    began = time.monotonic()
    torch.set_num_threads(1)
    args.peak = {half: peak_flops(half=half) for half in ({True, False} if GPU else {False})}
    peaks = ", ".join(f"{'bfloat16' if half else 'float32'} {rate / 1e12:.3g}" for half, rate in args.peak.items())
    notes = [f"GFL, images of {args.sides[0]} x {args.sides[1]}; peak TFLOP/s: {peaks}", GOALS]
    if not GPU:
        notes.insert(1, "Of one CPU thread; MB is all that the process has")
    wanted = [
        (student, batch, method, way)
        for batch in args.batches
        for student in args.students
        for method in args.methods
        for way in args.ways
    ]
    rows = earlier() if args.add else []
    for number, one in enumerate(wanted):
        if time.monotonic() - began > args.seconds:
            notes.insert(1, f"{len(wanted) - number} more were asked for, for which there was no time")
            break
        rows = replaced(rows, row(*one, args))
        gc.collect()
        if not QUICK:
            keep("train_step", compared(rows), *notes)
    for student, batch in ((student, batch) for batch in args.batches for student in args.students):
        rows = replaced(rows, theirs(student, batch, rows[0], args))
    lay_out("train_step", compared(rows), *notes)
    if not QUICK:
        keep("train_step", rows, *notes)


if __name__ == "__main__":
    main()
