"""What holds for every backbone that `trainers.backbones` offers, whichever they are."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from trainers import backbones
from trainers.call import Call, Invalid, offers

CASES = [
    ("TinyResNet", {"width": 8, "norm": "batch"}),
    ("TinyResNet", {"width": 4}),
    ("ResNet", {"depth": 18}),
    ("ResNet", {"depth": 18, "dcn": "v1"}),
    ("ResNet", {"depth": 18, "dcn": "v2"}),
    ("ResNet", {"depth": 50, "style": "caffe"}),
    ("ResNeXt", {"depth": 50}),
    ("Swin", {"size": "micro", "drop_path": 0.0}),
    ("Inception", {"divide": 4}),
    ("VGG", {"depth": 11, "divide": 16}),
    ("VGG", {"depth": 16, "norm": "batch", "divide": 16}),
    ("MobileNetV2", {"width": 0.35}),
    ("MobileNetV3", {"size": "large", "width": 0.35}),
    ("MobileNetV3", {"size": "small", "width": 0.35}),
    ("Halved", {"backbone": {"Inception": {"divide": 4}}}),
    ("Halved", {"backbone": {"TinyResNet": {"width": 8, "norm": "batch"}}, "depthwise": False}),
]


def make(name: str, args: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return Call(name=name, args=args).complete(backbones).of(backbones)


def over(cases: list[tuple[str, dict[str, Any]]]) -> pytest.MarkDecorator:
    """A test for each of these cases, under the name that the case has in a study."""
    return pytest.mark.parametrize(("name", "args"), cases, ids=[str(Call(name=n, args=a)) for n, a in cases])


def has_batch_norms(name: str, args: dict[str, Any]) -> bool:
    with torch.device("meta"):
        return any(isinstance(m, nn.BatchNorm2d) for m in make(name, args).modules())


EVERY = over(CASES)
ONCE = over([*{name: (name, args) for name, args in reversed(CASES)}.values(), ("ResNet", {"depth": 18, "dcn": "v2"})])
BATCH_NORM = over([case for case in CASES if has_batch_norms(*case)])


def in_first_part(backbone: Any) -> set[str]:
    """Names of the parameters and statistics of what `freeze(1)` freezes."""
    first = backbone.parts()[0]
    tensors = {id(x) for x in (*first.parameters(), *first.buffers())}
    return {name for name, x in (*backbone.named_parameters(), *backbone.named_buffers()) if id(x) in tensors}


def statistics(backbone: nn.Module) -> dict[str, torch.Tensor]:
    return {name: x.clone() for name, x in backbone.state_dict().items() if "running" in name}


def learn(backbone: Any) -> set[str]:
    """A backward pass in training mode. -> names of the parameters that it would change, be it by very little."""
    # Not the sum of squares: behind a layer norm that is always the same.
    sum((x * torch.randn_like(x)).sum() for x in backbone(torch.rand(2, 3, 64, 64))).backward()
    return {name for name, p in backbone.named_parameters() if p.grad is not None and p.grad.any()}


def test_the_cases_cover_every_backbone() -> None:
    assert {name for name, _ in CASES} == set(offers(backbones))


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
    learning = learn(backbone)
    frozen = in_first_part(backbone)
    assert frozen
    assert learning == {n for n, _ in backbone.named_parameters()} - frozen
    for n, x in statistics(backbone).items():
        assert torch.equal(x, before[n]) == (n in frozen), n


@BATCH_NORM
def test_fixed_norms_keep_statistics_but_learn_scale_and_shift(name: str, args: dict[str, Any]) -> None:
    backbone = make(name, args)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    backbone.train()(
        torch.rand(2, 3, 64, 64)
    )  # statistics of real maps: by the initial ones a narrow layer may be dead
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
    with pytest.raises(Invalid, match="cannot freeze 9 stages: the backbone has"):
        make(name, args).freeze(9)


@EVERY
def test_all_stages_can_be_frozen(name: str, args: dict[str, Any]) -> None:
    backbone = make(name, args)
    backbone.freeze(len(backbone.parts()))
    assert not [n for n, p in backbone.named_parameters() if p.requires_grad]


@ONCE
def test_its_graph_can_be_exported_for_batches_of_any_length(name: str, args: dict[str, Any]) -> None:
    backbone = make(name, args).eval()
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    graph = torch.export.export(backbone, (torch.zeros(2, 3, 32, 64),), dynamic_shapes=shapes).module()
    images = torch.rand(3, 3, 32, 64)
    with torch.no_grad():
        for x, y in zip(graph(images), backbone(images), strict=True):
            torch.testing.assert_close(x, y)


@EVERY
def test_it_trains_in_half_precision(name: str, args: dict[str, Any]) -> None:
    backbone = make(name, args).train()
    with torch.autocast("cpu", torch.bfloat16):
        maps = backbone(torch.rand(2, 3, 64, 64))
    sum(x.float().square().mean() for x in maps).backward()
    assert not [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
