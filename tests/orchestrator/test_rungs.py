"""Who was given up when: what is counted at each rung, and how the page shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.board import Board, Row
from orchestrator.drawing import drawing
from orchestrator.lattice import Lattice, Path
from orchestrator.report import render
from orchestrator.rungs import rungs
from orchestrator.sweep import Stop
from tests.orchestrator.boards import board, lattice, summary, want
from tests.orchestrator.sweeps import weight
from tests.orchestrator.test_report import EVIL, Page

NAMES = ("r101", "r18")
HALVING = Stop(how="halving", grace=1, factor=2)


def raced(
    curves: dict[float, list[float]],
    *,
    epochs: int = 6,
    seeds: tuple[int, ...] = (0,),
    states: Mapping[float, str] = MappingProxyType({}),
) -> tuple[Board, Lattice]:
    """One edge; by the value of its knob the scores that a setting had, epoch by epoch, the same with every seed."""
    own, filled = lattice(NAMES, epochs=epochs), Board("raced")
    for value, scores in curves.items():
        for seed in seeds:
            path = Path(NAMES, settings=(weight(value),))
            history = [{"epoch": float(e), "val/AP": score} for e, score in enumerate(scores, start=1)]
            stage = own.stage(path, seed)
            state: Any = states.get(value, "done" if len(scores) == epochs else "pruned")
            row = Row(stage, path, seed, "student", state=state, history=history, score=scores[-1] if scores else None)
            filled.rows[stage.key] = row
    return filled, own


def races(filled: Board, *, seeds: tuple[int, ...] = (0,), stop: Stop | None = HALVING) -> list[dict[str, Any]]:
    return rungs(filled, stop=stop, seeds=seeds, metric="AP", students=["r18"])


FOUR = {1.0: [0.1], 2.0: [0.3, 0.4], 3.0: [0.2], 4.0: [0.25, 0.5, 0.5, 0.6, 0.6, 0.7]}


def test_at_each_rung_it_is_counted_who_is_there_and_who_goes_on() -> None:
    (race,) = races(raced(FOUR)[0])
    assert race["path"] == ["r101", "r18"]
    assert race["rungs"] == [
        {"epoch": 1, "reached": 4, "went_on": 2, "best": 0.3},
        {"epoch": 2, "reached": 2, "went_on": 1, "best": 0.5},
        {"epoch": 4, "reached": 1, "went_on": 1, "best": 0.6},
        {"epoch": 6, "reached": 1, "went_on": None, "best": 0.7},
    ]


def test_a_line_ends_where_its_setting_was_given_up_and_the_winner_is_marked() -> None:
    (race,) = races(raced(FOUR)[0])
    lines = {line["name"]: line for line in race["lines"]}
    assert lines["LD.weight 2"]["points"] == [[1, 0.3], [2, 0.4]] and lines["LD.weight 2"]["state"] == "pruned"
    assert [name for name, line in lines.items() if line["won"]] == ["LD.weight 4"]


def test_with_several_seeds_a_line_is_their_mean_as_far_as_all_are() -> None:
    filled, _ = raced({1.0: [0.1, 0.2], 2.0: [0.4] * 6}, seeds=(0, 1))
    first, *_ = filled.rows.values()
    first.history[0]["val/AP"], first.history[1:] = 0.3, []
    (race,) = races(filled, seeds=(0, 1))
    assert race["lines"][0]["points"] == [[1, pytest.approx(0.2)]]
    assert [rung["reached"] for rung in race["rungs"]] == [2, 1, 1, 1]
    del filled.rows[first.key]
    (race,) = races(filled, seeds=(0, 1))
    assert race["lines"][0]["points"] == [] and race["rungs"][0]["reached"] == 1


def test_a_setting_that_fails_never_wins_and_one_whose_score_is_not_finite_has_a_gap() -> None:
    curves = {1.0: [0.9, 0.95], 2.0: [0.1, math.nan, 0.2, 0.3, 0.4, 0.5]}
    (race,) = races(raced(curves, states={1.0: "failed"})[0])
    assert [line["won"] for line in race["lines"]] == [False, True]
    assert [line["state"] for line in race["lines"]] == ["failed", "done"]
    assert [epoch for epoch, _ in race["lines"][1]["points"]] == [1, 3, 4, 5, 6]


def test_without_rungs_there_is_no_race() -> None:
    filled, _ = raced(FOUR)
    assert races(filled, stop=None) == [] and races(Board("empty")) == []
    assert "h-rungs" not in render(summary(board()))


@given(
    st.dictionaries(st.integers(1, 20).map(float), st.lists(st.floats(0, 1), min_size=0, max_size=8), min_size=1),
    st.integers(1, 3),
    st.integers(2, 4),
)
def test_never_more_come_to_a_rung_than_went_on_before_it(
    curves: dict[float, list[float]], grace: int, factor: int
) -> None:
    (race,) = races(raced(curves, epochs=8)[0], stop=Stop(how="asha", grace=grace, factor=factor))
    found = race["rungs"]
    assert [rung["epoch"] for rung in found] == [*Stop(how="asha", grace=grace, factor=factor).rungs(8), 8]
    for before, after in pairwise(found):
        assert after["reached"] <= before["went_on"] <= before["reached"] <= len(curves)
    for rung in found:
        own = [line for line in race["lines"] if line["points"] and line["points"][-1][0] >= rung["epoch"]]
        assert len(own) == rung["reached"]
    assert sum(line["won"] for line in race["lines"]) == bool(found[-1]["reached"])


# Whole paths, of which the best are trained for longer

DIRECT, BY_50, BY_34 = ("r101", "r18"), ("r101", "r50", "r18"), ("r101", "r34", "r18")
FULL = ("r101", "r50", "r34", "r18")
PATHS = {DIRECT: 0.2, BY_50: 0.4, BY_34: 0.3, FULL: 0.1}


def halved(scores: dict[tuple[str, ...], float], kept: dict[tuple[str, ...], float]) -> Board:
    """Every path for a quarter of twelve epochs, some of them in full."""
    own, filled = lattice(FULL), Board("halved")
    for budget, known in ((0.25, scores), (1.0, kept)):
        for models, score in known.items():
            path = Path(models, budget)
            want(filled, own, path, 0)
            row = filled.rows[own.stage(path, 0).key]
            row.state, row.score = "done", score
    return filled


def test_of_paths_it_is_counted_too_who_was_trained_for_longer() -> None:
    kept = {BY_50: 0.6, BY_34: 0.7}
    (race,) = races(halved(PATHS, kept), stop=None)
    assert race["path"] is None
    assert race["rungs"] == [
        {"epoch": 3, "reached": 4, "went_on": 2, "best": 0.4},
        {"epoch": 12, "reached": 2, "went_on": None, "best": 0.7},
    ]
    lines = {line["name"]: line for line in race["lines"]}
    assert lines["r101 > r34 > r18"] == {
        "name": "r101 > r34 > r18", "points": [[3, 0.3], [12, 0.7]], "state": "done", "won": True
    }  # fmt: skip
    assert lines["r101 > r18"]["state"] == "pruned" and lines["r101 > r18"]["points"] == [[3, 0.2]]


def test_the_direct_path_that_was_dropped_and_trained_as_a_control_did_not_go_on() -> None:
    kept = {BY_50: 0.6, DIRECT: 0.5}
    (race,) = races(halved(PATHS, kept), stop=None)
    assert [rung["went_on"] for rung in race["rungs"]] == [1, None]
    (better,) = races(halved({**PATHS, DIRECT: 0.9}, kept), stop=None)
    assert [rung["went_on"] for rung in better["rungs"]] == [2, None]


def test_a_path_that_is_on_its_way_has_gone_on_and_one_that_failed_has_not_come() -> None:
    filled = halved(PATHS, {BY_50: 0.6, BY_34: 0.7})
    way = next(row for row in filled.rows.values() if row.path == Path(BY_34))
    way.state, way.score = "running", None
    failed = next(row for row in filled.rows.values() if row.path == Path(FULL, 0.25))
    failed.state, failed.score = "failed", None
    (race,) = races(filled, stop=None)
    assert [(rung["reached"], rung["went_on"]) for rung in race["rungs"]] == [(3, 2), (1, None)]
    assert {line["name"]: line["state"] for line in race["lines"]} == {
        "r101 > r18": "pruned", "r101 > r50 > r18": "done", "r101 > r34 > r18": "running",
        "r101 > r50 > r34 > r18": "failed",
    }  # fmt: skip


# The page


def page(*found: dict[str, Any]) -> Page:
    return Page(render(summary(board()) | {"rungs": list(found)}))


def test_the_page_has_a_table_of_all_rungs_and_draws_every_line() -> None:
    (race,) = races(raced(FOUR)[0])
    shown = page(race)
    heads = next(i for i, row in enumerate(shown.rows) if "after epoch" in row)
    assert shown.rows[heads] == ["edge", "after epoch", "there", "went on", "best AP"]
    assert shown.rows[heads + 1 : heads + 5] == [
        ["r101 > r18", "1", "4", "2", "0.300"],
        ["r101 > r18", "2", "2", "1", "0.500"],
        ["r101 > r18", "4", "1", "1", "0.600"],
        ["r101 > r18", "6", "1", "", "0.700"],
    ]
    assert [len(line["points"]) for line in shown.data["rungs"][0]["lines"]] == [1, 2, 1, 6]
    assert not [tag for tag, attributes in shown.tags if attributes.get("id") == "race"], "there is nothing to choose"


def test_of_several_races_one_is_chosen() -> None:
    (paths,), (edge,) = races(halved(PATHS, {BY_50: 0.6}), stop=None), races(raced(FOUR)[0])
    shown = page(paths, edge)
    assert [tag for tag, attributes in shown.tags if attributes.get("id") == "race"] == ["select"]
    assert ["whole paths", "3", "4", "1", "0.400"] in shown.rows


def test_curves_are_rounded_for_the_page_alone() -> None:
    (race,) = races(raced({1.0: [1 / 3] * 6})[0])
    shown = drawing(summary(board()) | {"rungs": [race]})["rungs"][0]["lines"][0]
    assert shown["points"][0] == (1, 0.33333) and race["lines"][0]["points"][0] == [1, 1 / 3]


def test_hostile_names_stay_text_where_races_are_drawn() -> None:
    (race,) = races(raced(FOUR)[0])
    hostile = {
        **race,
        "name": " > ".join(EVIL),
        "path": EVIL,
        "lines": [{**line, "name": EVIL[0]} for line in race["lines"]],
    }
    html = render(summary(board()) | {"rungs": [hostile]})
    assert {tag for tag, _ in Page(html).tags} <= {tag for tag, _ in page(race, race).tags}
    assert html.count("</script>") == 2 and Page(html).data["rungs"][0]["path"] == EVIL
