"""ResNeXt: torchvision's weights fit, for each cardinality, and its convolutions have as many groups."""

import pytest
import torch
from torch import nn
from torchvision.models import get_model
from torchvision.models.resnet import Bottleneck
from torchvision.models.resnet import ResNet as Whole

from trainers import backbones
from trainers.backbones import ResNeXt
from trainers.backbones.deformable import Deformable
from trainers.call import Call, Invalid

BLOCKS = {50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}


@pytest.mark.parametrize("cardinality", ["32x4d", "64x4d"])
@pytest.mark.parametrize("depth", [50, 101])
def test_its_state_is_torchvisions_without_the_classifier(depth: int, cardinality: str) -> None:
    with torch.device("meta"):
        ours = ResNeXt(depth=depth, cardinality=cardinality)
        theirs = Whole(Bottleneck, BLOCKS[depth], groups=int(cardinality[:2]), width_per_group=4)
    found, expected = ours.state_dict(), theirs.state_dict()
    assert {k: v.shape for k, v in found.items()} == {
        k: v.shape for k, v in expected.items() if not k.startswith("fc.")
    }
    assert {n: m.groups for n, m in ours.named_modules() if isinstance(m, nn.Conv2d)} == {
        n: m.groups for n, m in theirs.named_modules() if isinstance(m, nn.Conv2d)
    }


def test_it_computes_what_torchvision_computes() -> None:
    torch.manual_seed(0)
    whole = get_model("resnext50_32x4d", weights=None).eval()
    backbone = ResNeXt(depth=50).eval()
    backbone.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("fc.")})
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = whole(backbone.colours(images))
        torch.testing.assert_close(whole.fc(backbone(images)[-1].mean((2, 3))), expected)


@pytest.mark.parametrize("cardinality", ["32x4d", "64x4d"])
def test_one_frozen_stage_is_the_stem_and_the_first_layer(cardinality: str) -> None:
    with torch.device("meta"):
        backbone = ResNeXt(cardinality=cardinality)
    backbone.freeze(1)
    free = {n for n, p in backbone.named_parameters() if p.requires_grad}
    assert free == {n for n, _ in backbone.named_parameters() if n.startswith(("layer2", "layer3", "layer4"))}


@pytest.mark.parametrize(("dcn", "channels"), [("v1", 18), ("v2", 27)])
def test_deformable_convolutions_keep_the_groups_and_share_the_offsets(dcn: str, channels: int) -> None:
    with torch.device("meta"):
        backbone = ResNeXt(dcn=dcn)
        maps = backbone(torch.zeros(1, 3, 64, 96))
    assert [tuple(x.shape[1:]) for x in maps] == [(256, 16, 24), (512, 8, 12), (1024, 4, 6), (2048, 2, 3)]
    found = [m for m in backbone.modules() if isinstance(m, Deformable)]
    assert len(found) == 4 + 23 + 3
    # The third stage's convolutions have 32 groups of 8 x 2 channels.
    convolution = backbone.get_submodule("layer3.0.conv2")
    assert {n: tuple(p.shape) for n, p in convolution.named_parameters()} == {
        "weight": (512, 16, 3, 3),
        "conv_offset.weight": (channels, 512, 3, 3),
        "conv_offset.bias": (channels,),
    }


def test_deformable_convolutions_can_begin_in_c4() -> None:
    """As in mmdetection's gfl_x101_32x4d_fpn_dconv_c4-c5."""
    with torch.device("meta"):
        names = ResNeXt(dcn="v2", dcn_from=4).state_dict()
    blocks = [f"layer{stage}.{i}" for stage, count in ((3, 23), (4, 3)) for i in range(count)]
    assert [n for n in names if n.endswith("offset.weight")] == [f"{b}.conv2.conv_offset.weight" for b in blocks]


@pytest.mark.parametrize("args", [{"depth": 18}, {"dcn_from": 2}, {"cardinality": "32x8d"}, {"dcn": True}])
def test_knobs_out_of_range_are_refused(args: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        Call(name="ResNeXt", args=args).complete(backbones)
