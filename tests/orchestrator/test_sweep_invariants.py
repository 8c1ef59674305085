"""The frontier of a study that sweeps, as invariants: any lattice, strategy, sweep, order, restart and failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.frontier import Frontier
from orchestrator.lattice import Path, best
from orchestrator.strategies import best_predecessor, exhaustive, greedy, successive_halving
from orchestrator.sweeping import Sweeping
from tests.orchestrator.sweeps import STOPS, Curves, lattices, sweeps
from tests.orchestrator.test_frontier_invariants import World
from trainers.spec import Stage

EVERY = [exhaustive, best_predecessor, greedy, successive_halving]
PATIENCE = 5  # restarts of a driver that dies


class Curved(World):
    """A world in which trainings pause and go on: the store keeps half-trained stages as well, over restarts."""

    def __init__(self, build: Callable[..., Frontier], *, seed: int, failing: float = 0.0) -> None:
        super().__init__(build, seed=seed, failing=failing)
        self.curves = Curves(0, failing=failing)
        self.reached: dict[str, int] = {}  # epochs of what is not trained whole
        self.goals: dict[str, int | None] = {}
        self.trained: dict[str, list[int]] = {}  # the epochs that were really trained

    def paused(self, stage: Stage, epoch: int) -> float | None:
        there = stage.key in self.store or self.reached.get(stage.key, 0) >= epoch
        return self.curves.score(stage, epoch) if there else None

    def frontier(self) -> Frontier:
        return self.build(done=lambda stage: self.store.get(stage.key), paused=self.paused)

    def step(self, frontier: Frontier, *, at_once: int) -> None:
        num_new = self.order.randint(1, at_once) - len(frontier.running)
        for _ in range(max(num_new, 0 if frontier.running else 1)):
            stage = frontier.next()
            if stage is None:
                assert frontier.running, "stuck: not over, nothing running, nothing to start"
                break
            goal = self.goals[stage.key] = frontier.goal(stage.key)
            assert stage.key not in self.store, "trained whole twice"
            assert stage.teacher is None or stage.teacher.key in self.store, "taught by what is not trained whole"
            assert goal is None or goal > self.reached.get(stage.key, 0), "started though it is as far already"
            assert goal is None or goal < stage.recipe.epochs
        key = self.order.choice(sorted(frontier.running))
        stage, goal = frontier.running[key], self.goals[key]
        end, failed = goal or stage.recipe.epochs, self.curves.fails(stage)
        if self.order.random() < 0.1:
            frontier.retry(key)
        elif failed is not None and failed <= end:
            frontier.fail(key, "it does not train")
        else:
            self.trained.setdefault(key, []).extend(range(self.reached.get(key, 0) + 1, end + 1))
            if goal is None:
                self.store[key] = self.curves.score(stage, end)
                self.reached.pop(key, None)
                frontier.finish(key, self.store[key])
            else:
                self.reached[key] = goal
                frontier.pause(key)

    def run(self, *, at_once: int = 3, restarts: float = 0.0) -> Frontier:
        frontier, left = self.frontier(), PATIENCE
        while not frontier.over:
            self.step(frontier, at_once=at_once)
            if left and self.order.random() < restarts:
                left -= 1
                frontier = self.frontier()
        assert frontier.next() is None and not frontier.running and not frontier.waiting
        for key, epochs in self.trained.items():
            assert epochs == list(range(1, len(epochs) + 1)), f"an epoch of {key} was trained twice, or none"
        return frontier


Study = Callable[..., Frontier]


@st.composite
def studies(draw: st.DrawFn, *, stops: tuple[dict[str, Any], ...] = STOPS) -> Study:
    ours = draw(lattices(seeds=((0,), (0, 1))))
    strategy, made = draw(st.sampled_from(EVERY)), draw(sweeps(stops=stops))
    controls = draw(st.sampled_from([[], [Path((ours.students[0],))]]))

    def build(**facts: Any) -> Frontier:
        def reached(trial: Path) -> bool:
            stages = [ours.stage(trial, seed) for seed in ours.seeds]
            found = [facts["paused"](one, trial.until) if trial.until else facts["done"](one) for one in stages]
            return None not in found

        sweeping = Sweeping(strategy, made, ours, reached=reached)
        return Frontier(ours, sweeping, seeds=ours.seeds, controls=lambda *_: controls, **facts)

    return build


def ending(world: Curved, frontier: Frontier) -> tuple[object, ...]:
    """What must be the same however the study came to its end."""
    answer = best(frontier.scores, frontier.lattice, frontier.lattice.students[0])
    return world.store, world.reached, frontier.scores, frontier.failed, frontier.lost, answer


def valid(world: Curved, frontier: Frontier) -> None:
    """The answer is the best of what was trained whole, and there is one if any path to the student was."""
    for student in frontier.lattice.students:
        answer = best(frontier.scores, frontier.lattice, student)
        whole = {
            path: score
            for path, score in frontier.scores.items()
            if path == path.training and len(path.models) > 1 and path.models[-1] == student and path.budget == 1
            if all(frontier.lattice.stage(path, seed).key in world.store for seed in frontier.seeds)
        }
        assert (answer is None) == (not whole)
        if answer is not None:
            assert frontier.scores[answer] == max(whole.values())
    for node in frontier.wanted():
        assert node.path.until is not None or node.stage.key in {*world.store, *frontier.failed, *frontier.lost}


SETTLED = STOPS[:3]  # with asha whoever comes first goes on


@settings(max_examples=150)
@given(studies(stops=SETTLED), st.integers(0, 2**32), st.integers(1, 4), st.sampled_from([0.0, 0.15, 0.5]))
def test_any_order_of_completion_ends_in_the_same_scores_failures_and_answer(study, seed, at_once, failing):
    one, other = (Curved(study, seed=s, failing=failing) for s in (seed, seed + 1))
    assert ending(one, one.run(at_once=at_once)) == ending(other, other.run(at_once=1))


@settings(max_examples=150)
@given(studies(stops=SETTLED), st.integers(0, 2**32), st.sampled_from([0.05, 0.5, 1.0]), st.sampled_from([0.0, 0.3]))
def test_a_driver_that_dies_again_and_again_trains_nothing_twice_and_finds_the_same(study, seed, restarts, failing):
    steady, shaky = Curved(study, seed=seed, failing=failing), Curved(study, seed=seed + 1, failing=failing)
    assert ending(steady, steady.run()) == ending(shaky, shaky.run(restarts=restarts))


@settings(max_examples=150)
@given(studies(stops=STOPS[3:]), st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from([0.0, 0.3]))
def test_with_asha_every_order_and_restart_ends_in_an_answer_that_is_the_best_of_what_was_trained_whole(
    study, seed, restarts, failing
):
    world = Curved(study, seed=seed, failing=failing)
    valid(world, world.run(restarts=restarts))


@settings(max_examples=60)
@given(studies(), st.integers(0, 2**32), st.sampled_from([0.0, 0.3, 1.0]))
def test_the_answer_is_valid_whatever_fails(study, seed, failing):
    world = Curved(study, seed=seed, failing=failing)
    valid(world, world.run())


@settings(max_examples=60)
@given(studies(), st.integers(0, 2**32))
def test_a_study_that_is_over_trains_nothing_when_it_is_run_again(study, seed):
    world = Curved(study, seed=seed)
    first = world.run()
    again = world.frontier()
    assert again.over and again.scores == first.scores


@settings(max_examples=60)
@given(studies(stops=SETTLED), st.integers(0, 2**32), st.sampled_from([0.15, 0.5]))
def test_a_restart_after_failures_trains_what_is_trained_whole_no_second_time(study, seed, failing):
    world = Curved(study, seed=seed, failing=failing)
    world.run()
    before = dict(world.store)
    world.curves = Curves(0)
    valid(world, world.run())
    assert before.items() <= world.store.items()


@settings(max_examples=100)
@given(studies(stops=SETTLED), st.integers(0, 2**32), st.data())
def test_a_store_with_holes_gives_the_same_answer(study, seed, data):
    """Results and states of half-trained stages may be gone, each on its own."""
    whole = Curved(study, seed=seed)
    first = whole.run()
    answer = best(first.scores, first.lattice, first.lattice.students[0])
    holed = Curved(study, seed=seed)
    kept = data.draw(st.sets(st.sampled_from(sorted({*whole.store, *whole.reached}))))
    holed.store = {key: score for key, score in whole.store.items() if key in kept}
    holed.reached = {key: epoch for key, epoch in whole.reached.items() if key in kept}
    holed.trained = {key: list(range(1, epoch + 1)) for key, epoch in holed.reached.items()}
    frontier = holed.run()
    assert best(frontier.scores, frontier.lattice, frontier.lattice.students[0]) == answer
    assert holed.store.items() <= whole.store.items()
