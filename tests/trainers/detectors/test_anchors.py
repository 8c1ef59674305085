"""Where the anchors are, and which of them lie in an image."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou

from trainers.detectors.anchors import anchors, inside, paired_iou
from trainers.outputs import Outputs


def levels(*shapes: tuple[int, int], channels: int = 1) -> list[Tensor]:
    return [torch.zeros(2, channels, *shape) for shape in shapes]


def test_centres_lie_at_multiples_of_the_stride_and_sides_are_eight_strides() -> None:
    grid = anchors(levels((2, 3), (1, 2)), (8, 16))
    assert grid.centre.tolist() == [[0, 0], [8, 0], [16, 0], [0, 8], [8, 8], [16, 8], [0, 0], [16, 0]]
    assert grid.box[4].tolist() == [8 - 32, 8 - 32, 8 + 32, 8 + 32]
    assert grid.box[7].tolist() == [16 - 64, -64, 16 + 64, 64]
    assert grid.stride.tolist() == [8] * 6 + [16] * 2
    assert grid.level.tolist() == [0] * 6 + [1] * 2
    assert grid.cells == (6, 2)


def test_anchors_come_in_the_order_of_the_rows_of_the_outputs() -> None:
    maps = levels((2, 3), (1, 2), channels=2)
    for level, stride in zip(maps, (8, 16), strict=True):
        height, width = level.shape[2:]
        level[:, 0] = torch.arange(width) * stride
        level[:, 1] = (torch.arange(height) * stride)[:, None]
    rows = Outputs(features=[], cls=maps).class_rows()
    assert torch.equal(rows, anchors(maps, (8, 16)).centre.repeat(2, 1))


def test_anchors_are_made_once_for_each_shape() -> None:
    first = anchors(levels((4, 5)), (8,))
    assert anchors(levels((4, 5), channels=7), (8,)) is first
    assert anchors(levels((5, 4)), (8,)) is not first
    assert anchors(levels((4, 5)), (4,)) is not first


def test_anchors_made_in_inference_mode_serve_in_training() -> None:
    with torch.inference_mode():
        grid = anchors(levels((11, 13)), (8,))
    distance = torch.ones(len(grid.centre), 2, requires_grad=True)
    (grid.centre * distance).sum().backward()
    assert distance.grad is not None


@given(st.tuples(st.integers(1, 70), st.integers(1, 70)))
def test_a_cell_is_inside_when_its_index_is_below_the_images_side_in_strides(size: tuple[int, int]) -> None:
    strides = (4, 8, 16)
    grid = anchors(levels((18, 18), (9, 9), (5, 5)), strides)
    found = inside(grid, [size, (72, 72)])
    expected = [
        i < math.ceil(size[0] / s) and j < math.ceil(size[1] / s)
        for s, side in zip(strides, (18, 9, 5), strict=True)
        for i in range(side)
        for j in range(side)
    ]
    assert found[0].tolist() == expected
    assert found[1].all()


def test_paired_iou_is_the_diagonal_of_torchvisions() -> None:
    torch.manual_seed(0)
    low = torch.rand(2, 50, 2)
    a, b = torch.cat([low, low + torch.rand(2, 50, 2)], dim=2)
    torch.testing.assert_close(paired_iou(a, b), box_iou(a, b).diagonal())
    assert paired_iou(a, b).min() == 0 < paired_iou(a, b).max()  # some do not touch


@pytest.mark.parametrize("box", [[3.0, 3.0, 3.0, 3.0], [3.0, 3.0, 9.0, 3.0]])
def test_boxes_without_an_area_have_no_iou_and_no_nan(box: list[float]) -> None:
    assert paired_iou(torch.tensor([box]), torch.tensor([box])).tolist() == [0]
