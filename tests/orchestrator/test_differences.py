"""What differs between two stages is named field by field, and is all that there is between them."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.differences import ABSENT, BESIDE, Difference, differences, distance, plain, recorded
from tests.orchestrator.random_stages import stages
from trainers import spec
from trainers.spec import Data, Recipe, Stage


def found(here: Any, there: Any, *where: str) -> dict[str, tuple[Any, Any]]:
    return {".".join(one.where): (one.here, one.there) for one in differences(here, there, where)}


# Applying what was found to the one side. A loss is found by its name, or by its position where names do not do.


def put(node: dict[str, Any], where: tuple[str, ...], value: Any) -> None:
    key, *rest = where
    if key == "distill":
        node[key] = put_loss(node[key], tuple(rest), value)
    elif rest:
        put(node[key], tuple(rest), value)
    elif value is ABSENT:
        del node[key]
    else:
        node[key] = value


def put_loss(losses: list[Any], where: tuple[str, ...], value: Any) -> list[Any]:
    if not where:
        named = value and all(isinstance(one, str) for one in value)
        return [next(loss for loss in losses if name in loss) for name in value] if named else value
    name, *inner = where
    if name.isdigit():
        at = int(name)
        if inner:
            put(losses[at], tuple(inner), value)
            return losses
        return losses[:at] if value is ABSENT else [*losses[:at], value, *losses[at + 1 :]]
    if inner:
        loss = next(loss for loss in losses if name in loss)
        put(loss if inner[0] in BESIDE else loss[name], tuple(inner), value)
        return losses
    if value is ABSENT:
        return [loss for loss in losses if name not in loss]
    args = {key: one for key, one in value.items() if key not in BESIDE}
    return [*losses, {name: args, **{key: one for key, one in value.items() if key in BESIDE}}]


def applied(here: dict[str, Any], listed: list[Difference]) -> dict[str, Any]:
    made = copy.deepcopy(here)
    for one in listed:
        put(made, one.where, one.there)
    return made


@given(stages, stages)
def test_the_listed_differences_applied_to_the_one_stage_give_the_other(one: Stage, other: Stage) -> None:
    made = applied(plain(one), differences(plain(one), plain(other)))
    assert made == plain(other)
    del made["semantics"]
    assert Stage.model_validate_json(json.dumps(made)).key == other.key


@given(stages, stages)
def test_stages_differ_in_something_just_if_their_keys_do(one: Stage, other: Stage) -> None:
    assert bool(differences(plain(one), plain(other))) == (one.key != other.key)
    assert differences(plain(one), plain(one)) == [] and distance(plain(one), plain(one)) == 0


@given(stages, stages)
def test_either_stage_may_be_the_one(one: Stage, other: Stage) -> None:
    def fields(here: Stage, there: Stage) -> set[tuple[str, ...]]:
        return {found.where for found in differences(plain(here), plain(there))}

    assert fields(one, other) == fields(other, one)
    assert distance(plain(one), plain(other)) == distance(plain(other), plain(one))


# Worked examples.


def test_a_field_is_named_as_a_study_writes_it() -> None:
    here = {"model": {"backbone": {"ResNet": {"depth": 50, "norm": "batch"}}}, "recipe": {"lr": 0.01}, "seed": 0}
    there = {"model": {"backbone": {"ResNet": {"depth": 18, "norm": "batch"}}}, "recipe": {"lr": 0.02}, "seed": 1}
    assert found(here, there) == {
        "model.backbone.ResNet.depth": (50, 18),
        "recipe.lr": (0.01, 0.02),
        "seed": (0, 1),
    }


def test_another_class_is_one_difference_whatever_its_arguments() -> None:
    gfl, atss = {"GFL": {"channels": 8, "reg_max": 4}}, {"ATSS": {"channels": 8}}
    assert found({"detector": gfl}, {"detector": atss}) == {"detector": (gfl, atss)}
    assert distance(gfl, atss) == 2


def test_losses_are_compared_by_name() -> None:
    here = [{"LD": {"weight": 0.25, "temperature": 10.0}}, {"KD": {"weight": 1.0}}]
    there = [{"LD": {"weight": 0.25, "temperature": 5.0}, "epochs": [2, None]}, {"PKD": {"weight": 6.0}}]
    assert found(here, there, "distill") == {
        "distill.LD.temperature": (10.0, 5.0),
        "distill.LD.epochs": (ABSENT, [2, None]),
        "distill.KD": ({"weight": 1.0}, ABSENT),
        "distill.PKD": (ABSENT, {"weight": 6.0}),
    }


def test_losses_of_no_common_name_are_one_difference() -> None:
    assert found([{"LD": {}}], [{"KD": {}}, {"PKD": {}}], "distill") == {
        "distill": ([{"LD": {}}], [{"KD": {}}, {"PKD": {}}])
    }
    assert found([], [{"LD": {"weight": 1.0}}], "distill") == {"distill.LD": (ABSENT, {"weight": 1.0})}


def test_the_order_of_losses_is_a_difference() -> None:
    assert found([{"LD": {}}, {"KD": {}}], [{"KD": {}}, {"LD": {}}], "distill") == {
        "distill": (["LD", "KD"], ["KD", "LD"])
    }
    # Where one joins in front, the order says so; at the end it need not.
    joined = found([{"LD": {}}], [{"KD": {}}, {"LD": {}}], "distill")
    assert joined == {"distill.KD": (ABSENT, {}), "distill": (["LD"], ["KD", "LD"])}
    assert found([{"LD": {}}], [{"LD": {}}, {"KD": {}}], "distill") == {"distill.KD": (ABSENT, {})}


def test_a_loss_that_is_there_twice_is_named_by_its_position() -> None:
    here = [{"LD": {"weight": 1.0}}, {"LD": {"weight": 2.0}}]
    assert found(here, [{"LD": {"weight": 1.0}}, {"LD": {"weight": 3.0}}], "distill") == {
        "distill.1.LD.weight": (2.0, 3.0)
    }
    assert found(here, here[:1], "distill") == {"distill.1": ({"LD": {"weight": 2.0}}, ABSENT)}


def test_an_argument_that_is_called_like_what_stands_beside_a_loss_is_told_from_it() -> None:
    here, there = [{"LD": {"after": 3}, "after": 5}], [{"LD": {"after": 4}, "after": 6}]
    assert found(here, there, "distill") == {"distill.0.LD.after": (3, 4), "distill.0.after": (5, 6)}


def test_a_number_is_no_truth_and_a_whole_number_no_fraction_as_in_a_key() -> None:
    assert found({"x": 1}, {"x": True}) == {"x": (1, True)}
    assert found({"x": 1}, {"x": 1.0}) == {"x": (1, 1.0)}


def test_what_only_one_side_has_counts_with_all_its_fields() -> None:
    teacher = {"model": {"a": 1, "b": {"c": 2, "d": []}}, "distill": [{"LD": {"weight": 1, "temperature": 2}}]}
    assert distance({"teacher": teacher}, {"teacher": None}) == 5
    assert distance({"distill": teacher["distill"]}, {"distill": []}) == 2
    assert distance({"x": 1, "y": {}}, {"y": {"z": 3}}) == 2


# Records and the versions that wrote them.


def own(**changes: Any) -> Stage:
    model = {"detector": "GFL", "backbone": "ResNet"}
    return Stage(**{"model": model, "data": Data(fingerprint="f", classes=("a",)), "recipe": Recipe(), **changes})


def test_the_semantics_of_a_record_follow_from_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> Stage:
        return own(teacher=own(seed=1), distill=({"LD": {"weight": 1e-05}},))

    now, record = made(), json.loads(made().model_dump_json(indent=1))
    monkeypatch.setattr(spec, "SEMANTICS", spec.SEMANTICS - 1)
    old = made().key
    monkeypatch.undo()
    assert recorded(now.key, record)["semantics"] == spec.SEMANTICS
    assert recorded(old, record)["semantics"] == spec.SEMANTICS - 1
    assert found(plain(now), recorded(old, record)) == {"semantics": (spec.SEMANTICS, spec.SEMANTICS - 1)}
    assert found(plain(now), recorded("0" * 16, record)) == {"semantics": (spec.SEMANTICS, None)}


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["model", "data", "recipe", "distill", "seed", "teacher", "of another version"])


@given(stages, st.dictionaries(FIELDS, JUNK, max_size=3), st.sets(FIELDS, max_size=2))
def test_a_record_of_whatever_is_compared(one: Stage, other: dict[str, Any], gone: set[str]) -> None:
    stage = {**{key: value for key, value in plain(one).items() if key not in gone}, **other}
    there = recorded(one.key, stage)
    assert ("semantics" in there) and distance(plain(one), there) >= len(differences(plain(one), there))


def test_a_field_that_an_older_version_did_not_have_is_absent() -> None:
    there = plain(own())
    del there["recipe"]["crop"]
    there["recipe"]["momentum"] = 0.9
    assert found(plain(own()), there) == {"recipe.crop": (None, ABSENT), "recipe.momentum": (ABSENT, 0.9)}
