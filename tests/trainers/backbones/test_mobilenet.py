"""MobileNetV2 and V3: torchvision's weights fit, and the maps are the last ones of each resolution."""

from typing import Any

import pytest
import torch
from torchvision.models import get_model

from tests.trainers.torchvisions import restless
from trainers import backbones
from trainers.backbones import MobileNetV2, MobileNetV3
from trainers.call import Call, Invalid

# torchvision's name, ours, the published count of weights, the classifier's part of it, and the layers of the maps.
CASES = [
    ("mobilenet_v2", MobileNetV2, {}, 3_504_872, 1281 * 1000, (3, 6, 13, 18)),
    ("mobilenet_v3_large", MobileNetV3, {}, 5_483_032, 961 * 1280 + 1281 * 1000, (3, 6, 12, 16)),
    ("mobilenet_v3_small", MobileNetV3, {"size": "small"}, 2_542_856, 577 * 1024 + 1025 * 1000, (1, 3, 8, 12)),
]
EVERY = pytest.mark.parametrize(("name", "ours", "args", "last"), [(*case[:3], case[-1]) for case in CASES])


@EVERY
@pytest.mark.parametrize("width", [1.0, 0.35, 1.4])
def test_its_state_is_torchvisions_without_the_classifier(
    name: str, ours: Any, args: dict[str, Any], last: tuple[int, ...], width: float
) -> None:
    with torch.device("meta"):
        found = ours(**args, width=width).state_dict()
        theirs = get_model(name, weights=None, width_mult=width).state_dict()
    expected = {k: v.shape for k, v in theirs.items() if not k.startswith("classifier.")}
    assert {k: v.shape for k, v in found.items()} == expected


@pytest.mark.parametrize(("ours", "args", "published", "classifier"), [case[1:-1] for case in CASES])
def test_it_has_the_published_count_of_weights(
    ours: Any, args: dict[str, Any], published: int, classifier: int
) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in ours(**args).parameters()) == published - classifier


@EVERY
def test_it_computes_what_torchvision_computes(
    name: str, ours: Any, args: dict[str, Any], last: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    whole = restless(get_model(name, weights=None))
    backbone = ours(**args).eval()
    backbone.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("classifier.")})
    images = torch.rand(1, 3, 64, 50)
    with torch.no_grad():
        x = backbone.colours(images)
        found = backbone(images)
        for one, layer in zip(found, last, strict=True):
            torch.testing.assert_close(one, whole.features[: layer + 1](x), rtol=1e-5, atol=1e-5)
            assert one.std() > 0.01
        torch.testing.assert_close(whole.classifier(found[-1].mean((2, 3))), whole(x), rtol=1e-5, atol=1e-5)


@EVERY
def test_no_layer_after_a_map_has_its_resolution(
    name: str, ours: Any, args: dict[str, Any], last: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        backbone = ours(**args)
        x, sides = torch.zeros(1, 3, 64, 64), []
        for layer in backbone.features:
            x = layer(x)
            sides.append(x.shape[-1])
    assert [max(i for i, side in enumerate(sides) if side == 64 // stride) for stride in (4, 8, 16, 32)] == list(last)


@EVERY
def test_one_frozen_stage_ends_with_the_finest_map(
    name: str, ours: Any, args: dict[str, Any], last: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        backbone = ours(**args)
    backbone.freeze(1)
    frozen = {int(n.split(".")[1]) for n, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == set(range(last[0] + 1))


def test_the_channels_of_the_maps() -> None:
    with torch.device("meta"):
        assert MobileNetV2().channels == (24, 32, 96, 1280)
        assert MobileNetV2(width=0.5).channels == (16, 16, 48, 1280)  # the last grows only
        assert MobileNetV3().channels == (24, 40, 112, 960)
        assert MobileNetV3(size="small").channels == (16, 24, 48, 576)


@pytest.mark.parametrize(
    ("name", "args"),
    [("MobileNetV2", {"width": 0.0}), ("MobileNetV3", {"width": -1.0}), ("MobileNetV3", {"size": "s"})],
)
def test_knobs_out_of_range_are_refused(name: str, args: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        Call(name=name, args=args).complete(backbones)
