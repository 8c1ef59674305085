"""Siblings that are trained together, against the same ones one after another: steps, and memory.

A sibling alone takes d + t + s a step: data, its teacher's forward pass, and the rest. n of them together take at least
d + t + ns, so they are at most n (d + t + s) / (d + t + ns) times as fast. All is measured in one run, in processor
seconds of whole epochs, without beginning and end. Cores that are shared get faster and slower, so that each round
measures one sibling, all of them, data and teacher shortly after one another, and the median of the rounds' ratios
counts. Each number of siblings has a process of its own, for its memory. The goal is 95% of the limit.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.multiprocessing as mp
from table import show

from trainers import backbones, build, data, detectors, distill, feeding, optim, schedules
from trainers.call import Call, Term
from trainers.cohort import train_together
from trainers.order import Order
from trainers.result import Result
from trainers.spec import Model, Recipe, Stage
from trainers.store import Store
from trainers.teacher import load
from trainers.usage import peak
from trainers.worker import work
from trainers.workplace import Workplace

CPU = torch.device("cpu")
STUDENT = 8  # width
TEACHERS = {"cheap": 4, "equal": 80, "expensive": 145}  # widths: t below s, about s, more than twice s
COUNTS = (1, 2, 4, 8)
BATCH = 16
STEPS = 16  # of an epoch
IMAGES = Call(name="Digits", args={"classes": 3, "train": STEPS * BATCH, "val": 16}).complete(data)
EPOCHS = 3  # of which the second is measured: after all beginning, and before what the last one ends with
ROUNDS = 5


def model(width: int) -> Model:
    gfl = {"channels": 16, "extra": 0, "reg_max": 8}
    return Model(
        detector=Call(name="GFL", args=gfl).complete(detectors),
        backbone=Call(name="TinyResNet", args={"width": width}).complete(backbones),
    )


def recipe(epochs: int) -> Recipe:
    adam, cycle = Call(name="AdamW").complete(optim), Call(name="OneCycle").complete(schedules)
    return Recipe(epochs=epochs, batch=BATCH, warmup=0, lr=0.004, optimizer=adam, schedule=cycle)


def teacher(width: int) -> Stage:
    return Stage(model=model(width), data=build.contents(IMAGES), recipe=recipe(1), seed=1)


def student(width: int, number: int) -> Stage:
    loss = Term(name="LD", args={"weight": 0.25, "temperature": 2.0 + number}).complete(distill)
    own = {"model": model(STUDENT), "data": build.contents(IMAGES), "recipe": recipe(EPOCHS)}
    return Stage(**own, distill=(loss,), teacher=teacher(width))


def order(stage: Stage, store: Path) -> Order:
    return Order(stage=stage, data=IMAGES, store=str(store), evaluate_every=10**6)


def taken(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def together(width: int, count: int, store: Path) -> float:
    """Processor seconds of an epoch of siblings that have nothing but their teacher."""
    folder = Path(tempfile.mkdtemp(dir=store.parent))
    shutil.copytree(store, folder / "store")
    orders = [order(student(width, number), folder / "store") for number in range(count)]
    ends: list[float] = []
    first = Workplace(CPU, report=lambda entry: ends.append(time.process_time()))

    def ended(key: str, how: Result | BaseException) -> None:
        if isinstance(how, BaseException):
            raise how

    train_together(orders, [first, *(Workplace(CPU) for _ in orders[1:])], ended)
    shutil.rmtree(folder)
    return ends[1] - ends[0]


def shared(width: int, store: Path) -> tuple[float, float]:
    """Seconds that an epoch's batches take to make, and what their teacher takes to say of them."""
    one = order(student(width, 0), store)
    network = build.detector(one.stage)
    guide = load(Store(store), teacher(width), device=CPU)
    fed = feeding.batches(one, build.dataset(IMAGES), network)
    made = list(fed.epoch(0))
    with torch.no_grad():
        guide(made[0][0])
        said = taken(lambda: [guide(images) for images, _ in made])
    return taken(lambda: [None for _ in fed.epoch(1)]), said


def measured(width: int, count: int, store: Path) -> tuple[list[tuple[float, float, float, float]], int]:
    """An epoch of one, an epoch of all, data and teacher in each round, in seconds; and the most memory."""
    torch.set_num_threads(1)
    together(width, 1, store)  # warm
    rounds = [(together(width, 1, store), together(width, count, store), *shared(width, store)) for _ in range(ROUNDS)]
    return rounds, peak(CPU)


def row(kind: str, width: int, count: int, store: Path) -> dict[str, Any]:
    with mp.get_context("spawn").Pool(1) as pool:
        rounds, memory = pool.apply(measured, (width, count, store))
    alone, every, d, t = (median(column) for column in zip(*rounds, strict=True))
    least = [d + t + count * (alone - d - t) for alone, _, d, t in rounds]
    return {
        "teacher": kind,
        "d, t, s ms": ", ".join(f"{1000 * part / STEPS:.1f}" for part in (d, t, alone - d - t)),
        "n": count,
        "images/s of a student": STEPS * BATCH / every,
        "of all": count * STEPS * BATCH / every,
        "gain": median(count * alone / every for alone, every, _, _ in rounds),
        "limit": median(count * alone / few for (alone, *_), few in zip(rounds, least, strict=True)),
        "part of it": median(few / every for (_, every, *_), few in zip(rounds, least, strict=True)),
        "peak MiB": memory / 2**20,
    }


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
            rows += [row(kind, TEACHERS[kind], count, store) for count in asked.counts]
    show("cohort", rows, "processor seconds, one thread. Goal: at least .95 of the limit")


if __name__ == "__main__":
    main()
