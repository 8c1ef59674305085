"""Batches are full, of one orientation where that is wanted, and depend on seed and epoch alone."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.data.sampling import Sample, groups, samples, steps

Sizes = list[tuple[int, int]]
WIDE, TALL, SQUARE = (30, 40), (40, 30), (30, 30)


def epoch(sizes: Sizes, *, group: bool = True, batch: int = 2, seed: int = 0, n: int = 0) -> list[Sample]:
    return list(samples(groups(sizes, group=group), batch=batch, seed=seed, epoch=n))


kinds = st.lists(st.sampled_from([WIDE, TALL, SQUARE]), min_size=1, max_size=30)


@given(kinds, st.integers(1, 7), st.integers(0, 2**63), st.integers(0, 10_000))
def test_a_grouped_batch_has_one_orientation_and_every_image_is_seen(
    sizes: Sizes, batch: int, seed: int, n: int
) -> None:
    found = epoch(sizes, batch=batch, seed=seed, n=n)
    wide = sum(size == WIDE for size in sizes)
    assert len(found) == steps(groups(sizes, group=True), batch) == -(-wide // batch) + -(-(len(sizes) - wide) // batch)
    for sample in found:
        assert len(sample.images) == len(sample.chances) == batch
        assert len({sizes[index] == WIDE for index in sample.images}) == 1
    assert {index for sample in found for index in sample.images} == set(range(len(sizes)))


@given(kinds, st.integers(1, 7))
def test_an_incomplete_group_is_filled_from_its_own_beginning(sizes: Sizes, batch: int) -> None:
    for wide in (True, False):
        members = [index for index, size in enumerate(sizes) if (size == WIDE) is wide]
        shown = [sample.images for sample in epoch(sizes, batch=batch) if sample.images[0] in members]
        # Batches come in any order; the one that repeats images is the last of its group.
        repeats = sum(map(len, shown)) - len(members)
        counts = np.bincount([index for images in shown for index in images], minlength=len(sizes))[members]
        assert counts.sum() == len(members) + repeats
        assert not members or counts.max() - counts.min() <= 1


@given(kinds, st.integers(1, 7), st.booleans())
def test_what_chance_does_to_an_image_is_the_same_wherever_it_is_in_the_epoch(
    sizes: Sizes, batch: int, group: bool
) -> None:
    seen: dict[int, tuple[float, ...]] = {}
    for sample in epoch(sizes, batch=batch, group=group):
        for index, chance in zip(sample.images, sample.chances, strict=True):
            assert seen.setdefault(index, chance) == chance
            assert all(0 <= number < 1 for number in chance)


def test_orientations_take_turns_by_chance() -> None:
    sizes = [WIDE, TALL] * 40
    kinds = ["".join("wt"[sample.images[0] % 2] for sample in epoch(sizes, n=n)) for n in range(5)]
    assert len(set(kinds)) == 5
    assert all(10 < sum(a != b for a, b in pairwise(kind)) < 30 for kind in kinds)


@pytest.mark.parametrize("sizes", [[WIDE] * 5, [TALL] * 5, [SQUARE, TALL, SQUARE]])
def test_a_single_orientation_is_the_same_as_no_groups(sizes: Sizes) -> None:
    assert epoch(sizes) == epoch(sizes, group=False)


def test_the_order_is_that_of_numpys_generator_for_seed_and_epoch() -> None:
    rng = np.random.default_rng((3, 2))
    order, flips = rng.permutation(5), rng.random(5)
    first, second, third = epoch([TALL] * 5, seed=3, n=2)
    assert [*first.images, *second.images, *third.images] == [*order, order[0]]
    assert [chance.flip for chance in first.chances] == flips[order[:2]].tolist()


def test_epochs_differ_and_so_do_seeds() -> None:
    sizes = [WIDE, TALL] * 10
    assert len({str(epoch(sizes, seed=seed, n=n)) for seed in (0, 1) for n in (0, 1)}) == 4
