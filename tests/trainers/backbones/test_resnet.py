"""ResNet: torchvision's weights fit, and the published parameter counts."""

import pytest
import torch
from torchvision.models import get_model

from trainers.backbones import ResNet


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_its_state_is_torchvisions_without_the_classifier(depth: int) -> None:
    with torch.device("meta"):
        ours = ResNet(depth=depth).state_dict()
        theirs = get_model(f"resnet{depth}", weights=None).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items() if not k.startswith("fc.")}


@pytest.mark.parametrize(("depth", "count"), [(18, 157_504), (50, 225_344), (101, 225_344)])
def test_one_frozen_stage_is_the_stem_and_the_first_layer(depth: int, count: int) -> None:
    with torch.device("meta"):
        backbone = ResNet(depth=depth)
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
