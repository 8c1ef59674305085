"""A lattice with several students: paths to each, of which one may teach the next."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import controls
from orchestrator.lattice import Path, best
from orchestrator.strategies import best_predecessor, budget, exhaustive, greedy, probe, promising, successive_halving
from tests.orchestrator.test_lattice import FOUR, lattice, written
from trainers.call import Invalid

BOTH = ("r34", "r18")
TO_34, TO_34_VIA_50 = Path(("r101", "r34")), Path(("r101", "r50", "r34"))
TO_18, TO_18_VIA_50, TO_18_VIA_34 = (Path((*models, "r18")) for models in (("r101",), ("r101", "r50"), ("r101", "r34")))
TO_18_VIA_BOTH = Path(FOUR)
TO_18_ALL = [TO_18, TO_18_VIA_50, TO_18_VIA_34, TO_18_VIA_BOTH]


def test_the_last_model_is_the_student_unless_others_are_named():
    assert lattice(FOUR).students == ("r18",)
    assert lattice(FOUR, students=["r18", "r34"]).students == BOTH, "in the order of the models"


def test_paths_lead_to_each_student_short_ones_first_and_one_student_may_teach_another():
    both = lattice(FOUR, students=BOTH)
    assert written(both.paths()) == [
        "r101 > r34",
        "r101 > r18",
        "r101 > r50 > r34",
        "r101 > r50 > r18",
        "r101 > r34 > r18",
        "r101 > r50 > r34 > r18",
    ]
    assert list(both.paths("r34")) == [TO_34, TO_34_VIA_50] and list(both.paths("r18")) == TO_18_ALL
    assert both.shortest("r34") == TO_34 and both.shortest("r18") == TO_18
    assert both.count() == (6, 2 + 3 + 2 + 3 + 3 + 4)


def test_edges_keep_students_apart_that_are_not_to_teach():
    apart = lattice(FOUR, [("r101", "r50"), ("r50", "r34"), ("r50", "r18")], students=BOTH)
    assert written(apart.paths()) == ["r101 > r50 > r34", "r101 > r50 > r18"]
    assert not any(apart.has(path) for path in (("r101", "r18"), ("r34", "r18"), ("r50",)))
    assert all(apart.has(path) for path in (("r34",), ("r18",), ("r101", "r50", "r18")))


def test_a_model_after_the_last_student_is_never_trained():
    assert lattice(FOUR, students=["r34"]).isolated() == ("r18",)


def test_what_a_student_is_on_a_path():
    both = lattice(FOUR, students=BOTH)
    assert [both.role(path) for path in (TO_34, TO_18_VIA_34, Path(("r34",)), Path(("r101", "r50")))] == [
        "student",
        "student",
        "alone",
        "assistant",
    ]


@pytest.mark.parametrize(
    ("students", "where", "message"),
    [
        (["r34", "r19"], 1, "r18"),
        (["r101"], 0, "r101 is the teacher of all"),
        (["r18", "r18"], 1, "r18 is there already"),
    ],
)
def test_what_cannot_be_a_student_is_refused_where_it_is_written(students, where, message):
    with pytest.raises(Invalid, match=message) as caught:
        lattice(FOUR, students=students)
    assert caught.value.where == ("students", where)


def test_every_student_must_be_reached():
    with pytest.raises(Invalid, match="no path leads from r101 to r34") as caught:
        lattice(FOUR, [("r101", "r50"), ("r50", "r18")], students=BOTH)
    assert caught.value.where == ("edges",)


def test_each_student_has_its_own_best_path():
    scores = {TO_34: 0.5, TO_34_VIA_50: 0.6, TO_18: 0.3, TO_18_VIA_34: 0.2, Path(("r34",)): 0.9}
    both = lattice(FOUR, students=BOTH)
    assert (best(scores, both, "r34"), best(scores, both, "r18")) == (TO_34_VIA_50, TO_18)


# Strategies


def test_greedy_climbs_for_each_student_and_waits_for_neither():
    both = lattice(FOUR, students=BOTH)
    assert list(greedy(both, {})) == [TO_34, TO_34_VIA_50, TO_18, TO_18_VIA_50, TO_18_VIA_34]
    known = {TO_18: 0.5, TO_18_VIA_50: 0.6, TO_18_VIA_34: 0.4}
    assert set(greedy(both, known)) == {TO_34, TO_34_VIA_50, *TO_18_ALL}


def test_halving_keeps_the_best_paths_of_each_student_though_the_larger_scores_higher():
    both = lattice(FOUR, students=BOTH)
    first = list(successive_halving(both, {}))
    scores = {path: (1 if path.models[-1] == "r34" else 0) + 0.1 * len(path.models) for path in first}
    assert [path for path in successive_halving(both, scores) if path.budget == 1] == [
        TO_34_VIA_50,
        TO_18_VIA_BOTH,
        TO_18_VIA_50,
    ]


def test_a_probe_of_an_assistant_is_made_with_each_student():
    both = lattice(FOUR, students=BOTH)
    asked = list(probe(both, {}))
    assert {path.models for path in asked if path.until} == {
        ("r101", "r50", "r34"),
        ("r101", "r50", "r18"),
        ("r101", "r34", "r18"),
    }


def test_a_student_that_teaches_another_is_no_assistant_that_is_given_up():
    both = lattice(FOUR, students=BOTH)
    assert {path.models[-1] for path in promising(both, {}) if path.until} == {"r50"}
    scores = {path: 0.5 for path in promising(both, {})}
    assert not any(path.until for path in promising(both, scores) if path.models[-1] in BOTH)


def test_a_budget_buys_the_shortest_path_to_each_student_first():
    both = lattice(FOUR, students=BOTH)
    assert list(budget(both, {}, stages=3)) == [TO_34, TO_18]
    with pytest.raises(Invalid, match=r"r101 > r34 and r101 > r18, which need 3$") as caught:
        budget(both, {}, stages=2)
    assert caught.value.where == ("budget", "stages")


@given(st.sets(st.sampled_from(["r50", "r34", "r18"]), min_size=1), st.data())
def test_a_search_for_several_students_finds_for_each_what_a_search_for_it_alone_finds(students, data):
    """Where the strategy wants paths whole."""
    score = {p.models: data.draw(st.sampled_from([0.1, 0.2, 0.3])) for p in lattice(FOUR, students=FOUR[1:]).paths()}
    edges = data.draw(st.just(None) | st.lists(st.sampled_from(list(combinations(FOUR, 2))), unique=True))

    def found(strategy, names):
        ours = lattice(FOUR, edges, students=names)
        scores: dict[Path, float] = {}
        while new := [path for path in strategy(ours, scores) if path not in scores]:
            scores |= {path: score[path.models] for path in new}
        return {name: best(scores, ours, name) for name in ours.students}

    for strategy in (exhaustive, greedy, successive_halving, best_predecessor):
        try:
            together = found(strategy, students)
        except Invalid:
            return
        for name in students:
            assert together[name] == found(strategy, [name])[name]


# Controls


def test_the_controls_are_trained_for_each_student():
    both = lattice(FOUR, students=BOTH)
    names = controls.chosen(None, both)
    assert names == ("alone", "direct", "alone_same_compute")

    def wanted(scores):
        return list(controls.paths(both, scores, names=names, strategy=exhaustive, cost=lambda stage: 1.0))

    assert wanted({}) == [Path(("r34",)), Path(("r18",)), TO_34, TO_18]
    scores = {path: 0.1 * len(path.models) for path in both.paths()}
    assert wanted(scores)[4:] == [Path(("r34",), 3.0), Path(("r18",), 4.0)]


def test_direct_distillation_is_a_control_of_those_students_whom_the_root_may_teach():
    some = lattice(FOUR, [("r101", "r50"), ("r101", "r34"), ("r50", "r18")], students=BOTH)
    assert controls.direct_paths(some) == [TO_34]
    assert controls.chosen(["direct"], some) == ("direct",)
    with pytest.raises(Invalid, match=r"add the edge \[r101, r18\]"):
        controls.chosen(["direct"], lattice(FOUR, [("r101", "r50"), ("r50", "r18")]))


def test_a_study_with_one_path_for_each_student_has_each_alone_beside_it():
    assert controls.chosen(None, lattice(FOUR, [("r101", "r34"), ("r101", "r18")], students=BOTH)) == ("alone",)


def test_the_bill_of_the_controls_counts_each_student():
    both = lattice(FOUR, students=BOTH)
    own = controls.bill(
        [(path, both.stage(path, 0)) for path in (*both.paths(), Path(("r34",)), Path(("r18",)))],
        both,
        names=("alone", "direct", "alone_same_compute"),
        searched=both.paths(),
        seeds=(0,),
        cost=lambda stage: 1.0,
    )
    assert (own["trainings"], own["later"]) == (4, 2)
