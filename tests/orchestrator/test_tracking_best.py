"""MLflow can say alone which path is best."""

from __future__ import annotations

import math

import pytest

from orchestrator.asked import of_experiments
from orchestrator.board import Row
from orchestrator.ranking import paths
from orchestrator.tracking import Tracking
from tests.orchestrator.tracked import begin, best, row, run_of, settle, stage
from trainers.call import Invalid


def test_the_best_path_is_the_one_with_the_highest_mean_over_its_seeds(uri: str) -> None:
    first, second = begin(uri), begin(uri)
    settle(first, row("r101", "teacher", 0.9), row("r101 > r34", "assistant", 0.95))
    settle(first, row("r101 > r18", score=0.7, seed=0), row("r18", "alone", 0.4))
    settle(second, row("r101 > r18", score=0.3, seed=1), row("r101 > r34 > r18", score=0.6))
    for opened in (first, second):
        opened.close("FINISHED")
    found = paths(uri, ["demo"])
    assert [each.path for each in found] == ["r101 > r34 > r18", "r101 > r18", "r18"]
    assert [each.score for each in found] == pytest.approx([0.6, 0.5, 0.4])
    assert found[1].scores == pytest.approx({0: 0.7, 1: 0.3})
    assert found[0].seconds == 90 and found[1].seconds == pytest.approx((60 + 30) / 2)
    assert found[0].keys == {0: stage("r101 > r34 > r18").key} and found[2].role == "alone"
    assert best(uri, "demo") == found[0]
    assert best(uri, "demo", keys=[stage("r18").key]).path == "r18"


def test_another_figure_may_rank(tracking: Tracking, uri: str) -> None:
    def measured(path: str, role: str, figures: dict[str, float]) -> Row:
        return row(path, role, figures["val/AP"], done=1, history=[{"epoch": 1.0, **figures}])

    settle(tracking, row("r101", "teacher", 0.9))
    settle(tracking, measured("r101 > r18", "student", {"val/AP": 0.7, "val/AP50": 0.8}))
    settle(tracking, measured("r18", "alone", {"val/AP": 0.6, "val/AP50": 0.9}))
    assert best(uri, "demo").path == "r101 > r18"
    found = best(uri, "demo", by="val/AP50")
    assert (found.path, found.score) == ("r18", 0.9)


def test_settings_of_one_path_are_not_averaged(tracking: Tracking, uri: str) -> None:
    settle(tracking, row(score=0.2, weight=0.25), row(score=0.6, weight=0.5))
    assert [each.score for each in paths(uri, ["demo"])] == pytest.approx([0.6, 0.2])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_never_wins(bad: float, tracking: Tracking, uri: str) -> None:
    settle(tracking, row("r101 > r34 > r18", score=bad))
    with pytest.raises(Invalid, match="no student"):
        of_experiments(["demo"], uri).paths()
    settle(tracking, row("r18", "alone", -0.9))  # a miss rate: lower than the 0 that MLflow makes of NaN
    settle(tracking, row(score=0.5, seed=0), row(score=bad, seed=1))
    assert of_experiments(["demo"], uri).paths()[0].path == "r18"
    assert len(paths(uri, ["demo"])) == 3
    assert not math.isfinite(run_of(uri, row("r101 > r34 > r18")).data.metrics["val/AP"]) or math.isinf(bad)


def test_an_unknown_experiment_is_refused_with_those_there_are(tracking: Tracking, uri: str) -> None:
    with pytest.raises(Invalid, match=r"demos is not one of .*did you mean demo") as refused:
        paths(uri, ["demos"])
    assert refused.value.where == ("resources", "tracking")
