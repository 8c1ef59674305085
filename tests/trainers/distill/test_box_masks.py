"""The level that a box belongs to, and the cells that boxes cover: by hand, and against loops over boxes and cells."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainers.distill.box_masks import Boxes, by_level, cells, covered, every_box, home, level_masks, stage_masks
from trainers.outputs import Truth

TWO_STAGE, ONE_STAGE = (4, 8, 16, 32, 64), (8, 16, 32, 64, 128)


def boxes(*by_image: list[list[float]]) -> Boxes:
    every = [torch.tensor(box).view(-1, 4) for box in by_image]
    labels = [torch.zeros(len(box), dtype=torch.long) for box in every]
    return every_box(Truth(every, labels, [(64, 64)] * len(every), [0] * len(every), [(1.0, 1.0)] * len(every)))


def home_by_hand(box: list[float], finest: int, levels: int) -> int:
    """With comparisons in place of a logarithm."""
    side = math.sqrt((box[2] - box[0] + 1) * (box[3] - box[1] + 1))
    level = 0
    while level < levels - 1 and side / (14 * finest) + 1e-6 >= 2 ** (level + 1):
        level += 1
    return level


def rectangle(box: list[float], stride: int, height: int, width: int) -> tuple[range, range]:
    """The rows and columns of a box, as the released code has them, but for a corner that lies on the far border."""
    left, top, right, bottom = (max(int(edge / stride), 0) for edge in box)
    right, bottom = min(right, width), min(bottom, height)
    if right <= left or bottom <= top:
        left, top = min(left, width - 1), min(top, height - 1)
        right, bottom = left + 1, top + 1
    return range(top, bottom), range(left, right)


def mask_by_hand(some: list[list[float]], stride: int, height: int, width: int) -> Tensor:
    mask = torch.zeros(height, width, dtype=torch.bool)
    for box in some:
        for row in rectangle(box, stride, height, width)[0]:
            for column in rectangle(box, stride, height, width)[1]:
                mask[row, column] = True
    return mask


@pytest.mark.parametrize(
    ("side", "level", "of_one_stage"),
    [
        (1, 0, 0),
        (110, 0, 0),
        (111, 1, 0),
        (222, 1, 0),
        (223, 2, 1),
        (447, 3, 2),
        (895, 4, 3),
        (1791, 4, 4),
        (5000, 4, 4),
    ],
)
def test_the_level_rises_where_a_side_doubles_112_pixels_and_is_one_lower_where_it_starts_at_stride_8(
    side: int, level: int, of_one_stage: int
) -> None:
    box = torch.tensor([[7.0, 9, 7 + side, 9 + side]])
    assert home(box, TWO_STAGE).tolist() == [level]
    assert home(box, ONE_STAGE).tolist() == [of_one_stage]


def test_the_sides_of_a_box_count_by_its_area() -> None:
    wide = torch.tensor([[0.0, 0, 223, 55], [0.0, 0, 222, 55]])  # 224 * 56 pixels, as 112 * 112; and less
    assert home(wide, TWO_STAGE).tolist() == [1, 0]


def test_boxes_are_split_by_level_in_their_order_and_know_their_image() -> None:
    some = boxes([[0.0, 0, 300, 300], [0.0, 0, 8, 8]], [[1.0, 1, 9, 9]])
    fine, middle, coarse = by_level(some, home(some.box, (8, 16, 32)), 3)
    assert fine.box.tolist() == [[0, 0, 8, 8], [1, 1, 9, 9]] and fine.image.tolist() == [0, 1]
    assert middle.box.tolist() == [[0, 0, 300, 300]] and middle.images == 2
    assert coarse.box.shape == (0, 4)


def test_without_the_last_pixel_a_side_is_the_distance_of_the_corners() -> None:
    exact = torch.tensor([[0.0, 0, 112 * n, 112 * n] for n in (1, 2, 4, 8)])
    assert home(exact, TWO_STAGE, inclusive=False).tolist() == [1, 2, 3, 4]
    assert home(exact - torch.tensor([0.0, 0, 1, 1]), TWO_STAGE).tolist() == [1, 2, 3, 4]
    assert home(exact - torch.tensor([0.0, 0, 1, 1]), TWO_STAGE, inclusive=False).tolist() == [0, 1, 2, 3]
    assert home(torch.tensor([[9.0, 9, 3, 20]]), TWO_STAGE, inclusive=False).tolist() == [0]  # turned inside out


def test_no_boxes_belong_to_no_level() -> None:
    assert home(torch.zeros(0, 4), TWO_STAGE).shape == (0,)


CORNER = st.floats(-3, 70, width=32)
BOX = st.tuples(CORNER, CORNER, st.floats(0, 80, width=32), st.floats(0, 80, width=32)).map(
    lambda b: [b[0], b[1], min(b[0] + b[2], 70.0), min(b[1] + b[3], 70.0)]
)
IMAGES = st.lists(st.lists(BOX, max_size=4), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.lists(BOX, min_size=1, max_size=6), st.sampled_from([(1, 2, 4), (2, 4, 8), (4,)]))
def test_the_level_is_that_of_a_walk_up_the_pyramid(some: list[list[float]], strides: tuple[int, ...]) -> None:
    found = home(torch.tensor(some, dtype=torch.float64), strides)
    assert found.tolist() == [home_by_hand(box, strides[0], len(strides)) for box in some]


@settings(max_examples=60, deadline=None)
@given(IMAGES, st.sampled_from([4, 8, 16]))
def test_covered_cells_are_those_of_a_loop_over_boxes_and_cells(images: list[list[list[float]]], stride: int) -> None:
    shape = (56 // stride, 64 // stride)
    found = covered(boxes(*images), stride, shape)
    assert torch.equal(found, torch.stack([mask_by_hand(some, stride, *shape) for some in images]))


@settings(max_examples=40, deadline=None)
@given(IMAGES)
def test_each_cell_is_foreground_or_background_once_and_each_box_on_one_level(images: list[list[list[float]]]) -> None:
    strides, shapes = (1, 2, 4), [(56, 64), (28, 32), (14, 16)]
    maps = [torch.zeros(len(images), 1, *shape) for shape in shapes]
    masks = level_masks(boxes(*images), strides, (0, 1, 2), maps)
    for number, (mask, stride, shape) in enumerate(zip(masks, strides, shapes, strict=True)):
        assert torch.equal(mask.int() + (~mask).int(), torch.ones(len(images), *shape, dtype=torch.int))
        for image, some in enumerate(images):
            here = [box for box in some if int(home(torch.tensor([box]), strides)) == number]
            assert torch.equal(mask[image], mask_by_hand(here, stride, *shape))


def test_corners_are_rounded_towards_zero_and_the_far_ones_are_exclusive() -> None:
    assert cells(torch.tensor([[3.0, 8, 17, 31.9], [-2.0, -9, 9, 9]]), 8, (4, 4)).tolist() == [
        [0, 1, 2, 3],
        [0, 0, 1, 1],
    ]


def test_a_box_within_a_cell_gets_that_cell() -> None:
    inside_one, flat, tall = [9.0, 17, 15, 22], [0.0, 9, 30, 14], [9.0, 0, 14, 30]
    found = cells(torch.tensor([inside_one, flat, tall]), 8, (4, 4)).tolist()
    assert found == [[1, 2, 2, 3], [0, 1, 1, 2], [1, 0, 2, 1]]


def test_a_box_on_the_far_border_gets_the_last_cell() -> None:
    # Its left edge is the border itself: the released code looks for a cell behind the map, and fails.
    found = cells(torch.tensor([[32.0, 8, 32, 24], [8.0, 32, 24, 32], [32.0, 32, 40, 40]]), 8, (4, 4)).tolist()
    assert found == [[3, 1, 4, 2], [1, 3, 2, 4], [3, 3, 4, 4]]
    assert cells(torch.tensor([[16.0, 16, 32, 32]]), 8, (4, 4)).tolist() == [[2, 2, 4, 4]]


def test_boxes_may_overlap_and_images_do_not_mix() -> None:
    found = covered(boxes([[0.0, 0, 16, 16], [8.0, 8, 24, 24]], [], [[24.0, 0, 32, 8]]), 8, (3, 4))
    assert found.int().tolist() == [
        [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0]],
        [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
        [[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]],
    ]


def test_boxes_that_do_not_count_cover_nothing() -> None:
    two = boxes([[0.0, 0, 8, 8], [8.0, 8, 16, 16]])
    assert covered(two, 8, (2, 2), counted=torch.tensor([False, True])).int().tolist() == [[[0, 0], [0, 1]]]


def test_images_without_boxes_have_no_foreground_on_any_level() -> None:
    maps = [torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 2, 2)]
    assert not any(mask.any() for mask in level_masks(boxes([], []), (8, 16), (0, 1), maps))
    assert not any(mask.any() for mask in stage_masks(boxes([], []), 8, maps[0], maps))


def test_levels_that_are_left_out_leave_the_others_as_they_are() -> None:
    every = boxes([[0.0, 0, 100, 100], [0.0, 0, 400, 300]])
    maps = [torch.zeros(1, 1, 128, 128), torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 32, 32)]
    whole = level_masks(every, (4, 8, 16), (0, 1, 2), maps)
    (alone,) = level_masks(every, (4, 8, 16), (2,), maps[2:])
    assert torch.equal(alone, whole[2]) and alone.any()


def test_stages_take_what_the_finest_says_of_their_upper_left_cell() -> None:
    finest = torch.zeros(1, 1, 4, 4)
    coarse, coarser = stage_masks(
        boxes([[4.0, 0, 12, 4], [8.0, 8, 12, 12]]), 4, finest, [torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 1, 1)]
    )
    # On the finest map cells 1 and 2 of the first row, and cell 2 of the third row.
    assert coarse.int().tolist() == [[[0, 1], [0, 1]]]
    assert coarser.int().tolist() == [[[0]]]


@settings(max_examples=30, deadline=None)
@given(IMAGES)
def test_stages_are_those_of_a_loop_over_cells(images: list[list[list[float]]]) -> None:
    finest, odd = torch.zeros(len(images), 1, 14, 16), torch.zeros(len(images), 1, 4, 5)
    (found,) = stage_masks(boxes(*images), 4, finest, [odd])
    for image, some in enumerate(images):
        fine = mask_by_hand(some, 4, 14, 16)
        slow = [[bool(fine[int(row * 14 / 4), int(column * 16 / 5)]) for column in range(5)] for row in range(4)]
        assert found[image].tolist() == slow
