"""What stands beside the best path: when it is wanted, how long it trains, and what it costs."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import strategies
from orchestrator.controls import bill, cheapest_and_dearest, chosen, longer, of_path, paths
from orchestrator.costs import identity, relative
from orchestrator.frontier import Frontier
from orchestrator.lattice import Entry, Lattice, Path, best
from tests.orchestrator.boards import model
from trainers import schedules
from trainers.call import Call, Invalid, Term
from trainers.optim import rates
from trainers.spec import Data, Recipe, Weights

# An epoch of `big` costs 3 * 8, one of `mid` taught by it 3 * 4 + 8, and so on: see FLOPS.
FLOPS = {"big": 8, "mid": 4, "low": 2, "wee": 1}
NAMES = tuple(FLOPS)
ALONE, DIRECT = Path(("wee",)), Path(("big", "wee"))
ALL = ("alone", "direct", "alone_same_compute")


def lattice(names=NAMES, *, edges=None, epochs=10, published=()):
    entries = {
        name: Entry(model(NAMES.index(name)).model_copy(update={"weights": PUBLISHED if name in published else None}),
                    Recipe(epochs=epochs))
        for name in names
    }  # fmt: skip
    return Lattice(entries, Data(fingerprint="0", classes=("a",)), (Term(name="LD"),), edges=edges)


PUBLISHED = Weights(sha256="0" * 64, part="detector")
FLOPS_OF = {identity(model(NAMES.index(name))): number for name, number in FLOPS.items()}
FLOPS_OF |= {
    identity(model(NAMES.index(name)).model_copy(update={"weights": PUBLISHED})): number
    for name, number in FLOPS.items()
}
COST = relative(lambda one, recipe: FLOPS_OF[identity(one)])


def wanted(scores, *, names=ALL, ours=None, strategy=strategies.exhaustive):
    return list(paths(ours or lattice(), scores, names=names, strategy=strategy, cost=COST))


def scored(ours, **best):
    """Every path with a score of .5, but for these."""
    scores = {path: 0.5 for path in (*ours.paths(), ALONE)}
    return scores | {Path(tuple(path.split("_"))): score for path, score in best.items()}


def test_where_there_is_one_path_only_the_student_alone_is_trained_and_else_all():
    assert chosen(None, lattice(("big", "wee"))) == ("alone",)
    assert chosen(None, lattice()) == ALL
    assert chosen((), lattice()) == ()


def test_direct_distillation_is_a_control_only_along_an_edge():
    bent = lattice(edges=[("big", "mid"), ("mid", "low"), ("low", "wee"), ("mid", "wee")])
    assert chosen(None, bent) == ("alone", "alone_same_compute")
    with pytest.raises(Invalid, match=r"big does not teach wee; add the edge \[big, wee\]") as refused:
        chosen(("alone", "direct"), bent)
    assert refused.value.where == (1,)


def test_a_control_is_named_once():
    with pytest.raises(Invalid, match="alone is there already"):
        chosen(("alone", "alone"), lattice())


def test_the_student_alone_is_trained_long_only_once_every_path_has_a_score():
    ours = lattice()
    scores = scored(ours, big_low_wee=0.9)
    assert wanted({}) == [ALONE, DIRECT]
    for missing in ours.paths():
        assert wanted({path: score for path, score in scores.items() if path != missing}) == [ALONE, DIRECT]
    # big: 24 an epoch, low under it 3 * 2 + 8, wee under low 3 + 2; wee alone 3. (24 + 14 + 5) / 3 = 14.33.
    assert wanted(scores) == [ALONE, DIRECT, Path(("wee",), 14.3)]
    assert ours.stage(Path(("wee",), 14.3), 0).recipe.epochs == 143


def test_its_own_score_changes_nothing():
    scores = scored(lattice(), big_low_wee=0.9)
    assert wanted(scores | {Path(("wee",), 14.3): 0.99}) == wanted(scores)


def test_it_waits_for_direct_distillation_even_where_the_search_does_not_want_it():
    ours = lattice()

    def one(lattice, scores):
        return [Path(("big", "mid", "wee"))]

    scores = {Path(("big", "mid", "wee")): 0.5}
    assert wanted(scores, strategy=one) == [ALONE, DIRECT]
    assert len(wanted(scores | {DIRECT: 0.6}, strategy=one)) == 3
    assert of_path(ours, DIRECT, COST) == 10 * (24 + 3 + 8)
    assert wanted(scores | {DIRECT: 0.6}, strategy=one)[-1] == Path(("wee",), 117 / 10)  # 35 / 3 of 10 epochs


def test_where_every_path_failed_there_is_nothing_to_compare_with():
    ours = lattice()
    assert wanted({path: float("-inf") for path in ours.paths()}) == [ALONE, DIRECT]


def test_it_is_the_same_model_and_recipe_for_more_epochs_without_a_teacher():
    ours = lattice()
    alone, long = ours.stage(ALONE, 3), ours.stage(Path(("wee",), 14.3), 3)
    assert long.teacher is None and long.distill == () and ours.role(Path(("wee",), 14.3)) == "alone"
    assert long.model_copy(update={"recipe": alone.recipe}) == alone


@pytest.mark.parametrize("schedule", ["Step", "Cosine", "OneCycle"])
def test_its_rate_has_the_shape_of_the_schedule_over_all_its_epochs(schedule):
    short = rates(Recipe(epochs=12, schedule=Call(name=schedule).complete(schedules), warmup=0), 10)
    long = rates(Recipe(epochs=36, schedule=Call(name=schedule).complete(schedules), warmup=0), 10)
    assert [long(3 * step) for step in range(120)] == pytest.approx([short(step) for step in range(120)])


def test_published_teachers_cost_only_their_use():
    ours = lattice(published=("big",))
    (long,) = longer(ours, DIRECT, COST)
    assert long == Path(("wee",), 37 / 10)  # (3 + 8) / 3 = 3.67
    assert of_path(ours, Path(("big",)), COST) == 0


def test_a_published_student_is_measured_and_cannot_be_trained_for_longer():
    assert list(longer(lattice(published=("wee",)), DIRECT, COST)) == []


def test_a_path_that_costs_no_whole_epoch_more_is_no_reason_to_train_again():
    # The teacher is used for one epoch, for a third of what the student's own training costs.
    ours = lattice(("low", "wee"), epochs=1, published=("low",))
    cheap = relative(lambda one, recipe: 1)
    assert list(longer(ours, Path(("low", "wee")), cheap)) == []


@given(st.sets(st.sampled_from([(a, b) for i, b in enumerate(NAMES) for a in NAMES[:i]])))
def test_the_cheapest_and_the_dearest_path_are_found_without_listing_them(edges):
    try:
        ours = lattice(edges=sorted(edges))
    except Invalid:
        return
    costs = [of_path(ours, path, COST) for path in ours.paths()]
    found = cheapest_and_dearest(ours, ours.students[0], COST)
    assert [of_path(ours, path, COST) for path in found] == [min(costs), max(costs)]
    assert all(ours.has(path.models) and all(pair in ours.edges for pair in pairwise(path.models)) for path in found)


def everything(ours, scores, names=ALL):
    """What a study trains in the end: by exhaustive search, as its frontier sees it."""
    frontier = Frontier(
        ours,
        strategies.exhaustive,
        seeds=(0, 1),
        done=lambda stage: None,
        controls=lambda ours, known: paths(ours, known, names=names, strategy=strategies.exhaustive, cost=COST),
    )
    while stage := frontier.next():
        frontier.finish(stage.key, scores(stage))
    return frontier


def billed(ours, nodes, names=ALL):
    return bill(
        [(node.path, node.stage) for node in nodes], ours, names=names, searched=ours.paths(), seeds=(0, 1), cost=COST
    )


def test_the_frontier_ends_with_the_student_trained_for_as_long_as_the_best_path():
    ours = lattice()
    target = ours.stage(Path(("big", "low", "wee")), 0).teacher.model
    frontier = everything(
        ours, lambda stage: float(stage.teacher is not None and stage.teacher.model == target and stage.seed < 2)
    )
    long = [node for node in frontier.wanted() if node.path.budget > 1]
    assert [(node.path.models, node.seed) for node in long] == [(("wee",), 0), (("wee",), 1)]
    answer = best(frontier.scores, ours, ours.students[-1])
    assert COST(long[0].stage) == pytest.approx(of_path(ours, answer, COST), abs=COST(ours.stage(ALONE, 0)) / 20)


def test_the_bill_before_is_what_the_trainings_cost_in_the_end():
    ours = lattice()
    names = {("big", "wee"): 0, ("big", "mid", "low", "wee"): 1}
    first = Frontier(
        ours, strategies.exhaustive, seeds=(0, 1), done=lambda stage: None, controls=lambda *_: [ALONE]
    ).wanted()
    before = billed(ours, first)
    assert (before["trainings"], before["later"]) == (4, 2)
    for path, end in names.items():
        keys = {ours.stage(Path(path), seed).key for seed in (0, 1)}
        after = everything(ours, lambda stage, keys=keys: float(stage.key in keys)).wanted()
        costs = {node.stage.key: COST(node.stage) for node in after}
        own = sum(costs[node.stage.key] for node in after if node.path.models == ("wee",))
        assert own / sum(costs.values()) == pytest.approx(before["share"][end])
        assert billed(ours, after) == before | {"later": 0}


def test_what_the_search_trains_anyway_is_not_on_the_bill():
    ours = lattice()
    names = ("alone", "direct")
    found = billed(ours, everything(ours, lambda stage: 0.5, names).wanted(), names)
    assert (found["trainings"], found["later"]) == (2, 0)  # the student alone, twice
    assert found["share"][0] == found["share"][1] > 0
    assert billed(ours, everything(ours, lambda stage: 0.5, ()).wanted(), ()) == {
        "names": [], "trainings": 0, "later": 0, "share": [0, 0],
    }  # fmt: skip
