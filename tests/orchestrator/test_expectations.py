"""What a paper published stands beside what was measured: by path and figure, in per cent, and it changes no key."""

from __future__ import annotations

import json
from pathlib import Path as File
from typing import Any

import pytest

from orchestrator import expectations
from orchestrator import plan as planning
from orchestrator.lattice import Path
from orchestrator.study import load
from tests.orchestrator.boards import SIZES, board, lattice
from tests.orchestrator.studies import changed, write
from trainers.call import Invalid

SAID = 'expected: {"big > wee": {AP: 36.5, AP50: 52.9}, "big > mid": {AP: 39.8}, wee: {AP: 35.8}}\nsource: the paper\n'


def expecting(text: str) -> str:
    return changed(("distill:", f"{text}distill:"))


def refused(folder: File, text: str) -> str:
    with pytest.raises(Invalid) as caught:
        planning.plan(load(write(folder, expecting(text))))
    return str(caught.value)


def test_what_was_published_changes_no_key(tmp_path: File) -> None:
    own = (f"resources.store={tmp_path / 'store'}",)
    plain = planning.plan(load(write(tmp_path / "a"), own))
    made = planning.plan(load(write(tmp_path / "b", expecting(SAID)), own))
    assert [stage["key"] for stage in made["stages"]] == [stage["key"] for stage in plain["stages"]]
    assert plain["expected"] == [] and "published:" not in planning.text(plain)


def test_a_plan_shows_what_was_published_and_that_nothing_is_measured(tmp_path: File) -> None:
    made = planning.plan(load(write(tmp_path, expecting(SAID)), (f"resources.store={tmp_path / 'store'}",)))
    assert [(row["path"], row["figure"], row["published"]) for row in made["expected"]] == [
        ("big > wee", "AP", 36.5),
        ("big > wee", "AP50", 52.9),
        ("big > mid", "AP", 39.8),
        ("wee", "AP", 35.8),
    ]
    assert all(row["measured"] is row["difference"] is None for row in made["expected"])
    assert json.loads(json.dumps(made))["source"] == "the paper"
    (line,) = [line for line in planning.text(made).splitlines() if "52.90" in line]
    assert line.split() == ["big", ">", "wee", "AP50", "52.90"]
    assert "in per cent; published: the paper" in planning.text(made)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("expected: {bigg: {AP: 1.5}}\n", "tiny.yaml:9: expected.bigg: bigg is not one of big, low, mid, wee; did you"),
        ('expected: {"mid > wee": {AP: 36.5}}\n', "expected.mid > wee: this is no path here: one starts at big"),
        ("expected: {mid: {AP: 36.5}}\n", "tiny.yaml:9: expected.mid: this is no path here"),
        ('expected: {"big>wee": {AP: 36.5}}\n', "big>wee is not one of big, low, mid, wee"),
        ("expected: {wee: {AP: 0.365}}\n", "expected.wee.AP: write per cent, as publications do"),
        ("expected: {wee: {AP: 365}}\n", "less than or equal to 100"),
        ("expected: {wee: {AP: high}}\n", "tiny.yaml:9: expected.wee.AP:"),
        ("expected: {wee: 36.5}\n", "tiny.yaml:9: expected.wee:"),
        (
            "expected: {wee: {MR: 9.5}}\n",
            "tiny.yaml:9: expected.wee.MR: the metric says no such figure here: MR is not",
        ),
        ("source: [paper]\n", "tiny.yaml:9: source:"),
    ],
)
def test_what_cannot_be_measured_here_is_refused_with_its_line(tmp_path: File, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_a_path_along_a_missing_edge_is_refused(tmp_path: File) -> None:
    text = 'edges: [[big, mid], [mid, wee]]\nexpected: {"big > wee": {AP: 36.5}}\n'
    assert "tiny.yaml:10: expected.big > wee: this is no path here" in refused(tmp_path, text)
    assert "as in big > mid > wee" in refused(tmp_path, text)


def compared(expected: expectations.Expected, **options: Any) -> list[dict[str, Any]]:
    seeds = options.get("seeds", (0,))
    filled = board(seeds=seeds)
    for row in filled.rows.values():
        row.metrics = {"val/AP": 0.25 + 0.125 * row.seed, "val/AP50": 0.5}
        row.state = options.get("state", "done")
    return expectations.compared(expected, lattice(tuple(SIZES)), filled, seeds)


def test_measured_is_the_mean_over_the_seeds_in_per_cent() -> None:
    (row,) = compared({"r101 > r18": {"AP": 36.5}}, seeds=(0, 1, 2))
    assert row == {
        "path": "r101 > r18",
        "figure": "AP",
        "published": 36.5,
        "measured": pytest.approx(37.5),
        "difference": pytest.approx(1.0),
    }
    said = expectations.text([row], "")
    assert said[2].split() == ["r101", ">", "r18", "AP", "36.50", "37.50", "+1.00"]


def test_what_was_stored_before_counts_and_what_still_trains_or_was_never_said_does_not() -> None:
    assert compared({"r18": {"AP": 30}}, state="reused")[0]["measured"] == 25
    assert compared({"r18": {"AP": 30}}, state="running")[0]["measured"] is None
    assert compared({"r18": {"AP75": 30}})[0]["measured"] is None


def test_a_seed_that_is_not_trained_leaves_the_mean_unknown() -> None:
    filled = board(seeds=(0, 1))
    for row in filled.rows.values():
        row.metrics = {"val/AP": 0.25}
    missing = next(row.key for row in filled.rows.values() if row.seed == 1 and row.path == Path(("r18",)))
    del filled.rows[missing]
    (row,) = expectations.compared({"r18": {"AP": 30}}, lattice(tuple(SIZES)), filled, (0, 1))
    assert row["measured"] is None


def test_one_path_is_compared_with_what_its_metric_said() -> None:
    published = {"a > b": {"AP": 30.0, "AP50": 50.0}, "b": {"AP": 20.0}}
    rows = expectations.of(published, "a > b", {"AP": 0.3125})
    assert [row["difference"] for row in rows] == [1.25, None]
    assert expectations.of(published, "a", {"AP": 0.5}) == [] == expectations.text([], "the paper")
