"""ResNet: torchvision's weights fit, and the published parameter counts; Caffe's style; deformable convolutions."""

from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from trainers.backbones import ResNet
from trainers.backbones.deformable import Deformable


def on_meta(**knobs: object) -> ResNet:
    with torch.device("meta"):
        return ResNet(**knobs)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_its_state_is_torchvisions_without_the_classifier(depth: int) -> None:
    ours = on_meta(depth=depth).state_dict()
    with torch.device("meta"):
        theirs = get_model(f"resnet{depth}", weights=None).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items() if not k.startswith("fc.")}


@pytest.mark.parametrize(
    ("depth", "count"), [(18, 11_176_512), (34, 21_284_672), (50, 23_508_032), (101, 42_500_160), (152, 58_143_808)]
)
def test_its_parameters_are_as_many_as_published(depth: int, count: int) -> None:
    assert sum(p.numel() for p in on_meta(depth=depth).parameters()) == count


@pytest.mark.parametrize("dcn", ["none", "v1", "v2"])
@pytest.mark.parametrize(("depth", "count"), [(18, 157_504), (50, 225_344), (101, 225_344)])
def test_one_frozen_stage_is_the_stem_and_the_first_layer(depth: int, count: int, dcn: str) -> None:
    backbone = on_meta(depth=depth, dcn=dcn)
    backbone.freeze(1)
    assert sum(p.numel() for p in backbone.parameters() if not p.requires_grad) == count


def test_it_computes_what_torchvision_computes() -> None:
    torch.manual_seed(0)
    whole = get_model("resnet18", weights=None).eval()
    backbone = ResNet(depth=18).eval()
    backbone.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("fc.")})
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = whole(backbone.colours(images))
        torch.testing.assert_close(whole.fc(backbone(images)[-1].mean((2, 3))), expected)


@pytest.mark.parametrize("dcn", ["none", "v1", "v2"])
def test_a_seed_draws_the_same_weights_with_deformable_convolutions_and_without(dcn: str) -> None:
    torch.manual_seed(0)
    expected = {k: v for k, v in get_model("resnet18", weights=None).state_dict().items() if not k.startswith("fc.")}
    torch.manual_seed(0)
    found = ResNet(depth=18, dcn=dcn).state_dict()
    for name, x in found.items():
        if "conv_offset" in name:
            assert not x.any()
        else:
            torch.testing.assert_close(x, expected.pop(name), rtol=0, atol=0)
    assert not expected


def test_images_in_another_memory_layout_change_nothing() -> None:
    """On channels-last maps the backward pass of its strided 1x1 convolutions corrupts the heap of some CPUs."""
    torch.manual_seed(0)
    backbone = ResNet(depth=18).eval()
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        found = backbone(images.contiguous(memory_format=torch.channels_last))
        assert all(x.is_contiguous() for x in found)
        torch.testing.assert_close(found, backbone(images))


@pytest.mark.parametrize("style", ["caffe", "detectron"])
@pytest.mark.parametrize("depth", [50, 101])
def test_caffes_style_halves_in_the_first_convolution_of_a_stage(depth: int, style: str) -> None:
    torchs, caffes = on_meta(depth=depth), on_meta(depth=depth, style=style)
    assert torchs.state_dict().keys() == caffes.state_dict().keys()
    halving = {"layer2.0", "layer3.0", "layer4.0"}
    for backbone, name in ((torchs, "conv2"), (caffes, "conv1")):
        strided = {n for n, m in backbone.named_modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)}
        expected = {f"{block}.{conv}" for block in halving for conv in (name, "downsample.0")}
        assert strided == {"conv1", *expected}


@pytest.mark.parametrize(
    ("style", "means"), [("caffe", (103.53, 116.28, 123.675)), ("detectron", (102.9801, 115.9465, 122.7717))]
)
def test_caffes_style_reads_blue_green_and_red_of_0_to_255(style: Any, means: tuple[float, float, float]) -> None:
    colours = ResNet(depth=18, style=style).colours
    assert not colours.state_dict()
    red, green, blue = 200.0, 10.0, means[0]
    image = torch.tensor([red, green, blue]).div(255).view(3, 1, 1).expand(2, 3, 2, 2)
    expected = torch.tensor([0.0, 10 - means[1], 200 - means[2]])
    torch.testing.assert_close(colours(image)[1, :, 0, 1], expected, rtol=1e-5, atol=1e-4)


def test_caffes_style_of_a_shallow_one_is_only_in_the_colours() -> None:
    torch.manual_seed(0)
    torchs, caffes = ResNet(depth=18).eval(), ResNet(depth=18, style="caffe").eval()
    caffes.load_state_dict(torchs.state_dict())
    caffes.colours = torchs.colours
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(caffes(images), torchs(images))


@pytest.mark.parametrize(("dcn", "channels", "more"), [("v1", 18, 580_842), ("v2", 27, 871_263)])
@pytest.mark.parametrize("style", ["pytorch", "caffe"])
def test_every_second_convolution_of_c3_to_c5_becomes_deformable(
    style: str, dcn: str, channels: int, more: int
) -> None:
    plain, deformable = on_meta(style=style), on_meta(dcn=dcn, style=style)
    blocks = [f"layer{stage}.{i}" for stage, blocks in ((2, 4), (3, 6), (4, 3)) for i in range(blocks)]
    assert [n for n, m in deformable.named_modules() if isinstance(m, Deformable)] == [f"{b}.conv2" for b in blocks]
    added = deformable.state_dict().keys() - plain.state_dict().keys()
    assert added == {f"{block}.conv2.conv_offset.{x}" for block in blocks for x in ("weight", "bias")}
    assert plain.state_dict().keys() < deformable.state_dict().keys()
    for block in blocks:
        convolution = deformable.get_submodule(f"{block}.conv2")
        assert convolution.conv_offset.out_channels == channels
        assert convolution.stride == plain.get_submodule(f"{block}.conv2").stride
    count, before = (sum(p.numel() for p in b.parameters()) for b in (deformable, plain))
    assert count - before == more


@pytest.mark.parametrize(("first", "layers"), [(3, (2, 3, 4)), (4, (3, 4)), (5, (4,))])
def test_deformable_convolutions_can_begin_later(first: int, layers: tuple[int, ...]) -> None:
    added = on_meta(depth=18, dcn="v2", dcn_from=first).state_dict().keys() - on_meta(depth=18).state_dict().keys()
    assert added == {f"layer{n}.{i}.conv2.conv_offset.{x}" for n in layers for i in (0, 1) for x in ("weight", "bias")}
    assert on_meta(depth=18, dcn_from=first).state_dict().keys() == on_meta(depth=18).state_dict().keys()


def test_at_first_deformable_convolutions_change_nothing() -> None:
    torch.manual_seed(0)
    plain, deformable = ResNet(depth=18).eval(), ResNet(depth=18, dcn="v1").eval()
    deformable.load_state_dict(plain.state_dict(), strict=False)
    images = torch.rand(1, 3, 65, 91)
    with torch.no_grad():
        torch.testing.assert_close(deformable(images), plain(images), rtol=1e-4, atol=1e-4)


def test_deformable_convolutions_learn_under_autocast() -> None:
    torch.manual_seed(0)
    backbone = ResNet(depth=18, dcn="v2").train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = backbone(torch.rand(2, 3, 64, 64))
    assert {x.dtype for x in maps} == {torch.bfloat16}
    sum((x.float() * torch.rand(x.shape)).mean() for x in maps).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in backbone.parameters())
