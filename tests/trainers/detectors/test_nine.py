"""Nine anchors a cell: mmdetection's written out, torchvision's by torchvision itself."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from trainers.detectors.anchors import inside
from trainers.detectors.nine import nine_anchors

STRIDES = (8, 16, 32, 64, 128)


def maps(height: int, width: int, strides: tuple[int, ...] = STRIDES) -> list[Tensor]:
    return [torch.zeros(2, 9, math.ceil(height / s), math.ceil(width / s)) for s in strides]


def test_mmdetections_anchors_are_those_written_out() -> None:
    grid = nine_anchors(maps(32, 48, (4, 8)), (4, 8), "mmdetection")
    expected = []
    for stride in (4, 8):
        for i in range(32 // stride):
            for j in range(48 // stride):
                for ratio in (0.5, 1.0, 2.0):
                    for third in range(3):
                        side = 4 * stride * 2 ** (third / 3)
                        width, height = side / math.sqrt(ratio), side * math.sqrt(ratio)
                        x, y = j * stride, i * stride
                        expected.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    torch.testing.assert_close(grid.box, torch.tensor(expected))


@pytest.mark.parametrize("size", [(128, 256), (96, 160), (800, 1088), (416, 32)])
def test_torchvisions_anchors_are_torchvisions(size: tuple[int, int]) -> None:
    sides = tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (32, 64, 128, 256, 512))
    theirs = AnchorGenerator(sides, ((0.5, 1.0, 2.0),) * 5)
    (expected,) = theirs(ImageList(torch.zeros(1, 3, *size), [size]), maps(*size))
    grid = nine_anchors(maps(*size), STRIDES, "torchvision")
    assert torch.equal(grid.box, expected)
    assert torch.equal((grid.box[:, :2] + grid.box[:, 2:]) / 2, grid.centre)


def test_a_padding_that_the_coarsest_stride_does_not_divide_moves_torchvisions_anchors_only() -> None:
    """P7 of 800 by 1088 pixels has 7 by 9 cells: 114 by 120 pixels each, by torchvision."""
    levels = maps(800, 1088)
    last = {name: nine_anchors(levels, STRIDES, name).centre[-1].tolist() for name in ("mmdetection", "torchvision")}
    assert last == {"mmdetection": [8 * 128, 6 * 128], "torchvision": [8 * 120, 6 * 114]}


@pytest.mark.parametrize("conventions", ["mmdetection", "torchvision"])
def test_levels_strides_and_counts_follow_the_cells(conventions: str) -> None:
    grid = nine_anchors(maps(64, 32, (8, 16)), (8, 16), conventions)
    assert grid.cells == (9 * 8 * 4, 9 * 4 * 2)
    assert grid.level.tolist() == [0] * grid.cells[0] + [1] * grid.cells[1]
    assert torch.equal(grid.stride, torch.tensor([8.0, 16])[grid.level])


def test_all_nine_of_a_cell_are_inside_or_none() -> None:
    grid = nine_anchors(maps(64, 64, (8, 16)), (8, 16), "mmdetection")
    valid = inside(grid, [(33, 17)])
    assert torch.equal(valid[0].view(-1, 9).sum(1).unique(), torch.tensor([0, 9]))
    assert valid.sum() == 9 * (5 * 3 + 3 * 2)


def test_anchors_made_while_evaluating_serve_in_training() -> None:
    with torch.inference_mode():
        nine_anchors(maps(24, 24, (8,)), (8,), "mmdetection")
    scale = torch.ones(1, requires_grad=True)
    (nine_anchors(maps(24, 24, (8,)), (8,), "mmdetection").box * scale).sum().backward()
