"""Strategies that train in part: races over seeds, budgets, probes, and assistants that are given up; by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from math import inf
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from orchestrator import strategies
from orchestrator.lattice import Entry, Lattice, Path, best
from orchestrator.strategies import budget, probe, promising, racing
from orchestrator.strategies.races import chance
from trainers.call import Call, Invalid
from trainers.spec import Data, Model, Recipe, Stage

FOUR = ("r101", "r50", "r34", "r18")
DIRECT, VIA_50, VIA_34, VIA_BOTH = (
    Path(models) for models in (("r101", "r18"), ("r101", "r50", "r18"), ("r101", "r34", "r18"), FOUR)
)
TO_34, TO_34_VIA_50 = Path(("r101", "r34")), Path(("r101", "r50", "r34"))


def lattice(*, seeds: Iterable[int] = (0,), edges: Iterable[tuple[str, str]] | None = None) -> Lattice:
    """Four models of 8 epochs."""
    models = {name: Model(detector=Call(name="GFL"), backbone=Call(name=name)) for name in FOUR}
    entries = {name: Entry(model, Recipe(epochs=8)) for name, model in models.items()}
    return Lattice(entries, Data(fingerprint="digits", classes=("3",)), edges=edges, seeds=seeds)


def search(strategy: Callable[[Lattice, dict], Iterable[Path]], lattice: Lattice, score: Callable[[Path, int], float]):
    """Score all that is wanted, until nothing new is -> all scores, of those with several seeds their means."""
    scores: dict[Path, float] = {}
    while unknown := [path for path in strategy(lattice, scores) if path not in scores]:
        for path in unknown:
            scores[path] = fmean(score(path, seed) for seed in path.seeds or lattice.seeds)
    return scores


def with_seed(path: Path, seed: int) -> Path:
    return replace(path, seeds=(seed,))


# Races


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=9).filter(lambda gaps: len(set(gaps)) > 1))
def test_the_chance_is_that_of_the_one_sided_t_test(gaps):
    assert chance(gaps) == pytest.approx(ttest_1samp(gaps, 0, alternative="greater").pvalue, abs=1e-9)


def test_equal_gaps_are_taken_at_their_word():
    assert (chance([0.5, 0.5]), chance([0.0, 0.0]), chance([-0.5, -0.5])) == (0, 1, 1)


def test_a_path_is_dropped_after_the_second_seed_if_it_is_steadily_worse_and_kept_if_that_may_be_chance():
    noise = {0: 0.0, 1: 0.1, 2: -0.1, 3: 0.05}
    steady = {DIRECT.models: 0.5, VIA_50.models: 0.6, VIA_34.models: 0.3}
    wild = {0: 0.7, 1: 0.4, 2: 0.6, 3: 0.6}

    def score(path: Path, seed: int) -> float:
        if path.models == FOUR:
            return wild[seed]  # better than VIA_50 with one seed, worse with another
        return steady.get(path.models, 0.9) + noise[seed]

    scores = search(racing, lattice(seeds=(0, 1, 2, 3)), score)
    for path in (DIRECT, VIA_34):
        assert {seed for seed in range(4) if with_seed(path, seed) in scores} == {0, 1} and path not in scores
    for path in (VIA_50, VIA_BOTH):
        assert {seed for seed in range(4) if with_seed(path, seed) in scores} == {0, 1, 2, 3} and path in scores


def test_a_race_asks_for_one_seed_more_only_when_all_have_the_last():
    two = lattice(seeds=(4, 7, 9))
    first = [with_seed(path, 4) for path in (DIRECT, VIA_50, VIA_34, VIA_BOTH)]
    assert list(racing(two, {})) == first
    assert list(racing(two, dict.fromkeys(first[:3], 0.5))) == first
    assert list(racing(two, dict.fromkeys(first, 0.5))) == [*first, *(replace(path, seeds=(7,)) for path in first)]


def test_a_path_that_fails_with_a_seed_is_out():
    scores = search(racing, lattice(seeds=(0, 1)), lambda path, seed: -inf if "r50" in path.models else 0.5)
    assert with_seed(VIA_50, 0) in scores and with_seed(VIA_50, 1) not in scores and DIRECT in scores


def test_a_late_comer_races_those_that_survived_before_it():
    """Greedy asks for the path with both assistants when the race of the others is over."""
    tie = {DIRECT.models: 0.5, VIA_50.models: 0.7, VIA_34.models: 0.2, FOUR: 0.6}
    race = Call(name="racing", args={"of": "greedy"}).complete(strategies)
    scores = search(
        lambda *known: race.of(strategies, *known), lattice(seeds=(0, 1, 2)), lambda path, seed: tie[path.models]
    )
    assert with_seed(VIA_34, 1) in scores and with_seed(VIA_34, 2) not in scores
    assert with_seed(VIA_BOTH, 1) in scores and with_seed(VIA_BOTH, 2) not in scores
    assert {path for path in scores if path.seeds is None} == {VIA_50}


def test_one_seed_is_no_race_and_a_race_is_not_of_what_trains_in_part():
    with pytest.raises(Invalid, match="list several"):
        racing(lattice(), {})
    with pytest.raises(Invalid, match="not of probe") as caught:
        racing(lattice(seeds=(0, 1)), {}, of=Call(name="probe"))
    assert caught.value.where == ("racing", "of")


# Budgets


def trainings(lattice: Lattice, paths: Iterable[Path]) -> float:
    """What it takes to train all of these, in whole trainings."""
    parts: dict[str, float] = {}
    for path in paths:
        for seed in path.seeds or lattice.seeds:
            stage: Stage | None = lattice.stage(path, seed)
            assert stage is not None
            parts[stage.key] = max(parts.get(stage.key, 0), (path.until or 8) / 8)
            while (stage := stage.teacher) is not None:
                parts[stage.key] = 1.0
    return sum(parts.values())


def test_a_budget_buys_the_direct_path_and_then_what_costs_least_beside_it():
    assert list(budget(lattice(), {}, stages=8)) == [DIRECT]
    known = {DIRECT: 0.5}
    assert list(budget(lattice(), known, stages=8)) == [DIRECT, VIA_50, VIA_34, VIA_BOTH]
    assert list(budget(lattice(), known, stages=6)) == [DIRECT, VIA_50, VIA_34]
    assert list(budget(lattice(), known, stages=5.5)) == [DIRECT, VIA_50]
    assert list(budget(lattice(), known, stages=2)) == [DIRECT]


def test_hours_are_those_of_the_lattice():
    ours = lattice()
    ours.cost, ours.in_hours = lambda stage: {"r101": 10, "r50": 5, "r34": 3, "r18": 1}[stage.model.backbone.name], True
    assert list(budget(ours, {DIRECT: 0.5}, gpu_hours=15)) == [DIRECT, VIA_34]
    with pytest.raises(Invalid, match="needs 11") as caught:
        budget(ours, {}, gpu_hours=10)
    assert caught.value.where == ("budget", "gpu_hours")


def test_a_budget_below_the_shortest_path_or_of_two_kinds_or_none_is_refused():
    with pytest.raises(Invalid, match="needs 4"):
        budget(lattice(seeds=(0, 1)), {}, stages=3)
    for limits in ({}, {"stages": 3, "gpu_hours": 1}):
        with pytest.raises(Invalid, match="either stages or gpu_hours"):
            budget(lattice(), {}, **limits)
    with pytest.raises(Invalid, match="must rise") as caught:
        budget(lattice(), {}, of=Call(name="successive_halving", args={"budgets": (1.0, 0.5), "keep": 1}), stages=9)
    assert caught.value.where == ("budget", "of", "successive_halving", "budgets")


def test_when_a_race_cannot_go_on_the_rest_of_the_budget_finishes_its_leader():
    """24 trainings for all with three seeds; the second seed of all would leave nothing to finish one."""
    ours = lattice(seeds=(0, 1, 2))
    values = {DIRECT.models: 0.5, VIA_50.models: 0.6, VIA_34.models: 0.8, FOUR: 0.7}
    wanted = Call(name="budget", args={"of": "racing", "stages": 18.0}).complete(strategies)
    scores = search(lambda *known: wanted.of(strategies, *known), ours, lambda path, seed: values[path.models])
    assert best(scores, ours, ours.students[-1]) == VIA_34
    assert trainings(ours, scores) <= 18 and with_seed(VIA_BOTH, 1) not in scores


@given(
    st.sampled_from(["exhaustive", "best_predecessor", "greedy", "successive_halving", "probe", "promising", "racing"]),
    st.integers(0, 2**32),
    st.floats(0, 20),
)
def test_what_is_bought_fits_at_every_moment_and_the_direct_path_is_in_it(of, seed, more):
    ours = lattice(seeds=(0, 1))
    limit = 4 + more
    wanted = Call(name="budget", args={"of": of, "stages": limit}).complete(strategies)

    def strategy(lattice: Lattice, scores: dict[Path, float]) -> list[Path]:
        asked = list(wanted.of(strategies, lattice, scores))
        assert trainings(lattice, (path for path in asked if path.budget == 1)) <= limit + 1e-6
        return asked

    scores = search(strategy, ours, lambda path, one: hash((seed, path.models, one)) % 1000 / 1000)
    assert DIRECT in scores


# Probes


def test_a_probe_ranks_assistants_by_their_students_and_trains_the_paths_of_the_best():
    pause = [replace(path, until=2) for path in (VIA_50, VIA_34)]
    assert list(probe(lattice(), {})) == [DIRECT, *pause]
    assert list(probe(lattice(), {pause[0]: 0.5})) == [DIRECT, *pause], "one is not known yet"
    assert list(probe(lattice(), dict(zip(pause, (0.2, 0.3), strict=True)))) == [DIRECT, *pause, VIA_34]
    both = probe(lattice(), dict(zip(pause, (0.2, 0.3), strict=True)), keep=1.0)
    assert list(both) == [DIRECT, *pause, VIA_50, VIA_34, VIA_BOTH]
    assert list(probe(lattice(), dict.fromkeys(pause, -inf))) == [DIRECT, *pause]


def test_an_assistant_that_cannot_teach_the_student_is_probed_by_way_of_one_that_can():
    chain = lattice(edges=[("r101", "r50"), ("r50", "r34"), ("r34", "r18"), ("r101", "r18")])
    assert list(probe(chain, {})) == [DIRECT, replace(VIA_BOTH, until=2)]


# Promises


def test_an_assistant_is_given_up_when_even_the_largest_gain_does_not_bring_it_up_to_a_shorter_path():
    brief, longer = replace(TO_34, until=4), replace(TO_34_VIA_50, until=4)
    first = set(promising(lattice(), {}))
    assert {DIRECT, VIA_50, VIA_34, brief, longer, TO_34} <= first
    assert not first & {TO_34_VIA_50, VIA_BOTH}, "it waits to be judged"
    known = {brief: 0.3, TO_34: 0.5}
    assert VIA_BOTH in set(promising(lattice(), known | {longer: 0.3}))
    assert not set(promising(lattice(), known | {longer: 0.29})) & {TO_34_VIA_50, VIA_BOTH}
    assert VIA_BOTH in set(promising(lattice(), known | {longer: 0.29}, margin=0.02))


def test_an_assistant_is_not_judged_by_a_path_that_failed():
    failed = {TO_34: -inf, replace(TO_34, until=4): -inf, replace(TO_34_VIA_50, until=4): 0.1}
    assert VIA_BOTH in set(promising(lattice(), failed))


def test_what_was_given_up_has_failed_for_the_strategy_inside():
    known = {replace(TO_34, until=4): 0.3, TO_34: 0.5, replace(TO_34_VIA_50, until=4): 0.1}
    known |= {Path(("r101", "r50")): 0.6, replace(Path(("r101", "r50")), until=4): 0.4, DIRECT: 0.4, VIA_50: 0.4}
    wanted = set(promising(lattice(), known, of=Call(name="best_predecessor")))
    assert VIA_34 in wanted and not wanted & {TO_34_VIA_50, VIA_BOTH}


def test_trainings_of_one_epoch_do_not_pause():
    models = {name: Model(detector=Call(name="GFL"), backbone=Call(name=name)) for name in FOUR}
    entries = {name: Entry(model, Recipe(epochs=1)) for name, model in models.items()}
    brief = Lattice(entries, Data(fingerprint="digits", classes=("3",)))
    for strategy in (probe, promising):
        assert all(path.until is None for path in search(strategy, brief, lambda path, seed: 0.5))
