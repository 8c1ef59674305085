"""What each distillation loss costs, forward and backward, at the size of the papers; and the plain way beside it.

A batch of 4 images of 800 x 1344, 80 classes, 8 to 15 boxes an image. What both networks say is made of random leaves,
once: only the loss and its adapters are timed. The plain way is the same mathematics as one writes it first (masks over
whole maps, loops over images and boxes); that both say the same is checked before anything is timed. Needs neither Ray
nor MLflow; with a GPU it runs there.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # read when torch is imported; it would greet every profile
sys.path.insert(0, str(Path(__file__).parent.parent))  # where the package is not installed

import torch
from loss_cases import CASES, Case
from table import RESULTS, lay_out, show
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from trainers import backbones, detectors, distill
from trainers.call import Call, offers
from trainers.outputs import Network, Outputs, Targets, Truth
from trainers.within import tensors

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
QUICK = "--quick" in sys.argv
IMAGES, REAL, CLASSES, CHANNELS = (2, (96, 150), 80, 32) if QUICK else (4, (800, 1333), 80, 256)  # pixels, of a map
HIDDEN = 32 if QUICK else 1024  # channels of what looks at a region
SIDES = tuple(-(-side // 32) * 32 for side in REAL)
LARGEST = REAL[0] * 3 / 4  # side of a box
ROUNDS, WARM = (1, 0) if QUICK else (30, 5) if GPU else (3, 1)


class Bench:
    """A loss between two detectors, and what they said of a batch."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        student, teacher = (network(case.detector) for _ in range(2))
        call = Call(name=case.loss, args=dict(case.args)).complete(distill)
        self.loss: nn.Module = call.of(distill, student, teacher).to(DEVICE)
        self.student = said(student, grad=True)
        self.teacher = said(teacher.eval().requires_grad_(False), grad=False)
        self.targets: Targets = student.assign(self.student, truth())
        self.leaves = list(tensors([getattr(self.student, name) for name in SAID]))
        self.leaves += self.loss.parameters()
        self.ways = [self.loss, partial(case.plain, self.loss)]

    def step(self, way: Callable[..., Tensor]) -> Tensor:
        """Forward and backward; the gradients are thrown away when the next one begins."""
        for leaf in self.leaves:
            leaf.grad = None
        torch.manual_seed(1)  # for what is drawn
        value: Tensor = way(self.student, self.teacher, self.targets)
        value.backward()
        return value.detach()

    def agree(self) -> None:
        """Both ways have the same value and the same gradients, but for rounding."""
        values, gradients = [], []
        for way in self.ways:
            values.append(self.step(way))
            gradients.append([leaf.grad for leaf in self.leaves])
        torch.testing.assert_close(values[1], values[0], rtol=1e-3, atol=1e-6)
        for mine, its in zip(*gradients, strict=True):
            if mine is None or its is None:  # what is not read, or only by way of zeros
                read = [gradient for gradient in (mine, its) if gradient is not None and gradient.any()]
                assert not read, "one way reads what the other does not"
                continue
            assert (mine - its).norm() <= 1e-2 * mine.norm(), "the gradients differ"


SAID = ("features", "maps", "cls", "box", "own", "towers")


def network(name: str) -> Network:
    """A detector with as many channels as the papers'; its backbone never runs."""
    sizes = {"channels": CHANNELS} | ({"hidden": HIDDEN} if name == "FasterRCNN" else {})
    call = Call(name=name, args=sizes).complete(detectors)
    return call.of(detectors, backbones.ResNet(depth=18), CLASSES).to(DEVICE)


def said(detector: Network, *, grad: bool) -> Outputs:
    """Random numbers of the shapes of what a detector says of a batch; class logits mostly say no."""
    with torch.no_grad():
        shapes = copy.deepcopy(detector).to("meta")(torch.zeros(IMAGES, 3, *SIDES, device="meta"))

    def leaves(value: Any, scale: float = 1.0, shift: float = 0.0) -> Any:
        if isinstance(value, Tensor):
            return torch.randn(value.shape, device=DEVICE).mul_(scale).add_(shift).requires_grad_(grad)
        if isinstance(value, dict):
            return {key: leaves(one, 0.1 if key == "deltas" else 1.0) for key, one in value.items()}
        return type(value)(leaves(one, scale, shift) for one in value)

    made = {name: leaves(getattr(shapes, name), shift=-4.0 if name == "cls" else 0.0) for name in SAID}
    return replace(shapes, **made, by=detector)


def truth() -> Truth:
    """8 to 15 boxes an image, 16 to 600 pixels wide and high, small ones as often as large ones."""
    generator = torch.Generator().manual_seed(1)
    boxes, labels = [], []
    for _ in range(IMAGES):
        number = int(torch.randint(8, 16, (1,), generator=generator))
        side = 16 * (LARGEST / 16) ** torch.rand(number, 2, generator=generator)
        corner = torch.rand(number, 2, generator=generator) * (torch.tensor(REAL[::-1]) - side)
        boxes.append(torch.cat([corner, corner + side], dim=1))
        labels.append(torch.randint(0, CLASSES, (number,), generator=generator))
    return Truth(boxes, labels, [REAL] * IMAGES, list(range(IMAGES)), [(1.0, 1.0)] * IMAGES).to(DEVICE)


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes; on a CPU how long that works for it, whatever else it does meanwhile."""
    if not GPU:
        start = time.process_time()
        work()
        return time.process_time() - start
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def peak(work: Callable[[], Any]) -> float:
    """MB that work adds at its peak, gradients included.

    On a CPU every allocation is counted by torch's profiler: unlike the process's resident memory that does not depend
    on what the allocator kept of earlier work, nor on libraries that are loaded by the way.
    """
    if GPU:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        work()
    now = top = 0
    for event in sorted(allocations(seen), key=lambda event: event.start_ns()):
        now += event.nbytes()
        top = max(top, now)
    return top / 2**20


def allocations(seen: profile) -> Iterator[Any]:
    assert seen.profiler is not None and seen.profiler.kineto_results is not None
    return (event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]")


def measure(name: str) -> dict[str, Any]:
    """A line of the table."""
    bench = Bench(CASES[name])
    bench.agree()
    taken: list[list[float]] = [[] for _ in bench.ways]
    for _ in range(ROUNDS + WARM):
        for times, way in zip(taken, bench.ways, strict=True):
            times.append(seconds(partial(bench.step, way)))
    peaks = []
    for way in bench.ways:
        for leaf in bench.leaves:
            leaf.grad = None
        peaks.append(peak(partial(bench.step, way)))
    mine, other = ([1000 * t for t in times[WARM:]] for times in taken)
    return {
        "loss": name,
        "ms": statistics.median(mine),
        "plain ms": statistics.median(other),
        "ms / plain": statistics.median(a / b for a, b in zip(mine, other, strict=True)),
        "peak MB": peaks[0],
        "plain MB": peaks[1],
        "MB / plain": peaks[0] / peaks[1],
        "plainly": (CASES[name].plain.__doc__ or "").splitlines()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--quick", action="store_true", help="small images, once: whether it runs and both ways agree")
    names = parser.parse_args().names
    torch.set_num_threads(1)
    missing = [name for name in names if CASES[name].loss not in offers(distill)]
    file = RESULTS / "losses.json"
    before = json.loads(file.read_text())["rows"] if file.exists() and not QUICK else []
    found = {row["loss"]: row for row in before if row["loss"] in CASES}
    for name in names:
        if name not in missing:
            found[name] = measure(name)
            print(found[name], flush=True)
            gc.collect()
    rows = [found[name] for name in CASES if name in found]
    notes = [
        f"Forward and backward, {IMAGES} images of {SIDES[0]} x {SIDES[1]}, {CLASSES} classes, {CHANNELS} channels, "
        f"median of {ROUNDS} in turns; MB: what is allocated at the peak, beside what both networks said",
        "Both ways have the same value and gradients. What was not named is as it was measured before",
        *([f"Skipped, for there is no such loss yet: {', '.join(missing)}"] if missing else []),
    ]
    (lay_out if QUICK else show)("losses", rows, *notes)


if __name__ == "__main__":
    main()
