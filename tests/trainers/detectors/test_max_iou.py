"""mmdetection's assignment by overlap against a literal one, and where torchvision's differs."""

import pytest
import torch
from torchvision.models.detection._utils import Matcher

from tests.trainers.detectors.written_out import max_iou
from trainers.detectors.max_iou import BACKGROUND, IGNORED, MaxIoU


@pytest.mark.parametrize("least", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("boxes", [0, 1, 2, 7])
def test_anchors_answer_as_written_out(boxes: int, least: float) -> None:
    generator = torch.Generator().manual_seed(boxes)
    for most in (1, 4, 8):
        # Few different overlaps: ties everywhere, and every threshold is met exactly.
        overlap = torch.randint(0, most + 1, (boxes, 12), generator=generator) / 8
        found = MaxIoU(0.75, 0.25, least)(overlap)
        assert found.tolist() == max_iou(overlap.T.tolist(), 0.75, 0.25, least)


def test_without_boxes_everything_is_background() -> None:
    found = MaxIoU(0.7, 0.3)(torch.zeros(0, 3))
    assert found.tolist() == [BACKGROUND] * 3 and found.dtype == torch.long


def test_thresholds_belong_to_what_lies_above_them() -> None:
    overlap = torch.tensor([[1.0, 0.5, 0.49, 0.4, 0.39, 0.0]])
    assert MaxIoU(0.5, 0.4)(overlap).tolist() == [0, 0, IGNORED, IGNORED, BACKGROUND, BACKGROUND]


def test_all_anchors_that_overlap_a_box_most_answer_for_it_if_by_the_least() -> None:
    overlap = torch.tensor([[0.3, 0.1, 0.3, 0.2]])
    assert MaxIoU(0.7, 0.4, 0.3)(overlap).tolist() == [0, BACKGROUND, 0, BACKGROUND]
    assert MaxIoU(0.7, 0.4, 0.31)(overlap).tolist() == [BACKGROUND] * 4


def test_the_last_box_has_an_anchor_that_is_the_best_of_several() -> None:
    """Even if an earlier one fits it."""
    overlap = torch.tensor([[0.9, 0.6], [0.2, 0.1], [0.0, 0.1]])
    assert MaxIoU(0.5, 0.4)(overlap).tolist() == [1, 2]
    assert MaxIoU(0.5, 0.4, 0.15)(overlap).tolist() == [1, 0]  # the third box asks for nothing
    theirs = Matcher(0.5, 0.4, allow_low_quality_matches=True)
    assert theirs(overlap).tolist() == [0, 0]
    assert (Matcher.BELOW_LOW_THRESHOLD, Matcher.BETWEEN_THRESHOLDS) == (BACKGROUND, IGNORED)


@pytest.mark.parametrize("nothing", [0.0, -1.0])
def test_a_box_that_no_anchor_overlaps_has_none(nothing: float) -> None:
    overlap = torch.tensor([[nothing, nothing, nothing], [0.2, nothing, 0.45]])
    assert MaxIoU(0.5, 0.4)(overlap).tolist() == [BACKGROUND, BACKGROUND, 1]
    assert MaxIoU(0.5, 0.4)(overlap[:1]).tolist() == [BACKGROUND] * 3
