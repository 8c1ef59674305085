"""Which detections and objects of an image lie over one another, and how much."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

AT_ONCE = 2_000_000  # pairs that are looked at at once; as float64 boxes they take 130 MB


class Pairs(NamedTuple):
    """P pairs of a detection and an object, by rising detection, then by rising overlap, then by rising object."""

    found: np.ndarray  # (P,) int64
    object: np.ndarray  # (P,) int64
    overlap: np.ndarray  # (P,) float64, 0..1


def pairs(
    found_group: np.ndarray,
    found_box: np.ndarray,
    object_group: np.ndarray,
    object_box: np.ndarray,
    *,
    least: float,
    region: np.ndarray,
) -> Pairs:
    """The pairs within a group that overlap by at least so much.

    Boxes (N, 4) and (M, 4) are x, y, width, height; object_group rises. The overlap is the intersection over the
    union, and with an object that is a `region` (M,) over the detection's own area.
    """
    start = np.searchsorted(object_group, found_group, side="left")
    count = np.searchsorted(object_group, found_group, side="right") - start
    ends = np.cumsum(count)
    parts, begin = [], 0
    while begin < len(count):
        done = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + AT_ONCE, side="right")))
        here = count[begin:end]
        f = np.repeat(np.arange(begin, end), here)
        o = np.arange(len(f)) - np.repeat(np.cumsum(here) - here, here) + np.repeat(start[begin:end], here)
        overlap = overlaps(found_box[f], object_box[o], region[o])
        kept = overlap >= least
        parts.append((f[kept], o[kept], overlap[kept]))
        begin = end
    if not parts:
        nothing = np.zeros(0, dtype=np.int64)
        return Pairs(nothing, nothing, np.zeros(0))
    f, o, overlap = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((o, overlap, f))
    return Pairs(f[order], o[order], overlap[order])


def overlaps(found: np.ndarray, objects: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Row by row: (P, 4), (P, 4) and (P,) bool -> (P,), 0..1; with a box without area 0."""
    # In the order in which pycocotools does the same sums, so that the last bit is the same too.
    corner = np.minimum(found[:, 2:] + found[:, :2], objects[:, 2:] + objects[:, :2])
    sides = np.maximum(corner - np.maximum(found[:, :2], objects[:, :2]), 0)
    common = sides[:, 0] * sides[:, 1]
    own, other = found[:, 2] * found[:, 3], objects[:, 2] * objects[:, 3]
    whole = np.where(region, own, own + other - common)
    return np.divide(common, whole, out=np.zeros_like(common), where=common > 0)
