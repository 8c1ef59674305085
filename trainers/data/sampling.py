"""Which images make which batch of an epoch, and what chance does to each.

Both depend on the seed, the epoch and the split alone, so that n workers together see what one would see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from trainers.data.views import Chance, Size


class Sample(NamedTuple):
    """One whole batch, over all workers."""

    images: list[int]  # B positions in the split
    chances: list[Chance]  # B


def groups(sizes: Sequence[Size], *, group: bool) -> list[np.ndarray]:
    """Positions that may share a batch, in ascending order: all, or the wider than high and the others. None is empty.

    Batches of one orientation need less padding. Squares are among the others, as in mmdetection's sampler.
    """
    height, width = np.array(sizes, dtype=np.int64).T
    wide = width > height if group else np.zeros(len(sizes), dtype=bool)
    return [part for part in (np.flatnonzero(wide), np.flatnonzero(~wide)) if len(part)]


def steps(parts: Sequence[np.ndarray], batch: int) -> int:
    """Batches in an epoch."""
    return sum(-(-len(part) // batch) for part in parts)


def samples(parts: Sequence[np.ndarray], *, batch: int, seed: int, epoch: int) -> Iterator[Sample]:
    """The batches of an epoch, every one full: the last of each group is filled up from the group's beginning."""
    rng = np.random.default_rng((seed, epoch))
    count = sum(map(len, parts))
    orders = [part[rng.permutation(len(part))] for part in parts]
    filled = [np.resize(order, steps([order], batch) * batch).reshape(-1, batch) for order in orders]
    # Drawn for all images at once: the i-th number is image i's, wherever the order puts it.
    flips = rng.random(count)
    chances = np.column_stack([flips, rng.random((count, len(Chance._fields) - 1))])
    rows = np.concatenate(filled)
    if len(parts) > 1:
        rows = rows[rng.permutation(len(rows))]  # the groups take turns by chance
    for row in rows:
        yield Sample(row.tolist(), [Chance(*numbers) for numbers in chances[row].tolist()])
