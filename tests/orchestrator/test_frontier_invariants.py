"""The frontier as invariants, under any lattice, strategy, order of completion, restart and failure."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import partial
from itertools import combinations
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.controls import chosen, paths
from orchestrator.frontier import Frontier
from orchestrator.lattice import Entry, Lattice, Path, best
from orchestrator.strategies import (
    best_predecessor,
    budget,
    exhaustive,
    greedy,
    probe,
    promising,
    racing,
    successive_halving,
)
from tests.orchestrator.test_strategies import students
from trainers.call import Call, Invalid, Term
from trainers.spec import Data, Model, Recipe, Stage

EPOCHS = 8
JOINING = 0.3  # how often one that may is trained beside another


@st.composite
def lattices(draw: st.DrawFn, seeds: tuple[int, ...] = (0,)) -> Lattice:
    """Any edges from which the students can be reached; some models may be equal."""
    names = [f"m{i}" for i in range(draw(st.integers(2, 5)))]
    edges = draw(st.none() | st.lists(st.sampled_from(list(combinations(names, 2))), unique=True))
    backbones = draw(st.sampled_from([{}, {"m1": "m2", "m3": "m2"}]))
    models = {n: Model(detector=Call(name="GFL"), backbone=Call(name=backbones.get(n, n))) for n in names}
    entries = {name: Entry(model, Recipe(epochs=EPOCHS)) for name, model in models.items()}
    data = Data(fingerprint="digits", classes=("3",))
    try:
        return Lattice(entries, data, [Term(name="LD")], edges=edges, seeds=seeds, students=draw(students(names)))
    except Invalid:
        assume(False)
        raise


class World:
    """A cluster and a store that outlive the driver: trains in a random order, and checks each start."""

    def __init__(self, build: Callable[..., Frontier], *, seed: int, failing: float = 0.0) -> None:
        self.build, self.failing = build, failing
        self.order = random.Random(seed)
        self.store: dict[str, float] = {}
        self.reached: dict[str, int] = {}  # epochs of those that paused
        self.started: list[str] = []

    def fate(self, stage: Stage) -> float | None:
        """The same for a stage in every world: a score, or None for a failure."""
        dice = random.Random(stage.key)
        return dice.random() if dice.random() >= self.failing else None

    def paused(self, stage: Stage, epoch: int) -> float | None:
        """The curve of a stage is the same in every world; it rises to its end, and not evenly."""
        end = EPOCHS if stage.key in self.store else self.reached.get(stage.key, 0)
        score = self.fate(stage)
        if epoch > end or score is None:
            return None
        return score - random.Random(f"{stage.key} {epoch}").random() * (EPOCHS - epoch) / EPOCHS

    def frontier(self) -> Frontier:
        return self.build(done=lambda stage: self.store.get(stage.key), paused=self.paused)

    def step(self, frontier: Frontier, *, at_once: int) -> None:
        """Start some stages, then end one of those that run."""
        num_new = self.order.randint(1, at_once) - len(frontier.running)
        for _ in range(max(num_new, 0 if frontier.running else 1)):
            first = frontier.next()
            if first is None:
                assert frontier.running, "stuck: not over, nothing running, nothing to start"
                break
            others = frontier.beside(first.key)
            assert not {stage.key for stage in others} & frontier.running.keys(), "it runs already"
            assert len({stage.key for stage in others}) == len(others), "one is to be beside itself"
            for stage in others:
                if self.order.random() < JOINING:
                    frontier.join(stage.key)
                    self.begins(frontier, stage)
            self.begins(frontier, first)
        key = self.order.choice(sorted(frontier.running))
        score, goal = self.fate(frontier.running[key]), frontier.goal(key)
        if self.order.random() < 0.1:
            frontier.retry(key)
            if key not in self.reached:
                self.started.remove(key)
        elif score is None:
            frontier.fail(key, "it does not train")
            assert_as_if_planned_anew(frontier)
        elif goal is not None:
            self.reached[key] = goal
            frontier.pause(key)
        else:
            self.store[key] = score
            frontier.finish(key, score)

    def begins(self, frontier: Frontier, stage: Stage) -> None:
        assert stage.key not in self.store, "trained twice"
        assert stage.teacher is None or stage.teacher.key in self.store, "started before its teacher was trained"
        goal = frontier.goal(stage.key)
        assert goal is None or self.reached.get(stage.key, 0) < goal, "trained as far already"
        if stage.key not in self.reached:
            self.started.append(stage.key)

    def run(self, *, at_once: int = 3, restarts: float = 0.0) -> Frontier:
        """Until over. A restarted driver knows the store and nothing else."""
        frontier = self.frontier()
        while not frontier.over:
            self.step(frontier, at_once=at_once)
            if self.order.random() < restarts:
                self.started = [key for key in self.started if key in self.store or key in self.reached]
                frontier = self.frontier()
        assert frontier.next() is None and not frontier.running and not frontier.waiting
        return frontier


def assert_as_if_planned_anew(frontier: Frontier) -> None:
    """A failure is not worked out from all there is, and comes to the same."""

    def state() -> tuple[Any, ...]:
        return set(frontier._open), {key: frontier._chain[key] for key in frontier._open}, dict(frontier.lost)

    before, work, scores = state(), frontier.work, dict(frontier.scores)
    frontier._plan()
    assert state() == before and frontier.work == pytest.approx(work) and frontier.scores == scores


@st.composite
def studies(draw: st.DrawFn) -> Callable[..., Frontier]:
    seeds = draw(st.sampled_from([(0,), (0, 1), (0, 1, 2)]))
    ours = draw(lattices(seeds))
    strategy = draw(strategies(ours))
    names = draw(st.sampled_from([(), ("alone",), chosen(None, ours)]))
    beside = partial(paths, names=names, strategy=strategy, cost=lambda stage: 1.0 * stage.recipe.epochs)
    return partial(Frontier, ours, strategy, seeds=seeds, controls=beside)


@st.composite
def strategies(draw: st.DrawFn, ours: Lattice) -> Callable[..., Iterable[Path]]:
    """Any, and any made of another."""
    whole = (exhaustive, best_predecessor, greedy, successive_halving)
    call = Call(name=draw(st.sampled_from(whole)).__name__)
    margin = draw(st.sampled_from([0.0, 0.3]))
    made = [
        partial(probe, part=draw(st.sampled_from([0.01, 0.5])), keep=draw(st.sampled_from([0.0, 0.5]))),
        partial(promising, of=call, at=draw(st.sampled_from([0.01, 0.5, 0.8])), margin=margin),
        *([partial(racing, of=call, level=draw(st.sampled_from([0.05, 0.3])))] if len(ours.seeds) > 1 else ()),
    ]
    inner = draw(st.sampled_from([*whole, *made]))
    if draw(st.booleans()):
        return inner
    within = Call(name=getattr(inner, "func", inner).__name__, args=getattr(inner, "keywords", {}))
    least = sum(len(ours.shortest(student).models) for student in ours.students) * len(ours.seeds)
    return partial(budget, of=within, stages=least + draw(st.sampled_from([0.0, 1.5, 4.0, 100.0])))


def bests(frontier: Frontier) -> dict[str, Path | None]:
    """The best path to each student."""
    return {student: best(frontier.scores, frontier.lattice, student) for student in frontier.lattice.students}


def ending(world: World, frontier: Frontier) -> tuple[object, ...]:
    """What must be the same however the study came to its end."""
    answer = bests(frontier)
    given_up = {key: epochs for key, epochs in world.reached.items() if key not in world.store}
    # Whether a path that nobody asked for has a score may depend on the order, where equal models share trainings.
    scores = {path: score for path, score in frontier.scores.items() if path in frontier._asking.asked}
    return world.store, given_up, scores, frontier.failed, frontier.lost, answer


@given(studies(), st.integers(0, 2**32), st.integers(1, 4), st.sampled_from([0.0, 0.15, 0.5]))
def test_any_order_of_completion_ends_in_the_same_scores_failures_and_answer(build, seed, at_once, failing):
    one, other = (World(build, seed=s, failing=failing) for s in (seed, seed + 1))
    assert ending(one, one.run(at_once=at_once)) == ending(other, other.run(at_once=1))
    assert len(one.started) == len(set(one.started)), "no stage starts twice"


@given(studies(), st.integers(0, 2**32), st.sampled_from([0.05, 0.5, 1.0]))
def test_a_driver_that_dies_again_and_again_trains_nothing_twice_and_finds_the_same(build, seed, restarts):
    steady, shaky = World(build, seed=seed), World(build, seed=seed + 1)
    assert ending(steady, steady.run()) == ending(shaky, shaky.run(restarts=restarts))
    assert len(shaky.started) == len(set(shaky.started))


@given(studies(), st.integers(0, 2**32), st.sampled_from([0.15, 0.5]))
def test_a_restart_after_failures_tries_only_the_failed_again(build, seed, failing):
    world = World(build, seed=seed, failing=failing)
    first = world.run()
    trained = dict(world.store)
    world.failing = 0.0
    world.started = []
    world.run()
    steady = World(build, seed=seed)
    steady.run()
    assert not set(world.started) & set(trained)
    assert bool(world.started) == bool(first.failed)
    assert steady.store.items() <= world.store.items()


@given(studies(), st.integers(0, 2**32), st.data())
def test_a_store_with_holes_gives_the_same_answer_for_no_more_work(build, seed, data):
    whole = World(build, seed=seed)
    answer = bests(whole.run())
    holed = World(build, seed=seed)
    kept = data.draw(st.sets(st.sampled_from(sorted(whole.store))))
    holed.store = {key: whole.store[key] for key in kept}
    frontier = holed.run()
    assert bests(frontier) == answer
    assert holed.store.items() <= whole.store.items()
    assert len(holed.started) == len(set(holed.started)) and not kept & set(holed.started)
    assert frontier.reused <= kept
