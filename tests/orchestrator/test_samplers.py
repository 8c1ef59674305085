"""Samplers: seeded, every point once, and the same answer whatever the results came in."""

from __future__ import annotations

import random as randoms
from math import inf, log10
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import samplers
from orchestrator.settings import Setting, setting, values
from orchestrator.spaces import Space, space
from trainers.call import Term

LOSSES = [Term(name="LD"), Term(name="KD")]
LD_OR_BOTH = space([[{"LD": {}}], [{"LD": {}}, {"KD": {}}]])
MIXED = {
    "LD.weight": space({"loguniform": [0.01, 10]}),
    "LD.temperature": space({"quniform": [1, 20, 0.5]}),
    "KD.weight": space({"uniform": [0, 4]}),
    "recipe.epochs": space({"randint": [2, 9]}),
    "recipe.warmup": space({"lograndint": [1, 500]}),
    "recipe.resize": space([None, [32, 64], {"short": 16, "long": 32}]),
    "distill": LD_OR_BOTH,
}


def make(given: dict) -> Setting:
    return setting(given, LOSSES)


def within(one: Setting, knobs: dict[str, Space]) -> bool:
    """Whether every value may come from its knob."""
    return all(
        value in knobs[name].options if knobs[name].kind == "choice" else knobs[name].rounded(value) == value
        for name, value in values(one).items()
    )


def asked(
    sampler: str,
    knobs: dict[str, Space],
    known: dict[Setting, float],
    before: list[Setting] | None = None,
    *,
    samples: int,
    seed: str = "a",
) -> list[Setting]:
    if sampler == "tpe":
        return samplers.tpe(knobs, make, known, before or [], samples=samples, seed=seed)
    if sampler == "sobol":
        return samplers.sobol(knobs, make, samples=samples)
    return samplers.random(knobs, make, samples=samples, seed=seed)


def searched(knobs: dict[str, Space], score, *, samples: int, seed: str = "a", sampler: str = "tpe", order=None):
    """Score what is wanted, one after the other in some order, until nothing new is wanted -> all scores."""
    order = order or randoms.Random(0)
    known: dict[Setting, float] = {}
    before: list[Setting] = []
    while True:
        before = asked(sampler, knobs, known, before, samples=samples, seed=seed)
        if not (unknown := [one for one in before if one not in known]):
            return known
        one = order.choice(unknown)
        known[one] = score(one)


@st.composite
def scores(draw: st.DrawFn):
    """What becomes of each setting, the same at every call: a score, or a failure."""
    world, failing = draw(st.integers(0, 2**32)), draw(st.sampled_from([0, 0.3]))

    def score(one: Setting) -> float:
        dice = randoms.Random(f"{world} {one}")
        return -inf if dice.random() < failing else dice.random()

    return score


# Grid


def test_a_grid_is_all_combinations_and_the_last_knob_turns_fastest():
    found = samplers.grid({"LD.weight": space([1, 2]), "recipe.lr": space([0.1, 0.2, 0.3])}, make)
    assert [tuple(values(one).values()) for one in found] == [
        (1, 0.1),
        (1, 0.2),
        (1, 0.3),
        (2, 0.1),
        (2, 0.2),
        (2, 0.3),
    ]


def test_a_grid_asks_once_for_what_a_knob_of_an_absent_loss_makes_no_difference_to():
    found = samplers.grid({"distill": LD_OR_BOTH, "KD.weight": space([1, 2, 3])}, make)
    assert len(found) == 1 + 3, "LD alone, and both with each weight of KD"


def test_every_value_of_a_space_is_known_where_they_can_be_counted():
    assert space({"randint": [2, 5]}).every() == (2, 3, 4)
    assert space({"quniform": [0.1, 0.3, 0.1]}).every() == (0.1, 0.2, 0.3)
    assert space(["a", None]).every() == ("a", None)
    assert space({"uniform": [0, 1]}).every() == space({"randint": [0, 10**9]}).every() == ()


# All that draw


@pytest.mark.parametrize("sampler", ["random", "sobol", "tpe"])
def test_settings_lie_in_their_spaces_differ_and_are_as_many_as_wanted(sampler):
    known = searched(MIXED, lambda one: len(str(one)) / 100, samples=14, sampler=sampler)
    assert len(known) == 14
    for one in known:
        assert within(one, MIXED), values(one)
        both = len(values(one)["distill"]) == 2
        assert ("KD.weight" in values(one)) == both


@pytest.mark.parametrize("sampler", ["random", "sobol", "tpe"])
def test_where_there_are_fewer_settings_than_samples_all_are_asked_for_and_no_more(sampler):
    few = {"distill": LD_OR_BOTH, "KD.weight": space({"randint": [1, 4]})}
    known = searched(few, lambda one: 0.5, samples=9, sampler=sampler)
    assert set(known) == set(samplers.grid({"distill": LD_OR_BOTH, "KD.weight": space([1, 2, 3])}, make))


def test_random_settings_are_the_same_for_a_seed_and_others_for_another():
    one, same, other = (asked("random", MIXED, {}, samples=8, seed=seed) for seed in "aab")
    assert one == same and not set(one) & set(other)


@pytest.mark.parametrize("sampler", ["random", "sobol"])
def test_more_samples_of_the_same_begin_with_fewer(sampler):
    assert asked(sampler, MIXED, {}, samples=16)[:8] == asked(sampler, MIXED, {}, samples=8)


def test_a_sobol_sequence_puts_one_point_into_every_part():
    found = samplers.sobol({"LD.weight": space({"uniform": [0, 1]})}, make, samples=16)
    parts = sorted(int(values(one)["LD.weight"] * 16) for one in found)
    assert parts == list(range(16))


# TPE


def test_tpe_begins_with_a_quarter_of_its_samples_and_goes_on_four_by_four_once_all_are_known():
    first = asked("tpe", MIXED, {}, samples=32)
    assert first == asked("sobol", MIXED, {}, samples=8)
    known = {one: 0.1 * i for i, one in enumerate(first)}
    almost = dict(list(known.items())[:-1])
    assert asked("tpe", MIXED, almost, samples=32) == first
    assert asked("tpe", MIXED, known, samples=32)[:8] == first and len(asked("tpe", MIXED, known, samples=32)) == 12
    assert len(asked("tpe", MIXED, {}, samples=3)) == 3


@given(scores(), st.integers(1, 13))
def test_tpe_rebuilt_from_the_results_asks_for_the_same_as_tpe_asked_step_by_step(score, samples):
    known: dict[Setting, float] = {}
    before: list[Setting] = []
    while True:
        found = samplers.tpe(MIXED, make, known, before, samples=samples, seed="a")
        assert found[: len(before)] == before and len(found) == len(set(found)) <= samples
        before = found
        if not (unknown := [one for one in found if one not in known]):
            break
        known[unknown[-1]] = score(unknown[-1])
    assert samplers.tpe(MIXED, make, known, samples=samples, seed="a") == before


@settings(max_examples=10)
@given(scores(), st.integers(0, 2**32))
def test_tpe_asks_for_the_same_in_whatever_order_the_results_come(score, seed):
    one, other = (searched(MIXED, score, samples=12, order=randoms.Random(s)) for s in (seed, seed + 1))
    assert one == other


def test_tpe_does_without_any_result_that_is_worth_something():
    known = searched(MIXED, lambda one: -inf, samples=10)
    assert len(known) == 10


def test_tpe_copes_with_knobs_that_have_one_value_and_with_whole_numbers_that_are_written_as_real_ones():
    knobs = {
        "LD.weight": space({"randint": [1.0, 9.0]}),
        "recipe.flip": space([0.5]),
        "recipe.freeze": space({"randint": [3, 4]}),
    }
    known = searched(knobs, lambda one: values(one)["LD.weight"], samples=7)
    assert len(known) == 7
    assert all(isinstance(values(one)["LD.weight"], float) for one in known)
    assert {values(one)["recipe.freeze"] for one in known} == {3}


def test_tpe_finds_better_settings_than_chance():
    """The best is LD.weight 0.3, recipe.lr 0.02 and both losses; the mean of the best over six searches."""
    knobs = {
        "LD.weight": space({"loguniform": [0.001, 100]}),
        "recipe.lr": space({"loguniform": [1e-5, 1]}),
        "distill": LD_OR_BOTH,
    }

    def score(one: Setting) -> float:
        given = values(one)
        away = log10(given["LD.weight"] / 0.3) ** 2 + log10(given["recipe.lr"] / 0.02) ** 2
        return -away - (len(given["distill"]) == 1)

    def reached(sampler: str) -> float:
        found = (searched(knobs, score, samples=32, seed=str(seed), sampler=sampler) for seed in range(6))
        return fmean(max(known.values()) for known in found)

    assert reached("tpe") > reached("random") / 2, "scores are below zero: half as far away at most"
