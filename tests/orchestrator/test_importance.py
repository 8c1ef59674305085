"""What is said of knobs' importance."""

from __future__ import annotations

from orchestrator.importance import FEWEST, importance
from orchestrator.spaces import space

KNOBS = {"LD.weight": space([0.1, 0.2, 0.4, 0.8]), "LD.temperature": space([1, 10])}


def trials(*settings: tuple[float, int, float]):
    return [({"LD.weight": weight, "LD.temperature": hot}, score) for weight, hot, score in settings]


WEIGHT_ALONE = trials((0.1, 1, 0.5), (0.2, 1, 0.6), (0.4, 1, 0.7), (0.8, 1, 0.4))


def test_the_only_knob_that_was_turned_accounts_for_all():
    assert importance(KNOBS, WEIGHT_ALONE) == {"LD.weight": 1.0}


def test_the_analysis_of_variance_says_nearly_that_where_another_knob_makes_no_difference():
    both = [one for trial in WEIGHT_ALONE for one in (trial, (trial[0] | {"LD.temperature": 10}, trial[1]))]
    found = importance(KNOBS, both)
    assert list(found) == ["LD.weight", "LD.temperature"] and found["LD.weight"] > 0.95


def test_nothing_is_said_of_too_few_trials_nor_of_equal_scores():
    assert importance(KNOBS, WEIGHT_ALONE[: FEWEST - 1]) == {}
    assert importance(KNOBS, [(values, 0.5) for values, _ in WEIGHT_ALONE]) == {}
