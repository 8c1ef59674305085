"""What holds for every search strategy."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import strategies
from orchestrator.lattice import Path, best
from orchestrator.strategies import (
    successive_halving,
)
from tests.orchestrator.test_strategies import EVERY, FOUR, lattice, lattices, search, table
from trainers.call import Call, Invalid, offers


def test_a_study_can_name_the_strategies_and_nothing_else():
    whole = {"exhaustive", "best_predecessor", "greedy", "successive_halving"}
    assert set(offers(strategies)) == whole | {"budget", "probe", "promising", "racing"}


def test_options_are_completed_and_checked_like_those_of_any_call():
    whole = Call(name="successive_halving").complete(strategies)
    assert whole.args == {"budgets": [0.25, 1.0], "keep": 0.5}
    assert list(successive_halving(lattice(FOUR), {}, **whole.args)) == list(successive_halving(lattice(FOUR), {}))
    with pytest.raises(Invalid, match="keep"):
        Call(name="successive_halving", args={"keep": 2}).complete(strategies)
    with pytest.raises(Invalid, match="exhaustive has no such argument"):
        Call(name="exhaustive", args={"keep": 0.5}).complete(strategies)


@pytest.mark.parametrize("strategy", EVERY)
@given(lattices(), st.integers(0, 2**32), st.sampled_from([0.0, 0.2, 1.0]))
def test_what_a_strategy_wants_depends_on_the_scores_and_not_on_the_order_they_came_in(
    strategy, lattice, seed, failing
):
    score = table(random.Random(seed), failing=failing)
    first, second = (search(strategy, lattice, score, seed=order) for order in (1, 2))
    assert first == second


@pytest.mark.parametrize("strategy", EVERY)
@given(lattices(), st.integers(0, 2**32))
def test_a_strategy_wants_each_path_once_along_edges_from_the_root_and_ends_with_an_answer(strategy, lattice, seed):
    scores = search(strategy, lattice, table(random.Random(seed)))
    wanted = list(strategy(lattice, scores))
    assert len(wanted) == len(set(wanted))
    for path in wanted:
        assert path.models[0] == lattice.root and len(path.models) > 1
        assert all(a in lattice.teachers(b) for a, b in zip(path.models, path.models[1:], strict=False))
    assert all(best(scores, lattice, student) is not None for student in lattice.students)


@pytest.mark.parametrize("strategy", EVERY)
@given(lattices(), st.integers(0, 2**32), st.sampled_from([0.0, 0.3]))
def test_a_strategy_never_gives_up_a_path_that_it_wanted(strategy, lattice, seed, failing):
    score, order = table(random.Random(seed), failing=failing), random.Random(seed)
    scores: dict[Path, float] = {}
    before: set[Path] = set()
    while True:
        wanted = set(strategy(lattice, scores))
        assert wanted >= before
        if not (unknown := sorted(wanted - scores.keys(), key=repr)):
            break
        before = wanted
        path = order.choice(unknown)
        scores[path] = score(path)
