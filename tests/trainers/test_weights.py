import os
import pickle
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from trainers import backbones, detectors, weights
from trainers.spec import Invalid


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


TENSORS = {"backbone.conv1.weight": torch.arange(6.0).view(2, 3), "head.scales": torch.ones(5)}


def saved(path: Path, content: Any, **how: Any) -> Path:
    torch.save(content, path, **how)
    return path


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        {"state_dict": TENSORS, "meta": {"epoch": 12, "CLASSES": ("person",)}, "optimizer": {"state": {}}},
        {"model": TENSORS, "epoch": 3},
        {"model": {name: 0 * x for name, x in TENSORS.items()}, "model_ema": TENSORS},
        {"ema": {"state_dict": TENSORS}},
        {f"module.{name}": x for name, x in TENSORS.items()} | {"n_averaged": torch.tensor(3)},
        {
            "state_dict": {f"module.architecture.{name}": x for name, x in TENSORS.items()}
            | {"module.teacher.x": torch.ones(1)}
        },
        {f"_orig_mod.{name}": x for name, x in TENSORS.items()},
    ],
    ids=["bare", "state_dict", "model", "averaged", "nested", "module", "mmrazor", "compiled"],
)
def test_tensors_are_found_in_whatever_they_are_wrapped(tmp_path: Path, content: Any) -> None:
    assert same(weights.read(saved(tmp_path / "x.pth", content)), TENSORS)


def test_the_older_format_of_torch_is_read(tmp_path: Path) -> None:
    assert same(weights.read(saved(tmp_path / "x.pth", TENSORS, _use_new_zipfile_serialization=False)), TENSORS)


@pytest.mark.parametrize("name", ["x.safetensors", "blob"])
def test_safetensors_are_read_whatever_the_file_is_called(tmp_path: Path, name: str) -> None:
    save_file(TENSORS, tmp_path / name)
    assert same(weights.read(tmp_path / name), TENSORS)


class Hostile:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.system, (f"touch {shlex.quote(str(self.file))}",)


def zipped(path: Path, content: Any) -> None:
    torch.save(content, path)


def old(path: Path, content: Any) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def pickled(path: Path, content: Any) -> None:
    with open(path, "wb") as handle:
        pickle.dump(content, handle)


@pytest.mark.parametrize("save", [zipped, old, pickled])
def test_a_hostile_file_is_refused_and_not_run(tmp_path: Path, save: Callable[[Path, Any], None]) -> None:
    proof = tmp_path / "it ran"
    save(tmp_path / "x.pth", {"state_dict": {"a": torch.ones(1)}, "meta": Hostile(proof)})
    with pytest.raises(Invalid, match=r"x\.pth .*could run any code") as refusal:
        weights.read(tmp_path / "x.pth")
    assert not proof.exists()
    if save is not pickled:
        assert "asks for posix.system" in str(refusal.value)


def test_a_trusted_file_can_be_reduced_to_its_tensors_as_the_message_says(tmp_path: Path) -> None:
    file = saved(tmp_path / "with a history.pth", {"state_dict": TENSORS, "message_hub": SimpleNamespace(loss=1)})
    with pytest.raises(Invalid, match=r"asks for types\.SimpleNamespace") as refusal:
        weights.read(file)
    command = shlex.split(str(refusal.value).partition("keep only its tensors: ")[2])
    assert command[:2] == ["python", "-c"]
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True)
    assert same(weights.read(tmp_path / "tensors.pth"), TENSORS)


@pytest.mark.parametrize("save", [zipped, old, save_file])
def test_half_a_file_is_refused_by_its_name(tmp_path: Path, save: Any) -> None:
    file = tmp_path / "x.pth"
    (save(TENSORS, file) if save is save_file else save(file, TENSORS))
    os.truncate(file, file.stat().st_size - 20 if save is save_file else file.stat().st_size // 2)
    with pytest.raises(Invalid, match=r"x\.pth is damaged"):
        weights.read(file)


@pytest.mark.parametrize("text", [b"", b"<html>404</html>", b"\x00" * 64, bytes(range(256)) * 9, b"PK\x03\x04" * 99])
def test_what_is_no_checkpoint_is_refused_by_its_name(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(text)
    with pytest.raises(Invalid, match=r"x\.pth is damaged, or is no checkpoint"):
        weights.read(tmp_path / "x.pth")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"state_dict": {}}, [torch.ones(1)], torch.ones(1)])
def test_a_checkpoint_without_named_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(Invalid, match=r"x\.pth holds"):
        weights.read(saved(tmp_path / "x.pth", content))


def test_a_file_that_is_not_there_is_the_users_mistake(tmp_path: Path) -> None:
    for file in (tmp_path / "x.pth", tmp_path):
        with pytest.raises(Invalid, match="cannot be read: "):
            weights.read(file)


# --- fitting ---------------------------------------------------------------------------------------------------------


def gfl(num_classes: int = 3, **knobs: Any) -> Any:
    torch.manual_seed(0)
    knobs = {"channels": 16, "convs": 1, "extra": 1, **knobs}
    return detectors.GFL(backbones.TinyResNet(width=8, norm="batch"), num_classes, **knobs)


def numbers(network: nn.Module, seed: int = 1) -> dict[str, Tensor]:
    """Other weights for a network."""
    generator = torch.Generator().manual_seed(seed)
    state = network.state_dict()
    return {
        name: torch.rand(value.shape, generator=generator) if value.is_floating_point() else torch.full_like(value, 7)
        for name, value in state.items()
    }


def test_our_own_weights_come_back_as_they_were(tmp_path: Path) -> None:
    network = gfl()
    state = numbers(network)
    save_file(state, tmp_path / "weights.safetensors")
    weights.load(tmp_path / "weights.safetensors", network)
    assert same(network.state_dict(), state)


def test_only_the_backbone_is_taken_where_only_that_is_wanted(tmp_path: Path) -> None:
    network, before = gfl(5), gfl(5).state_dict()
    state = numbers(gfl(3))
    weights.load(saved(tmp_path / "x.pth", state), network, part="backbone")
    for name, value in network.state_dict().items():
        assert torch.equal(value, (state if name.startswith("backbone.") else before)[name]), name


def test_fitting_needs_no_numbers_in_the_network_and_takes_its_types() -> None:
    with torch.device("meta"):
        shape = gfl()
    state = {name: value.double() for name, value in numbers(gfl()).items()}
    found = weights.fitted(state, shape, part="detector")
    assert list(found) == list(shape.state_dict())
    for name, value in shape.state_dict().items():
        assert found[name].dtype == value.dtype and not found[name].is_meta


def test_what_is_missing_left_over_and_misshapen_is_named_with_both_shapes() -> None:
    state = numbers(gfl())
    del state["head.scales"], state["neck.outputs.1.bias"]
    state["head.own.weight"] = torch.ones(1)
    state["head.box.bias"] = torch.ones(68, 2)
    with pytest.raises(Invalid) as refusal:
        weights.fitted(state, gfl(), part="detector")
    said = str(refusal.value)
    assert "missing: neck.outputs.1.bias, head.scales;" in said
    assert "not known here: head.own.weight;" in said
    assert "of another shape: head.box.bias 68x2 for 68;" in said
    assert "GFL" in said and "tapath" in said and "part: backbone" in said


def test_ten_names_are_shown_and_the_others_counted() -> None:
    state = {name: value for name, value in numbers(gfl()).items() if name.startswith("backbone.")}
    wanted = [name for name in gfl().state_dict() if name not in state]
    with pytest.raises(Invalid) as refusal:
        weights.fitted(state, gfl(), part="detector")
    assert f"missing: {', '.join(wanted[:10])} and {len(wanted) - 10} more;" in str(refusal.value)


def test_another_backbone_is_refused_too() -> None:
    other = SimpleNamespace(backbone=backbones.TinyResNet(width=4, norm="batch"))
    with pytest.raises(Invalid, match=r"not those of this TinyResNet: of another shape: .* and \d+ more$"):
        weights.fitted(numbers(gfl()), other, part="backbone")


@pytest.mark.parametrize("part", ["detector", "backbone"])
def test_nothing_is_loaded_from_a_file_that_does_not_fit(tmp_path: Path, part: Any) -> None:
    network = gfl()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = numbers(network)
    del state["backbone.stages.0.0.conv1.weight" if "backbone.stages.0.0.conv1.weight" in state else next(iter(state))]
    with pytest.raises(Invalid, match="missing"):
        weights.load(saved(tmp_path / "x.pth", state), network, part=part)
    assert same(network.state_dict(), before)


@pytest.mark.parametrize(
    "detector", ["GFL", "ATSS", "RetinaNet", "FCOS", "RepPoints", "FasterRCNN", "MaskRCNN", "MimicDet"]
)
def test_another_number_of_classes_is_said_in_plain_words(detector: str) -> None:

    def make(num_classes: int) -> Any:
        return getattr(detectors, detector)(backbones.TinyResNet(width=8), num_classes, channels=16)

    state = make(5).state_dict()
    with pytest.raises(Invalid, match=r"^these weights are for 5 classes, and the data has 3; .*part: backbone$"):
        weights.fitted(state, make(3), part="detector")
    assert weights.fitted(state, make(3), part="backbone")


# --- classifiers of torchvision --------------------------------------------------------------------------------------

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
    assert all(found[n] is state[n] for n in own if not n.startswith(("norm0", "norm1", "norm2", "norm3")))
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


# --- detectors of torchvision ----------------------------------------------------------------------------------------

IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]  # of COCO's classes


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


@pytest.mark.parametrize("style", ["caffe", "pytorch"])
def test_a_style_that_only_the_configuration_in_the_file_tells_must_be_the_networks(tmp_path: Path, style: Any) -> None:
    config = f"model = dict(type='FCOS', backbone=dict(type='ResNet', depth=18, style='{style}'))  # \""
    fitting = SimpleNamespace(backbone=backbones.ResNet(depth=18, style=style))
    other = SimpleNamespace(backbone=backbones.ResNet(depth=18, style="pytorch" if style == "caffe" else "caffe"))
    state = {f"backbone.{name}": value for name, value in numbers(fitting.backbone).items()}
    file = saved(tmp_path / "x.pth", {"meta": {"config": config}, "state_dict": state})
    weights.load(file, fitting, part="backbone")
    with pytest.raises(Invalid, match=f"of a network of {style}'s style, and this ResNet is of"):
        weights.load(file, other, part="backbone")
    weights.load(saved(tmp_path / "x.pth", state), other, part="backbone")  # nobody can know


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
    with pytest.raises(Invalid, match="for the classes of COCO, and digit 0 is none"):
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
