"""What a report says of a sweep where not every setting was trained alike."""

from __future__ import annotations

from typing import Any

from orchestrator import expectations
from orchestrator.board import Board, Row
from orchestrator.lattice import Lattice, Path
from orchestrator.sweep import sweep
from orchestrator.swept import swept
from tests.orchestrator.sweeps import WEIGHT, lattice, weight

MADE = sweep({WEIGHT: [1.0, 2.0]})
OURS = lattice(("big", "small"), seeds=(0, 1))
RACED = {(1.0, 0): 0.5, (2.0, 0): 0.7, (2.0, 1): 0.1}  # scores by weight and seed: the second was trained with both


def board(ours: Lattice, scores: dict[tuple[float, int], float], *, budget: float = 1.0) -> Board:
    filled = Board("swept")
    for (value, seed), score in scores.items():
        add(filled, ours, Path(("big", "small"), budget, (weight(value),)), seed, score)
    return filled


def add(filled: Board, ours: Lattice, path: Path, seed: int, score: float) -> None:
    row = Row(ours.stage(path, seed), path, seed, ours.role(path))
    row.state, row.score, row.metrics = "done", score, {"val/AP": score}
    filled.rows[row.key] = row


def points(filled: Board, seeds: tuple[int, ...]) -> list[dict[str, Any]]:
    (edge,) = swept(filled, MADE, seeds, "AP")
    assert edge["path"] == ["big", "small"]
    return edge["points"]


def test_only_the_seeds_that_judged_the_settings_are_in_their_scores():
    found = points(board(OURS, RACED), (0,))
    assert [(point["score"], point["won"]) for point in found] == [(0.5, False), (0.7, True)]


def test_of_several_budgets_that_is_shown_with_which_the_settings_were_compared():
    filled = board(OURS, {(1.0, 0): 0.2, (2.0, 0): 0.3}, budget=0.5)
    add(filled, OURS, Path(("big", "small"), 1.0, (weight(2.0),)), 0, 0.9)
    assert [point["score"] for point in points(filled, (0,))] == [0.2, 0.3]


def test_a_published_figure_is_compared_with_the_setting_that_all_seeds_were_trained_with():
    (found,) = expectations.compared({"big > small": {"AP": 30.0}}, OURS, board(OURS, RACED), OURS.seeds)
    assert found["measured"] == 40.0
