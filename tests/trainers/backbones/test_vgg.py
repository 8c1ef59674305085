"""VGG: torchvision's weights fit, with batch norm and without; narrower ones; any size."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import get_model

from trainers import backbones
from trainers.backbones import VGG
from trainers.call import Call, Invalid

# Of torchvision's `features`: the last ReLUs of blocks 3, 4 and 5, and the last layer.
LAST = {
    (11, "none"): (9, 14, 19, 20),
    (11, "batch"): (13, 20, 27, 28),
    (16, "none"): (15, 22, 29, 30),
    (16, "batch"): (22, 32, 42, 43),
}
EVERY = pytest.mark.parametrize(("depth", "norm"), list(LAST))


def torchvisions(depth: int, norm: str) -> Any:
    """Without numbers: the classifier alone would take half a gigabyte."""
    with torch.device("meta"):
        return get_model(f"vgg{depth}" + ("_bn" if norm == "batch" else ""), weights=None)


@EVERY
def test_its_state_is_torchvisions_without_the_classifier(depth: int, norm: str) -> None:
    with torch.device("meta"):
        ours = VGG(depth=depth, norm=norm).state_dict()
    theirs = torchvisions(depth, norm).state_dict()
    expected = {k: v.shape for k, v in theirs.items() if not k.startswith("classifier.")}
    assert {k: v.shape for k, v in ours.items()} == expected


@pytest.mark.parametrize(
    ("depth", "norm", "published"),
    [(11, "none", 132_863_336), (11, "batch", 132_868_840), (16, "none", 138_357_544), (16, "batch", 138_365_992)],
)
def test_it_has_the_published_count_of_weights(depth: int, norm: str, published: int) -> None:
    classifier = (512 * 49 + 1) * 4096 + 4097 * 4096 + 4097 * 1000
    with torch.device("meta"):
        assert sum(p.numel() for p in VGG(depth=depth, norm=norm).parameters()) == published - classifier


@EVERY
@pytest.mark.parametrize("size", [(32, 64), (33, 50)])
def test_it_computes_what_torchvision_computes(depth: int, norm: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    backbone = VGG(depth=depth, norm=norm)
    with torch.no_grad():
        backbone.train()(torch.rand(2, 3, 32, 32))  # moves the statistics of the norms
    backbone.eval()
    layers = torchvisions(depth, norm).features.to_empty(device="cpu").eval()
    layers.load_state_dict({k.removeprefix("features."): v for k, v in backbone.state_dict().items()})
    images = torch.rand(1, 3, *size)
    with torch.no_grad():
        x = F.pad(backbone.colours(images), (0, -size[1] % 32, 0, -size[0] % 32))
        for found, stride, last in zip(backbone(images), (4, 8, 16, 32), LAST[depth, norm], strict=True):
            height, width = ((side + stride - 1) // stride for side in size)
            assert found.shape[-2:] == (height, width)
            expected = layers[: last + 1](x)
            torch.testing.assert_close(found, expected[..., :height, :width], rtol=1e-5, atol=1e-5)


@EVERY
def test_a_narrower_one_has_every_convolution_divided_and_rounded_up(depth: int, norm: str) -> None:
    with torch.device("meta"):
        ours = VGG(depth=depth, norm=norm, divide=5)
    widths = [m.out_channels for m in ours.modules() if isinstance(m, nn.Conv2d)]
    expected = [-(-m.out_channels // 5) for m in torchvisions(depth, norm).modules() if isinstance(m, nn.Conv2d)]
    assert widths == expected
    assert ours.channels == (52, 103, 103, 103)


def test_one_frozen_stage_is_the_first_three_blocks_and_three_are_all() -> None:
    with torch.device("meta"):
        backbone = VGG(depth=11)
    backbone.freeze(1)
    frozen = {n for n, p in backbone.named_parameters() if not p.requires_grad}
    assert {n for n in frozen if n.endswith("weight")} == {f"features.{i}.weight" for i in (0, 3, 6, 8)}
    backbone.freeze(3)
    assert not [n for n, p in backbone.named_parameters() if p.requires_grad]


@pytest.mark.parametrize("args", [{"depth": 13}, {"norm": "group"}, {"divide": 0}])
def test_knobs_out_of_range_are_refused(args: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        Call(name="VGG", args=args).complete(backbones)
