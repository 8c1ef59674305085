"""Siblings that are trained together, against the same ones one after another: steps, and memory.

A sibling alone takes d + t + s a step: data, its teacher's forward pass, and the rest. n of them together take at least
d + t + ns, so they are at most n (d + t + s) / (d + t + ns) times as fast. All is measured in one run, in processor
seconds, which other work on the machine disturbs little, and each number of siblings in a process of its own, for its
memory: what more epochs take than fewer, so that nothing of beginning and end is in it. The goal is 95% of the limit.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from table import show

from trainers import backbones, build, data, detectors, distill, feeding, optim, schedules
from trainers.call import Call, Term
from trainers.cohort import train_together
from trainers.order import Order
from trainers.spec import Model, Recipe, Stage
from trainers.store import Result, Store
from trainers.teacher import load
from trainers.usage import peak
from trainers.worker import work
from trainers.workplace import Workplace

CPU = torch.device("cpu")
STUDENT = 8  # width
TEACHERS = {"cheap": 4, "equal": 80, "expensive": 145}  # widths: t below s, about s, more than twice s
COUNTS = (1, 2, 4, 8)
IMAGES = Call(name="Digits", args={"classes": 3, "train": 256, "val": 16}).complete(data)
FEW, MORE = 1, 3  # epochs
ROUNDS = 2  # of which the quickest counts: what else a machine does only adds


def model(width: int) -> Model:
    gfl = {"channels": 16, "extra": 0, "reg_max": 8}
    return Model(
        detector=Call(name="GFL", args=gfl).complete(detectors),
        backbone=Call(name="TinyResNet", args={"width": width}).complete(backbones),
    )


def recipe(epochs: int) -> Recipe:
    adam, cycle = Call(name="AdamW").complete(optim), Call(name="OneCycle").complete(schedules)
    return Recipe(epochs=epochs, batch=16, warmup=0, lr=0.004, optimizer=adam, schedule=cycle)


def teacher(width: int) -> Stage:
    return Stage(model=model(width), data=build.contents(IMAGES), recipe=recipe(1), seed=1)


def student(width: int, number: int, epochs: int) -> Stage:
    loss = Term(name="LD", args={"weight": 0.25, "temperature": 2.0 + number}).complete(distill)
    own = {"model": model(STUDENT), "data": build.contents(IMAGES), "recipe": recipe(epochs)}
    return Stage(**own, distill=(loss,), teacher=teacher(width))


def order(stage: Stage, store: Path) -> Order:
    return Order(stage=stage, data=IMAGES, store=str(store), evaluate_every=10**6)


def taken(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def together(width: int, count: int, epochs: int, store: Path) -> float:
    """Processor seconds of siblings, from nothing but their teacher."""
    folder = Path(tempfile.mkdtemp(dir=store.parent))
    shutil.copytree(store, folder / "store")
    orders = [order(student(width, number, epochs), folder / "store") for number in range(count)]

    def ended(key: str, how: Result | BaseException) -> None:
        if isinstance(how, BaseException):
            raise how

    seconds = taken(lambda: train_together(orders, [Workplace(CPU) for _ in orders], ended))
    shutil.rmtree(folder)
    return seconds


def steps(width: int, count: int, store: Path) -> tuple[float, int]:
    """Seconds of one step of all these siblings, and the most memory of their process."""
    torch.set_num_threads(1)
    together(width, 1, 1, store)  # warm
    few, more = (together(width, count, epochs, store) for epochs in (FEW, MORE))
    return (more - few) / (MORE - FEW) / (256 // 16), peak(CPU)


def shared(width: int, store: Path) -> tuple[float, float]:
    """Seconds that a batch takes to make, and what its teacher takes to say of it."""
    torch.set_num_threads(1)
    one = order(student(width, 0, 1), store)
    network = build.detector(one.stage)
    guide = load(Store(store), teacher(width), device=CPU)
    fed = feeding.batches(one, build.dataset(IMAGES), network)
    made = list(fed.epoch(0))
    with torch.no_grad():
        guide(made[0][0])
        said = taken(lambda: [guide(images) for images, _ in made])
    return taken(lambda: [None for _ in fed.epoch(1)]) / fed.steps, said / fed.steps


def row(kind: str, width: int, store: Path, counts: list[int]) -> list[dict[str, Any]]:
    taken: dict[int, list[tuple[float, int]]] = {count: [] for count in {1, *counts}}
    parts = []
    with mp.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for _ in range(ROUNDS):
            for count, found in taken.items():
                found.append(pool.apply(steps, (width, count, store)))
            parts.append(pool.apply(shared, (width, store)))
    best = {count: min(found) for count, found in taken.items()}
    d, t = (min(column) for column in zip(*parts, strict=True))
    alone = best[1][0]
    s = alone - d - t
    rows = []
    for count in counts:
        seconds, memory = best[count]
        gain, limit = count * alone / seconds, count * alone / (d + t + count * s)
        rows.append(
            {
                "teacher": kind,
                "d, t, s ms": f"{1000 * d:.1f}, {1000 * t:.1f}, {1000 * s:.1f}",
                "n": count,
                "images/s of a student": 16 / seconds,
                "of all": count * 16 / seconds,
                "gain": gain,
                "limit": limit,
                "part of it": gain / limit,
                "peak MiB": memory / 2**20,
            }
        )
    return rows


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--counts", type=int, nargs="+", default=list(COUNTS))
    read.add_argument("--teachers", nargs="+", default=list(TEACHERS), choices=list(TEACHERS))
    asked = read.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in asked.teachers:
            store = Path(folder, kind, "store")
            work(order(teacher(TEACHERS[kind]), store), device=CPU)
            rows += row(kind, TEACHERS[kind], store, asked.counts)
    show("cohort", rows, "processor seconds, one thread. Goal: at least .95 of the limit")


if __name__ == "__main__":
    main()
