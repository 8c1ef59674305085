"""Deltas are torchvision's to the bit, with gradients, and need not be waited for."""

import math

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder

from tests.trainers.test_box_losses import drawn
from tests.trainers.waits import watched
from trainers.detectors.deltas import Deltas

PAIRS = pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Deltas(), BoxCoder((1.0, 1.0, 1.0, 1.0))),
        (Deltas(centre=10.0, side=5.0), BoxCoder((10.0, 10.0, 5.0, 5.0))),
        (Deltas(centre=1 / 0.1, side=1 / 0.2), BoxCoder((1 / 0.1, 1 / 0.1, 1 / 0.2, 1 / 0.2))),
    ],
)


@PAIRS
def test_both_ways_are_torchvisions_to_the_bit(ours: Deltas, theirs: BoxCoder) -> None:
    box, anchor = drawn(200, 0), drawn(200, 1)
    assert torch.equal(ours.encode(box, anchor), theirs.encode_single(box, anchor))
    said = 3 * torch.randn(200, 4, generator=torch.Generator().manual_seed(2))
    found = []
    for decode in (ours.decode, theirs.decode_single):
        leaf = said.clone().requires_grad_()
        boxes = decode(leaf, anchor)
        (boxes.sum(1) @ anchor[:, 0]).backward()
        found.append((boxes, leaf.grad))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


@PAIRS
def test_what_was_encoded_is_decoded(ours: Deltas, theirs: BoxCoder) -> None:
    box, anchor = drawn(50, 0).double(), drawn(50, 1).double()
    torch.testing.assert_close(ours.decode(ours.encode(box, anchor), anchor), box)


def test_figures_worked_out_by_hand() -> None:
    anchor, box = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[5.0, 0, 25, 10]])
    # from the centre (5, 10) to (15, 5), in sides of 10 and 20; twice as wide, half as high
    expected = torch.tensor([[1.0, -0.25, math.log(2), -math.log(2)]])
    torch.testing.assert_close(Deltas().encode(box, anchor), expected)


def test_a_side_grows_by_no_more_than_a_bound() -> None:
    anchor = torch.tensor([[0.0, 0, 16, 16]])
    x1, _, x2, _ = Deltas().decode(torch.tensor([[0.0, 0, 100, 0]]), anchor)[0].tolist()
    assert x2 - x1 == pytest.approx(1000)


def test_nobody_waits_for_deltas() -> None:
    box, anchor = drawn(5, 0), drawn(5, 1)
    with watched() as seen:
        Deltas().decode(Deltas().encode(box, anchor).requires_grad_(), anchor).sum().backward()
    assert not seen
