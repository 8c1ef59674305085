"""What is said of a gain is true: its interval holds the truth as often as it claims."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.statistics import FEWEST, interval, resamples, student

FEW = st.integers(2, 6).flatmap(
    lambda n: st.lists(st.integers(-50, 50).map(lambda n: n / 1000), min_size=n, max_size=n, unique=True)
)


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


@pytest.mark.parametrize("gains", [[0.010, 0.013, -0.002, 0.021], [0.010, 0.013, -0.002, 0.021, 0.016]])
def test_it_is_what_plain_python_says_of_all_resamples(gains: list[float]) -> None:
    for confidence in (0.5, 0.9, 0.95):
        assert interval(gains, confidence=confidence) == pytest.approx(by_hand(gains, confidence=confidence))


def test_four_symmetric_gains_by_hand() -> None:
    # Half of the 256 resamples lie between the t of rank 64 and its opposite; at confidence 0 it is the middle.
    low, high = interval([-1.0, 1.0, -1.0, 1.0], confidence=0.5) or (0, 0)
    # A resample with k ones has the mean (2k - 4) / 4: of 256 16 are constant, 64 have one, 96 two and 64 three ones.
    # t of k = 3 is .5 / (1 / 2); ranks 64 and 191 are k = 1 and k = 3. The error of the sample is sqrt(4 / 3) / 2.
    assert (low, high) == pytest.approx((-math.sqrt(4 / 3) / 2, math.sqrt(4 / 3) / 2))


def test_two_gains_by_hand() -> None:
    # The mean is .02; the deviation .01 * sqrt(2), so the error .01; t with one degree of freedom is 12.7062.
    assert interval([0.01, 0.03]) == pytest.approx((0.02 - 0.127062, 0.02 + 0.127062), abs=1e-6)


def test_three_gains_by_hand() -> None:
    # The mean is .02; the deviation .01, so the error .01 / sqrt(3); t with two degrees of freedom is 4.3027.
    reach = 4.302653 * 0.01 / math.sqrt(3)
    assert interval([0.01, 0.03, 0.02]) == pytest.approx((0.02 - reach, 0.02 + reach), abs=1e-6)
    nearer = interval([0.018, 0.02, 0.022])
    assert nearer is not None and 0.02 - reach < 0 < nearer[0]


@pytest.mark.parametrize(
    ("freedom", "confidence", "t"),
    [(1, 0.5, 1.0), (1, 0.99, 63.657), (2, 0.5, 0.816), (2, 0.9, 2.92), (2, 0.99, 9.925)],
)
def test_students_t_is_that_of_the_tables(freedom: int, confidence: float, t: float) -> None:
    assert student(freedom, confidence) == pytest.approx(t, abs=6e-4)


def test_of_fewer_gains_the_resamples_could_not_say() -> None:
    for number in (2, 3):
        rows, often = resamples(number)
        constant = often[rows.min(1) == rows.max(1)].sum()
        assert number < FEWEST and constant / often.sum() > 0.05  # at 95% one of the two bounds would be infinite


@pytest.mark.parametrize("number", [2, 4, 5])
def test_every_resample_is_counted_once(number: int) -> None:
    rows, often = resamples(number)
    every = [tuple(sorted(row)) for row in itertools.product(range(number), repeat=number)]
    assert {tuple(row): times for row, times in zip(rows.tolist(), often.tolist(), strict=True)} == {
        row: every.count(row) for row in set(every)
    }


def test_many_gains_are_resampled_at_random_but_always_alike() -> None:
    gains = [sign * statistics.NormalDist().inv_cdf(0.5 + n / 31) for n in range(1, 16) for sign in (-1, 1)]
    bounds, error = interval(gains), statistics.stdev(gains) / math.sqrt(30)
    resamples.cache_clear()
    assert bounds is not None and bounds == interval(gains)
    assert bounds == pytest.approx((-2.045 * error, 2.045 * error), rel=0.05)  # Student's t with 29 degrees of freedom


@given(FEW, st.integers(-100, 100).map(lambda n: n / 1000), st.floats(0.5, 3))
def test_it_moves_and_grows_with_the_gains(gains: list[float], shift: float, factor: float) -> None:
    low, high = interval(gains, confidence=0.8) or (0, 0)
    moved = interval([factor * gain + shift for gain in gains], confidence=0.8)
    assert moved == pytest.approx((factor * low + shift, factor * high + shift), abs=1e-9)


@given(FEW, st.randoms())
def test_the_order_of_the_seeds_does_not_matter(gains: list[float], chance: random.Random) -> None:
    mixed = list(gains)
    chance.shuffle(mixed)
    assert interval(mixed) == pytest.approx(interval(gains), abs=1e-12)


@given(FEW)
def test_losses_mirror_gains_and_the_mean_lies_within(gains: list[float]) -> None:
    low, high = interval(gains) or (1, 0)
    assert low <= statistics.fmean(gains) + 1e-12 and statistics.fmean(gains) <= high + 1e-12
    assert interval([-gain for gain in gains]) == pytest.approx((-high, -low), abs=1e-9)


@given(FEW, st.floats(0.5, 0.9))
def test_who_claims_less_often_to_be_right_may_say_more(gains: list[float], confidence: float) -> None:
    inner, outer = interval(gains, confidence=confidence), interval(gains)
    assume(inner is not None and outer is not None)
    assert inner is not None and outer is not None
    assert outer[0] <= inner[0] and inner[1] <= outer[1]


@pytest.mark.parametrize(
    ("draw", "truth", "seeds", "least", "most"),
    [
        ("normal", 0.0, 2, 0.935, 0.965),
        ("normal", 0.0, 3, 0.935, 0.965),
        ("normal", 0.0, 4, 0.935, 0.975),
        ("normal", 0.0, 5, 0.935, 0.975),
        ("normal", 0.0, 8, 0.935, 0.975),
        ("exponential", 1.0, 5, 0.91, 0.96),
        ("exponential", 1.0, 3, 0.85, 0.91),  # skewed gains are what Student's t is not made for
    ],
)
def test_it_holds_the_truth_about_as_often_as_it_says(
    draw: str, truth: float, seeds: int, least: float, most: float
) -> None:
    generator = np.random.default_rng(0)
    found = [interval(getattr(generator, draw)(size=seeds)) or (1.0, 0.0) for _ in range(2000)]
    assert least <= sum(low <= truth <= high for low, high in found) / 2000 <= most


def test_the_usual_interval_of_five_seeds_would_be_too_narrow() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        gains = generator.normal(size=5)
        means = gains[np.array(list(itertools.product(range(5), repeat=5)))].mean(1)
        held += np.quantile(means, 0.025) <= 0 <= np.quantile(means, 0.975)
    assert 0.8 < held / 1000 < 0.88


@pytest.mark.parametrize("gains", [[], [0.02], [0, 0, 0, 0, 0.001]])
def test_one_gain_or_few_different_ones_say_nothing(gains: list[float]) -> None:
    assert interval(gains) is None


def test_equal_gains_are_taken_at_their_word() -> None:
    assert interval([0.02, 0.02]) == (0.02, 0.02)
