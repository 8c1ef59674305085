"""MimicDet's refinement module: where its anchors lie, and which of them are to find which box."""

import math

import pytest
import torch
from torch import Tensor

from trainers.detectors.anchors import Anchors, anchors, inside
from trainers.detectors.mimicdet_refinement import Refinement, levels_of, owners, squares

STRIDES = (8, 16, 32)


def grid_of(side: int = 128, strides: tuple[int, ...] = STRIDES) -> Anchors:
    return anchors([torch.zeros(1, 1, -(-side // s), -(-side // s)) for s in strides], strides)


def random_boxes(count: int, side: int, generator: torch.Generator) -> Tensor:
    low = torch.rand(count, 2, generator=generator) * side * 0.7
    return torch.cat([low, low + 4 + torch.rand(count, 2, generator=generator) * (side - 4 - low)], 1)


def literal(side: int, size: tuple[int, int], boxes: list[list[float]]) -> list[int]:
    """Cell by cell, in the words of the paper and of the choices that it leaves."""
    cells = [(n, i, j) for n, s in enumerate(STRIDES) for i in range(side // s) for j in range(side // s)]
    found, best = [-1] * len(cells), [math.inf] * len(cells)
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        width, height = x2 - x1, y2 - y1
        scale = math.sqrt(width * height)
        level = 0 if scale < 2 * 4 * 8 else 1 if scale < 2 * 4 * 16 else 2
        middle_x, middle_y = (x1 + x2) / 2, (y1 + y2) / 2
        mine = [
            c for c in cells if c[0] == level and c[1] * STRIDES[level] < size[0] and c[2] * STRIDES[level] < size[1]
        ]

        def x_y(cell: tuple[int, int, int]) -> tuple[float, float]:
            return cell[2] * STRIDES[cell[0]], cell[1] * STRIDES[cell[0]]

        positive = []
        for cell in mine:
            x, y = x_y(cell)
            if (
                middle_x - 0.3 * width / 2 <= x <= middle_x + 0.3 * width / 2
                and middle_y - 0.3 * height / 2 <= y <= middle_y + 0.3 * height / 2
            ):
                positive.append(cell)
        if not positive:
            positive = [min(mine, key=lambda c: math.dist(x_y(c), (middle_x, middle_y)))]
        for cell in positive:
            if width * height < best[cells.index(cell)]:
                found[cells.index(cell)], best[cells.index(cell)] = number, width * height
    return found


@pytest.mark.parametrize("seed", range(4))
def test_cells_are_positive_as_the_rule_written_out_says(seed: int) -> None:
    boxes = random_boxes(6, 128, torch.Generator().manual_seed(seed))
    size = (128, 100)
    grid = grid_of()
    found = owners(grid, inside(grid, [size])[0], boxes, STRIDES)
    assert found.tolist() == literal(128, size, boxes.tolist())
    assert len(set(found.tolist())) > 3


def test_anchors_are_squares_of_32_to_512_pixels_around_their_cells() -> None:
    strides = (8, 16, 32, 64, 128)
    grid = grid_of(256, strides)
    boxes = squares(grid)
    torch.testing.assert_close((boxes[:, :2] + boxes[:, 2:]) / 2, grid.centre)
    sides = [32, 64, 128, 256, 512]
    wanted = torch.tensor(sides)[grid.level].float()
    assert torch.equal(boxes[:, 2:] - boxes[:, :2], wanted[:, None].expand(-1, 2))


def test_a_level_takes_the_scales_from_its_side_to_twice_its_side_and_the_last_ones_all_beyond() -> None:
    scales = [1, 20, 32, 63.9, 64, 100, 127.9, 128, 200, 256, 1000]
    boxes = torch.tensor([[0, 0, s * 2, s / 2] for s in scales])  # the scale counts, not the longer side
    assert levels_of(boxes, STRIDES).tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert levels_of(boxes, (8,)).tolist() == [0] * len(scales)


def test_a_box_too_thin_to_hold_a_cell_takes_the_nearest_valid_one() -> None:
    grid = grid_of()
    box = torch.tensor([[60.0, 3, 63, 50]])  # around (61.5, 26.5), its middle ends at 61.95
    everywhere = torch.ones(len(grid.level), dtype=torch.bool)
    assert (owners(grid, everywhere, box, STRIDES) >= 0).nonzero().flatten().tolist() == [3 * 16 + 8]
    narrow = inside(grid, [(128, 60)])[0]  # columns end at 56
    assert (owners(grid, narrow, box, STRIDES) >= 0).nonzero().flatten().tolist() == [3 * 16 + 7]


def test_the_smaller_of_two_boxes_takes_a_cell_whichever_comes_first() -> None:
    grid = grid_of()
    everywhere = torch.ones(len(grid.level), dtype=torch.bool)
    large, small = [32.0, 32, 94, 94], [48.0, 48, 80, 80]  # both around (64, 64), on the finest level
    for boxes, smaller in (([large, small], 1), ([small, large], 0)):
        found = owners(grid, everywhere, torch.tensor(boxes), STRIDES)
        assert found[8 * 16 + 8] == smaller
        assert (found == 1 - smaller).any()


def test_no_box_means_no_positive() -> None:
    grid = grid_of()
    assert (owners(grid, grid.level >= 0, torch.zeros(0, 4), STRIDES) == -1).all()


def test_it_has_one_score_and_four_deltas_a_cell_and_starts_unsure() -> None:
    torch.manual_seed(0)
    features = [torch.randn(2, 16, 8, 9), torch.randn(2, 16, 4, 5)]
    score, delta = Refinement(16)(features)
    assert [tuple(x.shape) for x in score] == [(2, 1, 8, 9), (2, 1, 4, 5)]
    assert [tuple(x.shape) for x in delta] == [(2, 4, 8, 9), (2, 4, 4, 5)]
    torch.testing.assert_close(score[0].sigmoid(), torch.full((2, 1, 8, 9), 0.01), atol=5e-3, rtol=0)
