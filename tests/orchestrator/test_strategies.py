"""Strategies: what each wants by hand, what it costs, and where it must agree with exhaustive search."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import combinations, count
from math import inf

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.lattice import Entry, Lattice, Path, best
from orchestrator.strategies import (
    best_predecessor,
    budget,
    exhaustive,
    greedy,
    probe,
    promising,
    successive_halving,
    whole,
)
from trainers.call import Call, Invalid
from trainers.spec import Data, Model, Recipe

FOUR = ("r101", "r50", "r34", "r18")
DIRECT, VIA_50, VIA_34, VIA_BOTH = (
    Path(models) for models in (("r101", "r18"), ("r101", "r50", "r18"), ("r101", "r34", "r18"), FOUR)
)


def lattice(
    names: Iterable[str], edges: Iterable[tuple[str, str]] | None = None, students: Iterable[str] = ()
) -> Lattice:
    models = {name: Model(detector=Call(name="GFL"), backbone=Call(name=name)) for name in names}
    entries = {name: Entry(model, Recipe()) for name, model in models.items()}
    return Lattice(entries, Data(fingerprint="digits", classes=("3",)), edges=edges, students=students)


def students(names: list[str]) -> st.SearchStrategy[list[str]]:
    """One or two, of which one may teach the other; mostly the last model."""
    return st.just([]) | st.lists(st.sampled_from(names[1:]), min_size=1, max_size=2, unique=True)


@st.composite
def lattices(draw: st.DrawFn, max_models: int = 6) -> Lattice:
    """Any edges from which the students can be reached."""
    names = [f"m{i}" for i in range(draw(st.integers(2, max_models)))]
    edges = draw(st.none() | st.lists(st.sampled_from(list(combinations(names, 2))), unique=True))
    try:
        return lattice(names, edges, draw(students(names)))
    except Invalid:
        assume(False)
        raise


def brief(path: Path) -> Path:
    return Path(path.models, 0.25)


def search(strategy: Callable[..., Iterator[Path]], lattice: Lattice, score: Callable[[Path], float], seed: int = 0):
    """Score one wanted path at a time, in a random order, until nothing new is wanted -> all scores."""
    order = random.Random(seed)
    scores: dict[Path, float] = {}
    while unknown := [path for path in strategy(lattice, scores) if path not in scores]:
        path = order.choice(unknown)
        scores[path] = score(path)
    return scores


def table(values: random.Random, *, failing: float = 0.0) -> Callable[[Path], float]:
    """A random score for each path, the same at every call; some paths cannot be trained."""
    scores: dict[Path, float] = {}

    def score(path: Path) -> float:
        if path not in scores:
            scores[path] = -inf if values.random() < failing else values.random()
        return scores[path]

    return score


def markov(values: random.Random) -> Callable[[Path], float]:
    """Each edge passes on a part of what comes in, so that a better teacher never makes a worse student."""
    part: dict[tuple[str, str], float] = {}

    def score(path: Path) -> float:
        reached = 1.0
        for edge in zip(path.models, path.models[1:], strict=False):
            reached *= part.setdefault(edge, values.uniform(0.1, 1))
        return reached

    return score


EVERY = [
    exhaustive,
    best_predecessor,
    greedy,
    successive_halving,
    probe,
    promising,
    partial(budget, stages=9),
    partial(budget, of=Call(name="best_predecessor"), stages=5.5),
]


# Exhaustive


def test_exhaustive_wants_every_path_whatever_is_known():
    four = lattice(FOUR)
    assert list(exhaustive(four, {})) == [DIRECT, VIA_50, VIA_34, VIA_BOTH]
    assert list(exhaustive(four, {DIRECT: -inf})) == [DIRECT, VIA_50, VIA_34, VIA_BOTH]


# Best predecessor


def test_best_predecessor_extends_only_the_best_path_to_each_teacher():
    four = lattice(FOUR)
    to_50, to_34, to_34_via_50 = Path(("r101", "r50")), Path(("r101", "r34")), Path(("r101", "r50", "r34"))
    assert list(best_predecessor(four, {})) == [to_50, to_34, DIRECT]
    assert list(best_predecessor(four, {to_50: 0.5})) == [to_50, to_34, to_34_via_50, DIRECT, VIA_50]
    known = {to_50: 0.5, to_34: 0.3, to_34_via_50: 0.4}
    assert set(best_predecessor(four, known)) == {*known, DIRECT, VIA_50, VIA_BOTH}
    known[to_34] = 0.4
    assert set(best_predecessor(four, known)) == {*known, DIRECT, VIA_50, VIA_34}, "of equals the shorter"


def test_of_equally_good_teachers_best_predecessor_extends_the_one_with_the_shorter_path():
    """To m4, the path by m2, whom m1 taught, and the one by m3 are as good, and m2 comes first."""
    good = {("m0", "m1", "m2"), ("m0", "m3"), ("m0", "m1", "m2", "m4"), ("m0", "m3", "m4")}
    six = lattice([f"m{i}" for i in range(6)])
    scores = search(best_predecessor, six, lambda path: 0.9 if path.models in good else 0.1)
    assert Path(("m0", "m3", "m4", "m5")) in scores
    assert Path(("m0", "m1", "m2", "m4", "m5")) not in scores


def test_best_predecessor_does_not_choose_before_every_teacher_of_a_model_is_settled():
    """The one known way to r34 is scored, but r50 is still training and may teach r34 better."""
    wanted = set(best_predecessor(lattice(FOUR), {Path(("r101", "r34")): 0.4}))
    assert VIA_34 not in wanted


@pytest.mark.parametrize("num_models", range(2, 9))
def test_best_predecessor_trains_1_plus_n_times_n_minus_1_over_2_stages_in_any_order(num_models):
    free = lattice([f"m{i}" for i in range(num_models)])
    for seed in range(5):
        scores = search(best_predecessor, free, table(random.Random(seed)), seed=seed)
        keys = {stage.key for path in scores for stage in free.stage(path, 0).lineage}
        assert len(keys) == 1 + num_models * (num_models - 1) // 2


@given(lattices(), st.integers(0, 2**32))
def test_best_predecessor_finds_the_best_path_where_better_teachers_make_better_students(lattice, seed):
    score = markov(random.Random(seed))
    found = search(best_predecessor, lattice, score, seed=seed)
    every = search(exhaustive, lattice, score)
    for student in lattice.students:
        best_of_all = every[best(every, lattice, student)]
        assert found[best(found, lattice, student)] == pytest.approx(best_of_all, rel=1e-12)


def test_best_predecessor_goes_round_a_model_that_cannot_be_trained():
    scores = search(best_predecessor, lattice(FOUR), lambda path: -inf if "r50" in path.models else 0.5)
    assert set(scores) == {Path(("r101", "r50")), Path(("r101", "r34")), DIRECT, VIA_34}


def test_best_predecessor_ignores_an_assistant_that_the_root_does_not_reach():
    restricted = lattice(FOUR, [("r101", "r34"), ("r50", "r18"), ("r34", "r18")])
    assert set(search(best_predecessor, restricted, lambda path: 0.5)) == {Path(("r101", "r34")), VIA_34}


# Greedy


def test_greedy_inserts_the_assistant_that_helps_most_until_none_helps():
    four = lattice(FOUR)
    assert list(greedy(four, {})) == [DIRECT, VIA_50, VIA_34]
    known = {DIRECT: 0.3, VIA_50: 0.4, VIA_34: 0.5}
    assert list(greedy(four, known)) == [DIRECT, VIA_50, VIA_34, VIA_BOTH]
    assert list(greedy(four, {**known, DIRECT: 0.5})) == [DIRECT, VIA_50, VIA_34], "a tie is no help"


def test_greedy_stops_when_every_path_of_a_round_failed():
    assert list(greedy(lattice(FOUR), dict.fromkeys((DIRECT, VIA_50, VIA_34), -inf))) == [
        DIRECT,
        VIA_50,
        VIA_34,
    ]


def test_greedy_inserts_two_assistants_at_once_where_the_edges_allow_neither_alone():
    chain = [("r101", "r50"), ("r50", "r34"), ("r34", "r18")]
    restricted = lattice(FOUR, [*chain, ("r101", "r18")])
    assert list(greedy(restricted, {})) == [DIRECT, VIA_BOTH]


@given(lattices(max_models=7), st.data())
def test_an_insertion_is_a_longer_path_that_leaves_out_nothing_and_has_none_between(lattice, data):
    path = data.draw(st.sampled_from(lattice.paths()))
    longer = [p for p in lattice.paths(path.models[-1]) if set(p.models) > set(path.models)]
    minimal = {p for p in longer if not any(set(q.models) < set(p.models) for q in longer)}
    found = whole._insertions(lattice, path)
    assert len(found) == len(set(found)) and set(found) == minimal


def test_greedy_copes_with_thirty_models():
    numbers = count()
    scores = search(greedy, lattice([f"m{i}" for i in range(30)]), lambda path: -float(next(numbers)))
    assert len(scores) >= 29


# Successive halving


def test_successive_halving_trains_all_briefly_and_the_best_half_in_full():
    four = lattice(FOUR)
    rung = [brief(path) for path in (DIRECT, VIA_50, VIA_34, VIA_BOTH)]
    assert list(successive_halving(four, {})) == rung
    known = dict(zip(rung, (0.1, 0.4, 0.2, 0.3), strict=True))
    assert list(successive_halving(four, dict(list(known.items())[:3]))) == rung, "one is still unknown"
    assert list(successive_halving(four, known)) == [*rung, VIA_50, VIA_BOTH]


def test_successive_halving_climbs_as_many_rungs_as_there_are_budgets():
    free = lattice([f"m{i}" for i in range(5)])
    options = {"budgets": (0.1, 0.3, 1.0), "keep": 0.25}
    scores = search(lambda *known: successive_halving(*known, **options), free, table(random.Random(0)))
    assert [sum(path.budget == budget for path in scores) for budget in options["budgets"]] == [8, 2, 1]


def test_successive_halving_keeps_one_path_at_least_but_none_that_failed():
    four = lattice(FOUR)
    known = {brief(path): score for path, score in ((DIRECT, -inf), (VIA_50, 0.2), (VIA_34, -inf), (VIA_BOTH, -inf))}
    assert list(successive_halving(four, known))[4:] == [VIA_50]
    assert list(successive_halving(four, known, keep=0.0))[4:] == [VIA_50]
    assert list(successive_halving(four, known, keep=1.0))[4:] == [VIA_50]
    assert list(successive_halving(four, dict.fromkeys(known, -inf)))[4:] == []


def test_with_one_budget_successive_halving_is_exhaustive():
    assert list(successive_halving(lattice(FOUR), {}, budgets=(1.0,))) == list(lattice(FOUR).paths())


@pytest.mark.parametrize("budgets", [(), (0.25,), (1.0, 0.25), (0.5, 0.5, 1.0), (0.0, 1.0), (0.25, 1.0, 1.0)])
def test_budgets_that_do_not_rise_to_one_are_refused_at_the_call(budgets):
    with pytest.raises(Invalid, match="must rise") as caught:
        successive_halving(lattice(FOUR), {}, budgets=budgets)
    assert caught.value.where == ("successive_halving", "budgets")
