"""Trainings so short that the learning rate does not get through its warm-up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from orchestrator.board import Board
from orchestrator.lattice import Path
from trainers import build, optim
from trainers.spec import Recipe

if TYPE_CHECKING:
    from orchestrator.prepared import Prepared

PART = 0.1  # of all steps: a warm-up that takes no more costs nothing of the rate
REACHED = 0.9  # of what it would be without warm-up: from there on nothing is said
SHOWN = 5  # lines; a sweep may have many kinds


def listed(prepared: Prepared, board: Board) -> list[dict[str, Any]]:
    """Which of the trainings that are still to be done end within their warm-up, or hardly have the rate that it leads
    to; none where the data are not read.

    Those are together that have as many steps and as long a warm-up: by their models, with the part of the epochs that
    they train if it is not all. `reaches`: the largest rate, in parts of `lr`.
    """
    found: dict[tuple[int, int, float], dict[str, None]] = defaultdict(dict)
    known: dict[str, tuple[int, float] | None] = {}
    steps = cache(partial(build.steps, prepared.inputs.dataset))
    rows = () if prepared.inputs.provisional else board.rows.values()
    for row in sorted(rows, key=lambda row: prepared.lattice.rank[row.path.models[-1]]):
        recipe = row.stage.recipe
        if row.stage.published or row.state in ("done", "reused", "pruned"):
            continue
        if recipe.canonical not in known:
            known[recipe.canonical] = _short(recipe, steps(recipe.batch, group=recipe.group))
        if short := known[recipe.canonical]:
            found[(recipe.warmup, *short)][str(Path(row.path.models[-1:], row.path.budget))] = None
    return [
        {"models": list(models), "warmup": warmup, "steps": steps, "reaches": reached}
        for (warmup, steps, reached), models in found.items()
    ]


def _short(recipe: Recipe, steps: int) -> tuple[int, float] | None:
    """All steps of a training, and the part of `lr` that it reaches, if the warm-up is to blame for it."""
    total = recipe.epochs * steps
    if recipe.warmup <= PART * total:
        return None
    reached, without = (optim.peak(one, steps) for one in (recipe, recipe.model_copy(update={"warmup": 0})))
    return (total, reached) if recipe.warmup >= total or reached < REACHED * without else None


def text(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """The same for people, in lines."""
    lines = [
        f"warning: {', '.join(one['models'])}: the learning rate reaches {100 * one['reaches']:.0f}% of lr, as its "
        f"warm-up takes {one['warmup']} steps and the training has {one['steps']}; write warmup: "
        f"{int(PART * one['steps'])} into the recipe, or more epochs"
        for one in found
    ]
    more = len(lines) - SHOWN
    return lines[:SHOWN] + ([f"and {more} more such trainings; `tapath plan --json` has them all"] if more > 0 else [])
