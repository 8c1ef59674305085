"""Weights of torchvision's classifiers and detectors: ours say the same with them, whatever the classes are."""

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.test_weights import saved
from trainers import backbones, detectors, weights
from trainers.call import Invalid

# --- classifiers of torchvision

CLASSIFIERS = [
    ("resnet18", "ResNet", {"depth": 18}),
    ("resnet101", "ResNet", {"depth": 101}),
    ("resnext101_32x8d", "ResNeXt", None),
    ("resnext50_32x4d", "ResNeXt", {"depth": 50, "cardinality": "32x4d"}),
    ("resnext101_64x4d", "ResNeXt", {"depth": 101, "cardinality": "64x4d"}),
    ("mobilenet_v2", "MobileNetV2", {}),
    ("mobilenet_v3_small", "MobileNetV3", {"size": "small"}),
    ("mobilenet_v3_large", "MobileNetV3", {"size": "large"}),
    ("vgg11", "VGG", {"depth": 11}),
    ("vgg16_bn", "VGG", {"depth": 16, "norm": "batch"}),
    ("swin_t", "Swin", {"size": "tiny"}),
    ("swin_s", "Swin", {"size": "small"}),
    ("swin_b", "Swin", {"size": "base"}),
    ("googlenet", "Inception", {"divide": 1}),
]


@pytest.mark.parametrize(("name", "backbone", "knobs"), CLASSIFIERS, ids=[name for name, _, _ in CLASSIFIERS])
def test_a_classifier_of_torchvision_fits_our_backbone(name: str, backbone: str, knobs: dict[str, Any] | None) -> None:
    from torchvision.models import get_model

    with torch.device("meta"):
        theirs = get_model(name, weights=None, **({"init_weights": False} if name == "googlenet" else {}))
        mine = getattr(backbones, backbone)(**(knobs or {}))
    state = theirs.state_dict()
    assert weights.kind(state) == "torchvision classification"
    assert weights.part(state) == "backbone"
    if knobs is None:
        with pytest.raises(Invalid, match=f"of this {backbone}"):
            weights.fitted(state, SimpleNamespace(backbone=mine), part="backbone")
        return
    found = weights.fitted(state, SimpleNamespace(backbone=mine), part="backbone")
    own = mine.state_dict()
    assert {n: x.shape for n, x in found.items()} == {n: x.shape for n, x in own.items()}
    ours = ("norm0.", "norm1.", "norm2.", "norm3."), "relative_position_index"  # whatever the file has
    assert all(found[n] is state[n] for n in own if not n.startswith(ours[0]) and not n.endswith(ours[1]))
    with pytest.raises(Invalid, match="fit a backbone: write part: backbone"):
        weights.fitted(state, SimpleNamespace(backbone=mine), part="detector")


def test_the_numbers_of_a_classifier_arrive_and_a_file_without_counts_is_fine(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    torch.manual_seed(3)
    theirs = resnet18(weights=None).eval()
    state = {name: value for name, value in theirs.state_dict().items() if "num_batches" not in name}
    network = SimpleNamespace(backbone=backbones.ResNet(depth=18).eval())
    weights.load(saved(tmp_path / "x.pth", state), network, part="backbone")
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(network.backbone.colours(images)))))
        wanted = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(x))))
        torch.testing.assert_close(network.backbone(images)[-1], wanted)


# --- detectors of torchvision

IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]  # of COCO's classes


@cache
def torchvisions(name: str) -> Any:
    """A detector of torchvision as its published weights leave it, but on ResNet-18 and with weights of chance."""
    from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
    from torchvision.models.detection._utils import overwrite_eps
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops import FrozenBatchNorm2d
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    torch.manual_seed(0)
    one_stage = {"returned_layers": [2, 3, 4], "extra_blocks": LastLevelP6P7(256, 256)}
    knobs = one_stage if name in ("RetinaNet", "FCOS") else {}
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5, **knobs)
    classes = {"RetinaNet": RetinaNet, "FCOS": FCOS, "FasterRCNN": FasterRCNN, "MaskRCNN": MaskRCNN}
    model = classes[name](backbone, 91)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            variance = 10 ** (torch.rand_like(module.running_var) - 4)  # 1e-4 to 1e-3: where 1e-5 makes a difference
            module.running_var.copy_(variance)
            module.weight.copy_(variance.sqrt() * torch.rand_like(variance) / 2)
            module.running_mean.normal_(std=0.01)
            module.bias.normal_(std=0.1)
    for parameter_name, parameter in model.named_parameters():
        if "cls" in parameter_name or "mask_fcn_logits" in parameter_name:
            nn.init.normal_(parameter, std=0.02)  # else all biases are alike
    if name != "FCOS":
        overwrite_eps(model, 0.0)
    return model.eval()


def before_0_13(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names that the published files of RetinaNet, Faster and Mask R-CNN have."""
    old = {}
    for name, value in state.items():
        for new, was in (
            *((f"{part}_blocks.{i}.0.", f"{part}_blocks.{i}.") for part in ("inner", "layer") for i in range(4)),
            ("rpn.head.conv.0.0.", "rpn.head.conv."),
            *((f"_head.conv.{i}.0.", f"_head.conv.{2 * i}.") for i in range(4)),
            *((f"roi_heads.mask_head.{i}.0.", f"roi_heads.mask_head.mask_fcn{i + 1}.") for i in range(4)),
        ):
            name = name.replace(new, was)
        old[name] = value
    return old


def mine(name: str, num_classes: int) -> Any:
    knobs = {"extra_from": "output"} if name == "RetinaNet" else {}
    backbone = backbones.ResNet(depth=18)
    return getattr(detectors, name)(backbone, num_classes, conventions="torchvision", **knobs).eval()


def close(found: Tensor, wanted: Tensor) -> None:
    largest = wanted.abs().max().item()
    assert largest > 1e-3
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * max(1, largest))


@pytest.mark.parametrize(
    ("name", "num_classes", "names"),
    [("RetinaNet", 91, "new"), ("RetinaNet", 80, "old"), ("FCOS", 91, "old"), ("FCOS", 80, "new")],
)
@torch.no_grad()
def test_a_one_stage_detector_of_torchvision_says_the_same_here(
    tmp_path: Path, name: str, num_classes: int, names: str
) -> None:
    theirs, network = torchvisions(name), mine(name, num_classes)
    state = theirs.state_dict()
    if names == "old":
        # FCOS appeared while its pyramid had the old names.
        state = (
            before_0_13(state) if name == "RetinaNet" else {n.replace("s.0.0.", "s.0."): x for n, x in state.items()}
        )
    weights.load(saved(tmp_path / "x.pth", state), network)

    images = torch.rand(2, 3, 96, 128)
    outputs = network(images)
    said = theirs.head(list(theirs.backbone(network.backbone.colours(images)).values()))
    logits = said["cls_logits"].flatten(0, 1)
    close(outputs.class_rows(), logits if num_classes == 91 else logits[:, IDS])
    box = torch.cat([level.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).reshape(2, -1, 4) for level in outputs.box], 1)
    close(box, said["bbox_regression"])
    if name == "FCOS":
        centred = torch.cat([level.flatten(1) for level in outputs.own["centerness"]], 1)
        close(centred, said["bbox_ctrness"].squeeze(2))


@pytest.mark.parametrize(
    ("name", "num_classes", "names"),
    [("FasterRCNN", 90, "new"), ("FasterRCNN", 80, "old"), ("MaskRCNN", 90, "old"), ("MaskRCNN", 80, "new")],
)
@torch.no_grad()
def test_a_two_stage_detector_of_torchvision_says_the_same_here(
    tmp_path: Path, name: str, num_classes: int, names: str
) -> None:
    theirs, network = torchvisions(name), mine(name, num_classes)
    state = theirs.state_dict()
    weights.load(saved(tmp_path / "x.pth", before_0_13(state) if names == "old" else state), network)

    images = torch.rand(2, 3, 96, 128)
    outputs = network(images)
    features = list(theirs.backbone(network.backbone.colours(images)).values())
    for found, wanted in zip(outputs.features, features, strict=True):
        close(found, wanted)
    objectness, deltas = theirs.rpn.head(features)
    for found, wanted in zip(outputs.own["objectness"] + outputs.own["deltas"], objectness + deltas, strict=True):
        close(found, wanted)

    slots = [0, *IDS] if num_classes == 80 else list(range(91))
    regions = torch.rand(3, 256, 7, 7)
    found_cls, found_box = network.roi_heads.box_predictor(network.roi_heads.box_head(regions))
    cls, box = theirs.roi_heads.box_predictor(theirs.roi_heads.box_head(regions))
    close(found_cls, cls[:, slots])
    close(found_box, box.unflatten(1, (91, 4))[:, slots].flatten(1))
    if name == "MaskRCNN":
        regions = torch.rand(2, 256, 14, 14)
        found = network.roi_heads.mask_predictor(network.roi_heads.mask_head(regions))
        close(found, theirs.roi_heads.mask_predictor(theirs.roi_heads.mask_head(regions))[:, slots])


@pytest.mark.parametrize(
    ("name", "detector", "knobs"),
    [
        ("retinanet_resnet50_fpn", "RetinaNet", {"extra_from": "output"}),
        ("retinanet_resnet50_fpn_v2", "RetinaNet", {"tower_norm": "group", "box_loss": "giou"}),
        ("fcos_resnet50_fpn", "FCOS", {}),
        ("fasterrcnn_resnet50_fpn", "FasterRCNN", {}),
        ("maskrcnn_resnet50_fpn", "MaskRCNN", {}),
    ],
)
def test_the_models_that_torchvision_publishes_fit(name: str, detector: str, knobs: dict[str, Any]) -> None:
    from torchvision.models import get_model

    with torch.device("meta"):
        state = get_model(name, weights=None, weights_backbone=None).state_dict()
        network = getattr(detectors, detector)(backbones.ResNet(), 80, conventions="torchvision", **knobs)
    assert weights.kind(state) == "torchvision detection"
    found = weights.fitted(state, network, part="detector")
    assert {n: x.shape for n, x in found.items()} == {n: x.shape for n, x in network.state_dict().items()}


def one_stage(num_classes: int = 80) -> Any:
    with torch.device("meta"):
        return mine("FCOS", num_classes)


def test_the_rows_are_those_of_the_names_of_the_classes() -> None:
    from torchvision.models.detection import FCOS_ResNet50_FPN_Weights

    categories = FCOS_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    state = torchvisions("FCOS").state_dict()
    name = "head.classification_head.cls_logits.bias"
    real = tuple(categories[i] for i in IDS)
    assert (real[0], real[-1], len(set(real))) == ("person", "toothbrush", 80)
    for classes in (real, real[::-1]):
        found = weights.fitted(state, one_stage(), part="detector", classes=classes)[name]
        assert torch.equal(found, state[name][[categories.index(one) for one in classes]])
    assert torch.equal(weights.fitted(state, one_stage(), part="detector")[name], state[name][IDS])


def test_eighty_classes_that_are_not_those_of_coco_are_refused() -> None:
    state = torchvisions("FCOS").state_dict()
    with pytest.raises(Invalid, match="know no class 'digit 0': their classes are those of COCO"):
        weights.fitted(state, one_stage(), part="detector", classes=tuple(f"digit {i}" for i in range(80)))


@pytest.mark.parametrize(("name", "known"), [("FCOS", 91), ("RetinaNet", 91), ("FasterRCNN", 90)])
def test_fewer_classes_than_torchvisions_are_refused(name: str, known: int) -> None:
    with torch.device("meta"):
        network = mine(name, 20)
    with pytest.raises(Invalid, match=f"^these weights are for {known} classes, and the data has 20"):
        weights.fitted(torchvisions(name).state_dict(), network, part="detector")


def test_weights_of_other_conventions_are_refused_where_names_cannot_tell() -> None:
    state = torchvisions("RetinaNet").state_dict()
    network = detectors.RetinaNet(backbones.ResNet(depth=18), 80, extra_from="output")
    with pytest.raises(Invalid, match="are torchvision's, and RetinaNet has the conventions of mmdetection"):
        weights.fitted(state, network, part="detector")
    assert weights.fitted(state, network, part="backbone")


def test_the_backbone_of_a_detector_of_torchvision_fits_alone() -> None:
    theirs = torchvisions("RetinaNet")
    network = SimpleNamespace(backbone=backbones.ResNet(depth=18).eval())
    network.backbone.load_state_dict(weights.fitted(theirs.state_dict(), network, part="backbone"))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted = theirs.backbone.body(network.backbone.colours(images))
        for found, x in zip(network.backbone(images)[1:], wanted.values(), strict=True):
            close(found, x)
