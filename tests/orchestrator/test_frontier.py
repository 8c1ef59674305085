"""The frontier by hand, on four models, and its speed on twelve."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from math import inf

import pytest

from orchestrator.frontier import Frontier
from orchestrator.lattice import Entry, Lattice, Path, best
from orchestrator.strategies import best_predecessor, exhaustive, greedy, successive_halving
from trainers.call import Call, Term
from trainers.spec import Data, Model, Recipe, Stage

FOUR = ("r101", "r50", "r34", "r18")
EVERY = [exhaustive, best_predecessor, greedy, successive_halving]
ALONE = Path(("r18",))


def lattice(
    names: Iterable[str],
    edges: Iterable[tuple[str, str]] | None = None,
    *,
    backbones: Mapping[str, str] | None = None,
) -> Lattice:
    entries = {}
    for name in names:
        backbone = Call(name=(backbones or {}).get(name, name))
        entries[name] = Entry(Model(detector=Call(name="GFL"), backbone=backbone), Recipe())
    return Lattice(entries, Data(fingerprint="digits", classes=("3",)), [Term(name="LD")], edges=edges)


def nothing(stage: Stage) -> None:
    """An empty store."""


def label(stage: Stage) -> str:
    return " > ".join(s.model.backbone.name for s in stage.lineage)


def start(frontier: Frontier) -> list[str]:
    """Start all that may start."""
    return [label(stage) for stage in iter(frontier.next, None)]


def finish(frontier: Frontier, name: str, score: float = 0.5) -> None:
    (key,) = (key for key, stage in frontier.running.items() if label(stage) == name)
    frontier.finish(key, score)


def fail(frontier: Frontier, name: str) -> str:
    (key,) = (key for key, stage in frontier.running.items() if label(stage) == name)
    frontier.fail(key, "out of memory")
    return key


four_models = partial(Frontier, lattice(FOUR), exhaustive, seeds=(0,), done=nothing)


# By hand


def test_only_the_root_may_start_at_first():
    frontier = four_models()
    assert start(frontier) == ["r101"]
    assert frontier.next() is None and not frontier.over
    assert len(frontier.waiting) == 7 and len(frontier.running) == 1


def test_students_start_when_their_teacher_is_trained_those_with_the_longest_chain_first():
    frontier = four_models()
    start(frontier)
    finish(frontier, "r101")
    assert start(frontier) == ["r101 > r50", "r101 > r34", "r101 > r18"]
    finish(frontier, "r101 > r50")
    assert start(frontier) == ["r101 > r50 > r34", "r101 > r50 > r18"]
    finish(frontier, "r101 > r34")
    assert start(frontier) == ["r101 > r34 > r18"]


def test_chains_are_as_long_as_they_cost():
    """A costly r18 after r34 outweighs the two cheap steps after r50."""

    def cost(stage: Stage) -> float:
        return 10.0 if label(stage) == "r101 > r34 > r18" else 1.0

    frontier = four_models(cost=cost)
    start(frontier)
    finish(frontier, "r101")
    assert start(frontier) == ["r101 > r34", "r101 > r50", "r101 > r18"]


def test_the_longest_chain_goes_before_the_bushiest():
    bush = [("t", "hub"), *(("hub", leaf) for leaf in "xyz"), *((leaf, "s") for leaf in "xyz")]
    line = [("t", "a"), ("a", "b"), ("b", "c"), ("c", "s")]
    names = ("t", "hub", "a", "b", "c", "x", "y", "z", "s")
    frontier = Frontier(lattice(names, bush + line), exhaustive, seeds=(0,), done=nothing)
    start(frontier)
    finish(frontier, "t")
    assert start(frontier) == ["t > a", "t > hub"]


def test_a_chain_in_the_store_does_not_count_as_work_ahead():
    four = lattice(FOUR)
    below_50 = {four.stage(Path(models), 0).key for models in (FOUR, FOUR[:3], ("r101", "r50", "r18"))}
    frontier = four_models(done=lambda stage: 0.5 if stage.key in below_50 else None)
    start(frontier)
    finish(frontier, "r101")
    assert start(frontier) == ["r101 > r34", "r101 > r18"], "nobody needs r50: its students are trained"
    assert "r101 > r50" not in {str(node.path) for node in frontier.wanted()}


def test_a_shared_prefix_is_trained_once():
    frontier = four_models()
    trained = []
    while not frontier.over:
        trained += start(frontier)
        finish(frontier, next(map(label, frontier.running.values())))
    assert len(trained) == len(set(trained)) == 8
    assert len(frontier.wanted()) == 8


def test_scores_are_noted_for_every_path_with_assistants_as_well():
    frontier = four_models()
    start(frontier)
    finish(frontier, "r101", 0.9)
    start(frontier)
    finish(frontier, "r101 > r50", 0.8)
    assert frontier.scores == {Path(("r101",)): 0.9, Path(("r101", "r50")): 0.8}


def test_a_path_is_known_when_every_seed_is_and_scores_their_mean():
    frontier = Frontier(lattice(("r101", "r18")), exhaustive, seeds=(3, 4), done=nothing)
    keys = [stage.key for stage in iter(frontier.next, None)]
    assert len(keys) == 2
    frontier.finish(keys[0], 0.2)
    assert frontier.scores == {}
    frontier.finish(keys[1], 0.4)
    assert frontier.scores == {Path(("r101",)): pytest.approx(0.3)}
    assert [stage.seed for stage in iter(frontier.next, None)] == [3, 4]


def test_one_failed_seed_makes_the_path_worthless_but_the_other_seed_goes_on():
    frontier = Frontier(lattice(("r101", "r18")), exhaustive, seeds=(3, 4), done=nothing)
    first, second = (stage.key for stage in iter(frontier.next, None))
    frontier.fail(first, "out of memory")
    assert set(frontier.scores.values()) == {-inf} and len(frontier.scores) == 2
    frontier.finish(second, 0.4)
    assert [stage.seed for stage in iter(frontier.next, None)] == [4]


def test_a_failure_loses_what_it_would_have_taught_and_nothing_else():
    frontier = four_models()
    start(frontier)
    finish(frontier, "r101")
    start(frontier)
    failed = fail(frontier, "r101 > r50")
    assert frontier.failed == {failed: "out of memory"}
    assert set(frontier.lost.values()) == {failed} and len(frontier.lost) == 3
    assert frontier.scores[Path(FOUR)] == frontier.scores[Path(("r101", "r50"))] == -inf
    finish(frontier, "r101 > r34")
    finish(frontier, "r101 > r18", 0.7)
    assert start(frontier) == ["r101 > r34 > r18"]
    assert not frontier.over
    finish(frontier, "r101 > r34 > r18", 0.6)
    assert frontier.over and best(frontier.scores, frontier.lattice, "r18") == Path(("r101", "r18"))


def test_when_the_root_fails_all_is_over_but_the_controls():
    frontier = four_models(controls=lambda lattice, scores: [ALONE])
    assert start(frontier) == ["r101", "r18"]
    fail(frontier, "r101")
    assert not frontier.over and start(frontier) == []
    finish(frontier, "r18", 0.4)
    assert frontier.over and best(frontier.scores, frontier.lattice, "r18") is None
    assert frontier.scores[ALONE] == 0.4


def test_a_student_trained_earlier_survives_the_failure_of_its_teacher():
    via_50 = Path(("r101", "r50", "r18"))
    key = lattice(FOUR).stage(via_50, 0).key
    frontier = four_models(done=lambda stage: 0.6 if stage.key == key else None)
    start(frontier)
    finish(frontier, "r101")
    start(frontier)
    fail(frontier, "r101 > r50")
    assert frontier.scores[via_50] == 0.6 and key not in frontier.lost


def test_a_stage_put_back_starts_again_in_its_turn():
    frontier = four_models()
    start(frontier)
    finish(frontier, "r101")
    longest = frontier.next()
    frontier.retry(longest.key)
    assert longest.key in frontier.waiting and frontier.running == {}
    assert frontier.next() is longest


def test_what_the_store_has_is_reused_and_asked_for_once():
    four = lattice(FOUR)
    asked: list[str] = []
    have = {four.stage(Path(models), 0).key: 0.5 for models in (("r101",), ("r101", "r18"))}

    def done(stage: Stage) -> float | None:
        asked.append(stage.key)
        return have.get(stage.key)

    frontier = four_models(done=done)
    assert frontier.reused == set(have)
    assert start(frontier) == ["r101 > r50", "r101 > r34"]
    finish(frontier, "r101 > r50")
    assert len(asked) == len(set(asked)) == 8
    assert frontier.reused == set(have), "trained now, so not reused"


def test_a_complete_store_leaves_nothing_to_do_whatever_the_strategy_asks_next():
    for strategy in EVERY:
        frontier = Frontier(lattice(FOUR), strategy, seeds=(0, 1), done=lambda stage: 0.5)
        assert frontier.over and frontier.next() is None
        assert {node.stage.key for node in frontier.wanted()} == frontier.reused


def test_equal_models_under_two_names_train_once_and_score_both_paths():
    twins = lattice(("r101", "a", "b", "r18"), backbones={"a": "r18", "b": "r18"})
    frontier = Frontier(twins, exhaustive, seeds=(0,), done=nothing)
    start(frontier)
    finish(frontier, "r101")
    assert start(frontier) == ["r101 > r18"]
    (key,) = frontier.running
    assert set(map(str, frontier.paths_of(key))) == {"r101 > a", "r101 > b", "r101 > r18"}
    finish(frontier, "r101 > r18", 0.7)
    assert {frontier.scores[Path(("r101", name))] for name in ("a", "b", "r18")} == {0.7}
    assert frontier.paths_of("unheard of") == []


def test_brief_and_full_paths_share_the_root():
    frontier = Frontier(lattice(("r101", "r18")), successive_halving, seeds=(0,), done=nothing)
    started = []
    while not frontier.over:
        started += start(frontier)
        frontier.finish(next(iter(frontier.running)), 0.5)
    assert started == ["r101", "r101 > r18", "r101 > r18"]
    assert set(map(str, frontier.scores)) == {"r101", "r101 > r18 @0.25", "r101 > r18"}


def first_come(lattice: Lattice, scores: Mapping[Path, float]) -> Iterator[Path]:
    """Wants every path of two models until one is known, and then only that one."""
    paths = [Path((lattice.root, name)) for name in lattice.names[1:]]
    yield from [path for path in paths if path in scores][:1] or paths


def test_what_the_strategy_stops_wanting_is_not_started_but_finishes_where_it_runs():
    frontier = Frontier(lattice(FOUR), first_come, seeds=(0,), done=nothing)
    start(frontier)
    finish(frontier, "r101")
    first, second = frontier.next(), frontier.next()
    frontier.finish(first.key, 0.5)
    assert frontier.waiting == {} and frontier.next() is None
    assert not frontier.over, "one is still running"
    frontier.finish(second.key, 0.6)
    assert frontier.over and len(frontier.scores) == 3


def test_an_unwanted_stage_that_is_put_back_does_not_start_again():
    frontier = Frontier(lattice(FOUR), first_come, seeds=(0,), done=nothing)
    start(frontier)
    finish(frontier, "r101")
    first, second = frontier.next(), frontier.next()
    frontier.finish(first.key, 0.5)
    frontier.retry(second.key)
    assert frontier.over and frontier.next() is None


# Speed


@pytest.mark.parametrize(("num_models", "limit"), [(10, 1.0), (12, 4.0)])
def test_large_exhaustive_searches_keep_the_scheduler_idle(num_models, limit):
    build = partial(Frontier, lattice(f"m{i}" for i in range(num_models)), exhaustive, seeds=(0,), done=nothing)
    began = time.process_time()
    frontier = build()
    num_trained = 0
    while stage := frontier.next():
        frontier.finish(stage.key, num_trained / 7 % 1)
        num_trained += 1
    assert frontier.over and num_trained == 2 ** (num_models - 1)
    assert time.process_time() - began < limit
