"""The first assigner of RepPoints against a literal one: the cell nearest to a box."""

import pytest
import torch

from tests.trainers.detectors.points_written_out import (
    PER_IMAGE,
    literal_nearest,
    said,
)
from tests.trainers.detectors.scenes import STRIDES
from trainers.detectors.anchors import anchors, inside
from trainers.detectors.points_assign import nearest_cells


@pytest.mark.parametrize("size", [(64, 64), (33, 50)])
def test_the_nearest_cell_of_its_level_guesses_a_box(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(40, 2, generator=generator) * 30
    side = 2 ** (1 + 6.5 * torch.rand(40, 2, generator=generator))  # 2 to 181 pixels: levels end at both sides
    boxes = torch.cat([low, low + side], 1)
    grid = anchors(said(1).cls, STRIDES)
    image = torch.arange(40) % 2
    row, number = nearest_cells(grid, STRIDES, inside(grid, [size, size]), boxes, image)
    expected = {}
    for i in (0, 1):
        numbers = (image == i).nonzero().squeeze(1).tolist()
        for cell, own in literal_nearest(boxes[image == i].tolist(), size).items():
            expected[i * PER_IMAGE + cell] = numbers[own]
    assert dict(zip(row.tolist(), number.tolist(), strict=True)) == expected
    assert len(expected) < 40  # some boxes want the same cell
    assert set(grid.level[row % PER_IMAGE].tolist()) == {0, 1, 2}


def test_of_two_boxes_around_one_cell_the_first_has_it() -> None:
    grid = anchors(said(1).cls, STRIDES)
    boxes = torch.tensor([[8.0, 8, 24, 24], [6.0, 6, 26, 26]])
    valid = inside(grid, [(64, 64)])
    row, number = nearest_cells(grid, STRIDES, valid, boxes, torch.zeros(2, dtype=torch.long))
    assert (row.tolist(), number.tolist()) == ([4 * 16 + 4], [0])
