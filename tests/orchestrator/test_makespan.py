"""A study played through: never under its lower bound nor over its total, and in the frontier's own order."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.frontier import Frontier
from orchestrator.makespan import Planned, Pretended, Schedule, Slots, play
from orchestrator.strategies import exhaustive
from tests.orchestrator.test_frontier_invariants import lattices, studies
from trainers.call import Call
from trainers.spec import Data, Model, Recipe, Stage

Cost = Callable[[Stage], float]


def costs(seed: int) -> Cost:
    """Whole seconds, so that sums are exact."""
    return lambda stage: float(random.Random(f"{seed} {stage.key}").randint(0, 9))


def job(name: str, teacher: Stage | None = None) -> Stage:
    model = Model(detector=Call(name="GFL"), backbone=Call(name=name))
    return Stage(model=model, data=Data(fingerprint="", classes=()), recipe=Recipe(), teacher=teacher)


def through(build: Callable[..., Frontier], cost: Cost, num_slots: int) -> Schedule:
    """A study played through, whose stages pause where they are to."""
    so_far = Pretended()
    frontier = build(done=lambda stage: None, paused=so_far.paused, cost=cost)
    return play(frontier, cost, on=Slots(num_slots), reached=so_far.reached)


def at_once(schedule: Schedule) -> int:
    """The most stages of some length that run at any moment."""
    ends = [(one.start, 1) for one in schedule.stages if one.end > one.start]
    ends += [(one.end, -1) for one in schedule.stages if one.end > one.start]
    running = most = 0
    for _, change in sorted(ends):
        running += change
        most = max(most, running)
    return most


# By hand


class Jobs:
    """Stages by name, with their seconds and teachers."""

    def __init__(self, **jobs: tuple[float, str]) -> None:
        self.seconds: dict[str, float] = {}
        self.stages: dict[str, Stage] = {}
        for name, (seconds, teacher) in jobs.items():
            made = job(name, self.stages.get(teacher))
            self.stages[name], self.seconds[made.key] = made, seconds

    def play(self, num_slots: int) -> Schedule:
        def cost(stage: Stage) -> float:
            return self.seconds[stage.key]

        return play(Planned({s.key: s for s in self.stages.values()}, cost), cost, on=Slots(num_slots))


def times(schedule: Schedule) -> dict[str, tuple[float, float]]:
    return {one.stage.model.backbone.name: (one.start, one.end) for one in schedule.stages}


def test_two_slots_take_a_teacher_and_who_needs_none_then_the_longest_chain_first() -> None:
    jobs = Jobs(root=(4, ""), mid=(3, "root"), low=(1, "root"), wee=(2, "mid"), alone=(2, ""))
    played = jobs.play(2)
    assert times(played) == {"root": (0, 4), "alone": (0, 2), "mid": (4, 7), "low": (4, 5), "wee": (7, 9)}
    assert (played.makespan, played.total, played.longest_chain, played.lower_bound) == (9, 12, 9, 9)
    assert jobs.play(1).makespan == 12


def test_the_bound_is_the_share_of_a_slot_where_no_chain_is_longer() -> None:
    played = Jobs(a=(3, ""), b=(3, ""), c=(3, "")).play(2)
    assert (played.lower_bound, played.makespan) == (4.5, 6)


def test_a_slot_more_can_make_it_longer() -> None:
    """Graham's anomaly, in stages with one teacher each: with three slots the short ones come before the chain."""
    found = []
    for seed in range(3000):
        dice = random.Random(seed)
        names = [f"j{i}" for i in range(8)]
        jobs = {n: (float(dice.randint(1, 9)), dice.choice(["", *names[:i]])) for i, n in enumerate(names)}
        two, three = Jobs(**jobs).play(2).makespan, Jobs(**jobs).play(3).makespan
        found.append(three - two)
    assert min(found) < 0


def test_nothing_to_train_takes_no_time() -> None:
    played = Jobs().play(3)
    assert (played.makespan, played.total, played.lower_bound, played.stages) == (0, 0, 0, ())


# Under any lattice, strategy and costs


@given(studies(), st.integers(0, 2**32), st.integers(1, 6))
def test_no_schedule_is_shorter_than_its_bound_or_longer_than_the_total(build, seed, num_slots):
    cost = costs(seed)
    played = through(build, cost, num_slots)
    assert played.lower_bound <= played.makespan + 1e-9 and played.makespan <= played.total + 1e-9
    assert at_once(played) <= num_slots
    for key in {one.stage.key for one in played.stages}:
        slots = [one for one in played.stages if one.stage.key == key]
        assert sum(one.end - one.start for one in slots) <= cost(slots[0].stage) + 1e-9, "no epoch runs twice"


@given(lattices(), st.integers(0, 2**32), st.integers(1, 6))
def test_what_is_all_known_takes_less_than_twice_its_bound(ours, seed, num_slots):
    cost = costs(seed)
    played = play(Frontier(ours, exhaustive, seeds=(0,), done=lambda s: None, cost=cost), cost, on=Slots(num_slots))
    assert played.makespan <= (2 - 1 / num_slots) * played.lower_bound


@given(studies(), st.integers(0, 2**32), st.integers(1, 6))
def test_a_teacher_is_trained_before_its_students_start(build, seed, num_slots):
    cost = costs(seed)
    played = through(build, cost, num_slots)
    ends = {one.stage.key: one.end for one in played.stages}
    assert all(ends[one.stage.teacher.key] <= one.start for one in played.stages if one.stage.teacher)


@given(studies(), st.integers(0, 2**32))
def test_on_one_slot_it_takes_the_total(build, seed):
    cost = costs(seed)
    played = through(build, cost, 1)
    assert played.makespan == pytest.approx(played.total) and played.lower_bound == played.total


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 4))
def test_a_chain_takes_its_sum_on_any_number_of_slots(seconds, num_slots):
    names = [f"m{i}" for i in range(len(seconds))]
    jobs = Jobs(**{n: (float(s), before) for n, s, before in zip(names, seconds, ["", *names], strict=False)})
    played = jobs.play(num_slots)
    assert played.makespan == played.longest_chain == played.lower_bound == sum(seconds)


@given(studies(), st.integers(0, 2**32))
def test_with_a_slot_for_every_stage_only_the_chains_count_where_all_is_known(build, seed):
    cost = costs(seed)
    every = partial(build, done=lambda stage: None, cost=cost)
    stages = every().waiting
    assert play(Planned(stages, cost), cost, on=Slots(len(stages))).makespan == pytest.approx(
        play(Planned(stages, cost), cost, on=Slots(1)).longest_chain
    )


@given(lattices(), st.sampled_from([(0,), (0, 1)]), st.integers(0, 2**32), st.integers(1, 6))
def test_stages_that_are_all_known_are_played_as_the_frontier_would(ours, seeds, seed, num_slots):
    cost = costs(seed)
    frontier = Frontier(ours, exhaustive, seeds=seeds, done=lambda stage: None, cost=cost)
    assert play(Planned(frontier.waiting, cost), cost, on=Slots(num_slots)) == play(frontier, cost, on=Slots(num_slots))


# What pauses


def test_a_stage_that_pauses_takes_its_part_and_what_is_given_up_takes_no_more() -> None:
    """Of three siblings each pauses after 3 of 12 epochs, and the first goes on: 12 + 3 * 3 + 9 with the root."""
    root = job("root")
    few = [job(name, root) for name in "abc"]
    ours = Pausing(root, few)
    schedule = play(ours, lambda stage: 12.0, on=Slots(1), reached=ours.note)
    assert schedule.total == schedule.makespan == 12 + 3 * 3 + 9
    assert schedule.longest_chain == 12 + 3 + 9


class Pausing:
    """Siblings of which one goes on."""

    def __init__(self, root: Stage, few: list[Stage]) -> None:
        self.ready, self.few, self.paused, self.noted = [root], few, list[str](), list[tuple[str, int | None]]()

    def model(self, key: str) -> str:
        return ""

    def next(self, may: Callable[[str], bool]) -> Stage | None:
        if not may(""):
            return None
        return self.ready.pop(0) if self.ready else None

    def goal(self, key: str) -> int | None:
        return 3 if key in [stage.key for stage in self.few] and len(self.paused) < len(self.few) else None

    def note(self, key: str, goal: int | None) -> None:
        self.noted.append((key, goal))

    def finish(self, key: str, score: float) -> None:
        self.ready += self.few if not self.paused else []

    def pause(self, key: str) -> None:
        self.paused.append(key)
        if len(self.paused) == len(self.few):
            self.ready.append(self.few[0])
