"""From what became of each detection, the best first, to one figure: average precisions and the log-average miss rate.

Of a curve of precision only its hits count: between two of them it falls, and what is summed is the highest precision
from a recall on.
"""

from __future__ import annotations

import numpy as np

from trainers.metrics.greedy import FALSE, HIT

RECALLS = np.linspace(0.0, 1.0, 101)  # COCO's
REFERENCES = 10.0 ** np.arange(-2, 0.25, 0.25)  # false alarms an image: .01, .0178, ... 1
SMALLEST = 1e-10  # miss rate, so that it has a logarithm


def envelope(outcome: np.ndarray) -> np.ndarray:
    """The highest precision from each hit on. (N,) of FALSE, HIT or IGNORED, the best first -> (hits,), 0..1."""
    hits = np.flatnonzero(outcome == HIT)
    right = np.arange(1, len(hits) + 1)
    precision = right / (right + np.cumsum(outcome == FALSE)[hits])
    return np.maximum.accumulate(precision[::-1])[::-1]


def at_recalls(highest: np.ndarray, total: int) -> np.ndarray:
    """COCO's: the precision at 101 recalls, 0 where none is so high. (hits,), of so many objects -> (101,)."""
    place = np.searchsorted(np.arange(1, len(highest) + 1) / total, RECALLS)
    return np.append(highest, 0.0)[place]


def at_eleven(highest: np.ndarray, total: int) -> float:
    """VOC 2007's: the mean precision at the recalls 0, .1, ... 1, compared as whole numbers."""
    needed = np.maximum(-(-np.arange(11) * total // 10), 1)  # hits for such a recall
    return float(np.append(highest, 0.0)[np.minimum(needed - 1, len(highest))].mean())


def area(highest: np.ndarray, total: int) -> float:
    """VOC's since 2010: the area below the curve; each hit makes it longer by the same."""
    return float(highest.sum() / total)


def log_average_miss_rate(outcome: np.ndarray, total: int, images: int) -> float:
    """The geometric mean of the parts missed at nine rates of false alarms. (N,), the best first -> 0..1.

    At each rate it is that of the last detection with which there are no more false alarms an image, and 1 when there
    are more from the first.
    """
    counted = outcome[(outcome == FALSE) | (outcome == HIT)]
    hits = np.append(0, np.cumsum(counted == HIT))
    alarms = np.append(-np.inf, np.cumsum(counted == FALSE) / images)
    missed = 1 - hits[np.searchsorted(alarms, REFERENCES, side="right") - 1] / total
    return float(np.exp(np.log(np.maximum(missed, SMALLEST)).mean()))
