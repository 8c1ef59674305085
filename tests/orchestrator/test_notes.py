"""What MLflow keeps for reports comes back as it was: texts of any length, stages, the paths to them, and studies."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import notes
from orchestrator.board import Row
from orchestrator.lattice import Lattice, Path
from orchestrator.masking import LONGEST
from orchestrator.sweep import Sweep, sweep
from tests.orchestrator.random_stages import stages
from tests.orchestrator.sweeps import lattices, sweeps
from trainers.spec import Stage

texts = st.text(max_size=50) | st.text(min_size=1, max_size=40).map(lambda part: part * 700)
settings = st.lists(
    st.dictionaries(st.sampled_from(["LD.weight", "recipe.lr"]), st.floats(0, 1).map(json.dumps)).map(
        lambda one: tuple(sorted(one.items()))
    ),
    max_size=3,
).map(tuple)
paths = st.builds(
    Path,
    st.lists(st.text(min_size=1), min_size=1, max_size=4).map(tuple),
    st.sampled_from([0.25, 1.0, 3.7]),
    settings,
)


@given(texts, texts)
def test_a_text_comes_back_whole_in_tags_that_mlflow_takes_also_after_one_of_another_length(
    first: str, second: str
) -> None:
    tags = notes.pieces("text", first, {})
    assert notes.joined("text", tags) == first
    tags |= notes.pieces("text", second, tags)
    assert notes.joined("text", tags) == second
    assert all(len(value) <= LONGEST for value in tags.values())


def test_a_text_that_is_not_there_is_empty() -> None:
    assert notes.joined("text", {"other": "x"}) == ""


@given(stages)
def test_a_stage_and_its_teachers_come_back_with_their_keys(stage: Stage) -> None:
    found: Stage | None = None
    for one in stage.lineage:
        found = notes.stage_of(notes.spec(one), found)
        assert found.key == one.key and found == one


def test_what_is_kept_of_a_stage_does_not_grow_with_its_teachers() -> None:
    from tests.orchestrator.tracked import stage

    assert len(notes.spec(stage("r101 > r34 > r18"))) == len(notes.spec(stage("r101 > r18")))


@given(st.lists(paths, min_size=1, max_size=3), st.integers(0, 99))
def test_the_paths_to_a_stage_come_back_in_their_order(wanted: list[Path], place: int) -> None:
    from tests.orchestrator.tracked import row

    one = row(done=1)
    one.path, one.others, one.place = wanted[0], wanted[1:], place
    tags = notes.of_stage(one, "version", {})
    assert notes.paths_of(notes.joined(notes.PATHS, tags)) == wanted
    assert tags[notes.PLACE] == str(place) and tags[notes.VERSION] == "version"
    assert json.loads(tags[notes.FIGURES]) == ["epoch", "seconds", "train/loss_ld", "val/AP"]


@given(lattices(seeds=((0,), (3, 1))), st.none() | sweeps())
def test_a_study_comes_back_with_the_same_stages_edges_and_knobs(before: Lattice, knobs: Sweep | None) -> None:
    expected = {"b > a": {"AP50": 40.0, "AP": 36.5}, "a": {"AP": 30.0}}
    text = notes.description(
        before, metric="AP", search="greedy", parameters={"m0": 7}, sweep=knobs, expected=expected, source="a paper"
    )
    said = json.loads(text)
    after = notes.lattice_of(said)
    assert (after.names, after.edges, after.seeds) == (before.names, before.edges, before.seeds)
    for path in before.paths():
        for seed in before.seeds:
            assert after.stage(path, seed).key == before.stage(path, seed).key
    assert [str(entry.model.detector) for entry in after.models.values()] == [
        str(entry.model.detector) for entry in before.models.values()
    ]
    assert list(said["expected"].items()) == list(expected.items()) and said["models"]["m0"]["parameters"] == 7
    if knobs is None:
        assert said["sweep"] is None
    else:
        again = sweep(said["sweep"])
        assert again == knobs and list(again.knobs) == list(knobs.knobs)


@pytest.mark.parametrize("change", ["search", "source", "metric"])
def test_a_study_that_asks_for_something_else_has_another_version(change: str) -> None:
    from tests.orchestrator.boards import lattice

    said = {"metric": "AP", "search": "exhaustive", "source": ""}
    one, other = (
        notes.description(lattice(("a", "b")), parameters={}, **known)
        for known in (said, said | {change: "something else"})
    )
    assert notes.version(one) != notes.version(other) and len(notes.version(one)) == 16
    assert notes.version("") == ""


def test_no_password_of_a_source_is_kept() -> None:
    from tests.orchestrator.boards import lattice

    source = "https://me:hunter2@example.org/paper"
    text = notes.description(lattice(("a", "b")), metric="AP", search="greedy", parameters={}, source=source)
    assert "hunter2" not in text and "example.org/paper" in text


def test_a_row_as_it_comes_to_mlflow_names_what_it_measured_as_it_was_named() -> None:
    from tests.orchestrator.tracked import row

    one: Row = row(done=0, history=[])
    one.metrics = {"val/AP_café:1": 0.5, "val/AP": 0.5}
    assert json.loads(notes.of_stage(one, "v", {})[notes.FIGURES]) == ["val/AP_café:1"]
