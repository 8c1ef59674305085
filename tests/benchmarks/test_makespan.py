"""What the benchmark of makespans takes for a lower bound is one."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def makespan():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        import makespan

        yield makespan
        sys.modules.pop("makespan")


def test_three_equal_trainings_take_two_rounds_on_two_slots(makespan):
    assert makespan.at_least([3.0, 3.0, 3.0], 2) == 6


def test_on_slots_enough_the_longest_training_decides(makespan):
    assert makespan.at_least([5.0, 1.0, 1.0], 3) == 5


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), slots=st.integers(1, 3))
def test_no_way_of_sharing_trainings_out_takes_less(makespan, lengths, slots):
    def takes(places):
        return max(sum(one for one, at in zip(lengths, places, strict=True) if at == slot) for slot in range(slots))

    best = min(takes(places) for places in product(range(slots), repeat=len(lengths)))
    assert makespan.at_least(lengths, slots) <= best


@pytest.mark.parametrize("number", range(3))
def test_every_order_keeps_to_the_bounds_of_a_lattice(makespan, number):
    found = list(makespan.ratios(number))
    assert len(found) == len(makespan.SEARCHES) * len(makespan.SLOTS) * len(makespan.ORDERS)
    assert all(one.simple >= one.times >= 0.999999 for one in found)
