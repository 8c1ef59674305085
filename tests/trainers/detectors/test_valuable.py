"""The valuable region: how near anchors are to boxes, by hand and by torchvision, and which of them are near enough."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import distance_box_iou

from tests.trainers.detectors.scenes import STRIDES, truth
from trainers.detectors.anchors import anchors, inside
from trainers.detectors.gfl import atss_targets
from trainers.detectors.valuable import box_thresholds, closeness, near
from trainers.outputs import Outputs, Targets, Truth

corners = st.tuples(st.floats(0, 40), st.floats(0, 40), st.floats(1, 24), st.floats(1, 24))
boxes = st.lists(corners, min_size=1, max_size=4).map(
    lambda found: truth([[x, y, x + width, y + height] for x, y, width, height in found])
)
SETTINGS = settings(deadline=None, max_examples=50)
OVERLAPS = pytest.mark.parametrize("overlap", ["diou", "iof_diou"])


def outputs(images: int = 1) -> Outputs:
    """Of images of 64 x 64 pixels; only the shapes of the maps are read."""
    return Outputs([], [torch.zeros(images, 3, 64 // stride, 64 // stride) for stride in STRIDES])


def targets_of(real: Truth) -> Targets:
    return atss_targets(outputs(len(real.boxes)), real, STRIDES)


@pytest.mark.parametrize(
    ("overlap", "shared"),
    [
        ("diou", 8 * 16 / (16 * 16 + 16 * 32 - 8 * 16)),  # an anchor of 16 x 16, half of it in a box of 16 x 32
        ("iof_diou", 0.5),
    ],
)
def test_closeness_by_hand(overlap, shared):
    anchor, box = torch.tensor([0.0, 0, 16, 16]), torch.tensor([8.0, 0, 24, 32])
    # Middles at (8, 8) and (16, 16); both lie in 24 x 32.
    expected = shared - (8**2 + 8**2) / (24**2 + 32**2)
    assert closeness(anchor, box, overlap).item() == pytest.approx(expected)


@SETTINGS
@given(boxes, boxes)
def test_the_papers_closeness_is_torchvisions_distance_iou(left, right):
    a, b = left.boxes[0], right.boxes[0]
    torch.testing.assert_close(closeness(a[:, None], b, "diou"), distance_box_iou(a, b), rtol=1e-4, atol=1e-5)


@SETTINGS
@given(boxes, boxes)
def test_the_released_codes_closeness_is_never_less_and_the_same_where_the_box_covers_no_anchor(left, right):
    a, b = left.boxes[0][:, None], right.boxes[0]
    paper, code = closeness(a, b, "diou"), closeness(a, b, "iof_diou")
    assert (code >= paper - 1e-6).all() and (code <= 1 + 1e-6).all()
    aside = (torch.maximum(a[..., :2], b[..., :2]) >= torch.minimum(a[..., 2:], b[..., 2:])).any(-1)
    torch.testing.assert_close(code[aside], paper[aside])


def test_an_anchor_in_the_middle_of_a_large_box_is_close_for_the_code_and_far_for_the_paper():
    anchor, box = torch.tensor([28.0, 28, 36, 36]), torch.tensor([0.0, 0, 64, 64])
    assert closeness(anchor, box, "iof_diou") == 1
    assert closeness(anchor, box, "diou").item() == pytest.approx(1 / 64)


def region(real: Truth, gamma: float, overlap: str, threshold: Tensor | None = None) -> dict[int, float]:
    targets = targets_of(real)
    threshold = targets.own["threshold"] if threshold is None else threshold
    found = near(anchors(outputs().cls, STRIDES), targets, threshold, gamma=gamma, overlap=overlap)
    return dict(zip(found.row.tolist(), found.weight.tolist(), strict=True))


@OVERLAPS
@SETTINGS
@given(real=boxes, gammas=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_gamma_of_one_leaves_nothing_and_a_smaller_one_never_loses_a_row(overlap, real, gammas):
    assert not region(real, 1.0, overlap)
    low, high = sorted(gammas)
    less, more = region(real, high, overlap), region(real, low, overlap)
    assert less.keys() <= more.keys()
    assert all(more[row] >= weight > 0 for row, weight in less.items())


@OVERLAPS
def test_reaching_the_threshold_is_too_near_and_reaching_gamma_of_it_is_near_enough(overlap):
    real = truth([[4.0, 6, 40, 40]])
    close = closeness(anchors(outputs().cls, STRIDES).box, real.boxes[0], overlap)
    row = int((close - 0.4).abs().argmin())
    assert row not in region(real, 0.5, overlap, close[row : row + 1])
    assert row in region(real, 0.5, overlap, 2 * close[row : row + 1])
    assert region(real, 1.0, overlap, close[row : row + 1]) == {}


@OVERLAPS
@SETTINGS
@given(real=boxes)
def test_the_region_of_several_boxes_is_that_of_each_and_the_highest_weight_counts(overlap, real):
    threshold = targets_of(real).own["threshold"]
    each = [region(truth([box]), 0.25, overlap, threshold[n : n + 1]) for n, box in enumerate(real.boxes[0].tolist())]
    expected = {row: max(one.get(row, 0.0) for one in each) for row in set().union(*each)}
    assert region(real, 0.25, overlap) == expected


@SETTINGS
@given(real=boxes)
def test_the_thresholds_are_those_that_chose_the_positives(real):
    targets = targets_of(real)
    torch.testing.assert_close(
        box_thresholds(anchors(outputs().cls, STRIDES), targets), targets.own["threshold"], rtol=0, atol=0
    )


def test_a_positive_may_be_near_its_own_box():
    # Its IoU reaches the threshold; its closeness, for which the middles count, does not.
    real = truth([[3.0, 8, 35, 38]])
    positives = set(targets_of(real).row.tolist())
    assert len(positives) == 8
    assert len(positives & region(real, 0.25, "diou").keys()) == 2


def test_images_do_not_share_their_boxes():
    one, other = [[4.0, 6, 30, 33]], [[20.0, 18, 60, 59]]
    alone, second = region(truth(one), 0.25, "diou"), region(truth(other), 0.25, "diou")
    length = len(anchors(outputs().cls, STRIDES).stride)
    assert region(truth(one, [], other), 0.25, "diou") == alone | {
        row + 2 * length: weight for row, weight in second.items()
    }


def test_the_padding_is_never_near():
    real = truth([[4.0, 6, 40, 40]], sizes=[(40, 40)])
    valid = inside(anchors(outputs().cls, STRIDES), real.sizes).flatten()
    rows = list(region(real, 0.1, "diou"))
    assert rows and valid[rows].all()
    whole = truth([[4.0, 6, 40, 40]])
    assert not valid[list(region(whole, 0.1, "diou"))].all()
