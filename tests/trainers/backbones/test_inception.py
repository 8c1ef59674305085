"""Inception: torchvision's GoogLeNet without its classifier, and the narrower ones of the same depth."""

import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor

from tests.trainers.torchvisions import restless
from trainers import backbones
from trainers.backbones import Inception
from trainers.call import Call, Invalid
from trainers.norm import Colours

MAPS = ["conv3", "inception3b", "inception4e", "inception5b"]


def googlenet(**args: Any) -> Any:
    return get_model("googlenet", weights=None, aux_logits=False, init_weights=False, **args)


def pair(**args: Any) -> tuple[Any, Any]:
    """torchvision's network, to be asked for its maps, and ours of the same weights."""
    torch.manual_seed(0)
    whole = restless(googlenet(**args), 0.2, 0.6)
    backbone = Inception().eval()
    backbone.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("fc.")})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.fx about the list that GoogLeNet cats
        return create_feature_extractor(whole, MAPS), backbone


def test_its_state_is_torchvisions_without_the_classifier() -> None:
    with torch.device("meta"):
        ours, theirs = Inception().state_dict(), googlenet().state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items() if not k.startswith("fc.")}


def test_it_has_the_published_count_of_weights() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in Inception().parameters()) == 6_624_904 - 1025 * 1000


def test_it_computes_what_torchvision_computes_with_the_inputs_of_its_published_weights() -> None:
    whole, backbone = pair(transform_input=True)
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        for found, name in zip(backbone(images), (expected := whole(Colours()(images))), strict=True):
            torch.testing.assert_close(found, expected[name], rtol=1e-5, atol=1e-5)
            assert found.std() > 0.01


@pytest.mark.parametrize("size", [(33, 70), (1, 1)])
def test_any_size_is_the_padded_image_of_which_the_rest_is_cut_off(size: tuple[int, int]) -> None:
    whole, backbone = pair()
    images = torch.rand(1, 3, *size)
    with torch.no_grad():
        expected = whole(F.pad(2 * images - 1, (0, -size[1] % 32, 0, -size[0] % 32)))
        for found, stride, name in zip(backbone(images), (4, 8, 16, 32), MAPS, strict=True):
            height, width = ((side + stride - 1) // stride for side in size)
            assert found.shape[-2:] == (height, width)
            torch.testing.assert_close(found, expected[name][..., :height, :width], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("divide", [2, 3, 7, 1000])
def test_a_narrower_one_has_every_convolution_divided_and_rounded_up(divide: int) -> None:
    with torch.device("meta"):
        ours, theirs = Inception(divide=divide), googlenet()
        widths = {name: conv.out_channels for name, conv in ours.named_modules() if isinstance(conv, nn.Conv2d)}
        expected = {
            name: (conv.out_channels + divide - 1) // divide
            for name, conv in theirs.named_modules()
            if isinstance(conv, nn.Conv2d)
        }
        assert widths == expected
        assert [x.shape[1] for x in ours(torch.zeros(1, 3, 64, 64))] == list(ours.channels)


def test_half_the_channels_are_a_quarter_of_the_weights() -> None:
    with torch.device("meta"):
        assert Inception(divide=2).channels == (96, 240, 416, 512)
        half, whole = (sum(p.numel() for p in Inception(divide=n).parameters()) for n in (2, 1))
    assert half / whole == pytest.approx(0.25, rel=0.01)


def test_a_narrow_one_starts_with_maps_as_strong_as_a_wide_one() -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 3, 64, 64)
    for divide in (1, 8):
        for x in Inception(divide=divide).train()(images):
            assert 0.5 < x.square().mean().sqrt() < 0.9  # half of a unit normal: 0.71


def test_one_frozen_stage_is_the_stem() -> None:
    with torch.device("meta"):
        backbone = Inception()
    backbone.freeze(1)
    assert {n.split(".")[0] for n, p in backbone.named_parameters() if not p.requires_grad} == {
        "conv1",
        "conv2",
        "conv3",
    }


@pytest.mark.parametrize("args", [{"divide": 0}, {"divide": 1.5}])
def test_knobs_out_of_range_are_refused(args: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        Call(name="Inception", args=args).complete(backbones)
