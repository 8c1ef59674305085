"""The loop's images/s against a bare PyTorch loop of the same model, data and losses. Goal: at most 5% slower.

Both are timed in turn, epoch by epoch, in one process, so that what else the machine does hits both alike.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch
from table import show

from orchestrator.lattice import Path as Models
from orchestrator.prepared import prepare
from orchestrator.study import load
from trainers import build, optim
from trainers.data.batches import Batches
from trainers.feeding import batches
from trainers.loop import Training
from trainers.order import Order
from trainers.spec import Recipe, Stage
from trainers.task import Task
from trainers.teaching import Teaching

EPOCHS = 5
DEMO = Path(__file__).parent.parent / "search_spaces" / "demo.yaml"


def bare(task: Task, guide: torch.nn.Module, loader: Batches, recipe: Recipe) -> float:
    """One epoch as one would write it by hand: seconds."""
    optimizer = recipe.optimizer.of(optim, task.parameters(), recipe.lr)
    task.train()
    start = time.perf_counter()
    for images, truth in loader.epoch(0):
        with torch.no_grad():
            lesson = guide(images)
        outputs = task.student(images)
        targets = task.student.assign(outputs, truth)
        losses = list(task.student.losses(outputs, targets).values())
        losses += [loss(outputs, lesson, targets) for loss in task.distill.values()]
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
    return time.perf_counter() - start


def fresh(stage: Stage, guide: torch.nn.Module) -> tuple[Task, build.Losses]:
    torch.manual_seed(0)
    student = build.detector(stage)
    losses = build.losses(stage.distill, student, [guide])
    return Task(student, losses.modules), losses


def main() -> None:
    torch.set_num_threads(1)
    study = load(DEMO)
    prepared = prepare(study)
    data = build.dataset(study.data)
    rows = []
    for names in (("large", "tiny"), ("large", "medium")):
        stage = prepared.lattice.stage(Models(names), 0)
        assert stage.teacher, "both are taught"
        order = Order(stage=stage, data=study.data, store="unused")
        guide = build.detector(stage.teacher).eval().requires_grad_(False)

        ours, theirs = [], []
        (mine, losses), (other, _) = fresh(stage, guide), fresh(stage, guide)
        training = Training(mine, stage.recipe, batches(order, data, mine.student), device=torch.device("cpu"))
        lessons = Teaching([guide], losses.terms, losses.guides, stage, steps=training.batches.steps)
        epochs = training.epochs(lessons)
        for _ in range(EPOCHS):
            start = time.perf_counter()
            next(epochs)
            ours.append(time.perf_counter() - start)
            theirs.append(bare(other, guide, batches(order, data, other.student), stage.recipe))
        images = training.batches.steps * stage.recipe.batch
        ratio = statistics.median(a / b for a, b in zip(ours[1:], theirs[1:], strict=True))
        rows.append(
            {
                "teacher > student": " > ".join(names),
                "loop images/s": images / statistics.median(ours[1:]),
                "bare images/s": images / statistics.median(theirs[1:]),
                "loop time / bare time": ratio,
            }
        )
    show("step", rows, "Goal: a ratio of at most 1.05")


if __name__ == "__main__":
    main()
