"""What holds for every sweep, on any lattice, with any strategy, whatever fails and in whatever order trainings end."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.lattice import Lattice, Path
from orchestrator.strategies import exhaustive
from orchestrator.sweep import Sweep, sweep
from orchestrator.sweeping import Sweeping
from tests.orchestrator.sweeps import STOPS, WEIGHT, Curves, lattices, sweeps, weight
from tests.orchestrator.test_sweeping import EVERY, THREE, TWO


def driven(
    strategy: Callable, made: Sweep, ours: Lattice, curves: Curves, order: random.Random, *, at_once: int = 3
) -> tuple[Sweeping, dict[Path, float], list[list[Path]]]:
    """Ask, train a few of what is wanted in some order, and ask again, until nothing new is -> with all answers."""
    sweeping, scores, answers = Sweeping(strategy, made, ours), dict[Path, float](), []
    before: list[Path] = []
    copied: list[Path] = []
    while True:
        answer = sweeping(ours, scores)
        assert len(answer) == len(set(answer)), "each once"
        if answer is before:
            assert answer[: len(copied)] == copied, "the same list only grows"
        before, copied = answer, list(answer)
        answers.append(copied)
        new = [path for path in answer if path not in scores]
        if not new:
            return sweeping, scores, answers
        for path in order.sample(new, min(len(new), order.randint(1, at_once))):
            scores[path] = curves.known(ours, path)


ANY = (
    st.sampled_from(EVERY),
    lattices(),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.2, 0.6, 1.0]),
)


@settings(max_examples=150)
@given(*ANY, sweeps(stops=STOPS[:3]))
def test_the_order_in_which_trainings_end_makes_no_difference(strategy, ours, world, failing, made):
    curves = Curves(world, failing=failing)
    one, other = (driven(strategy, made, ours, curves, random.Random(world + n))[1] for n in (0, 1))
    assert one == other


@settings(max_examples=150)
@given(*ANY, sweeps())
def test_a_teacher_was_trained_whole_and_won_its_sweep(strategy, ours, world, failing, made):
    sweeping, scores, answers = driven(strategy, made, ours, Curves(world, failing=failing), random.Random(world))
    for path in answers[-1]:
        if made.scope == "edge" and path.teacher:
            assert path.teacher.until is None and path.teacher in scores
            assert sweeping.winner(path.teacher.plain) == path.teacher
        if made.scope == "path":
            assert len(set(path.settings)) <= 1


@settings(max_examples=150)
@given(*ANY, sweeps())
def test_what_wins_was_trained_whole_and_an_edge_is_lost_only_where_every_setting_fails(
    strategy, ours, world, failing, made
):
    sweeping, scores, answers = driven(strategy, made, ours, Curves(world, failing=failing), random.Random(world))
    for plain in {path.plain for path in answers[-1]}:
        assert sweeping._edges[plain].over, "nothing is left open"
        winner = sweeping.winner(plain)
        mine = {path: scores[path] for path in answers[-1] if path.plain == plain}
        whole = {path: score for path, score in mine.items() if path.until is None}
        if winner is None:
            fine = {path.training for path in mine} - {path.training for path, score in mine.items() if score == -inf}
            assert not fine
        else:
            assert winner.until is None and whole[winner] == max(whole.values()) > -inf


@settings(max_examples=150)
@given(*ANY, sweeps())
def test_a_sweep_makes_at_most_as_many_trainings_as_it_has_samples(strategy, ours, world, failing, made):
    _, _, answers = driven(strategy, made, ours, Curves(world, failing=failing), random.Random(world))
    trainings: dict[Path, set[Path]] = {}
    for path in answers[-1]:
        trainings.setdefault(path.plain, set()).add(path.training)
    most = made.samples or len(made.more([], {}, ours.distill, seed=""))
    assert all(len(found) <= (most if len(path.models) > 1 else 1) for path, found in trainings.items())


@settings(max_examples=150)
@given(*ANY, sweeps())
def test_nothing_that_was_trained_on_is_taken_back(strategy, ours, world, failing, made):
    """With asha a place may go to a better one as long as nobody has taken it."""
    _, scores, answers = driven(strategy, made, ours, Curves(world, failing=failing), random.Random(world))
    assert scores.keys() <= set(answers[-1])
    if made.stop is None or made.stop.how == "halving":
        for earlier, later in pairwise(answers):
            assert set(earlier) <= set(later)


@settings(max_examples=150)
@given(*ANY, sweeps(stops=STOPS[:3]))
def test_built_afresh_it_wants_the_same_once_the_scores_come_in_again(strategy, ours, world, failing, made):
    """As a driver that was started again sees them: only scores of what it asks for. (With asha whoever comes first
    goes on.)"""
    curves = Curves(world, failing=failing)
    _, scores, answers = driven(strategy, made, ours, curves, random.Random(world))
    again, known = Sweeping(strategy, made, ours), dict[Path, float]()
    while new := [path for path in again(ours, known) if path not in known]:
        known |= {path: scores[path] for path in new}
    assert set(again(ours, known)) == set(answers[-1])


@settings(max_examples=150)
@given(*ANY, sweeps(), st.data())
def test_built_afresh_from_any_scores_on_the_way_it_wants_what_the_one_that_saw_them_come_wants(
    strategy, ours, world, failing, made, data
):
    curves = Curves(world, failing=failing)
    _, scores, answers = driven(strategy, made, ours, curves, random.Random(world), at_once=1)
    count = data.draw(st.integers(0, len(scores)))
    some = dict(list(scores.items())[:count])
    assert set(Sweeping(strategy, made, ours)(ours, some)) == set(answers[count])


@settings(max_examples=150)
@given(*ANY, sweeps())
def test_asked_again_without_news_it_gives_the_same_list(strategy, ours, world, failing, made):
    sweeping, scores, _ = driven(strategy, made, ours, Curves(world, failing=failing), random.Random(world))
    assert sweeping(ours, scores) is sweeping(ours, scores)


@pytest.mark.parametrize("strategy", EVERY)
@pytest.mark.parametrize("scope", ["edge", "path"])
def test_one_edge_and_no_assistants_is_one_sweep(strategy, scope):
    made = sweep({WEIGHT: [1.0, 2.0, 3.0], "scope": scope})
    sweeping, scores, _ = driven(strategy, made, TWO, Curves(0), random.Random(0))
    least = min(path.budget for path in scores if len(path.models) == 2)
    tried = {path for path in scores if path.budget == least and len(path.models) == 2}
    assert {path.setting for path in tried} == {weight(w) for w in (1.0, 2.0, 3.0)}
    best = max(tried, key=scores.__getitem__)
    assert sweeping.winner(Path(("big", "small"))) == Path(best.models, settings=best.settings)
    assert len(scores) == (3 if least == 1 else 4) + (scope == "edge")


def test_built_afresh_from_all_scores_tpe_wants_all_that_it_asked_for_group_by_group():
    made = sweep({WEIGHT: {"uniform": [0, 1]}, "sampler": "tpe", "samples": 11})
    for ours in (TWO, THREE):
        _, scores, answers = driven(exhaustive, made, ours, Curves(0), random.Random(0))
        assert set(Sweeping(exhaustive, made, ours)(ours, dict(scores))) == set(answers[-1])
