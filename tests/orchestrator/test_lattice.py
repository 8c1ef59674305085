"""Lattices: paths, roles, stages, and what a user may get wrong."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.lattice import Entry, Lattice, Path, best
from trainers.call import Call, Invalid, Term
from trainers.spec import Data, Guides, Model, Recipe, Weights

DATA = Data(fingerprint="digits", classes=("3", "5"))
LD = Term(name="LD", args={"weight": 0.25})
FOUR = ("r101", "r50", "r34", "r18")


def entry(depth: str, epochs: int = 12) -> Entry:
    return Entry(Model(detector=Call(name="GFL"), backbone=Call(name=depth)), Recipe(epochs=epochs))


def lattice(
    names: Iterable[str], edges: Iterable[tuple[str, str]] | None = None, students: Iterable[str] = ()
) -> Lattice:
    return Lattice({name: entry(name) for name in names}, DATA, [LD], edges=edges, students=students)


def written(paths: Iterable[Path]) -> list[str]:
    return [str(path) for path in paths]


def published(part: str = "detector") -> Lattice:
    """Teacher and student with weights of their own."""
    entries = {name: entry(name) for name in FOUR}
    for name, epochs in (("r101", 24), ("r18", 3)):
        model = entry(name).model.model_copy(update={"weights": Weights(sha256="0" * 64, part=part)})
        entries[name] = Entry(model, Recipe(epochs=epochs, lr=0.5, batch=8, resize=(800, 1333)))
    return Lattice(entries, DATA, [LD])


# Paths


def test_a_path_reads_like_an_arrow_and_shows_a_budget_only_when_it_is_not_all():
    assert str(Path(("r101", "r34")) + "r18") == "r101 > r34 > r18"
    assert str(Path(("r101",), 0.25) + "r18") == "r101 > r18 @0.25"


def test_the_teacher_of_a_path_keeps_the_budget_except_the_root_who_trains_in_full():
    path = Path(("r101", "r34", "r18"), 0.25)
    assert path.teacher == Path(("r101", "r34"), 0.25)
    assert path.teacher.teacher == Path(("r101",), 1.0)
    assert path.teacher.teacher.teacher is None


def test_four_models_give_four_paths_short_ones_first_and_in_the_order_of_the_names():
    assert written(lattice(FOUR).paths()) == [
        "r101 > r18",
        "r101 > r50 > r18",
        "r101 > r34 > r18",
        "r101 > r50 > r34 > r18",
    ]


def test_paths_of_a_smaller_budget_are_the_same_paths_trained_for_less():
    paths = lattice(FOUR).paths(budget=0.5)
    assert [path.models for path in paths] == [path.models for path in lattice(FOUR).paths()]
    assert {path.budget for path in paths} == {0.5}


def test_edges_restrict_the_paths_and_none_means_any_stronger_teaches_any_weaker():
    edges = [("r101", "r50"), ("r50", "r34"), ("r34", "r18"), ("r50", "r18")]
    restricted = lattice(FOUR, edges)
    assert written(restricted.paths()) == ["r101 > r50 > r18", "r101 > r50 > r34 > r18"]
    assert restricted.shortest("r18") == Path(("r101", "r50", "r18"))
    assert restricted.teachers("r18") == ("r50", "r34")
    assert lattice(FOUR).teachers("r18") == ("r101", "r50", "r34")
    assert lattice(FOUR).teachers("r101") == ()


@pytest.mark.parametrize("num_assistants", range(8))
def test_k_assistants_make_2_to_the_k_paths_and_n_models_2_to_the_n_minus_1_stages(num_assistants):
    free = lattice([f"m{i}" for i in range(num_assistants + 2)])
    assert len(free.paths()) == 2**num_assistants
    keys = {stage.key for path in free.paths() for stage in free.stage(path, 0).lineage}
    assert len(keys) == 2 ** (num_assistants + 1)


def test_the_shortest_path_of_a_large_lattice_is_found_without_listing_the_others():
    assert lattice([f"m{i}" for i in range(60)]).shortest("m59") == Path(("m0", "m59"))


@st.composite
def edge_sets(draw: st.DrawFn) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    names = tuple(f"m{i}" for i in range(draw(st.integers(2, 7))))
    return names, draw(st.lists(st.sampled_from(list(combinations(names, 2))), unique=True))


@given(edge_sets())
def test_paths_are_exactly_the_chains_of_edges_from_root_to_student(case):
    names, edges = case
    chains = {
        (names[0], *inner, names[-1])
        for size in range(len(names) - 1)
        for inner in combinations(names[1:-1], size)
        if all(pair in edges for pair in zip((names[0], *inner), (*inner, names[-1]), strict=True))
    }
    if not chains:
        with pytest.raises(Invalid, match="no path leads"):
            lattice(names, edges)
        return
    restricted = lattice(names, edges)
    paths = [path.models for path in restricted.paths()]
    assert len(paths) == len(set(paths)) and set(paths) == chains
    assert paths == sorted(paths, key=lambda models: (len(models), models))
    assert restricted.shortest(names[-1]).models == paths[0]
    assert set(restricted.isolated()) == set(names) - {name for chain in chains for name in chain}
    for name in names:
        assert set(restricted.teachers(name)) == {chain[chain.index(name) - 1] for chain in chains if name in chain[1:]}


# Mistakes


@pytest.mark.parametrize("names", [(), ("r18",)])
def test_one_model_is_not_a_study(names):
    with pytest.raises(Invalid, match="at least two models") as caught:
        lattice(names)
    assert caught.value.where == ("models",)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("r101", "r43"), "r43 is not one of r101, r18, r34, r50; did you mean"),
        (("R101", "r18"), "R101 is not one of"),
        (("r34", "r34"), "r34 cannot teach itself; list the model twice"),
        (("r18", "r50"), r"strongest first.*write \[r50, r18\] or list r18 before r50"),
        (("r101", "r18"), r"\[r101, r18\] is there already, as edge 0"),
    ],
)
def test_a_wrong_edge_is_named_with_its_place_and_a_way_out(wrong, says):
    with pytest.raises(Invalid, match=says) as caught:
        lattice(FOUR, [("r101", "r18"), ("r101", "r50"), wrong])
    assert caught.value.where == ("edges", 2)


@pytest.mark.parametrize("edges", [[], [("r101", "r50"), ("r34", "r18")]])
def test_a_student_out_of_reach_is_a_mistake(edges):
    with pytest.raises(Invalid, match="no path leads from r101 to r18") as caught:
        lattice(FOUR, edges)
    assert caught.value.where == ("edges",)


def test_an_assistant_without_a_way_in_or_out_is_isolated_and_neither_teaches_nor_is_taught():
    no_way_out = lattice(FOUR, [("r101", "r18"), ("r101", "r50"), ("r50", "r34")])
    assert no_way_out.isolated() == ("r50", "r34")
    assert no_way_out.teachers("r34") == ()
    no_way_in = lattice(FOUR, [("r101", "r18"), ("r50", "r34"), ("r34", "r18")])
    assert no_way_in.isolated() == ("r50", "r34")
    assert no_way_in.teachers("r18") == ("r101",)
    assert lattice(FOUR).isolated() == ()


# The best path


def test_the_best_path_is_taught_trained_in_full_and_ends_at_the_student():
    scores = {
        Path(("r101",)): 0.9,
        Path(("r101", "r50")): 0.8,
        Path(("r18",)): 0.7,
        Path(("r101", "r34", "r18"), 0.25): 0.6,
        Path(("r101", "r50", "r18")): 0.5,
        Path(("r101", "r18")): 0.4,
    }
    assert best(scores, lattice(FOUR), "r18") == Path(("r101", "r50", "r18"))


def test_there_is_no_best_path_before_one_is_known_or_when_all_failed():
    assert best({}, lattice(FOUR), "r18") is None
    assert best({Path(("r18",)): 0.7, Path(("r101", "r18")): -inf}, lattice(FOUR), "r18") is None


@given(st.permutations(lattice(FOUR).paths()))
def test_of_equally_good_paths_the_shortest_is_best_then_the_first_in_order(paths):
    four = lattice(FOUR)
    scores = {path: 0.5 for path in paths}
    assert best(scores, four, "r18") == Path(("r101", "r18"))
    del scores[Path(("r101", "r18"))]
    assert best(scores, four, "r18") == Path(("r101", "r50", "r18"))


@pytest.mark.parametrize("edges", [None, [("a", "b"), ("b", "c"), ("c", "d")], [("a", "b"), ("a", "d"), ("b", "d")]])
def test_paths_are_counted_without_being_listed(edges):
    of = lattice("abcd", edges)
    assert of.count() == (len(of.paths()), sum(len(path.models) for path in of.paths()))


# Guides


def guided(*names: str) -> Lattice:
    """Four models in a row, of which these learn from all above them."""
    entries = {name: entry(name) for name in FOUR}
    for name in names:
        entries[name] = Entry(entry(name).model, Recipe(guides="all"))
    return Lattice(entries, DATA, [LD], edges=[("r101", "r50"), ("r50", "r34"), ("r34", "r18")])


def test_who_may_guide_whom_is_every_edge_and_every_way_up_where_all_guides_teach():
    edges = [("r101", "r50"), ("r34", "r18"), ("r50", "r34")]
    assert guided().pairs() == edges
    assert guided("r18").pairs() == sorted([*edges, ("r101", "r18"), ("r50", "r18")])
    assert guided("r34").pairs() == sorted([*edges, ("r101", "r34")])


def test_a_model_with_one_ancestor_is_the_same_stage_whoever_should_guide_it():
    plain, dense = guided(), guided("r101", "r50", "r34")
    for models in (("r101",), ("r101", "r50")):
        assert dense.stage(Path(models), 0) == plain.stage(Path(models), 0)
        assert dense.stage(Path(models), 0).recipe.guides == Guides()
    below = Path(("r101", "r50", "r34"))
    assert dense.stage(below, 0) != plain.stage(below, 0)
    assert [one.model.backbone.name for one in dense.stage(below, 0).guides] == ["r50", "r101"]
