"""Swin: torchvision's weights fit, a norm on each map, and a size for the demos."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import get_model

from trainers import backbones
from trainers.backbones import Swin
from trainers.call import Call, Invalid

NORMS = {f"norm{i}.{name}" for i in range(4) for name in ("weight", "bias")}


def features(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x for name, x in state.items() if name.startswith("features.")}


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_its_state_is_torchvisions_without_the_classifier_and_with_a_norm_for_each_map(size: str) -> None:
    with torch.device("meta"):
        ours = Swin(size=size).state_dict()
        theirs = get_model(f"swin_{size[0]}", weights=None).state_dict()
    left = {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    assert {k: v.shape for k, v in features(ours).items()} == {k: v.shape for k, v in theirs.items() if k not in left}
    assert set(ours) - set(theirs) == NORMS
    assert ours["norm3.weight"].shape == theirs["norm.weight"].shape


@pytest.mark.parametrize(
    ("size", "published", "channels"),
    [("tiny", 28_288_354, 96), ("small", 49_606_258, 96), ("base", 87_768_224, 128)],
)
def test_it_has_the_published_count_of_weights(size: str, published: int, channels: int) -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in Swin(size=size).parameters())
    last = 8 * channels
    head, norms = 1000 * last + 1000, 2 * channels * (1 + 2 + 4)  # ours are three more than theirs
    assert count == published - head + norms


def test_it_computes_what_torchvision_computes() -> None:
    torch.manual_seed(0)
    whole = get_model("swin_t", weights=None).eval()
    backbone = Swin().eval()
    missing, unexpected = backbone.load_state_dict(features(whole.state_dict()), strict=False)
    assert (set(missing), unexpected) == (NORMS, [])
    nn.init.normal_(whole.norm.weight)
    backbone.norm3.load_state_dict(whole.norm.state_dict())
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        found = backbone(images)
        x = backbone.colours(images)
        torch.testing.assert_close(whole.head(found[-1].mean((2, 3))), whole(x), rtol=1e-5, atol=1e-5)
        for i in range(3):
            x = whole.features[2 * i + 1](whole.features[2 * i](x))
            expected = F.layer_norm(x, x.shape[-1:]).permute(0, 3, 1, 2)
            torch.testing.assert_close(found[i], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(61, 90), (5, 3)])
def test_a_rest_of_a_patch_is_filled_with_zeros_after_the_colours(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    backbone = Swin(size="micro").eval()
    images = torch.rand(1, 3, *size)
    height, width = (-side % 4 for side in size)
    x = backbone.features[:2](F.pad(backbone.colours(images), (0, width, 0, height)))
    torch.testing.assert_close(backbone(images)[0], backbone.norm0(x).permute(0, 3, 1, 2))


def test_blocks_are_left_out_in_training_only() -> None:
    torch.manual_seed(0)
    backbone = Swin(size="micro", drop_path=1.0)
    images = torch.rand(8, 3, 32, 32)
    first, second = backbone.eval()(images), backbone(images)
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))
    assert not torch.equal(backbone.train()(images)[-1], first[-1])


def test_without_dropping_training_and_evaluation_are_the_same() -> None:
    torch.manual_seed(0)
    backbone = Swin(size="micro", drop_path=0.0)
    images = torch.rand(2, 3, 32, 32)
    for x, y in zip(backbone.train()(images), backbone.eval()(images), strict=True):
        torch.testing.assert_close(x, y)


def test_frozen_stages_give_the_same_maps_every_time_in_training_too() -> None:
    torch.manual_seed(0)
    backbone = Swin(size="micro", drop_path=1.0)
    backbone.freeze(2)
    images = torch.rand(8, 3, 32, 32)
    expected = backbone.eval()(images)
    found = backbone.train()(images)
    assert [torch.equal(x, y) for x, y in zip(found, expected, strict=True)] == [True, True, False, False]


def test_a_detector_that_reads_only_the_coarsest_map_reaches_every_weight_all_the_same() -> None:
    torch.manual_seed(0)
    backbone = Swin(size="micro").train()
    backbone(torch.rand(2, 3, 32, 32))[-1].square().mean().backward()
    assert not [name for name, p in backbone.named_parameters() if p.grad is None]
    for norm in (backbone.norm0, backbone.norm1, backbone.norm2):
        assert not norm.weight.grad.any()
        assert not norm.bias.grad.any()


def test_one_frozen_stage_is_the_patches_the_first_blocks_and_their_norm() -> None:
    with torch.device("meta"):
        backbone = Swin()
    backbone.freeze(1)
    frozen = {n for n, p in backbone.named_parameters() if not p.requires_grad}
    assert {name.split(".")[0] + name.split(".")[1] for name in frozen if "features" in name} == {
        "features0",
        "features1",
    }
    assert frozen - set(features(dict.fromkeys(frozen))) == {"norm0.weight", "norm0.bias"}


def test_the_windows_of_the_smallest_shift_in_images_of_64_pixels() -> None:
    backbone = Swin(size="micro")
    shifted = [stage[1].attn for stage in (backbone.features[1], backbone.features[3])]
    assert [(one.window_size, one.shift_size) for one in shifted] == [([4, 4], [2, 2])] * 2
    assert [x.shape[-1] for x in backbone(torch.rand(1, 3, 64, 64))] == [16, 8, 4, 2]  # of 4, 2, 1 and 1 windows


@pytest.mark.parametrize("args", [{"size": "huge"}, {"drop_path": 1.5}, {"drop_path": -0.1}])
def test_knobs_out_of_range_are_refused(args: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        Call(name="Swin", args=args).complete(backbones)
