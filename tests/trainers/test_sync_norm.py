"""Batch norms that share their statistics are those of one worker with the whole batch."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from tests.trainers.two_workers import together
from trainers import workers
from trainers.backbones import ResNet, TinyResNet
from trainers.sync_norm import Normalised, SharedBatchNorm, share_statistics

SPLIT = ((0, 1, 2), (3,))  # the images of each of two workers


def images() -> Tensor:
    return torch.randn(4, 3, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3 + 1


def norm(kind: type[nn.BatchNorm2d]) -> nn.BatchNorm2d:
    one = kind(3, momentum=0.3).double()
    with torch.no_grad():
        one.weight.copy_(torch.tensor([0.5, 2, -1]))
        one.bias.copy_(torch.tensor([1.0, 0, 3]))
    return one


def learn(one: nn.BatchNorm2d, mine: tuple[int, ...]) -> dict[str, Any]:
    """Two steps with these images; the second loss is far from linear."""
    x = images()[list(mine)].requires_grad_()
    one(x)
    y = one(x)
    (y.exp() * torch.arange(10.0).view(5, 2)).sum().backward()
    return {"y": y.detach(), "x": x.grad, "weight": one.weight.grad, "bias": one.bias.grad, **dict(one.named_buffers())}


def shared(rank: int) -> dict[str, Any]:
    return learn(norm(SharedBatchNorm), SPLIT[rank])


def test_two_workers_with_unequal_parts_see_what_one_sees(tmp_path: Path) -> None:
    left, right = together(shared, tmp_path)
    whole = learn(norm(nn.BatchNorm2d), (0, 1, 2, 3))
    for name in "y", "x":
        torch.testing.assert_close(torch.cat([left[name], right[name]]), whole[name])
    for name in "weight", "bias":  # each has its own part of the sum, as of every parameter
        torch.testing.assert_close(left[name] + right[name], whole[name])
    for name in "running_mean", "running_var", "num_batches_tracked":
        torch.testing.assert_close(left[name], whole[name])
        assert torch.equal(left[name], right[name])


def test_its_gradient_is_that_of_what_it_computes() -> None:
    weight, bias = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in ([0.5, 2, -1], [1.0, 0, 3]))
    assert gradcheck(lambda *x: Normalised.apply(*x, 1e-5)[0], (images().requires_grad_(), weight, bias))


def test_in_half_precision_it_counts_in_float32() -> None:
    x = (images() * 1000).bfloat16()
    y, mean, *_ = Normalised.apply(x, torch.ones(3), torch.zeros(3), 1e-5)
    assert (y.dtype, mean.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(mean, x.float().mean((0, 2, 3)))


def test_one_worker_has_an_ordinary_batch_norm_and_evaluation_too(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, one = norm(nn.BatchNorm2d), norm(SharedBatchNorm)
    assert torch.equal(plain(images()), one(images()))
    monkeypatch.setattr(workers, "count", lambda: 2)
    assert torch.equal(plain.eval()(images()), one.eval()(images()))


@pytest.mark.parametrize("backbone", [ResNet(depth=18), TinyResNet(norm="batch")], ids=["ResNet", "TinyResNet"])
def test_a_network_keeps_its_weights_and_what_keeps_still(backbone: Any) -> None:
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone.freeze(1)
    twin = copy.deepcopy(backbone)
    parameters = [id(p) for p in backbone.parameters()]
    share_statistics(backbone)
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and all(type(one) is SharedBatchNorm for one in norms)
    assert [id(p) for p in backbone.parameters()] == parameters
    after = backbone.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    still = [[name for name, m in x.train().named_modules() if not m.training] for x in (backbone, twin)]
    assert still[0] == still[1] != []
    x = torch.rand(2, 3, 64, 64)
    for mine, theirs in zip(backbone(x), twin(x), strict=True):
        assert torch.equal(mine, theirs)
