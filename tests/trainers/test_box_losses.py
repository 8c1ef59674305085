"""The losses of boxes are torchvision's to the bit, with gradients, and need not be waited for."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision import ops

from tests.trainers.waits import watched
from trainers.box_losses import ciou_loss, giou_loss

Loss = Callable[[Tensor, Tensor], Tensor]
BOTH = pytest.mark.parametrize(
    ("ours", "theirs"), [(giou_loss, ops.generalized_box_iou_loss), (ciou_loss, ops.complete_box_iou_loss)]
)


def drawn(number: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = 50 * torch.rand(number, 2, generator=generator)
    return torch.cat([low, low + 1 + 40 * torch.rand(number, 2, generator=generator)], dim=1)


@BOTH
def test_loss_and_gradient_are_torchvisions_to_the_bit(ours: Loss, theirs: Loss) -> None:
    predicted, box = drawn(300, 0), drawn(300, 1)
    predicted[0] = box[0]
    predicted[1] = torch.tensor([200.0, 200, 210, 230])  # apart
    predicted[2, 2:] = predicted[2, :2] - 3  # nothing is inside
    weight = torch.rand(300, generator=torch.Generator().manual_seed(2))
    found = []
    for loss in (ours, theirs):
        leaf = predicted.clone().requires_grad_()
        value = loss(leaf, box)
        (value @ weight).backward()
        found.append((value, leaf.grad))
    (value, gradient), (expected, their_gradient) = found
    assert torch.equal(value, expected) and torch.equal(gradient, their_gradient)
    assert (value[:2] < 1e-6).tolist() == [True, False]


@BOTH
def test_the_gradient_is_that_of_the_loss(ours: Loss, theirs: Loss) -> None:
    if ours is ciou_loss:  # whose factor has none: both boxes have one shape
        box = torch.tensor([[1.0, 2, 9, 6]], dtype=torch.double)
        predicted = (box + torch.tensor([1.5, 0.7, 1.5, 0.7])).requires_grad_()
    else:
        box, predicted = drawn(6, 3).double(), drawn(6, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ours(x, box), (predicted,))


def test_figures_worked_out_by_hand() -> None:
    one, other = torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[2.0, 0, 6, 2]])
    # 4 of 12 are shared, and nothing around both is empty; the centres are 2 apart in a box with a diagonal of 40 ** .5
    assert giou_loss(one, other).item() == pytest.approx(1 - 4 / 12)
    assert ciou_loss(one, other).item() == pytest.approx(1 - 4 / 12 + 4 / 40)


@BOTH
def test_nobody_waits_for_a_loss_of_boxes(ours: Loss, theirs: Loss) -> None:
    predicted = drawn(5, 0).requires_grad_()
    with watched() as seen:
        ours(predicted, drawn(5, 1)).sum().backward()
    assert not seen
    with watched() as seen:
        theirs(predicted, drawn(5, 1)).sum().backward()
    assert seen["mask as index"] == 10


@BOTH
def test_without_positives_there_is_nothing_to_lose(ours: Loss, theirs: Loss) -> None:
    assert ours(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)
