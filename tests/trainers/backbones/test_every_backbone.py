"""What holds for every backbone that `trainers.backbones` offers, whichever they are."""

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from trainers import backbones, spec

CASES = [
    ("TinyResNet", {"width": 8, "norm": "batch"}),
    ("TinyResNet", {"width": 4}),
    ("ResNet", {"depth": 18}),
]
EVERY = pytest.mark.parametrize(("name", "args"), CASES)
BATCH_NORM = pytest.mark.parametrize(("name", "args"), [CASES[0], CASES[2]])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(name: str, args: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return spec.Call(name=name, args=args).complete(backbones).of(backbones)


def statistics(backbone: nn.Module) -> dict[str, torch.Tensor]:
    return {name: x.clone() for name, x in backbone.state_dict().items() if "running" in name}


def learn(backbone: Any) -> set[str]:
    """One step in training mode. -> names of the parameters that it changed."""
    before = {name: p.detach().clone() for name, p in backbone.named_parameters()}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    sum(x.square().mean() for x in backbone(torch.rand(2, 3, 64, 64))).backward()
    optimizer.step()
    return {name for name, p in backbone.named_parameters() if not torch.equal(p, before[name])}


def test_the_cases_cover_every_backbone() -> None:
    assert {name for name, _ in CASES} == set(spec.offers(backbones))


@EVERY
@pytest.mark.parametrize("size", [(64, 64), (65, 91), (33, 130)])
def test_maps_have_the_promised_channels_and_strides(name: str, args: dict[str, Any], size: tuple[int, int]) -> None:
    with torch.device("meta"):
        backbone = make(name, args)
        found = backbone(torch.zeros(2, 3, *size))
    cells = [tuple(math.ceil(side / stride) for side in size) for stride in backbone.strides]
    assert [tuple(x.shape) for x in found] == [(2, c, *s) for c, s in zip(backbone.channels, cells, strict=True)]


@BATCH_NORM
def test_frozen_stages_keep_weights_and_statistics_in_training(name: str, args: dict[str, Any]) -> None:
    backbone = make(name, args)
    backbone.freeze(1)
    backbone.eval().train()
    before = statistics(backbone)
    changed = learn(backbone)
    frozen = ("conv1", "bn1", "layer1.", "stem", "stages.0.")
    assert changed
    assert not [n for n in changed if n.startswith(frozen)]
    for n, x in statistics(backbone).items():
        assert torch.equal(x, before[n]) == n.startswith(frozen), n


@BATCH_NORM
def test_fixed_norms_keep_statistics_but_learn_scale_and_shift(name: str, args: dict[str, Any]) -> None:
    backbone = make(name, args)
    backbone.fix_norm()
    backbone.eval().train()
    before = statistics(backbone)
    assert learn(backbone) == {n for n, _ in backbone.named_parameters()}
    for n, x in statistics(backbone).items():
        assert torch.equal(x, before[n]), n


@BATCH_NORM
def test_a_copy_keeps_its_own_norms_still_and_not_the_ones_of_the_original(name: str, args: dict[str, Any]) -> None:
    backbone = make(name, args)
    backbone.freeze(1)
    twin = copy.deepcopy(backbone).train()
    before = statistics(twin)
    twin(torch.rand(2, 3, 64, 64))
    first = next(iter(before))
    assert torch.equal(statistics(twin)[first], before[first])


@EVERY
def test_freezing_nothing_leaves_everything_free(name: str, args: dict[str, Any]) -> None:
    backbone = make(name, args)
    backbone.freeze(0)
    assert learn(backbone.train()) == {n for n, _ in backbone.named_parameters()}


@EVERY
def test_freezing_more_stages_than_there_are_is_the_users_mistake(name: str, args: dict[str, Any]) -> None:
    with pytest.raises(spec.Invalid, match="cannot freeze 9 stages: the backbone has"):
        make(name, args).freeze(9)


@EVERY
def test_all_stages_can_be_frozen(name: str, args: dict[str, Any]) -> None:
    backbone = make(name, args)
    backbone.freeze({"ResNet": 4, "TinyResNet": 3}[name])
    assert not [n for n, p in backbone.named_parameters() if p.requires_grad]
