"""Siblings that are trained together, against the same ones one after another: steps, and memory.

A sibling alone takes d + t + s a step: data, its teacher's forward pass, and the rest. n of them together take at least
d + t + ns, so they are at most n (d + t + s) / (d + t + ns) times as fast. All is measured in one run, in processor
seconds of whole epochs, without beginning and end; d and t are measured where they are spent, in the epochs of the one
sibling. Cores that are shared get faster and slower, so that each round has one sibling before and after all of them,
and the median of the rounds' ratios counts. Each number of siblings has a process of its own, for its memory. The goal
is 95% of the limit.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.multiprocessing as mp
from table import show

from trainers import backbones, build, data, detectors, distill, optim, schedules
from trainers.asked import Asked
from trainers.call import Call, Term
from trainers.cohort import train_together
from trainers.feeding import Feed
from trainers.order import Order
from trainers.result import Result
from trainers.spec import Model, Recipe, Stage
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
EPOCHS = 4  # measured are those after the first, which begins, and before the last, with which the stage ends
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


class Parts(NamedTuple):
    """Processor seconds of an epoch."""

    whole: float
    data: float
    teacher: float

    @property
    def rest(self) -> float:
        return self.whole - self.data - self.teacher


class Spent:
    """Processor seconds so far in this process, and in calls of two methods."""

    def __init__(self) -> None:
        self.data = self.teacher = 0.0
        self.seen: list[Parts] = []

    def see(self) -> None:
        self.seen.append(Parts(time.process_time(), self.data, self.teacher))

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what batches take to make, and guides to say something of them."""
        data, teacher = self._counted(Feed._make, "data"), self._counted(Asked.__call__, "teacher")
        with patch.object(Feed, "_make", data), patch.object(Asked, "__call__", teacher):
            yield

    def _counted(self, method: Callable[..., Any], which: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            start = time.process_time()
            made = method(*args)
            setattr(self, which, getattr(self, which) + time.process_time() - start)
            return made

        return call


def together(width: int, count: int, store: Path) -> Parts:
    """An epoch of siblings that have nothing but their teacher: the mean of those that are measured."""
    folder = Path(tempfile.mkdtemp(dir=store.parent))
    shutil.copytree(store, folder / "store")
    orders = [order(student(width, number), folder / "store") for number in range(count)]
    spent = Spent()
    first = Workplace(CPU, report=lambda entry: spent.see())

    def ended(key: str, how: Result | BaseException) -> None:
        if isinstance(how, BaseException):
            raise how

    with spent.counting():
        train_together(orders, [first, *(Workplace(CPU) for _ in orders[1:])], ended)
    shutil.rmtree(folder)
    start, end = spent.seen[0], spent.seen[EPOCHS - 2]
    return Parts(*((then - before) / (EPOCHS - 2) for before, then in zip(start, end, strict=True)))


def a_round(width: int, count: int, store: Path) -> tuple[Parts, Parts]:
    """One sibling, the mean of before and after; and all."""
    before, every, after = (together(width, n, store) for n in (1, count, 1))
    return Parts(*((first + then) / 2 for first, then in zip(before, after, strict=True))), every


def measured(width: int, count: int, store: Path) -> tuple[list[tuple[Parts, Parts]], int]:
    """The rounds, and the most memory."""
    torch.set_num_threads(1)
    together(width, 1, store)  # warm
    return [a_round(width, count, store) for _ in range(ROUNDS)], peak(CPU)


def row(kind: str, width: int, count: int, store: Path) -> dict[str, Any]:
    with mp.get_context("spawn").Pool(1) as pool:
        rounds, memory = pool.apply(measured, (width, count, store))
    parts = [(one.data, one.teacher, one.rest) for one, _ in rounds]
    d, t, s = (median(column) for column in zip(*parts, strict=True))
    every = median(all_.whole for _, all_ in rounds)
    limits = [one.data + one.teacher + count * one.rest for one, _ in rounds]
    return {
        "teacher": kind,
        "d, t, s ms": ", ".join(f"{1000 * part / STEPS:.1f}" for part in (d, t, s)),
        "n": count,
        "images/s of a student": STEPS * BATCH / every,
        "of all": count * STEPS * BATCH / every,
        "gain": median(count * one.whole / all_.whole for one, all_ in rounds),
        "limit": median(count * one.whole / least for (one, _), least in zip(rounds, limits, strict=True)),
        "part of it": median(least / all_.whole for (_, all_), least in zip(rounds, limits, strict=True)),
        "s of each": median(all_.rest / count / one.rest for one, all_ in rounds),  # of one alone
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
