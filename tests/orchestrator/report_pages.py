"""Summaries of made-up studies, one for each thing that a report's page has to show, and their pages."""

from __future__ import annotations

import csv
import io
import random
from functools import cache
from itertools import product
from typing import Any

from orchestrator import expectations
from orchestrator.board import Board, Row
from orchestrator.lattice import Path
from orchestrator.report import render
from orchestrator.rungs import rungs
from orchestrator.sweep import sweep
from orchestrator.swept import swept
from tests.orchestrator.boards import board, fail, lattice, longer, summary, want
from tests.orchestrator.report_pictures import found_by, noisy
from tests.orchestrator.sweeps import WEIGHT
from tests.orchestrator.test_rungs import FOUR, NAMES, raced, races

MADE = {
    "command": "tapath run studies/voc-gfl.yaml --set recipe.epochs=12",
    "versions": {"python": "3.11.7", "torch": "2.9.1", "ray": "2.60.0"},
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "changed": True,
}
SEEDS = (0, 1, 2)
STUDENTS = ("r34", "r18")


def seeded() -> dict[str, Any]:
    """Three seeds of every path, the student alone for longer, figures of a paper, and what it cost."""
    filled = board(seeds=SEEDS)
    longer(filled, seeds=SEEDS)
    found = summary(filled, seeds=SEEDS)
    expected = [expectations.beside("r101 > r18", name, 36.5, value) for name, value in (("AP", 0.375), ("AP50", None))]
    stages = [cost(stage, number) for number, stage in enumerate(found["stages"])]
    more = {"run": None, "ratio": 1.1, "stages": stages}
    return found | {"expected": expected, "source": "the paper, table 4", "cost": more, "made": MADE}


def cost(stage: dict[str, Any], number: int) -> dict[str, Any]:
    own = {key: stage[key] for key in ("key", "path", "budget", "seed", "role", "seconds")}
    used = {"measuring_seconds": 2.0, "images_per_second": 100.0 + number, "peak_memory_bytes": 1e9, "workers": 1}
    return {
        **own,
        "predicted": stage["seconds"] * 0.9 if number % 3 else None,
        "basis": "like",
        "device": "gpu",
        **used,
    }


def broken() -> dict[str, Any]:
    """An edge fails, and what needed it is lost; a path was given up."""
    filled = board()
    fail(filled, Path(("r101", "r34")), "RuntimeError: the loss became NaN in step 3")
    given_up = next(row for row in filled.rows.values() if row.path == Path(("r101", "r50", "r34")))
    given_up.state, given_up.history = "pruned", given_up.history[:4]
    return summary(filled)


def searched() -> dict[str, Any]:
    """Settings raced on an edge, twenty seconds an epoch."""
    filled, _ = raced(FOUR)
    for row in filled.rows.values():
        row.seconds = 20.0 * row.epoch
    found = summary(filled, NAMES)
    knobs = sweep({WEIGHT: list(FOUR), "stop": {"halving": {"grace": 1, "factor": 2}}})
    return found | {"sweeps": swept(filled, knobs, (0,), "AP"), "rungs": races(filled)}


TRIED = [
    ((WEIGHT, weight), ("recipe.lr", lr))
    for weight, lr in (("1.0", "0.001"), ("2.0", "0.004"), ("1.0", "0.02"), ("2.0", "0.1"))
]


@cache
def mapped() -> dict[str, Any]:
    """Two knobs on every edge. The first setting of r18 is given up; the best path goes by the second setting of r50,
    of which the last scores higher."""
    names = ("r101", "r50", "r18")
    own, filled = lattice(names), Board("mapped")
    goals = {Path(("r101",)): 0.7, Path(("r18",)): 0.3}
    for i, one in enumerate(TRIED):
        goals[Path(names[:2], settings=(one,))] = 0.5 + 0.05 * i
        goals[Path(("r101", "r18"), settings=(one,))] = 0.4 + 0.02 * i
    for before, (i, one) in product((1, 3), enumerate(TRIED)):
        goals[Path(names, settings=(TRIED[before], one))] = 0.65 - 0.05 * before + 0.02 * i
    for path, goal in goals.items():
        want(filled, own, path, 0)
        given_up = path.models[-1] == "r18" and path.setting == TRIED[0]
        learn(filled.rows[own.stage(path, 0).key], goal, epochs=2 if given_up else 12)
    knobs = sweep(
        {
            WEIGHT: {"uniform": [1, 2]},
            "recipe.lr": {"loguniform": [0.001, 0.1]},
            "samples": 4,
            "scope": "path",
            "stop": {"halving": {"grace": 1, "factor": 2}},
        }
    )
    tried = rungs(filled, stop=knobs.stop, seeds=(0,), metric="AP", students=["r18"])
    return summary(filled, names) | {"sweeps": swept(filled, knobs, (0,), "AP"), "rungs": tried}


def learn(row: Row, goal: float, *, epochs: int) -> None:
    """It comes ever nearer to its goal, and is given up before all twelve epochs."""
    row.history = [{"epoch": float(n), "val/AP": goal * n / 12, "train/loss": 1 / n} for n in range(1, epochs + 1)]
    row.score, row.seconds, row.state = row.history[-1]["val/AP"], 10.0 * epochs, "done" if epochs == 12 else "pruned"


def several() -> dict[str, Any]:
    """Two students, and what is found in pictures."""
    return summary(board(students=STUDENTS), students=STUDENTS)


def nothing() -> dict[str, Any]:
    """A run that ended before anything was trained."""
    return summary(Board("empty"))


STUDIES = {
    "seeded": seeded,
    "broken": broken,
    "searched": searched,
    "mapped": mapped,
    "several": several,
    "nothing": nothing,
}


@cache
def page(study: str) -> str:
    pictures = found_by(board(students=STUDENTS), several()) if study == "several" else None
    return render(STUDIES[study](), pictures)


@cache
def large() -> dict[str, Any]:
    """513 stages."""
    names = [f"m{i}" for i in range(10)]
    return summary(board(names), names)


@cache
def large_page() -> str:
    return render(large())


def rows(text: str) -> list[dict[str, str]]:
    """Of a CSV file."""
    return list(csv.DictReader(io.StringIO(text)))


@cache
def whole(models: int) -> dict[str, Any]:
    """Every section: five seeds of all paths, two students, figures with all their digits."""
    names, seeds = [f"resnet-{i}" for i in range(models)], range(5)
    students = names[-2:]
    filled = board(names, seeds=seeds, name="whole", students=students)
    longer(filled, names, seeds=seeds)
    rng = random.Random(0)
    for each in filled.rows.values():
        each.seconds += rng.random()
        each.selected = rng.randint(1, 12)
    found = summary(filled, names, seeds=list(seeds), students=students)
    stages = [cost(stage, number) for number, stage in enumerate(found["stages"])]
    for one in stages:
        rough = {"predicted": one["seconds"] * rng.random(), "device": "NVIDIA A100-SXM4-80GB"}
        used = {name: rng.random() * 1e3 for name in ("measuring_seconds", "images_per_second")}
        one |= rough | used | {"peak_memory_bytes": rng.random() * 1e10}
    more = {"cost": {"run": None, "ratio": 1.1, "stages": stages}, "made": MADE, "source": "the paper"}
    more["expected"] = [expectations.beside(" > ".join(names), "AP", 36.5, 0.375)]
    return found | more | {name: mapped()[name] for name in ("sweeps", "rungs")}


def huge() -> dict[str, Any]:
    """2,575 stages."""
    return whole(10)


def noise(number: int) -> dict[str, Any]:
    """What is found in as many images, of which nothing can be made smaller: thirty boxes in each by each detector."""
    found, rng = found_by(board(students=STUDENTS), several()), random.Random(1)
    box = [rng.random() * 100 for _ in range(5)]
    boxes = [[*(round(x, 1) for x in box[:4]), round(box[4], 3), 0, -1] for _ in range(30)]
    images = [
        {**found["images"][0], "name": f"{place}.jpg", "uri": noisy(place), "differs": place < number // 2}
        | {"found": [boxes for _ in found["panels"]]}
        for place in range(number)
    ]
    return found | {"images": images, "edges": found["edges"] | {"image": number - 1}}
