"""A strategy is asked again only when a score that it missed is there, and nobody can tell."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.lattice import Lattice, Path, Scores, best
from orchestrator.patience import Patient
from orchestrator.strategies import exhaustive
from orchestrator.strategies.known import known
from tests.orchestrator.test_strategies import EVERY, FOUR, lattice, lattices, table


class Counted:
    """A strategy, and how often it was asked."""

    def __init__(self, strategy) -> None:
        self.strategy, self.asked = strategy, 0

    def __call__(self, lattice: Lattice, scores: Scores) -> Iterable[Path]:
        self.asked += 1
        return self.strategy(lattice, scores)


@pytest.mark.parametrize("strategy", EVERY)
@given(lattices(), st.integers(0, 2**32), st.sampled_from([0.0, 0.3]))
def test_the_answer_is_at_any_time_what_the_strategy_itself_says(strategy, lattice, seed, failing):
    score, order = table(random.Random(seed), failing=failing), random.Random(seed)
    patient, scores = Patient(strategy), {}
    while True:
        wanted = patient(lattice, scores)
        assert wanted == list(strategy(lattice, scores))
        if not (unknown := sorted(set(wanted) - scores.keys(), key=repr)):
            break
        path = order.choice(unknown)
        scores[path] = score(path)


def test_one_that_looks_at_no_score_is_asked_once_and_answers_with_the_same_list():
    ours, counted = lattice(FOUR), Counted(exhaustive)
    patient, scores = Patient(counted), {}
    first = patient(ours, scores)
    for path in list(first):
        scores[path] = 1.0
        assert patient(ours, scores) is first
    assert counted.asked == 1


def test_one_that_waits_for_several_is_not_asked_for_each_of_them():
    ours = lattice([f"m{i}" for i in range(8)])

    def waiting(lattice: Lattice, scores: Scores) -> Iterable[Path]:
        first, *others = lattice.paths()
        yield from others
        if known(others, scores):
            yield first

    counted = Counted(waiting)
    patient, scores = Patient(counted), {}
    while left := [path for path in patient(ours, scores) if path not in scores]:
        scores[left[0]] = 0.0
    assert len(scores) == 64 and counted.asked == 2


def test_one_that_goes_through_all_scores_is_asked_after_each():
    ours = lattice(FOUR)

    def ranking(lattice: Lattice, scores: Scores) -> Iterable[Path]:
        found = best(scores, lattice, lattice.students[-1])
        return [found] if found else list(lattice.paths())[:1]

    patient, scores = Patient(ranking), {}
    worse, better = list(ours.paths())[:2]
    assert patient(ours, scores) == [worse]
    scores[worse] = 1.0
    assert patient(ours, scores) == [worse]
    scores[better] = 2.0
    assert patient(ours, scores) == [better]


def test_other_scores_are_looked_at_anew():
    ours, counted = lattice(FOUR), Counted(exhaustive)
    patient = Patient(counted)
    assert patient(ours, {}) == patient(ours, {}) and counted.asked == 2
