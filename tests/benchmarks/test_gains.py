"""What a benchmark says about a gain is true: its interval holds the truth as often as it claims."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gains import interval, resamples, verdict

FIVE = st.lists(st.integers(-50, 50).map(lambda n: n / 1000), min_size=5, max_size=5, unique=True)


def by_hand(gains: list[float], *, confidence: float) -> tuple[float, float]:
    """The same in plain Python, resample by resample."""
    number, mean = len(gains), statistics.fmean(gains)
    found = []
    for again in itertools.product(gains, repeat=number):
        off = statistics.fmean(again) - mean
        found.append(math.copysign(math.inf, off) if len(set(again)) == 1 else off / statistics.stdev(again))
    found.sort()
    cut, deviation = int((1 - confidence) / 2 * len(found)), statistics.stdev(gains)
    return mean - found[-1 - cut] * deviation, mean - found[cut] * deviation


def test_it_is_what_plain_python_says() -> None:
    gains = [0.010, 0.013, -0.002, 0.021, 0.016]
    for confidence in (0.5, 0.9, 0.95):
        assert interval(gains, confidence=confidence) == pytest.approx(by_hand(gains, confidence=confidence))


def test_four_symmetric_gains_by_hand() -> None:
    # Half of the 256 resamples lie between the t of rank 64 and its opposite; at confidence 0 it is the middle.
    low, high = interval([-1.0, 1.0, -1.0, 1.0], confidence=0.5) or (0, 0)
    # A resample with k ones has the mean (2k - 4) / 4: of 256 16 are constant, 64 have one, 96 two and 64 three ones.
    # t of k = 3 is .5 / (1 / 2); ranks 64 and 191 are k = 1 and k = 3. The error of the sample is sqrt(4 / 3) / 2.
    assert (low, high) == pytest.approx((-math.sqrt(4 / 3) / 2, math.sqrt(4 / 3) / 2))


def test_all_resamples_are_looked_at_once() -> None:
    assert len({tuple(row) for row in resamples(4).tolist()}) == len(resamples(4)) == 4**4


def test_many_gains_are_resampled_at_random_but_always_alike() -> None:
    gains = [sign * statistics.NormalDist().inv_cdf(0.5 + n / 31) for n in range(1, 16) for sign in (-1, 1)]
    bounds, error = interval(gains), statistics.stdev(gains) / math.sqrt(30)
    assert bounds is not None and bounds == interval(gains)
    assert bounds == pytest.approx((-2.045 * error, 2.045 * error), rel=0.05)  # Student's t with 29 degrees of freedom


@given(FIVE, st.integers(-100, 100).map(lambda n: n / 1000), st.floats(0.5, 3))
def test_it_moves_and_grows_with_the_gains(gains: list[float], shift: float, factor: float) -> None:
    low, high = interval(gains) or (0, 0)
    assert interval([factor * gain + shift for gain in gains]) == pytest.approx(
        (factor * low + shift, factor * high + shift), abs=1e-9
    )


@given(FIVE)
def test_losses_mirror_gains_and_the_mean_lies_within(gains: list[float]) -> None:
    low, high = interval(gains) or (1, 0)
    assert low <= statistics.fmean(gains) + 1e-12 and statistics.fmean(gains) <= high + 1e-12
    assert interval([-gain for gain in gains]) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize(("draw", "truth", "least"), [("normal", 0.0, 0.93), ("exponential", 1.0, 0.88)])
def test_of_five_seeds_it_holds_the_truth_about_as_often_as_it_says(draw: str, truth: float, least: float) -> None:
    generator = np.random.default_rng(0)
    held = percentile_held = 0
    for _ in range(300):
        gains = getattr(generator, draw)(size=5)
        low, high = interval(gains) or (0, 0)
        held += low <= truth <= high
        means = gains[resamples(5)].mean(1)
        percentile_held += np.quantile(means, 0.025) <= truth <= np.quantile(means, 0.975)
    assert held / 300 >= least
    assert percentile_held / 300 <= held / 300 - 0.05  # why it is not the usual interval


def test_a_verdict_says_what_the_interval_says() -> None:
    assert verdict([0.02, 0.021, 0.019, 0.02, 0.022]) == "helps"
    assert verdict([-0.02, -0.021, -0.019, -0.02, -0.022]) == "hurts"
    assert verdict([0.02, -0.01, 0.0, 0.01, -0.02]) == "no gain shown"
    assert verdict([0.0] * 5) == "no gain shown"


@pytest.mark.parametrize("gains", [[], [0.02], [0.02, 0.021], [0.02, 0.021, 0.019], [0, 0, 0, 0, 0.001]])
def test_few_different_gains_say_nothing(gains: list[float]) -> None:
    assert interval(gains) is None and verdict(gains) == "too few to say"
