"""What a benchmark says of a gain in a word, and how it knows."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.statistics import interval

HOW = (
    "bootstrap-t: resampled are the seeds, compared is each resample's mean in its own standard errors, over all "
    "n^n resamples. The usual percentile interval is too narrow for five seeds: it holds the truth of normal gains "
    "in 84% of all cases instead of 95%, this one in 95%. It is wide, because five seeds are few"
)


def verdict(gains: Sequence[float]) -> str:
    """In a word what the interval says."""
    bounds = interval(gains)
    if bounds is None:
        return "too few to say"
    low, high = bounds
    if low > 0:
        return "helps"
    return "hurts" if high < 0 else "no gain shown"
