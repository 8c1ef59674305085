"""`tapath best` where there are several students: the best of each, and those that are fast or small enough."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from orchestrator.answer import ranked
from orchestrator.asked import of_experiments
from orchestrator.tracking import Tracking
from tests.orchestrator.tracked import row, settle
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
