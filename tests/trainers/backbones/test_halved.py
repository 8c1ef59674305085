"""A backbone on half the image: what it sees, how its maps come back, what it costs, and whose weights it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from trainers import backbones, build, weights
from trainers.backbones import Inception, TinyResNet
from trainers.call import Call, Invalid
from trainers.spec import Model

TINY = {"TinyResNet": {"width": 4}}
INCEPTION = {"Inception": {"divide": 2}}


def halved(inner: dict[str, Any] | str, **knobs: Any) -> Any:
    torch.manual_seed(0)
    return Call(name="Halved", args={"backbone": inner, **knobs}).complete(backbones).of(backbones)


def faster(backbone: dict[str, Any] | str, **knobs: Any) -> Model:
    return Model(
        detector=Call(name="FasterRCNN", args={"channels": 8, "hidden": 8, **knobs}),
        backbone=Call.model_validate(backbone).complete(backbones),
    )


def test_a_study_has_all_that_the_inner_backbone_says() -> None:
    done = Call.model_validate({"Halved": {"backbone": "Inception"}}).complete(backbones)
    assert done.args == {"backbone": {"Inception": {"divide": 1}}, "depthwise": True}
    with pytest.raises(Invalid, match="did you mean divide") as caught:
        Call.model_validate({"Halved": {"backbone": {"Inception": {"divde": 2}}}}).complete(backbones)
    assert caught.value.where == ("Halved", "backbone", "Inception", "divde")


@pytest.mark.parametrize("depthwise", [True, False])
def test_at_first_maps_of_the_half_image_are_enlarged_bilinearly(depthwise: bool) -> None:
    backbone = halved(TINY, depthwise=depthwise).eval()
    images = torch.rand(2, 3, 64, 96)
    small = F.interpolate(images, scale_factor=0.5, mode="bilinear")
    with torch.no_grad():
        for found, x in zip(backbone(images), backbone.inner(small), strict=True):
            wanted = F.interpolate(x, scale_factor=2, mode="bilinear")
            torch.testing.assert_close(found[..., 1:-1, 1:-1], wanted[..., 1:-1, 1:-1])


def test_a_channel_reads_the_others_where_it_may() -> None:
    apart, mixed = halved(TINY), halved(TINY, depthwise=False)
    assert [tuple(up.weight.shape) for up in apart.ups] == [(c, 1, 4, 4) for c in (4, 8, 16)]
    assert [tuple(up.weight.shape) for up in mixed.ups] == [(c, c, 4, 4) for c in (4, 8, 16)]


def test_an_odd_end_of_the_image_is_not_darkened() -> None:
    backbone = halved(TINY)
    seen: list[torch.Tensor] = []
    backbone.inner = nn.Module()
    backbone.inner.forward = lambda images: (
        seen.append(images) or [images[:, :1].expand(-1, c, -1, -1) for c in (4, 8, 16)]
    )
    backbone(torch.full((1, 3, 5, 7), 0.5))
    assert seen[0].shape == (1, 3, 3, 4)
    torch.testing.assert_close(seen[0], torch.full_like(seen[0], 0.5))


def test_an_object_stays_where_it_is() -> None:
    """A map that only averages has its largest value in the cell where the image is bright."""
    backbone = halved(TINY).eval()

    class Means(nn.Module):
        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [F.avg_pool2d(images, s)[:, :1].expand(-1, c, -1, -1) for s, c in ((4, 4), (8, 8), (16, 16))]

    backbone.inner = Means()
    for row, column in ((0, 0), (3, 5), (2, 1)):
        image = torch.zeros(1, 3, 64, 96)
        image[..., 16 * row : 16 * (row + 1), 16 * column : 16 * (column + 1)] = 1
        with torch.no_grad():
            for x, stride in zip(backbone(image), backbone.strides, strict=True):
                mass = x[0, 0] / x[0, 0].sum()
                y = (mass.sum(1) * torch.arange(x.shape[2])).sum() + 0.5
                at = (mass.sum(0) * torch.arange(x.shape[3])).sum() + 0.5
                assert y * stride == pytest.approx(16 * row + 8, abs=stride)
                assert at * stride == pytest.approx(16 * column + 8, abs=stride)


def flops(backbone: nn.Module, image: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(image)
    return int(counter.get_total_flops())


def test_it_costs_about_a_quarter_of_the_backbone_and_hardly_a_weight_more() -> None:
    models = [faster(backbone) for backbone in (INCEPTION, {"Halved": {"backbone": INCEPTION}})]
    with torch.device("meta"):
        alone = [model.backbone.of(backbones).eval() for model in models]
        whole, half = (flops(backbone, torch.zeros(1, 3, 256, 320)) for backbone in alone)
    assert half / whole == pytest.approx(0.25, rel=0.1)
    sizes = [build.size(build.shape(model, 2), (256, 320)) for model in models]
    assert sizes[0].flops - sizes[1].flops == whole - half, "pyramid and heads cost the same"
    assert sizes[1].parameters - sizes[0].parameters == 17 * sum(Inception(divide=2).channels)
    assert sizes[1].parameters < 1.02 * sizes[0].parameters


def test_deconvolutions_that_mix_channels_cost_more_than_half_the_image_saves() -> None:
    with torch.device("meta"):
        whole, dense = (
            flops(backbone.eval(), torch.zeros(1, 3, 256, 320))
            for backbone in (Inception(divide=2), halved(INCEPTION, depthwise=False))
        )
    assert dense > whole


def test_freezing_counts_the_inner_parts_and_then_the_deconvolutions() -> None:
    backbone = halved(TINY)
    backbone.freeze(3)
    assert {n.split(".")[0] for n, p in backbone.named_parameters() if p.requires_grad} == {"ups"}
    with pytest.raises(Invalid, match="the backbone has 4"):
        backbone.freeze(5)


# Published weights


def test_the_weights_of_a_classifier_go_into_the_inner_backbone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    published = Inception().state_dict()
    torch.save({**published, "fc.weight": torch.ones(1000, 1024), "fc.bias": torch.ones(1000)}, tmp_path / "x.pth")
    network = build.network(faster({"Halved": {"backbone": "Inception"}}), 2)
    before = {name: x.clone() for name, x in network.backbone.ups.state_dict().items()}
    weights.load(tmp_path / "x.pth", network, part="backbone")
    assert all(torch.equal(x, published[name]) for name, x in network.backbone.inner.state_dict().items())
    assert all(torch.equal(x, before[name]) for name, x in network.backbone.ups.state_dict().items())


def test_the_backbone_of_a_detector_goes_into_the_inner_one_or_with_deconvolutions_into_both(tmp_path: Path) -> None:
    torch.manual_seed(1)
    plain = build.network(faster(TINY), 2)
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    network = build.network(faster({"Halved": {"backbone": TINY}}), 2)
    weights.load(tmp_path / "plain.pth", network, part="backbone")
    assert torch.equal(network.backbone.inner.stem[0].weight, plain.backbone.stem[0].weight)

    nn.init.ones_(network.backbone.ups[0].weight)
    torch.save(network.state_dict(), tmp_path / "halved.pth")
    for part in ("backbone", "detector"):
        other = build.network(faster({"Halved": {"backbone": TINY}}), 2)
        weights.load(tmp_path / "halved.pth", other, part=part)
        assert all(torch.equal(x, network.backbone.state_dict()[n]) for n, x in other.backbone.state_dict().items())


def test_a_whole_detector_without_deconvolutions_is_refused() -> None:
    plain = build.network(faster(TINY), 2).state_dict()
    network = build.network(faster({"Halved": {"backbone": TINY}}), 2)
    with pytest.raises(Invalid, match=r"missing: backbone\.inner\."):
        weights.fitted(plain, network, part="detector")


def test_weights_of_another_backbone_are_refused_by_the_inner_ones_name() -> None:
    network = build.network(faster({"Halved": {"backbone": TINY}}), 2)
    with pytest.raises(Invalid, match="not those of this TinyResNet"):
        weights.fitted(
            {f"backbone.{n}": x for n, x in TinyResNet(width=8).state_dict().items()}, network, part="backbone"
        )


@pytest.mark.parametrize("style", ["caffe", "pytorch"])
def test_the_style_that_a_file_tells_must_be_that_of_the_inner_network(style: str) -> None:
    found = weights.Checkpoint({"conv1.weight": torch.ones(1)})
    found.style = style
    network = build.shape(faster({"Halved": {"backbone": {"ResNet": {"depth": 50, "style": "caffe"}}}}), 2)
    message = "missing" if style == "caffe" else "this ResNet is of caffe's"
    with pytest.raises(Invalid, match=message):
        weights.fitted(found, network, part="backbone")


def test_frozen_stages_of_what_is_inside_give_the_same_maps_every_time_in_training_too() -> None:
    backbone = halved({"Swin": {"size": "micro", "drop_path": 1.0}})
    backbone.freeze(2)
    images = torch.rand(8, 3, 64, 64)
    expected = backbone.eval()(images)
    found = backbone.train()(images)
    assert [torch.equal(x, y) for x, y in zip(found, expected, strict=True)] == [True, True, False, False]
