"""Which locations lie on something that is neither to be found nor a mistake, by hand."""

from dataclasses import replace

import torch

from tests.trainers.detectors.scenes import truth
from trainers.detectors.ignored import neither, on_ignored

CROWD = torch.tensor([[10.0, 10, 30, 20]])
SIZE = (40, 40)


def test_a_box_is_on_a_crowd_from_half_of_its_own_area_on() -> None:
    boxes = torch.tensor(
        [
            [12.0, 12, 14, 18],  # in it
            [20.0, 10, 40, 20],  # half of it
            [20.1, 10, 40, 20],  # a little less
            [0.0, 0, 40, 40],  # has all of the crowd, which is an eighth of it
            [32.0, 32, 38, 38],
        ]
    )
    assert on_ignored(boxes, CROWD, SIZE).tolist() == [True, True, False, False, False]


def test_only_the_part_within_the_image_counts_and_a_box_outside_is_on_nothing() -> None:
    corner = torch.tensor([[0.0, 0, 8, 8]])
    boxes = torch.tensor([[-12.0, -12, 8, 8], [-12.0, -12, 12, 12], [-8.0, -8, -1, -1], [5.0, 5, 5, 9]])
    assert on_ignored(boxes, corner, SIZE).tolist() == [True, False, False, False]


def test_two_crowds_do_not_add_up() -> None:
    halves = torch.tensor([[0.0, 0, 4, 10], [6.0, 0, 10, 10]])
    assert on_ignored(torch.tensor([[0.0, 0, 10, 10]]), halves, SIZE).tolist() == [False]
    assert on_ignored(torch.tensor([[0.0, 0, 8, 10]]), halves, SIZE).tolist() == [True]


def test_each_image_has_its_own_and_what_answers_for_a_box_stays() -> None:
    both = replace(truth([], [], [], size=SIZE), ignored=[CROWD, CROWD[:0], CROWD])
    locations = torch.tensor([[12.0, 12, 14, 18], [32.0, 32, 38, 38]])
    found = neither(locations, both, torch.tensor([4]))
    assert found is not None and found.tolist() == [True, False, False, False, False, False]


def test_a_point_lies_on_whatever_it_is_in_however_small_that_is() -> None:
    small = replace(truth([], size=SIZE), ignored=[torch.tensor([[16.0, 8, 24, 20]])])
    points = torch.tensor([[16.0, 8], [23.9, 19.9], [24.0, 19], [8.0, 8]])
    squares = torch.cat([points - 16, points + 16], 1)
    none = torch.tensor([], dtype=torch.long)
    found, coarse = neither(squares, small, none, points), neither(squares, small, none)
    assert found is not None and found.tolist() == [True, True, False, False]
    assert coarse is not None and not coarse.any()


def test_nothing_is_made_where_nothing_is_to_be_ignored() -> None:
    assert neither(CROWD, truth([], []), torch.tensor([], dtype=torch.long)) is None
