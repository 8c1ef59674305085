"""What a step costs whose batch is looked at in pieces: seconds and memory, compared with those of one piece.

Each size has a process of its own, because a process keeps the memory that it had once; the sizes take turns.
"""

from __future__ import annotations

import resource
import statistics
import time
from contextlib import nullcontext

import torch
import torch.multiprocessing as mp
from table import show

from trainers import backbones, detectors
from trainers.call import Call
from trainers.outputs import Truth
from trainers.pieces import Pieces, Whole
from trainers.task import Task

BATCH, SIDE = 8, 128
SIZES = (8, 4, 2, 1)
STEPS, TURNS = 2, 2
OFF = torch.amp.grad_scaler.GradScaler(enabled=False)


def most() -> int:
    """Bytes that this process had in memory at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def batch() -> tuple[torch.Tensor, Truth]:
    """Noise with ten boxes in each image."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(BATCH, 10, 2, generator=generator) * SIDE / 2
    boxes = torch.cat([corners, corners + 16 + torch.rand(BATCH, 10, 2, generator=generator) * SIDE / 3], dim=2)
    labels = [torch.arange(10) for _ in boxes]
    truth = Truth(list(boxes), labels, [(SIDE, SIDE)] * BATCH, list(range(BATCH)), [(1.0, 1.0)] * BATCH)
    return torch.rand(BATCH, 3, SIDE, SIDE, generator=generator), truth


def steps(size: int) -> tuple[float, int]:
    """The median of the seconds of some steps, and by how much the most memory rose in them."""
    torch.set_num_threads(1)
    images, truth = batch()
    gfl = Call(name="GFL").complete(detectors)
    task = Task(gfl.of(detectors, backbones.ResNet(depth=18), 80), {}).train()
    task.student.backbone.fix_norm()
    for p in task.parameters():
        p.grad = torch.zeros_like(p)
    task(images[:1, :, :64, :64], Truth(truth.boxes[:1], truth.labels[:1], [(64, 64)], [0], [(1.0, 1.0)]), None)
    before, seconds = most(), []
    for _ in range(STEPS):
        start = time.perf_counter()
        learnt: Whole | Pieces
        if size == BATCH:
            learnt = Whole(task, images, truth, None)
        else:
            learnt = Pieces(task, images, truth, None, size=size, inside=nullcontext)
        learnt.backward(OFF)
        del learnt
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), most() - before


def main() -> None:
    found: dict[int, list[tuple[float, int]]] = {size: [] for size in SIZES}
    for _ in range(TURNS):
        for size in SIZES:
            with mp.get_context("spawn").Pool(1) as process:
                found[size].append(process.apply(steps, (size,)))
    seconds, memory = ({s: statistics.median(run[i] for run in found[s]) for s in SIZES} for i in (0, 1))
    rows = [
        {
            "images at once": size,
            "s / step": seconds[size],
            "MB": memory[size] / 1e6,
            "time / that of one piece": seconds[size] / seconds[BATCH],
            "memory / that of one piece": memory[size] / memory[BATCH],
        }
        for size in SIZES
    ]
    show("pieces", rows, f"GFL on ResNet-18, a batch of {BATCH} images of {SIDE} x {SIDE} pixels, one thread")


if __name__ == "__main__":
    main()
