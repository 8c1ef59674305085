"""ATSS by hand, and against the paper's algorithm written out box by box in plain Python."""

import math
import random
import statistics
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.detectors.anchors import Anchors, anchors, inside
from trainers.detectors.atss import assign, candidates, thresholds

Box = tuple[float, float, float, float]


def grid_of(shapes: list[tuple[int, int]], strides: tuple[int, ...]) -> Anchors:
    """Anchors in double precision, so that rounding decides nothing."""
    grid = anchors([torch.zeros(1, 1, *shape) for shape in shapes], strides)
    return replace(grid, centre=grid.centre.double(), stride=grid.stride.double(), box=grid.box.double())


def iou(a: Box, b: Box) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


def literal(
    shapes: list[tuple[int, int]], strides: tuple[int, ...], size: tuple[int, int], boxes: list[Box]
) -> tuple[dict[int, int], list[float]]:
    """One image. -> which box each positive anchor answers for, and the threshold of each box."""
    levels: list[list[tuple[int, float, float, Box]]] = []
    number = 0
    for (height, width), stride in zip(shapes, strides, strict=True):
        level = []
        for i in range(height):
            for j in range(width):
                x, y, half = j * stride, i * stride, 4 * stride
                if i < math.ceil(size[0] / stride) and j < math.ceil(size[1] / stride):
                    level.append((number, x, y, (x - half, y - half, x + half, y + half)))
                number += 1
        levels.append(level)
    best: dict[int, tuple[float, int]] = {}
    limits = []
    for g, box in enumerate(boxes):
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        near = []
        for level in levels:
            near += sorted(level, key=lambda a: math.dist(a[1:3], middle))[:9]
        overlaps = [iou(a[3], box) for a in near]
        limit = statistics.mean(overlaps) + (statistics.stdev(overlaps) if len(overlaps) > 1 else 0)
        limits.append(limit)
        for (n, x, y, _), overlap in zip(near, overlaps, strict=True):
            depth = min(x - box[0], y - box[1], box[2] - x, box[3] - y)
            if overlap >= limit and depth > 0.01 and (n not in best or overlap > best[n][0]):
                best[n] = (overlap, g)
    return {n: g for n, (_, g) in best.items()}, limits


def random_boxes(rng: random.Random, count: int, size: tuple[int, int]) -> list[Box]:
    boxes = []
    for _ in range(count):
        x, y = rng.uniform(0, size[1] - 2), rng.uniform(0, size[0] - 2)
        boxes.append((x, y, rng.uniform(x + 1, size[1]), rng.uniform(y + 1, size[0])))
    return boxes


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6))
def test_a_batch_is_assigned_as_the_algorithm_does_image_by_image(seed: int) -> None:
    rng = random.Random(seed)
    height, width = rng.randint(20, 90), rng.randint(20, 90)
    strides = ((4, 8, 16), (8, 16, 32, 64))[seed % 2]
    shapes = [(math.ceil(height / s), math.ceil(width / s)) for s in strides]
    sizes = [(height, width), (rng.randint(16, height), rng.randint(16, width)), (17, 19)]
    images = [random_boxes(rng, rng.randint(0, 8), size) for size in sizes]

    grid = grid_of(shapes, strides)
    image = torch.tensor([i for i, boxes in enumerate(images) for _ in boxes], dtype=torch.long)
    boxes = torch.tensor([b for boxes in images for b in boxes], dtype=torch.double).view(-1, 4)
    row, owner, limit = assign(grid, inside(grid, sizes), boxes, image)

    expected, limits, first = {}, [], 0
    for i, own in enumerate(images):
        positives, own_limits = literal(shapes, strides, sizes[i], own)
        expected |= {i * len(grid.stride) + n: first + g for n, g in positives.items()}
        limits += own_limits
        first += len(own)
    assert dict(zip(row.tolist(), owner.tolist(), strict=True)) == expected
    assert row.tolist() == sorted(expected)
    assert limit.tolist() == pytest.approx(limits)


def test_by_hand_one_box_on_one_level() -> None:
    """One anchor on the box, four moved by 1 and four by (1, 1): IoUs 1, 56/72 and 49/79.

    Mean .732457, unbiased deviation .127552.
    """
    grid = grid_of([(16, 16)], (1,))
    box = torch.tensor([[4.0, 4, 12, 12]], dtype=torch.double)
    row, owner, limit = assign(grid, inside(grid, [(16, 16)]), box, torch.tensor([0]))
    assert limit.tolist() == pytest.approx([0.860009], abs=1e-6)
    assert row.tolist() == [8 * 16 + 8]
    assert owner.tolist() == [0]


def test_a_location_that_two_boxes_want_goes_to_the_one_it_overlaps_more() -> None:
    grid = grid_of([(16, 16)], (1,))
    boxes = torch.tensor([[4.1, 4.1, 12.2, 12.4], [4, 4, 12, 12]], dtype=torch.double)
    valid = inside(grid, [(16, 16)])
    row, owner, _ = assign(grid, valid, boxes, torch.tensor([0, 0]))
    assert dict(zip(row.tolist(), owner.tolist(), strict=True))[8 * 16 + 8] == 1
    assert 8 * 16 + 8 in assign(grid, valid, boxes[:1], torch.tensor([0]))[0]


def test_of_equal_boxes_the_first_gets_all_and_the_other_none() -> None:
    grid = grid_of([(16, 16)], (1,))
    boxes = torch.tensor([[4, 4, 12, 12.5]] * 2, dtype=torch.double)
    row, owner, _ = assign(grid, inside(grid, [(16, 16)]), boxes, torch.tensor([0, 0]))
    assert len(row) > 0
    assert set(owner.tolist()) == {0}


def test_equal_boxes_in_two_images_do_not_compete() -> None:
    grid = grid_of([(16, 16)], (1,))
    boxes = torch.tensor([[4, 4, 12, 12.5]] * 2, dtype=torch.double)
    row, owner, _ = assign(grid, inside(grid, [(16, 16)] * 3), boxes, torch.tensor([0, 2]))
    half = len(row) // 2
    assert (row[half:] - row[:half]).tolist() == [2 * 256] * half
    assert owner.tolist() == [0] * half + [1] * half


def test_a_box_may_have_no_location_at_all() -> None:
    grid = grid_of([(4, 4), (2, 2)], (16, 32))
    between = torch.tensor([[5.0, 5, 9, 9]], dtype=torch.double)  # no centre inside
    row, _, limit = assign(grid, inside(grid, [(64, 64)]), between, torch.tensor([0]))
    assert len(row) == 0
    assert limit.isfinite().all()


def test_no_boxes_give_no_rows() -> None:
    grid = grid_of([(4, 4), (2, 2)], (16, 32))
    row, owner, limit = assign(grid, inside(grid, [(64, 64)] * 2), torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    assert len(row) == len(owner) == len(limit) == 0


def test_candidates_are_nine_of_each_level_or_as_many_as_there_are() -> None:
    grid = grid_of([(8, 8), (2, 2), (1, 1)], (8, 32, 64))
    box = torch.tensor([[10.0, 12, 31, 30]], dtype=torch.double)
    number, real = candidates(grid, inside(grid, [(64, 64)]), box)
    assert [(grid.level[number] == level).sum().item() for level in range(3)] == [9, 4, 1]
    assert real.all()
    _, real = candidates(grid, inside(grid, [(64, 10)]), box)  # two columns of the first level, one of the others
    assert real.sum().item() == 9 + 2 + 1


def test_a_single_candidate_is_its_own_threshold() -> None:
    real = torch.tensor([[True, False], [True, True]])
    found = thresholds(torch.tensor([[0.3, 0.9], [0.2, 0.4]]), real)
    torch.testing.assert_close(found, torch.tensor([0.3, 0.3 + math.sqrt(0.02)]))
