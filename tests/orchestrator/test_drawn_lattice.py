"""What an edge of the lattice shows and opens: of several settings, several seeds, and where nothing has a score."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.board import Board
from orchestrator.drawn_lattice import edges, models
from orchestrator.lattice import Entry, Lattice, Path
from tests.orchestrator import report_pages
from tests.orchestrator.boards import board, fail, lattice, model, row, summary, train, want
from tests.orchestrator.sweeps import weight
from trainers.call import Term
from trainers.spec import Data, Recipe

NAMES = ("r101", "r50", "r18")


def by_ends(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {tuple(edge["ends"]): edge for edge in edges(found)}


def tried(scores: dict[float, list[float]]) -> dict[str, Any]:
    """The summary of r101 > r50 alone, by the value of a knob with its scores, seed by seed."""
    filled, own = Board("tried"), lattice(NAMES)
    for value, known in scores.items():
        for seed, score in enumerate(known):
            path = Path(NAMES[:2], settings=(weight(value),))
            want(filled, own, path, seed)
            each = filled.rows[own.stage(path, seed).key]
            train(each, NAMES)
            each.score = score
    return summary(filled, NAMES, seeds=(0, 1))


def test_an_assistant_has_the_score_of_its_best_setting_and_not_a_mean_of_all() -> None:
    found = tried({1.0: [0.5, 0.7], 2.0: [0.1, 0.3]})
    edge = by_ends(found)["r101", "r50"]
    assert edge["score"] == pytest.approx(0.6) and edge["setting"] == "LD.weight 1"
    assert edge["paths"] == [{"path": ("r101", "r50"), "score": pytest.approx(0.6)}]
    assert next(one for one in models(found) if one["name"] == "r50")["score"] == pytest.approx(0.6)


def test_a_setting_that_was_given_up_after_one_seed_does_not_beat_the_one_that_won() -> None:
    edge = by_ends(tried({1.0: [0.5, 0.7], 2.0: [0.65]}))["r101", "r50"]
    assert edge["score"] == pytest.approx(0.6) and edge["setting"] == "LD.weight 1"


def test_an_edge_opens_the_first_seed_of_what_it_shows() -> None:
    found = tried({2.0: [0.1, 0.2], 1.0: [0.5, 0.7]})
    opened = by_ends(found)["r101", "r50"]["stage"]
    stage = next(stage for stage in found["stages"] if stage["key"] == opened)
    assert (stage["seed"], stage["setting"]) == (0, {"LD.weight": 1.0})


def test_on_the_best_path_it_is_what_led_to_it() -> None:
    found = report_pages.mapped()
    best = found["answers"][0]["best"]
    stages = {stage["key"]: stage for stage in found["stages"]}
    assert by_ends(found)["r50", "r18"]["stage"] == best["keys"][0]
    assert by_ends(found)["r101", "r50"]["stage"] == stages[best["keys"][0]]["teacher"]
    highest = max(stage["score"] for stage in found["stages"] if stage["model"] == "r50")
    assert by_ends(found)["r101", "r50"]["score"] < highest
    assert next(one for one in models(found) if one["name"] == "r50")["score"] == highest


def test_several_seeds_of_the_best_path_are_a_mean() -> None:
    filled = board(NAMES, seeds=(0, 1))
    for seed, score in enumerate((0.6, 0.8)):
        row(filled, *NAMES, seed=seed).score = 0.9 + score / 10
        row(filled, "r101", "r50", seed=seed).score = score
    edge = by_ends(summary(filled, NAMES, seeds=(0, 1)))["r101", "r50"]
    assert edge["score"] == pytest.approx(0.7) and edge["stage"] == row(filled, "r101", "r50").key


def test_a_model_that_teaches_its_equal_has_its_stages_under_the_other_name() -> None:
    own = Lattice(
        {"big": Entry(model(0), Recipe()), "one": Entry(model(1), Recipe()), "two": Entry(model(1), Recipe())},
        Data(fingerprint="0123456789abcdef", classes=("zero", "one")),
        (Term(name="LD"),),
    )
    filled = Board("selfish")
    for path in own.paths():
        want(filled, own, path, 0)
    for each in filled.rows.values():
        train(each, list(own.names))
        each.score = len(each.path.models) / 10
    found = summary(filled, ["big", "one", "two"])
    assert found["answers"][0]["best"]["path"] == ["big", "one", "two"]
    shown = by_ends(found)
    assert shown["big", "one"]["score"] == 0.2 and shown["one", "two"]["score"] == 0.3
    assert shown["big", "two"]["stage"] == shown["big", "one"]["stage"]


def test_without_a_score_it_opens_what_failed_before_what_was_given_up_and_nothing_where_nothing_was_tried() -> None:
    filled = board()
    for each in filled.rows.values():
        if each.path.models[-2:] == ("r34", "r18"):
            each.state, each.score = "pruned", None
    fail(filled, Path(("r101", "r50", "r34", "r18")), "NaN")
    del filled.rows[row(filled, "r101", "r18").key]
    shown = by_ends(summary(filled))
    assert shown["r34", "r18"]["stage"] == row(filled, "r101", "r50", "r34", "r18").key
    assert shown["r101", "r18"]["stage"] is None and shown["r101", "r18"]["score"] is None
