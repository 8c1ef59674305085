import math
import re
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.trainers import published
from tests.trainers.published import Entry
from trainers import backbones, detectors, weight_names, weights
from trainers.call import Invalid
from trainers.weight_names import CLASSIFICATION, DETECTION, MMDETECTION, TAPATH, kind, ours

R = published.resnet
C18, C50 = (64, 128, 256, 512), (256, 512, 1024, 2048)
SWIN = (96, 192, 384, 768)
SWIN_T = list(published.swin((2, 2, 6, 2), 96, (3, 6, 12, 24)))
SWIN_S = list(published.swin((2, 2, 18, 2), 96, (3, 6, 12, 24)))

# What is published: our detector and backbone for it, its entries, and how many levels have a scale.
MODELS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any], list[Iterable[Entry]], int]] = (
    {
        f"gfl_r{depth}": (
            *("GFL", {}, "ResNet", {"depth": depth}),
            [R(depth), published.pyramid(*channels[1:], first_extra=256), published.gfl()],
            5,
        )
        for depth, channels in ((18, C18), (34, C18), (50, C50), (101, C50))
    }
    | {
        "gfl_r101_dcn": (
            *("GFL", {}, "ResNet", {"depth": 101, "dcn": "v1"}),
            [R(101, deformable=True), published.pyramid(*C50[1:], first_extra=256), published.gfl()],
            5,
        ),
        "gfl_x101_32x4d": (
            *("GFL", {}, "ResNeXt", {"depth": 101, "cardinality": "32x4d"}),
            [R(101, groups=32, width=4), published.pyramid(*C50[1:], first_extra=256), published.gfl()],
            5,
        ),
        "gfl_x101_32x4d_dcn": (
            *("GFL", {}, "ResNeXt", {"depth": 101, "cardinality": "32x4d", "dcn": "v1"}),
            [
                R(101, groups=32, width=4, deformable=True),
                published.pyramid(*C50[1:], first_extra=256),
                published.gfl(),
            ],
            5,
        ),
        "gfl2_r50": (
            *("GFLv2", {}, "ResNet", {"depth": 50}),
            [R(50), published.pyramid(*C50[1:], first_extra=256), published.gfl2()],
            5,
        ),
        "atss_r101": (
            *("ATSS", {}, "ResNet", {"depth": 101}),
            [R(101), published.pyramid(*C50[1:], first_extra=256), published.atss()],
            5,
        ),
        "retinanet_r50": (
            *("RetinaNet", {}, "ResNet", {"depth": 50}),
            [R(50), published.pyramid(*C50[1:], first_extra=2048), published.retinanet()],
            0,
        ),
        "retinanet_x101_64x4d": (
            *("RetinaNet", {}, "ResNeXt", {"depth": 101, "cardinality": "64x4d"}),
            [R(101, groups=64, width=4), published.pyramid(*C50[1:], first_extra=2048), published.retinanet()],
            0,
        ),
        "fcos_center-normbbox-centeronreg-giou_r50": (
            *("FCOS", {}, "ResNet", {"depth": 50}),
            [R(50), published.pyramid(*C50[1:], first_extra=256), published.fcos(bias=True)],
            5,
        ),
        "fcos_x101_64x4d": (
            *("FCOS", {"conventions": "paper"}, "ResNeXt", {"depth": 101, "cardinality": "64x4d"}),
            [R(101, groups=64, width=4), published.pyramid(*C50[1:], first_extra=256), published.fcos(bias=False)],
            5,
        ),
        "reppoints_r50": (
            *("RepPoints", {}, "ResNet", {"depth": 50}),
            [R(50), published.normed_pyramid(*C50[1:]), published.reppoints()],
            0,
        ),
        "reppoints_x101_32x4d_dcn": (
            *("RepPoints", {}, "ResNeXt", {"depth": 101, "cardinality": "32x4d", "dcn": "v1"}),
            [R(101, groups=32, width=4, deformable=True), published.normed_pyramid(*C50[1:]), published.reppoints()],
            0,
        ),
        "faster_rcnn_r101": (
            *("FasterRCNN", {}, "ResNet", {"depth": 101}),
            [R(101), published.pyramid(*C50), published.two_stages()],
            0,
        ),
        "retinanet_swin-t": (
            *("RetinaNet", {}, "Swin", {"size": "tiny"}),
            [
                [entry for entry in SWIN_T if not entry[0].startswith("backbone.norm0.")],  # its map is not read there
                published.pyramid(*SWIN[1:], first_extra=768),
                published.retinanet(),
            ],
            0,
        ),
        "mask_rcnn_swin-s": (
            *("MaskRCNN", {}, "Swin", {"size": "small"}),
            [SWIN_S, published.pyramid(*SWIN), published.two_stages(masks=True)],
            0,
        ),
    }
)
MODELS = {name: (*rest[:4], [list(entries) for entries in rest[4]], rest[5]) for name, rest in MODELS.items()}


def meta(detector: str, knobs: dict[str, Any], backbone: str, own: dict[str, Any], num_classes: int = 80) -> Any:
    with torch.device("meta"):
        return getattr(detectors, detector)(getattr(backbones, backbone)(**own), num_classes, **knobs)


def numbered(entries: list[Entry]) -> tuple[dict[str, Tensor], dict[str, tuple[float, tuple[int, ...]]]]:
    """A checkpoint whose every tensor holds its number only, and what number and shape we should find where."""
    state, wanted = {}, {}
    for number, (theirs, mine, shape) in enumerate(entries, start=1):
        state[theirs] = torch.tensor(float(number)).expand(shape)
        wanted[mine] = (float(number), shape)
    return state, wanted


def corners(value: Tensor) -> list[float]:
    """The first and the last number: of a tensor with one number it is quicker than looking at all."""
    return [value[(end,) * value.dim()].item() for end in (0, -1)]


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_of_a_published_checkpoint_of_mmdetection_is_found_under_our_name(name: str) -> None:
    detector, knobs, backbone, own, parts, levels = MODELS[name]
    network = meta(detector, knobs, backbone, own)
    state, wanted = numbered([entry for part in parts for entry in part])
    state |= {f"bbox_head.scales.{level}.scale": torch.tensor(float(level)) for level in range(levels)}
    if detector == "GFL":
        state["bbox_head.integral.project"] = torch.linspace(0, 16, 17)
    second = {}
    if detector in ("FasterRCNN", "MaskRCNN"):
        state["roi_head.bbox_head.fc_cls.weight"] = torch.rand(81, 1024)
        state["roi_head.bbox_head.fc_cls.bias"] = torch.arange(81.0)
        state["roi_head.bbox_head.fc_reg.weight"] = torch.rand(320, 1024)
        state["roi_head.bbox_head.fc_reg.bias"] = torch.arange(320.0)
        second = {"roi_heads.box_predictor.cls_score": (81, 1024), "roi_heads.box_predictor.bbox_pred": (324, 1024)}
    if detector == "MaskRCNN":
        state["roi_head.mask_head.conv_logits.weight"] = torch.rand(80, 256, 1, 1)
        state["roi_head.mask_head.conv_logits.bias"] = torch.arange(80.0)
        second["roi_heads.mask_predictor.mask_fcn_logits"] = (81, 256, 1, 1)
    for table in [theirs for theirs in state if theirs.endswith("relative_position_bias_table")]:
        state[table.replace("bias_table", "index")] = torch.zeros(49, 49, dtype=torch.long)

    assert kind(state) == MMDETECTION
    assert weights.part(state) == "detector"
    fitted = weights.fitted(state, network, part="detector")

    assert list(fitted) == list(network.state_dict())
    for mine, (number, shape) in wanted.items():
        assert fitted[mine].shape == torch.Size(shape) and corners(fitted[mine]) == [number, number], mine
    fresh = {mine for mine, value in fitted.items() if value.is_meta}
    assert {mine for mine in fresh if not mine.endswith("relative_position_index")} == (
        {"backbone.norm0.weight", "backbone.norm0.bias"} if name == "retinanet_swin-t" else set()
    )
    rest = fitted.keys() - wanted.keys() - fresh - {"head.scales"}
    assert rest == {f"{mine}.{part}" for mine in second for part in ("weight", "bias")}
    for mine, shape in second.items():
        assert fitted[f"{mine}.weight"].shape == torch.Size(shape)
    if levels:
        assert fitted["head.scales"].tolist() == [0, 1, 2, 3, 4]

    alone = weights.fitted(state, network, part="backbone")
    assert alone.keys() == network.backbone.state_dict().keys()
    for mine, value in alone.items():
        other = fitted[f"backbone.{mine}"]
        assert (value.is_meta and other.is_meta) or corners(value) == corners(other), mine


def test_the_background_comes_first_and_has_neither_boxes_nor_masks() -> None:
    state = {
        "roi_head.bbox_head.fc_cls.weight": torch.tensor([[1.0, 1.5], [2.0, 2.5], [3.0, 3.5], [9.0, 9.5]]),
        "roi_head.bbox_head.fc_cls.bias": torch.tensor([1.0, 2.0, 3.0, 9.0]),  # three classes, then the background
        "roi_head.bbox_head.fc_reg.weight": torch.arange(24.0).view(12, 2),
        "roi_head.bbox_head.fc_reg.bias": torch.arange(12.0),
        "roi_head.mask_head.conv_logits.bias": torch.tensor([1.0, 2.0, 3.0]),
    }
    found = ours(state, MMDETECTION)
    cls, box = "roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"
    assert found[f"{cls}.bias"].tolist() == [9, 1, 2, 3]
    assert found[f"{cls}.weight"].tolist() == [[9, 9.5], [1, 1.5], [2, 2.5], [3, 3.5]]
    assert found[f"{box}.bias"].tolist() == [0, 0, 0, 0, *range(12)]
    assert found[f"{box}.weight"].tolist() == [[0, 0]] * 4 + [[2 * i, 2 * i + 1] for i in range(12)]
    assert found["roi_heads.mask_predictor.mask_fcn_logits.bias"].tolist() == [0, 1, 2, 3]


def test_patches_merged_in_mmdetections_order_and_in_torchvisions_are_the_same_numbers() -> None:
    from torchvision.models.swin_transformer import PatchMerging

    generator = torch.Generator().manual_seed(0)
    channels = 3
    x = torch.rand(2, channels, 6, 8, generator=generator)
    scale, shift = torch.rand(4 * channels, generator=generator), torch.rand(4 * channels, generator=generator)
    reduction = torch.rand(2 * channels, 4 * channels, generator=generator)

    tokens = F.unfold(x, kernel_size=2, stride=2).transpose(1, 2)  # mmdetection: (B, cells, C*4)
    theirs = F.linear(F.layer_norm(tokens, (4 * channels,), scale, shift), reduction)

    at = "backbone.stages.0.downsample"
    found = ours(
        {f"{at}.norm.weight": scale, f"{at}.norm.bias": shift, f"{at}.reduction.weight": reduction}, MMDETECTION
    )
    mine = PatchMerging(channels)
    mine.load_state_dict({name.removeprefix("backbone.features.2."): value for name, value in found.items()})
    with torch.no_grad():
        merged = mine(x.permute(0, 2, 3, 1)).flatten(1, 2)
    torch.testing.assert_close(merged, theirs)


def test_the_norms_in_the_blocks_and_of_the_patches_keep_their_order() -> None:
    names = ["stages.0.blocks.1.norm1.weight", "patch_embed.norm.weight", "norm2.weight"]
    state = {f"backbone.{name}": torch.arange(8.0) for name in names}
    for value in ours(state, MMDETECTION).values():
        assert value.tolist() == list(range(8))


def test_which_token_is_how_far_away_is_numbered_alike() -> None:
    from torchvision.models import swin_t

    side = torch.arange(7)
    flat = (13 * side[:, None] + side).flatten()  # mmdetection's way, as its buffer is computed
    index = (flat[:, None] + flat).flip(1)
    name = "backbone.stages.0.blocks.0.attn.w_msa.relative_position_index"
    (found,) = ours({name: index}, MMDETECTION).values()
    with torch.device("cpu"):
        real = swin_t(weights=None, num_classes=1).state_dict()["features.1.0.attn.relative_position_index"]
    assert torch.equal(found.flatten(), real)


def test_older_names_of_offsets_and_of_fcos_are_known() -> None:
    state = {
        "backbone.layer2.0.conv2_offset.bias": torch.zeros(18),
        "bbox_head.fcos_cls.weight": torch.zeros(80, 256, 3, 3),
        "bbox_head.cls_convs.3.gn.bias": torch.zeros(256),
    }
    assert list(ours(state, MMDETECTION)) == [
        "backbone.layer2.0.conv2.conv_offset.bias",
        "head.classification_head.cls_logits.weight",
        "head.classification_head.conv.10.bias",
    ]


def test_scales_are_stacked_by_their_level_whatever_their_order_and_shape() -> None:
    order = [10, 2, 0, 1, 9, 3, 4, 5, 6, 7, 8]
    state = {f"bbox_head.scales.{i}.scale": torch.full((1,) if i % 2 else (), float(i)) for i in order}
    assert ours(state, MMDETECTION)["head.scales"].tolist() == list(range(11))


OLD_NAMES = {
    "backbone.fpn.inner_blocks.0.weight": "neck.laterals.0.weight",
    "backbone.fpn.layer_blocks.2.bias": "neck.outputs.2.bias",
    "backbone.fpn.extra_blocks.p6.weight": "neck.extras.0.weight",
    "backbone.fpn.extra_blocks.p7.bias": "neck.extras.1.bias",
    "rpn.head.conv.weight": "rpn.head.conv.0.0.weight",
    "rpn.head.cls_logits.weight": "rpn.head.cls_logits.weight",
    "head.classification_head.conv.0.weight": "head.classification_head.conv.0.0.weight",
    "head.regression_head.conv.6.bias": "head.regression_head.conv.3.0.bias",
    "head.classification_head.cls_logits.bias": "head.classification_head.cls_logits.bias",
    "roi_heads.mask_head.mask_fcn1.weight": "roi_heads.mask_head.0.0.weight",
    "roi_heads.mask_head.mask_fcn4.bias": "roi_heads.mask_head.3.0.bias",
    "roi_heads.box_head.fc6.weight": "roi_heads.box_head.fc6.weight",
}
NEW_NAMES = {
    "backbone.body.layer1.0.bn1.weight": "backbone.layer1.0.bn1.weight",
    "backbone.fpn.inner_blocks.3.0.weight": "neck.laterals.3.weight",
    "backbone.fpn.layer_blocks.0.0.bias": "neck.outputs.0.bias",
    "rpn.head.conv.0.0.weight": "rpn.head.conv.0.0.weight",
    "head.classification_head.conv.2.0.weight": "head.classification_head.conv.2.0.weight",
    "head.classification_head.conv.2.1.weight": "head.classification_head.conv.2.1.weight",
    "roi_heads.mask_head.1.0.weight": "roi_heads.mask_head.1.0.weight",
}


@pytest.mark.parametrize("names", [OLD_NAMES, NEW_NAMES], ids=["before 0.13", "since 0.13"])
def test_torchvisions_names_old_and_new(names: dict[str, str]) -> None:
    state = {name: torch.tensor(float(i)) for i, name in enumerate(names)}
    found = ours(state, DETECTION)
    assert {name: value.item() for name, value in found.items()} == dict(zip(names.values(), range(99), strict=False))


def test_fcos_of_torchvision_keeps_the_numbers_of_its_convolutions_and_norms() -> None:
    names = ["head.classification_head.conv.9.weight", "head.regression_head.conv.10.bias"]
    state = {name: torch.zeros(1) for name in (*names, "head.regression_head.bbox_ctrness.bias")}
    assert list(ours(state, DETECTION)) == list(state)


def frozen(*more: str) -> dict[str, Tensor]:
    state = dict.fromkeys(("backbone.body.layer1.0.conv1.weight", *more), torch.zeros(1))
    return state | {"backbone.body.bn1.running_var": torch.tensor([1.0, 3e-5, 1e-9, 0.0])}


def test_variances_of_frozen_norms_give_up_the_epsilon_that_ours_add() -> None:
    found = ours(frozen(), DETECTION)["backbone.bn1.running_var"]
    assert found.tolist() == pytest.approx([1 - 1e-5, 2e-5, 1e-9 - 1e-5, -1e-5], rel=1e-6, abs=2e-12)
    norm = torch.nn.BatchNorm2d(4).eval()
    norm.running_var.copy_(found)
    y = norm(torch.ones(1, 4, 1, 1)).flatten()
    assert y.tolist()[:3] == pytest.approx([1, 1 / math.sqrt(3e-5), 1 / math.sqrt(1e-9)], rel=1e-3)
    assert y.isfinite().all()


@pytest.mark.parametrize(
    "more", ["backbone.body.bn1.num_batches_tracked", "head.regression_head.bbox_ctrness.weight"], ids=["v2", "fcos"]
)
def test_variances_of_other_norms_stay(more: str) -> None:
    state = frozen(more)
    assert ours(state, DETECTION)["backbone.bn1.running_var"] is state["backbone.body.bn1.running_var"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("backbone.body.conv1.weight", DETECTION),
        ("bbox_head.gfl_cls.weight", MMDETECTION),
        ("roi_head.bbox_head.fc_cls.weight", MMDETECTION),
        ("backbone.patch_embed.norm.weight", MMDETECTION),
        ("backbone.conv1.weight", TAPATH),
        ("backbone.stages.0.0.conv1.weight", TAPATH),
        ("backbone.features.0.0.weight", TAPATH),
        ("conv1.weight", CLASSIFICATION),
        ("conv1.conv.weight", CLASSIFICATION),
        ("features.0.weight", CLASSIFICATION),
    ],
)
def test_the_format_is_told_from_the_names(name: str, expected: str) -> None:
    assert kind({name: torch.zeros(1)}) == expected


def test_other_formats_are_refused_with_some_of_their_names() -> None:
    with pytest.raises(Invalid, match=r"not the weights of tapath, torchvision or mmdetection.*transformer\.encoder"):
        kind({"transformer.encoder.weight": torch.zeros(1)})


def test_our_own_names_stay() -> None:
    state = {"backbone.conv1.weight": torch.zeros(1), "head.cls_convs.0.conv.weight": torch.zeros(1)}
    assert ours(state, TAPATH) == state


def test_every_rule_of_the_tables_is_of_use() -> None:
    """A pattern that no published name has would be a slip of the pen."""
    entries = [entry for model in MODELS.values() for part in model[4] for entry in part]
    theirs = [name for name, _, _ in entries]
    theirs += [f"roi_head.{name}.weight" for name in ("bbox_head.fc_cls", "bbox_head.fc_reg", "mask_head.conv_logits")]
    tables = (*weight_names.SWIN, *weight_names.PREDICTORS, *weight_names.TWO_STAGES)
    for pattern, _ in tables:
        assert any(re.search(pattern, name) for name in theirs), pattern
