"""Runs made by hand, for the tests of what people look at: no training, but histories that look like some."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from orchestrator.board import Board, Row
from orchestrator.lattice import Entry, Lattice, Path
from orchestrator.summary import summarize
from trainers.call import Call, Term
from trainers.spec import Data, Model, Recipe

SIZES = {"r101": 51_200_000, "r50": 32_300_000, "r34": 21_700_000, "r18": 11_600_000}
YAML = """name: {name}
data: {{VOC: {{years: "07+12"}}}}
models:
{models}
recipe: {{epochs: 12, batch: 16, lr: 0.01}}
distill: [{{LD: {{weight: 0.25, temperature: 10}}}}]
search: exhaustive
seeds: {seeds}
"""


def lattice(names: Sequence[str], *, epochs: int = 12, students: Sequence[str] = ()) -> Lattice:
    """Every model teaches all that come after it; a model's depth tells it from the others."""
    return Lattice(
        {name: Entry(model(i), Recipe(epochs=epochs)) for i, name in enumerate(names)},
        Data(fingerprint="0123456789abcdef", classes=("zero", "one")),
        (Term(name="LD"),),
        students=students,
    )


def model(depth: int) -> Model:
    return Model(detector=Call(name="GFL"), backbone=Call(name="ResNet", args={"depth": depth}))


def board(
    names: Sequence[str] = tuple(SIZES),
    *,
    seeds: Iterable[int] = (0,),
    epochs: int = 12,
    name: str = "voc-gfl",
    students: Sequence[str] = (),
) -> Board:
    """A finished run of every path and of each student alone."""
    all_paths, filled = lattice(names, epochs=epochs, students=students), Board(name)
    for path in (*all_paths.paths(), *(Path((student,)) for student in all_paths.students)):
        for seed in seeds:
            want(filled, all_paths, path, seed)
    for row in filled.rows.values():
        train(row, names)
    return filled


def longer(
    filled: Board, names: Sequence[str] = tuple(SIZES), *, seeds: Iterable[int] = (0,), budget: float = 4
) -> None:
    """The student alone was trained for so many times its epochs, too."""
    for seed in seeds:
        want(filled, lattice(names), Path((names[-1],), budget), seed)
    for row in filled.rows.values():
        if row.path.budget == budget:
            train(row, names)


def want(filled: Board, all_paths: Lattice, path: Path, seed: int) -> None:
    if path.teacher:
        want(filled, all_paths, path.teacher, seed)
    stage = all_paths.stage(path, seed)
    filled.rows.setdefault(stage.key, Row(stage=stage, path=path, seed=seed, role=all_paths.role(path)))


def train(row: Row, names: Sequence[str], *, epochs: int | None = None) -> None:
    """Give a row the history of a training that learns more with a longer path and a larger model."""
    rng = random.Random(zlib.crc32(f"{row.path}{row.seed}".encode()))
    size = 1 - names.index(row.path.models[-1]) / len(names)
    goal = 0.58 + 0.2 * size + 0.012 * min(3, len(row.path.models)) + rng.uniform(-0.012, 0.012)
    for epoch in range(1, (row.epochs if epochs is None else epochs) + 1):
        ap = goal * (1 - math.exp(-epoch / row.epochs * 5)) + rng.uniform(-0.008, 0.008)
        loss = 0.4 + 1.4 * math.exp(-epoch / row.epochs * 3) + rng.uniform(-0.02, 0.02)
        parts = {"train/loss": loss, "train/loss_cls": loss * 0.5, "train/loss_box": loss * 0.3}
        if row.stage.teacher:
            parts["train/loss_LD"] = loss * 0.2
        row.history.append({"epoch": epoch, "val/AP": ap, "val/AP50": min(1, ap * 1.3), **parts, "lr": 0.01})
        row.score = ap
    row.seconds = row.epoch * (4 + 16 * size)
    row.usage = {"latency_ms": 5 + 40 * size}
    row.state = "done" if row.epoch == row.epochs else "running"


def fail(filled: Board, path: Path, reason: str) -> None:
    """The stage of this path fails in its third epoch; what it would have taught is lost."""
    for row in filled.rows.values():
        models = row.path.models
        if models[: len(path.models)] != path.models or models[-1:] == models:
            continue
        first = row.path == path
        row.state, row.history, row.score = "failed" if first else "lost", row.history[: 2 * first], None
        row.seconds = row.seconds / 6 * first
        key = next(r.key for r in filled.rows.values() if r.path == path and r.seed == row.seed)
        row.reason = reason if first else key


def row(filled: Board, *path: str, seed: int = 0) -> Row:
    """The row of a path."""
    return next(each for each in filled.rows.values() if each.path == Path(path) and each.seed == seed)


def start(each: Row, epochs: int = 0) -> None:
    """It is being trained, ten seconds an epoch."""
    each.state, each.history, each.score = "running", each.history[:epochs], None
    each.seconds = 10.0 * epochs


def the_answer(found: dict[str, Any]) -> dict[str, Any]:
    """That of a summary, if there is one student."""
    (answer,) = found["answers"]
    return answer


def summary(
    filled: Board, names: Sequence[str] = tuple(SIZES), *, seeds: Sequence[int] = (0,), students: Sequence[str] = ()
) -> dict[str, Any]:
    entries = lattice(names)
    listed = "\n".join(f"  {n}: {{detector: GFL, backbone: {{ResNet: {{depth: {i}}}}}}}" for i, n in enumerate(names))
    return summarize(
        name=filled.name,
        text=YAML.format(name=filled.name, models=listed, seeds=list(seeds)),
        metric="AP",
        search="exhaustive",
        seeds=seeds,
        models={name: entry.model for name, entry in entries.models.items()},
        edges=sorted(entries.edges),
        students=students,
        board=filled,
        parameters={name: SIZES.get(name, 1_000_000) for name in names},
    )
