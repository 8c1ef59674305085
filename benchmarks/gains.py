"""What a few paired scores say about a gain: a bootstrap interval that is honest about how few they are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

ENUMERATED = 7  # of so many gains all resamples are looked at, of more DRAWN of them
DRAWN = 100_000
HOW = (
    "bootstrap-t: resampled are the seeds, compared is each resample's mean in its own standard errors, over all "
    "n^n resamples. The usual percentile interval is too narrow for five seeds: it holds the truth of normal gains "
    "in 84% of all cases instead of 95%, this one in 95%. It is wide, because five seeds are few"
)


def interval(gains: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float] | None:
    """Where the mean gain lies: Efron's bootstrap-t, two-sided. None where these gains cannot say.

    Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, section 12.5. A resample whose values are all equal
    has no standard error: its t is infinite, which only widens the interval. With fewer than 4 gains at 95%, or with
    many equal ones, it would be infinitely wide.
    """
    sample = np.asarray(gains, dtype=float)
    number = len(sample)
    if number < 2:
        return None
    if sample.min() == sample.max():
        return float(sample[0]), float(sample[0])
    mean, error = sample.mean(), standard_error(sample)
    again = sample[resamples(number)]
    off, errors = again.mean(axis=-1) - mean, standard_error(again)
    # Of equal values mean and deviation are rounded, so ask the values themselves.
    equal = again.min(axis=-1) == again.max(axis=-1)
    t = np.where(equal, np.copysign(np.inf, off), off / np.where(equal, 1, errors))
    t.sort()
    cut = int((1 - confidence) / 2 * len(t))
    low, high = mean - t[-1 - cut] * error, mean - t[cut] * error
    return (float(low), float(high)) if np.isfinite([low, high]).all() else None


def standard_error(values: np.ndarray) -> np.ndarray:
    """Of the mean of the last dimension. (..., n) -> (...)."""
    return values.std(axis=-1, ddof=1) / np.sqrt(values.shape[-1])


@lru_cache(maxsize=8)
def resamples(number: int) -> np.ndarray:
    """Which values each resample has, with repetition: every possible one, or many at random. -> (m, number)."""
    if number <= ENUMERATED:
        return np.array(list(itertools.product(range(number), repeat=number)))
    return np.random.default_rng(0).integers(number, size=(DRAWN, number))


def verdict(gains: Sequence[float]) -> str:
    """In a word what the interval says."""
    bounds = interval(gains)
    if bounds is None:
        return "too few to say"
    low, high = bounds
    if low > 0:
        return "helps"
    return "hurts" if high < 0 else "no gain shown"
