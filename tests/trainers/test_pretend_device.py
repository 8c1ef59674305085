"""The device that is not there finds what a GPU would refuse, and lets pass what a GPU allows."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

from tests.trainers.pretend_device import NAME, Pretended, device


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + torch.ones(4),
        lambda x: torch.cat([x, torch.ones(1, 4)]),
        lambda x: x @ torch.ones(4, 2),
        lambda x: x.add_(torch.ones(4)),
        lambda x: torch.where(torch.ones(3, 4, dtype=torch.bool), x, x),
        lambda x: x.index_select(0, torch.tensor([0])),
        lambda x: nms(x, torch.ones(3), 0.5),
        lambda x: roi_align(x.expand(1, 2, 3, 4), torch.tensor([[0.0, 0, 0, 1, 1]]), 2),
        lambda x: nn.Linear(4, 2)(x),
    ],
)
def test_tensors_of_two_devices_do_not_meet(mix: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(RuntimeError, match="reads tensors of the CPU beside others"):
        mix(torch.ones(3, 4, device=device()))


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x + torch.tensor(2.0),
        lambda x: x[torch.tensor([0, 2])],
        lambda x: torch.ones(3, 4).to(x),
        lambda x: torch.empty(3, 4, device=x.device).copy_(torch.ones(3, 4)),
        lambda x: x.new_tensor([1.0, 2]) + torch.tensor([3.0, 4], device=x.device) + torch.arange(2, device=x.device),
        lambda x: nn.Linear(4, 2).to(x.device)(x),
        lambda x: torch.randperm(3, device=x.device),
    ],
)
def test_what_a_gpu_allows_ends_there(work: Callable[[Tensor], Tensor]) -> None:
    found = work(torch.ones(3, 4, device=device()))
    assert isinstance(found, Pretended) and found.device.type == NAME


def test_tensors_made_there_are_as_long_as_they_say() -> None:
    for made in (torch.randperm(5, device=device()), torch.arange(1, 6, device=device())):
        assert made.shape == (5,) and len(made[:3]) == 3 and sum(made.cpu().tolist()) in (10, 15)


def test_numbers_come_back_and_views_and_gradients_are_those_of_the_cpu() -> None:
    x = torch.arange(6.0, device=device()).view(2, 3).requires_grad_()
    y = x * 1
    y[0] = 5
    (y**2).sum().backward()
    assert x.grad is not None and x.grad.device.type == NAME
    assert x.grad.cpu().tolist() == [[0, 0, 0], [6, 8, 10]]
    assert type(y.detach().cpu()) is Tensor and y.cpu().tolist() == [[5, 5, 5], [3, 4, 5]]
    assert y.sum().item() == 27
