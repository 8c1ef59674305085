"""Figures, names and lists as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.words import clock, listed, plain, rows


@pytest.mark.parametrize(
    ("names", "said"), [("a", "a"), ("ab", "a and b"), ("abc", "a, b and c"), ("abcdef", "a, b, c, d and 2 more")]
)
def test_a_list_is_read_like_a_sentence(names, said):
    assert listed(list(names), most=4) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.42, "0.4 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1:00"),
        (200, "3:20"),
        (3600, "1:00:00"),
    ],
)
def test_a_clock_is_short(seconds, said):
    assert clock(seconds) == said


@given(st.text())
def test_plain_text_is_one_line_without_control_characters(text):
    assert plain(text).isprintable()


def test_columns_of_a_table_lie_below_one_another():
    assert rows([["class", "AP"], ["a", "0.5000"]]) == ["class  AP", "a      0.5000"]
