"""Every strategy with every sweep, as invariants: any lattice, order, restart and failure, with a limit or none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import strategies
from orchestrator.controls import chosen
from orchestrator.frontier import Frontier
from orchestrator.lattice import Entry, Lattice, Path, Scores, best
from orchestrator.searching import frontier, searching
from orchestrator.sweep import Sweep, sweep
from tests.orchestrator.sweeps import STOPS, lattices, sweeps
from tests.orchestrator.test_sweep_invariants import SETTLED, Curved, valid
from trainers.call import Call, Term
from trainers.spec import Data, Model, Recipe, Stage

WHOLE = ("exhaustive", "best_predecessor", "greedy", "successive_halving")
IN_PART: tuple[tuple[str, dict[str, Any]], ...] = (
    *(("racing", {"of": of, "level": level}) for of in WHOLE for level in (0.05, 0.4)),
    *(("promising", {"of": of, "at": at}) for of in WHOLE for at in (0.3, 0.6)),
    ("probe", {"part": 0.3}),
    ("probe", {"part": 0.6, "keep": 1.0}),
)
ALL = (*((name, {}) for name in WHOLE), *IN_PART)


class Swept:
    """A study that sweeps: builds its frontier from what a world has."""

    def __init__(self, ours: Lattice, search: Call, sweep: Sweep, names: tuple[Any, ...]) -> None:
        self.lattice, self.search, self.sweep, self.names = ours, search, sweep, names

    def __repr__(self) -> str:
        edges = sorted(self.lattice.edges)
        return f"{self.search} of {edges}, seeds {self.lattice.seeds}, {self.sweep.model_dump()}, {self.names}"

    def __call__(self, **facts: Any) -> Frontier:
        return frontier(
            self.search, self.lattice, self.sweep, names=self.names, compute=epochs, cost=lambda stage: 1.0, **facts
        )


def epochs(stage: Stage) -> float:
    return float(stage.recipe.epochs)


@st.composite
def studies(
    draw: st.DrawFn,
    *,
    stops: tuple[dict[str, Any], ...] = STOPS,
    searches: tuple[tuple[str, dict[str, Any]], ...] = ALL,
    limited: bool | None = None,
    controlled: bool = True,
) -> Swept:
    name, args = draw(st.sampled_from(searches))
    ours = draw(lattices(seeds=((0, 1), (0, 1, 2)) if name == "racing" else ((0,), (0, 1)), several=True))
    sweep = draw(sweeps(stops=stops))
    if draw(st.booleans()) if limited is None else limited:
        # From a little more than the least on to more than enough.
        models = sum(len(ours.shortest(student).models) for student in ours.students)
        least = len(ours.seeds) * models + (3 * len(ours.students) if "recipe.epochs" in sweep.knobs else 0)
        name, args = "budget", {"of": {name: args}, "stages": least + draw(st.floats(0, 60))}
    names = draw(st.sampled_from([(), chosen(None, ours)])) if controlled else ()
    return Swept(ours, Call(name=name, args=args).complete(strategies), sweep, names)


FAILING = st.sampled_from([0.0, 0.15, 0.5])


def bests(scores: Scores, lattice: Lattice) -> dict[str, Path | None]:
    """The best path to each student."""
    return {student: best(scores, lattice, student) for student in lattice.students}


def ending(world: Curved, frontier: Frontier) -> tuple[object, ...]:
    """What must be the same however the study came to its end."""
    # Whether a teacher that nobody asked for with all seeds has a score of them may depend on the order.
    scores = {path: score for path, score in frontier.scores.items() if path in frontier._asking.asked}
    answer = bests(scores, frontier.lattice)
    return world.store, world.reached, scores, frontier.failed, frontier.lost, answer


@settings(max_examples=120)
@given(studies(stops=SETTLED), st.integers(0, 2**32), st.integers(1, 4), FAILING)
def test_any_order_of_completion_ends_in_the_same_scores_failures_and_answer(study, seed, at_once, failing):
    one, other = (Curved(study, seed=s, failing=failing) for s in (seed, seed + 1))
    assert ending(one, one.run(at_once=at_once)) == ending(other, other.run(at_once=1))


@settings(max_examples=120)
@given(studies(stops=SETTLED), st.integers(0, 2**32), st.sampled_from([0.05, 0.5, 1.0]), FAILING)
def test_a_driver_that_dies_again_and_again_trains_nothing_twice_and_finds_the_same(study, seed, restarts, failing):
    steady, shaky = Curved(study, seed=seed, failing=failing), Curved(study, seed=seed + 1, failing=failing)
    assert ending(steady, steady.run()) == ending(shaky, shaky.run(restarts=restarts))


@settings(max_examples=100)
@given(studies(), st.integers(0, 2**32), st.sampled_from([0.0, 0.3]), st.sampled_from([0.0, 0.3, 1.0]))
def test_the_answer_is_valid_whatever_fails(study, seed, restarts, failing):
    world = Curved(study, seed=seed, failing=failing)
    valid(world, world.run(restarts=restarts))


@pytest.mark.parametrize("limit", [3, 3.5, 4, 5, 6])
@pytest.mark.parametrize("stop", [None, {"halving": {"grace": 3, "factor": 3}}, {"asha": {"grace": 3, "factor": 3}}])
def test_each_of_several_students_has_a_path_whatever_looked_better_meanwhile(limit, stop):
    """The least is 3: the root, and each student by its first setting. Others may be promoted in its place."""
    models = {
        name: Entry(Model(detector=Call(name="GFL"), backbone=Call(name=name)), Recipe(epochs=12)) for name in "abcd"
    }
    ours = Lattice(models, Data(fingerprint="digits", classes=("3",)), [Term(name="LD")], students=["c", "d"])
    knobs = {"LD.weight": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], **({"stop": stop} if stop else {})}
    limited = Call.model_validate({"budget": {"of": "exhaustive", "stages": limit}}).complete(strategies)
    for seed in range(6):
        world = Curved(Swept(ours, limited, sweep(knobs), ()), seed=seed)
        found = world.run()
        assert all(best(found.scores, ours, student) for student in ours.students)
        assert sum(map(len, world.trained.values())) / 12 <= limit + 1e-6


@settings(max_examples=60)
@given(studies(stops=SETTLED), st.integers(0, 2**32))
def test_where_nothing_fails_there_is_an_answer_and_running_again_trains_nothing(study, seed):
    world = Curved(study, seed=seed)
    first = world.run()
    assert None not in bests(first.scores, first.lattice).values()
    again = world.frontier()
    assert again.over and bests(again.scores, again.lattice) == bests(first.scores, first.lattice)


@settings(max_examples=100)
@given(studies(limited=True, controlled=False), st.integers(0, 2**32), st.sampled_from([0.0, 0.3]), FAILING)
def test_a_budget_is_kept_at_every_moment(study, seed, restarts, failing):
    world = Curved(study, seed=seed, failing=failing)
    world.run(restarts=restarts)
    whole = study.lattice.models[study.lattice.root].recipe.epochs  # as all of them have
    spent = sum(map(len, world.trained.values())) / whole
    assert spent <= study.search.args["stages"] + 1e-6


@settings(max_examples=60)
@given(studies(stops=SETTLED), st.integers(0, 2**32), FAILING)
def test_from_all_scores_at_once_is_wanted_what_was_wanted_in_the_end(study, seed, failing):
    world = Curved(Swept(study.lattice, study.search, study.sweep, ()), seed=seed, failing=failing)
    front = world.run()
    asked = searching(study.search, study.lattice, study.sweep)(study.lattice, dict(front.scores))
    assert set(asked) == set(front._asking.asked)
