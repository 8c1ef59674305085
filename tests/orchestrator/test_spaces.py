"""Spaces: every value lies where the study has it, and a space that is written is the same when it is read again."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.spaces import Space, space
from trainers.call import Invalid

PARTS = st.floats(0, 1, exclude_max=True)
ALMOST_ONE = math.nextafter(1.0, 0.0)


@st.composite
def written(draw: st.DrawFn) -> object:
    """A space as a study has it."""
    kind = draw(
        st.sampled_from(["list", "choice", "grid", "uniform", "loguniform", "quniform", "randint", "lograndint"])
    )
    if kind in ("list", "choice", "grid"):
        options = draw(st.lists(st.integers(-5, 5) | st.sampled_from(["a", None, 0.5]), min_size=1, unique=True))
        return options if kind == "list" else {kind: options}
    if kind.endswith("randint"):
        low = draw(st.integers(1 if kind == "lograndint" else -50, 50))
        return {kind: [low, low + draw(st.integers(1, 200))]}
    if kind == "quniform":
        step, low, more = draw(st.sampled_from([0.1, 0.25, 2, 5])), draw(st.integers(-20, 20)), draw(st.integers(1, 40))
        return {kind: [low * step, (low + more) * step, step]}
    low = draw(st.floats(1e-6 if kind == "loguniform" else -100, 100))
    high = draw(st.floats(low, 2e3))
    assume(high > low)
    return {kind: [low, high]}


# By hand


def test_randint_leaves_its_upper_end_out():
    one = space({"randint": [3, 7]})
    assert [one.at(part) for part in (0, 0.25, 0.5, 0.75, ALMOST_ONE)] == [3, 4, 5, 6, 6]
    assert space({"lograndint": [1, 8]}).at(ALMOST_ONE) == 7
    assert space({"randint": [3, 4]}).at(ALMOST_ONE) == 3


def test_half_way_is_the_mean_and_the_geometric_mean_where_it_is_logarithmic():
    assert space({"uniform": [1, 100]}).at(0.5) == 50.5
    assert space({"loguniform": [1, 100]}).at(0.5) == 10.0
    assert space({"lograndint": [1, 100]}).at(0.51) == 10


def test_both_ends_of_quniform_can_come_out_and_what_comes_out_is_a_multiple():
    one = space({"quniform": [0.1, 0.5, 0.1]})
    assert {one.at(part / 100) for part in range(100)} == {0.1, 0.2, 0.3, 0.4, 0.5}
    assert space({"qloguniform": [1, 100, 1]}).at(0.5) == 10.0


def test_a_choice_offers_its_values_in_equal_parts_and_as_they_are():
    one = space([[1, 2], None, {"a": 1}])
    assert [one.at(part) for part in (0, 0.34, 0.67, ALMOST_ONE)] == [[1, 2], None, {"a": 1}, {"a": 1}]


def test_drawn_values_have_four_digits_and_more_only_where_the_range_is_narrow():
    assert space({"uniform": [0, 1]}).at(1 / 3) == 0.3333
    assert space({"loguniform": [1e-5, 1e-1]}).at(0.2) == 6.31e-05
    narrow = space({"uniform": [1000, 1001]})
    assert len({narrow.at(part / 50) for part in range(50)}) == 50


def test_samples_are_the_values_of_a_choice_and_the_ends_of_a_range():
    assert space({"grid": [3, 1, 2]}).samples() == (3, 1, 2)
    assert space({"randint": [3, 7]}).samples() == (3, 6)
    assert space({"loguniform": [1, 20]}).samples() == (1.0, 20.0)


def test_whole_numbers_of_a_range_are_as_its_ends_are_written():
    assert isinstance(space({"randint": [3, 7]}).at(0.5), int)
    assert isinstance(space({"randint": [3.0, 7.0]}).at(0.5), float)


# Any space


@given(written(), PARTS | st.sampled_from([0.0, ALMOST_ONE]))
def test_every_value_lies_in_its_space(written, part):
    one = space(written)
    value = one.at(part)
    if one.kind == "choice":
        assert value in one.options
        return
    assert one.low <= value <= one.high and math.isfinite(value)
    if one.whole:
        assert value == int(value) < one.high
    if one.step:
        assert abs(value / one.step - round(value / one.step)) < 1e-6


@given(written(), PARTS, PARTS)
def test_who_is_further_along_has_no_smaller_value(written, one_part, other_part):
    one = space(written)
    if one.kind != "choice":
        assert one.at(min(one_part, other_part)) <= one.at(max(one_part, other_part))


@given(written(), PARTS)
def test_a_value_is_the_nearest_to_itself(written, part):
    one = space(written)
    if one.kind != "choice":
        assert one.rounded(one.at(part)) == one.at(part)


@given(written())
def test_a_space_written_as_json_is_the_same_when_it_is_read_again(written):
    one = space(written)
    again = space(json.loads(json.dumps(one.model_dump())))
    assert again == one and isinstance(again, Space)
    assert [again.at(part) for part in (0, 0.3, 0.9)] == [one.at(part) for part in (0, 0.3, 0.9)]


# Mistakes


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ([], "at least one value, each once"),
        ([1, 2, 1], "at least one value, each once"),
        (5, "write a list of values, or one of choice, grid, uniform"),
        ({}, "write a list of values"),
        ({"uniform": [0, 1], "choice": [1]}, "write a list of values"),
        ({"logunifrom": [1, 2]}, "did you mean loguniform"),
        ({"uniform": 3}, "uniform needs a list"),
        ({"choice": "ab"}, "choice needs a list"),
        ({"uniform": [1]}, r"uniform needs the numbers \[low, high\]"),
        ({"quniform": [1, 2]}, r"quniform needs the numbers \[low, high, step\]"),
        ({"uniform": [True, 2]}, r"needs the numbers \[low, high\]"),
        ({"uniform": ["1", 2]}, r"needs the numbers \[low, high\]"),
        ({"uniform": [2, 1]}, "the lower end, 2, is not below the upper one, 1"),
        ({"uniform": [1, 1]}, "is not below"),
        ({"uniform": [0, math.inf]}, "finite"),
        ({"loguniform": [0, 1]}, "begins above 0, not at 0"),
        ({"lograndint": [-1, 3]}, "begins above 0"),
        ({"randint": [0.5, 2]}, "goes between whole numbers"),
        ({"quniform": [0, 1, 0]}, "the step, 0, is not above 0"),
        ({"quniform": [0, 1, 2]}, "the step, 2, is not above 0 and within the range"),
        ({"quniform": [0.2, 1, 0.5]}, "both ends are multiples of the step, 0.5"),
    ],
)
def test_what_is_no_space_is_refused_with_what_would_do(written, says):
    with pytest.raises(Invalid, match=says):
        space(written)
