"""The device that is not there finds what a GPU would refuse, and lets pass what a GPU allows."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

from tests.trainers.pretend_device import NAME, Pretended, device

REFUSED: dict[str, Callable[[Tensor], Tensor]] = {  # with a tensor (3, 4) of the device
    "a sum": lambda x: x + torch.ones(4),
    "a sum with a gradient": lambda x: x.requires_grad_() + torch.ones(4),
    "a list": lambda x: torch.cat([x, torch.ones(1, 4)]),
    "a product": lambda x: x @ torch.ones(4, 2),
    "a change in place": lambda x: x.add_(torch.ones(4)),
    "a condition": lambda x: torch.where(torch.ones(3, 4, dtype=torch.bool), x, x),
    "numbers of rows": lambda x: x.index_select(0, torch.tensor([0])),
    "scores of boxes": lambda x: nms(x, torch.ones(3), 0.5),
    "regions": lambda x: roi_align(x.expand(1, 2, 3, 4), torch.tensor([[0.0, 0, 0, 1, 1]]), 2),
    "what is indexed": lambda x: torch.ones(3, 4)[x > 0],
    "what is written at an index": lambda x: x.index_put((torch.tensor([0, 1]),), torch.ones(2, 4)),
    "weights": lambda x: nn.Linear(4, 2)(x),
}
ALLOWED: dict[str, Callable[[Tensor], Tensor]] = {
    "a single number": lambda x: x + torch.tensor(2.0),
    "an index": lambda x: x[torch.tensor([0, 2])],
    "a move": lambda x: torch.ones(3, 4).to(x),
    "a copy": lambda x: torch.empty(3, 4, device=x.device).copy_(torch.ones(3, 4)),
    "tensors made there": lambda x: x.new_tensor([1.0, 2]) + torch.tensor([3, 4], device=x.device),
    "weights that were moved": lambda x: nn.Linear(4, 2).to(x.device)(x),
}


def refused(name: str) -> str:
    try:
        REFUSED[name](torch.ones(3, 4, device=device()))
    except RuntimeError as error:
        return str(error)
    return "nothing was refused"


@pytest.mark.parametrize("name", REFUSED)
def test_tensors_of_two_devices_do_not_meet(elsewhere: Callable[..., Any], name: str) -> None:
    assert "reads tensors of the CPU beside others" in elsewhere(refused, name)


def ends_there(name: str) -> bool:
    found = ALLOWED[name](torch.ones(3, 4, device=device()))
    return isinstance(found, Pretended) and found.device.type == NAME


@pytest.mark.parametrize("name", ALLOWED)
def test_what_a_gpu_allows_ends_there(elsewhere: Callable[..., Any], name: str) -> None:
    assert elsewhere(ends_there, name)


def lengths() -> list[Any]:
    made = torch.randperm(5, device=device()), torch.arange(1, 6, device=device())
    return [(x.shape, len(x[:3]), sorted(x.cpu().tolist())) for x in made]


def test_tensors_made_there_are_as_long_as_they_say(elsewhere: Callable[..., Any]) -> None:
    assert elsewhere(lengths) == [((5,), 3, [0, 1, 2, 3, 4]), ((5,), 3, [1, 2, 3, 4, 5])]


def numbers() -> tuple[Any, ...]:
    x = torch.arange(6.0, device=device()).view(2, 3).requires_grad_()
    y = x * 1
    y[0] = 5
    (y**2).sum().backward()
    assert x.grad is not None and x.grad.device.type == NAME and type(y.detach().cpu()) is Tensor
    return x.grad.tolist(), y.cpu().tolist(), y.sum().item()


def test_numbers_come_back_and_views_and_gradients_are_those_of_the_cpu(elsewhere: Callable[..., Any]) -> None:
    assert elsewhere(numbers) == ([[0, 0, 0], [6, 8, 10]], [[5, 5, 5], [3, 4, 5]], 27)
