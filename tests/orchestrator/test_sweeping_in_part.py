"""Sweeps under strategies that want paths in part, by hand: with some seeds, up to an epoch, briefly, to a limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any

import pytest

from orchestrator import strategies
from orchestrator.lattice import Lattice, Path, best
from orchestrator.searching import searching
from orchestrator.sweep import sweep
from tests.orchestrator.sweeps import WEIGHT, lattice, weight
from trainers.call import Call, Invalid

MODELS = ("big", "mid", "small")
ROOT, DIRECT = Path(("big",)), Path(("big", "small"))
TWO, THREE = {WEIGHT: [1.0, 2.0]}, {WEIGHT: [1.0, 2.0, 3.0]}
HALVING = {"stop": {"halving": {"grace": 1, "factor": 3}}}


def call(name: str, **args: Any) -> Call:
    return Call(name=name, args=args).complete(strategies)


def trial(*models: str, w: Iterable[float], **form: Any) -> Path:
    return Path(models, settings=tuple(weight(value) for value in w), **form)


def asking(search: Call, written: dict[str, Any], ours: Lattice) -> tuple[Callable[[], set[Path]], dict[Path, float]]:
    """Asks what is wanted and has no score yet, and the scores to note for it."""
    scores: dict[Path, float] = {}
    wanted = partial(searching(search, ours, sweep(written)), ours, scores)

    def ask() -> set[Path]:
        found = list(wanted())
        assert len(found) == len(set(found)), "each once"
        return set(found) - scores.keys()

    return ask, scores


def played(
    search: Call, written: dict[str, Any], ours: Lattice, score: Callable[[Path], float] = lambda path: 0.5
) -> dict[Path, float]:
    """All that is trained in the end, in the order in which it is wanted."""
    scores: dict[Path, float] = {}
    strategy = searching(search, ours, sweep(written))
    while new := [path for path in strategy(ours, scores) if path not in scores]:
        scores |= {path: score(path) for path in new}
    return scores


def by_weight(path: Path) -> float:
    """The larger the weights the better."""
    return sum(float(one[0][1]) for one in path.settings)


def trainings(ours: Lattice, trained: Iterable[Path]) -> float:
    """How many whole ones these are with their teachers, over their seeds; equal ones once."""
    parts: dict[str, float] = {}
    for path in trained:
        for seed in path.seeds or ours.seeds:
            for stage in ours.stage(path, seed).lineage:
                whole, last = stage.recipe.epochs, stage == ours.stage(path, seed)
                part = min(path.until or whole, whole) if last else whole
                parts[stage.key] = max(parts.get(stage.key, 0.0), part / ours.epochs(DIRECT))
    return sum(parts.values())


# Seed by seed


def test_in_a_race_the_first_seed_chooses_a_setting_and_the_winner_is_trained_with_the_others():
    ask, scores = asking(call("racing"), TWO, lattice(("big", "small"), seeds=(4, 7)))
    assert ask() == {replace(ROOT, seeds=(4,))}
    scores[replace(ROOT, seeds=(4,))] = 0.9
    first = {trial("big", "small", w=(w,), seeds=(4,)) for w in (1.0, 2.0)}
    assert ask() == first
    scores |= dict(zip(sorted(first), (0.3, 0.5), strict=True))
    assert ask() == {trial("big", "small", w=(2.0,), seeds=(7,))}
    scores[trial("big", "small", w=(2.0,), seeds=(7,))] = 0.1
    assert ask() == {trial("big", "small", w=(2.0,))}, "and no other, though this seed is worse"


def test_a_path_that_lost_its_race_is_trained_with_no_more_seeds():
    def score(path: Path) -> float:
        return 0.9 if path.models == DIRECT.models else 0.1

    scores = played(call("racing"), TWO, lattice(MODELS, seeds=(0, 1, 2)), score)
    with_seeds = {(path.models, path.seeds) for path in scores}
    assert (DIRECT.models, None) in with_seeds and (MODELS, (1,)) in with_seeds
    assert not {(MODELS, (2,)), (MODELS, None)} & with_seeds


def test_a_winner_that_fails_with_a_later_seed_fails_for_the_race():
    def score(path: Path) -> float:
        return -inf if path.models == DIRECT.models and path.seeds == (1,) else 0.5

    scores = played(call("racing"), TWO, lattice(MODELS, seeds=(0, 1, 2)), score)
    assert {path.models for path in scores if path.seeds is None} == {MODELS}
    assert not any(path.seeds == (2,) and path.models == DIRECT.models for path in scores)


# Up to an epoch


def test_an_assistant_is_swept_up_to_where_it_is_judged_and_not_on_if_it_is_given_up():
    """Six epochs; assistants pause after three. The best of a longer path's is compared with that of a shorter one."""
    ours = lattice(("big", "mid", "low", "small"))

    def score(path: Path) -> float:
        gone = path.models == ("big", "mid", "low")
        return 0.1 if gone else 0.5 + by_weight(path) / 100 + (0.1 if path.until is None else 0.0)

    scores = played(call("promising", at=0.5), TWO, ours, score)
    of_low = {path for path in scores if path.models == ("big", "mid", "low")}
    assert of_low == {trial("big", "mid", "low", w=(2.0, w), until=3) for w in (1.0, 2.0)}
    assert {trial("big", "low", w=(w,), until=end) for w in (1.0, 2.0) for end in (3, None)} <= scores.keys()
    assert not any(path.models == ours.names for path in scores)


def test_settings_that_were_seen_in_part_go_on_together_and_their_ends_decide():
    def score(path: Path) -> float:
        return -by_weight(path) if path.until else by_weight(path)

    scores = played(call("promising", at=0.5), TWO, lattice(MODELS), score)
    mids = {trial("big", "mid", w=(w,), until=end) for w in (1.0, 2.0) for end in (3, None)}
    assert mids == {path for path in scores if path.models == ("big", "mid")}
    assert {path.settings[0] for path in scores if path.models == MODELS} == {weight(2.0)}


def test_a_probe_pauses_all_settings_and_siblings_are_given_up_on_the_way_as_the_sweep_has_it():
    """Rungs after one and three epochs; probes pause after two."""
    ask, scores = asking(call("probe", part=0.4), THREE | HALVING, lattice(MODELS))
    scores[ROOT] = 0.9
    mids = [trial("big", "mid", w=(w,), until=1) for w in (1.0, 2.0, 3.0)]
    assert set(mids) <= ask()
    scores |= {path: by_weight(path) for path in ask()}
    for end in (3, None):
        assert {path for path in ask() if path.models == ("big", "mid")} == {trial("big", "mid", w=(3.0,), until=end)}
        scores |= {path: by_weight(path) for path in ask()}
    through = {path for path in ask() if path.models == MODELS}
    assert through == {trial(*MODELS, w=(3.0, w), until=1) for w in (1.0, 2.0, 3.0)}
    scores |= {path: by_weight(path) for path in through}
    assert ask() == {trial(*MODELS, w=(3.0, 3.0), until=2)}, "nobody is given up at a pause, only at a rung"


# With more budget


def test_a_path_that_goes_on_with_more_budget_keeps_the_settings_that_won_with_less():
    scores = played(call("successive_halving", keep=1.0), THREE, lattice(MODELS), by_weight)
    brief, long = ({p.settings for p in scores if p.budget == b and p.models == MODELS} for b in (0.25, 1.0))
    assert brief == {(weight(3.0), weight(w)) for w in (1.0, 2.0, 3.0)} and long == {(weight(3.0), weight(3.0))}
    assert {p.settings for p in scores if p.budget == 1 and p.models == ("big", "mid")} == {(weight(3.0),)}


# To a limit


@pytest.mark.parametrize(("stages", "weights"), [(2, [1.0]), (3.5, [1.0, 2.0]), (4, [1.0, 2.0, 3.0])])
def test_a_limit_buys_as_many_settings_as_it_has_trainings_left(stages, weights):
    ours = lattice(("big", "small"))
    scores = played(call("budget", stages=stages), THREE, ours, by_weight)
    assert scores.keys() == {ROOT, *(trial("big", "small", w=(w,)) for w in weights)}
    assert best(scores, ours, ours.students[0]) == trial("big", "small", w=(weights[-1],))


def test_a_limit_below_one_setting_of_each_edge_of_the_shortest_path_is_refused():
    chain = lattice(MODELS, [("big", "mid"), ("mid", "small")], seeds=(0, 1))
    with pytest.raises(Invalid, match="big > mid > small, which needs 6") as caught:
        searching(call("budget", stages=5.9), chain, sweep(TWO))
    assert caught.value.where == ("budget", "stages")
    with pytest.raises(Invalid, match="either stages or gpu_hours"):
        searching(call("budget"), chain, sweep(TWO))


def test_a_limit_keeps_enough_to_get_to_the_student_and_the_best_setting_bought_teaches():
    """One for the root, and of the other four one is kept for the student."""
    chain = lattice(MODELS, [("big", "mid"), ("mid", "small")])
    scores = played(call("budget", stages=4), THREE, chain, by_weight)
    assert {path.setting for path in scores if path.models == ("big", "mid")} == {weight(1.0), weight(2.0)}
    assert {path for path in scores if path.models == MODELS} == {trial(*MODELS, w=(2.0, 1.0))}


def test_the_shortest_path_is_swept_before_anything_else_is_bought():
    scores = list(played(call("budget", stages=9), TWO, lattice(MODELS)))
    assert scores[:3] == [ROOT, trial("big", "small", w=(1.0,)), trial("big", "small", w=(2.0,))]
    assert [path.models for path in scores[3:]] == [("big", "mid")] * 2 + [MODELS] * 2


def test_what_the_last_of_a_limit_is_spent_on_leads_to_the_student():
    """Four are left for the way by mid, of which one more setting of mid would leave none for its student."""
    scores = played(call("budget", stages=6), THREE, lattice(MODELS), by_weight)
    assert [path.models for path in scores if path.models != DIRECT.models] == [("big",), ("big", "mid"), MODELS]
    assert trainings(lattice(MODELS), scores) == 6


def test_siblings_that_are_given_up_cost_what_they_were_trained_for():
    """Three settings for one of six epochs, one of them for all: 8 of 6 epochs, beside the root."""
    ours = lattice(("big", "small"))
    scores = played(call("budget", stages=1 + 8 / 6), THREE | HALVING, ours, by_weight)
    assert trainings(ours, scores) == pytest.approx(1 + 8 / 6) and best(scores, ours, ours.students[0]) == trial(
        "big", "small", w=(3.0,)
    )
    less = played(call("budget", stages=1 + 7 / 6), THREE | HALVING, ours, by_weight)
    assert {path.setting for path in less if path.settings} == {weight(1.0), weight(2.0)}
    assert best(less, ours, ours.students[0]) == trial("big", "small", w=(2.0,)), "who was bought can be finished"


def test_under_a_limit_the_path_that_looks_best_races_on():
    """The way by a takes 11 with all three seeds; 4 for each of the others with the first; 4 are left to finish one."""
    names = ("big", "a", "b", "c", "small")
    edges = [(one, name) for name in "abc" for one in ("big",)] + [(name, "small") for name in "abc"]
    ours = lattice(names, edges, seeds=(0, 1, 2))

    def score(path: Path) -> float:
        return {"a": 0.5, "b": 0.55, "c": 0.6}.get(path.models[1], 0.0) if len(path.models) == 3 else 0.5

    scores = played(call("budget", of="racing", stages=23), TWO, ours, score)
    with_all = {path.models[1] for path in scores if path.models[-1] == "small" and path.seeds is None}
    assert with_all == {"a", "c"} and trainings(ours, scores) == 23
    assert {path.models[1] for path in scores if path.seeds == (0,) and len(path.models) == 3} == {"a", "b", "c"}


def test_hours_are_those_of_the_lattice_and_settings_that_cost_less_are_bought_first():
    ours = lattice(("big", "small"))
    ours.cost, ours.in_hours = (lambda stage: stage.recipe.epochs / 2), True
    written = {"recipe.epochs": [6, 2, 4]}
    scores = played(call("budget", gpu_hours=3 + 1 + 2), written, ours)
    assert {path.setting for path in scores if path.settings} == {(("recipe.epochs", "2"),), (("recipe.epochs", "4"),)}
    with pytest.raises(Invalid, match="needs 4"):
        searching(call("budget", gpu_hours=3.9), ours, sweep(written))
