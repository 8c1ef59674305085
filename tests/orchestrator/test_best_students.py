"""`tapath best` where there are several students: the best of each, and those that are fast or small enough."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from orchestrator.answer import compared, ranked
from orchestrator.asked import of_experiments
from orchestrator.tracking import Tracking
from tests.orchestrator.tracked import begin, row, settle
from trainers.call import Invalid


def test_a_student_can_be_asked_to_be_fast_or_small(tracking: Tracking, uri: str) -> None:
    fast, slow = ({"latency_ms": ms, "parameters": size} for ms, size in ((5.0, 1e6), (20.0, 4e6)))
    settle(tracking, row("r101", "teacher"), row("r101 > r18", score=0.4, usage=fast))
    settle(tracking, row("r101 > r34", score=0.6, usage=slow), row("r34", "alone", score=0.3))
    asked = of_experiments(["demo"], uri)
    assert [one.path for one in asked.paths()] == ["r101 > r34", "r101 > r18", "r34"]
    for under in ("latency_ms=19.9", "latency_ms=5", "parameters=3e6"):
        assert [one.path for one in asked.paths(under=[under])] == ["r101 > r18"], under
    with pytest.raises(Invalid, match=r"under latency_ms=4; the least is 5"):
        asked.paths(under=["latency_ms=4"])
    assert ", 20 ms an image, " in ranked(asked, top=1, as_json=False)[0]


def test_of_a_study_with_several_students_the_best_of_each_is_told(tracking: Tracking, uri: str) -> None:
    settle(tracking, row("r101", "teacher"), row("r101 > r34", score=0.6), row("r101 > r18", score=0.4))
    settle(tracking, row("r18", "alone", score=0.5))
    asked = replace(of_experiments(["demo"], uri), students=("r34", "r18"))
    told, _ = ranked(asked, top=None, as_json=False)
    assert [line.split("  ")[0] for line in told.splitlines()] == ["r101 > r34", "r18"]
    made = json.loads(ranked(asked, top=None, as_json=True)[0])
    assert [one["student"] for one in made] == ["r34", "r18"]
    assert len(json.loads(ranked(asked, top=1, as_json=True)[0])) == 1
    assert (
        json.loads(ranked(replace(asked, students=("r18",)), top=None, as_json=True, student="r18")[0])["path"] == "r18"
    )


def test_of_an_experiment_with_several_students_the_best_of_each_is_told(tracking: Tracking, uri: str) -> None:
    settle(tracking, row("r101", "teacher"), row("r101 > r34", score=0.6), row("r101 > r18", score=0.4))
    told, _ = ranked(of_experiments(["demo"], uri), top=None, as_json=False)
    assert [line.split("  ")[0] for line in told.splitlines()] == ["r101 > r34", "r101 > r18"]
    made = json.loads(ranked(of_experiments(["demo"], uri), top=None, as_json=True, student="r18")[0])
    assert made["path"] == "r101 > r18"


def test_experiments_that_call_their_one_student_by_other_names_have_one_best(tracking: Tracking, uri: str) -> None:
    settle(tracking, row("r101", "teacher"), row("r101 > r34", score=0.6))
    settle(begin(uri, "other"), row("r101", "teacher"), row("r101 > r18", score=0.4))
    made = json.loads(ranked(of_experiments(["demo", "other"], uri), top=None, as_json=True)[0])
    assert made["path"] == "r101 > r34"


def test_two_are_compared_by_each_student_that_both_have(tracking: Tracking, uri: str) -> None:
    settle(tracking, row("r101", "teacher"), row("r101 > r34", score=0.6), row("r101 > r18", score=0.4))
    settle(begin(uri, "other"), row("r101", "teacher"), row("r101 > r18", score=0.3, weight=0.5))
    names = ("demo", "other")
    sides = [of_experiments([name], uri) for name in names]
    (made,) = json.loads(compared(names, sides, top=None, as_json=True)[0])
    assert [one["path"] for one in made["studies"]] == ["r101 > r18"] * 2
    assert made["gain"] == pytest.approx(0.1)
    assert "demo is +0.1000 against other" in compared(names, sides, top=None, as_json=False)[0]


def test_two_without_a_student_in_common_are_not_compared_where_one_has_several(tracking: Tracking, uri: str) -> None:
    settle(tracking, row("r101", "teacher"), row("r101 > r34", score=0.6), row("r101 > r18", score=0.4))
    settle(begin(uri, "other"), row("r101", "alone", score=0.3))
    names = ("demo", "other")
    with pytest.raises(
        Invalid, match=r"no student in common: demo has r34, r18|no student in common: demo has r18, r34"
    ):
        compared(names, [of_experiments([name], uri) for name in names], top=None, as_json=False)
