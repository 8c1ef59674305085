"""Which detection has found which object: one after the other, the best first, each object once.

COCO and the pedestrian benchmarks have it so. The detections are those of all images: the first of every image and
class chooses, then the second of every one, so the loop is as long as there are detections of one class in one image.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from trainers.metrics.columns import ranks
from trainers.metrics.overlaps import Pairs

FALSE, HIT, IGNORED = 0, 1, 2  # what became of a detection


def greedy(
    near: Pairs, group: np.ndarray, *, thresholds: np.ndarray, ignored: np.ndarray, again: np.ndarray
) -> np.ndarray:
    """What becomes of each detection, for S settings and T thresholds. -> (S, T, N) uint8: FALSE, HIT or IGNORED.

    group (N,): image and class of the detections, the best of a group first. ignored (S, M): which objects need not be
    found. again (M,): which may be found again and again. A detection takes the free object that it overlaps most, the
    later of equals, if by at least the threshold (T,), and an ignored one only if no other is left.
    """
    settings, count = len(ignored), len(thresholds)
    outcome = np.full((settings, count, len(group)), FALSE, dtype=np.uint8)
    taken = np.zeros((settings, count, ignored.shape[1]), dtype=bool)
    # Only who overlaps something chooses. Those who choose at the same time are of different groups.
    choosing, at = np.unique(near.found, return_inverse=True)
    turn = ranks(group[choosing])[at]
    order = np.argsort(turn, kind="stable")
    near, turn = Pairs(*(column[order] for column in near)), turn[order]
    ends = np.searchsorted(turn, np.arange(turn[-1] + 2)) if len(turn) else np.zeros(1, dtype=np.int64)
    for begin, end in pairwise(ends):
        found, objects, overlap = (column[begin:end] for column in near)
        first = np.flatnonzero(np.diff(found, prepend=-1))
        free = (overlap >= thresholds[:, None]) & (~taken[:, :, objects] | again[objects])  # (S, T, pairs)
        real = ~ignored[:, None, objects]
        # The last free pair of each detection has the largest overlap.
        place = np.arange(end - begin)
        best = np.maximum.reduceat(np.where(free & real, place, -1), first, axis=2)  # (S, T, detections)
        spare = np.maximum.reduceat(np.where(free & ~real, place, -1), first, axis=2)
        chosen = np.where(best >= 0, best, spare)
        s, t, d = (chosen >= 0).nonzero()
        taken[s, t, objects[chosen[s, t, d]]] = True
        outcome[:, :, found[first]] = np.where(best >= 0, HIT, np.where(spare >= 0, IGNORED, FALSE))
    return outcome
