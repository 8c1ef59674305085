"""What a benchmark says of a gain is what its interval says."""

from __future__ import annotations

import pytest

from benchmarks.gains import verdict


def test_a_verdict_says_what_the_interval_says() -> None:
    assert verdict([0.02, 0.021, 0.019, 0.02, 0.022]) == "helps"
    assert verdict([-0.02, -0.021, -0.019, -0.02, -0.022]) == "hurts"
    assert verdict([0.02, -0.01, 0.0, 0.01, -0.02]) == "no gain shown"
    assert verdict([0.0] * 5) == "no gain shown"


@pytest.mark.parametrize("gains", [[], [0.02], [0, 0, 0, 0, 0.001]])
def test_few_different_gains_say_nothing(gains: list[float]) -> None:
    assert verdict(gains) == "too few to say"
