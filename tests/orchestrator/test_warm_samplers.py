"""Sweeps that start from given settings: what each sampler asks for then, and in any order and after any restart."""

from __future__ import annotations

import random as randoms
from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import samplers
from orchestrator.frontier import Frontier
from orchestrator.lattice import Path
from orchestrator.settings import Setting, setting, values
from orchestrator.spaces import Space, space
from orchestrator.strategies import exhaustive
from orchestrator.sweep import sweep
from orchestrator.sweeping import Sweeping
from tests.orchestrator.sweeps import STOPS, WEIGHT, lattice, lattices, weight
from tests.orchestrator.test_sweep_invariants import EVERY, SETTLED, Curved, Study, ending, valid
from trainers.call import Term

LOSSES = [Term(name="LD"), Term(name="KD")]
KNOBS = {
    "LD.weight": space({"loguniform": [0.01, 10]}),
    "KD.weight": space({"uniform": [0, 4]}),
    "recipe.epochs": space({"randint": [2, 9]}),
    "distill": space([[{"LD": {}}], [{"LD": {}}, {"KD": {}}]]),
}
SAMPLERS = ["random", "sobol", "tpe"]


def make(given: Any) -> Setting:
    return setting(given, LOSSES)


def found(number: int) -> list[Setting]:
    """What earlier studies found; more digits than a sampler would draw."""
    both = KNOBS["distill"].options[1]
    return [
        make({"LD.weight": 0.123456 + i, "KD.weight": 0.5, "recipe.epochs": 8, "distill": both}) for i in range(number)
    ]


def asked(
    sampler: str,
    first: list[Setting],
    known: dict[Setting, float] | None = None,
    *,
    samples: int = 12,
    knobs: dict[str, Space] = KNOBS,
) -> list[Setting]:
    if sampler == "tpe":
        return samplers.tpe(knobs, make, known or {}, samples=samples, seed="a", first=first)
    if sampler == "sobol":
        return samplers.sobol(knobs, make, samples=samples, first=first)
    return samplers.random(knobs, make, samples=samples, seed="a", first=first)


@pytest.mark.parametrize("sampler", ["random", "sobol"])
def test_the_given_settings_come_first_and_the_sampler_fills_what_is_left(sampler: str) -> None:
    first, alone = found(3), asked(sampler, [])
    assert asked(sampler, first) == [*first, *alone[:9]]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_given_setting_that_the_sampler_draws_as_well_is_tried_once(sampler: str) -> None:
    drawn = asked(sampler, [])
    both = asked(sampler, [drawn[2]])
    assert both[0] == drawn[2] and len(both) == len(set(both))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_where_all_settings_are_tried_the_given_ones_come_first(sampler: str) -> None:
    few = {"LD.weight": space([1, 2, 3]), "KD.weight": space({"quniform": [0, 1, 0.5]})}
    last = make({"LD.weight": 3, "KD.weight": 1.0})
    there = asked(sampler, [last], knobs=few)
    assert there[0] == last and len(there) == 9 and set(there) == set(asked(sampler, [], knobs=few))


def test_tpe_begins_with_them_and_its_own_quarter_and_learns_from_them() -> None:
    first = found(4)
    begun = asked("tpe", first, samples=16)
    assert begun == [*first, *asked("sobol", [], samples=4)]
    known = {one: 0.0 for one in begun}
    almost = {one: score for one, score in known.items() if one != first[0]}
    assert asked("tpe", first, almost, samples=16) == begun, "it waits for the given ones too"
    good, bad = ({**known, **dict.fromkeys(first, score)} for score in (0.9, -0.9))
    near, far = (asked("tpe", first, scores, samples=16)[8:] for scores in (good, bad))
    assert near != far and len(near) == len(far) == 4


def test_tpe_never_asks_for_more_than_its_samples() -> None:
    assert len(asked("tpe", found(1), samples=1)) == 1
    assert asked("tpe", found(1), samples=3)[0] == found(1)[0] and len(asked("tpe", found(1), samples=3)) == 3


@settings(max_examples=15)
@given(st.sampled_from(SAMPLERS), st.integers(1, 13), st.integers(0, 3), st.integers(0, 2**32))
def test_any_order_of_completion_and_any_restart_ask_for_the_same(
    sampler: str, samples: int, number: int, seed: int
) -> None:
    first = found(min(number, samples))

    def score(one: Setting) -> float:
        dice = randoms.Random(str(one))
        return -inf if dice.random() < 0.2 else dice.random()

    def searched(order: randoms.Random) -> tuple[list[Setting], dict[Setting, float]]:
        known: dict[Setting, float] = {}
        while True:
            wanted = asked(sampler, first, known, samples=samples)  # from the results alone, as after a restart
            if not (unknown := [one for one in wanted if one not in known]):
                return wanted, known
            one = order.choice(unknown)
            known[one] = score(one)

    ended, other = searched(randoms.Random(seed)), searched(randoms.Random(seed + 1))
    assert ended == other and ended[0][: len(first)] == first and len(ended[0]) == samples


# Edges


def test_each_edge_starts_from_its_own_settings_and_teaches_by_its_winner() -> None:
    ours = lattice(("big", "mid", "small"))
    starts = {("big", "mid"): [weight(0.25)], ("mid", "small"): [weight(0.75)]}
    made = sweep({WEIGHT: {"uniform": [0, 1]}, "samples": 3, "sampler": "random", "warm_start": True})
    asked = Sweeping(exhaustive, made, ours, first=lambda path: starts.get(path.models[-2:], []))
    scores: dict[Path, float] = {Path(("big",)): 0.9}
    mids = [path for path in asked(ours, scores) if path.models == ("big", "mid")]
    assert mids[0].setting == weight(0.25) and len(mids) == 3
    scores |= {path: 0.1 for path in mids} | {mids[0]: 0.5}
    taught = [path for path in asked(ours, scores) if path.models == ("big", "mid", "small")]
    assert [path.settings for path in taught[:1]] == [(weight(0.25), weight(0.75))] and len(taught) == 3


# The frontier, whatever happens to it

RANGES = {WEIGHT: {"uniform": [0, 1]}, "recipe.lr": {"loguniform": [0.001, 1]}}


@st.composite
def warm_studies(draw: st.DrawFn, *, stops: tuple[dict[str, Any], ...]) -> Study:
    """A study each of whose sweeps starts from some settings of its own."""
    ours, strategy = draw(lattices(seeds=((0,), (0, 1)))), draw(st.sampled_from(EVERY))
    written = {"sampler": draw(st.sampled_from(SAMPLERS)), "samples": draw(st.integers(1, 9)), "warm_start": True}
    scope = draw(st.sampled_from(["edge", "path"]))
    made = sweep({**RANGES, **written, "scope": scope, **draw(st.sampled_from(stops))})
    number = draw(st.integers(0, made.num_warm))

    def first(path: Path) -> list[Setting]:
        dice = randoms.Random(str(path.models[-2:]) if scope == "edge" else "")
        drawn = [{WEIGHT: dice.random(), "recipe.lr": dice.uniform(0.001, 1)} for _ in range(number)]
        return [setting(one, ours.distill) for one in drawn]

    def build(**facts: Callable[..., Any]) -> Frontier:
        def reached(trial: Path) -> bool:
            stages = [ours.stage(trial, seed) for seed in ours.seeds]
            there = [facts["paused"](one, trial.until) if trial.until else facts["done"](one) for one in stages]
            return None not in there

        return Frontier(ours, Sweeping(strategy, made, ours, reached=reached, first=first), seeds=ours.seeds, **facts)

    return build


@settings(max_examples=60)
@given(
    warm_studies(stops=SETTLED),
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.05, 0.5, 1.0]),
)
def test_any_order_and_any_restart_of_a_warm_study_train_the_same_and_find_the_same(
    study: Study, seed: int, at_once: int, failing: float, restarts: float
) -> None:
    steady, shaky = (Curved(study, seed=s, failing=failing) for s in (seed, seed + 1))
    assert ending(steady, steady.run(at_once=at_once)) == ending(shaky, shaky.run(at_once=1, restarts=restarts))


@settings(max_examples=40)
@given(warm_studies(stops=STOPS[3:]), st.integers(0, 2**32), st.sampled_from([0.0, 0.5]), st.sampled_from([0.0, 0.3]))
def test_with_asha_a_warm_study_ends_in_the_best_of_what_was_trained_whole(
    study: Study, seed: int, restarts: float, failing: float
) -> None:
    world = Curved(study, seed=seed, failing=failing)
    valid(world, world.run(restarts=restarts))


def test_the_settings_of_a_point_are_kept_to_the_last_digit() -> None:
    assert values(asked("sobol", found(1))[0])["LD.weight"] == 0.123456
