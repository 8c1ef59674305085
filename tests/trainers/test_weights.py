"""Weights from files: what is read and never run, and what is said of those that do not fit."""

import os
import pickle
import shlex
import subprocess
import sys
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from trainers import backbones, detectors, weights
from trainers.call import Invalid

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


def test_the_reduced_file_still_tells_its_style_and_its_classes(tmp_path: Path) -> None:
    proof = tmp_path / "it ran"
    meta = {
        "config": "backbone=dict(type='ResNet', style='caffe')",
        "CLASSES": ("cat", "dog"),
        "best": Namespace(score=0.5),
        "seed": np.float64(3),
        "hooks": [Hostile(proof)],
    }
    content = {"meta": meta, "state_dict": OrderedDict(TENSORS), "optimizer": {"state": {0: torch.ones(9, 9)}}}
    file = saved(tmp_path / "it's caffe.pth", content)
    with pytest.raises(Invalid, match="keep only its tensors: ") as refusal:
        weights.read(file)
    assert not proof.exists()
    command = shlex.split(str(refusal.value).partition("keep only its tensors: ")[2])
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True)
    found = weights.read(tmp_path / "tensors.pth")
    assert same(found, TENSORS)
    assert (found.style, found.classes) == ("caffe", ("cat", "dog"))
    assert torch.load(tmp_path / "tensors.pth", weights_only=True).keys() == {"meta", "state_dict"}


def test_the_reduced_file_keeps_averaged_weights_beside_what_only_its_author_can_read(tmp_path: Path) -> None:
    content = {
        "model": {name: 0 * x for name, x in TENSORS.items()},
        "ema": {"state_dict": TENSORS},
        "args": Namespace(),
    }
    with pytest.raises(Invalid) as refusal:
        weights.read(saved(tmp_path / "x.pth", content))
    command = shlex.split(str(refusal.value).partition("keep only its tensors: ")[2])
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True)
    assert same(weights.read(tmp_path / "tensors.pth"), TENSORS)


@pytest.mark.parametrize("save", [zipped, old])
def test_a_checkpoint_that_contains_itself_is_refused(tmp_path: Path, save: Callable[[Path, Any], None]) -> None:
    content: dict[str, Any] = {}
    content["state_dict"] = content
    save(tmp_path / "x.pth", content)
    with pytest.raises(Invalid, match="holds no tensors by name"):
        weights.read(tmp_path / "x.pth")


@pytest.mark.parametrize(
    "odd",
    [
        torch.eye(3).to_sparse(),
        torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
        torch.zeros(3, device="meta"),
        torch.zeros(1).expand(10**9, 1024),
    ],
    ids=["sparse", "quantised", "meta", "expanded"],
)
def test_what_is_no_plain_tensor_is_refused_by_its_name(tmp_path: Path, odd: Tensor) -> None:
    file = saved(tmp_path / "x.pth", {"state_dict": {**TENSORS, "head.odd": odd}})
    with pytest.raises(Invalid, match=r"x\.pth (holds no plain numbers for head\.odd|is damaged)"):
        weights.read(file)


@pytest.mark.parametrize("save", [zipped, old])
def test_two_names_of_one_tensor_are_two_tensors(tmp_path: Path, save: Callable[[Path, Any], None]) -> None:
    state = {"head.a": (x := torch.rand(50, 50)), "head.b": x, "head.c": x.t()}
    save(tmp_path / "x.pth", state)
    assert same(weights.read(tmp_path / "x.pth"), state)


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


def test_whole_numbers_are_not_taken_for_fractions() -> None:
    state = numbers(gfl())
    state["head.box.bias"] = torch.ones(68, dtype=torch.int8)
    state["head.scales"] = torch.ones(5, dtype=torch.complex64)[: len(state["head.scales"])]
    with pytest.raises(Invalid, match=r"not of floating point: head\.scales, head\.box\.bias; to take"):
        weights.fitted(state, gfl(), part="detector")
    assert weights.fitted(state, gfl(), part="backbone")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("type", [torch.float32, torch.float16])
def test_what_is_no_number_is_refused_by_its_name(number: float, type: torch.dtype) -> None:
    state = numbers(gfl())
    state["head.box.weight"] = state["head.box.weight"].to(type)
    state["head.box.weight"][3, 1, 0, 2] = number
    with pytest.raises(Invalid, match=r"NaN or infinity in head\.box\.weight; to take only its backbone"):
        weights.fitted(state, gfl(), part="detector")


def test_a_number_too_large_for_the_networks_type_is_none() -> None:
    state = {name: x.double() if x.is_floating_point() else x for name, x in numbers(gfl()).items()}
    state["neck.outputs.0.bias"][0] = 1e300
    with pytest.raises(Invalid, match=r"NaN or infinity in neck\.outputs\.0\.bias"):
        weights.fitted(state, gfl(), part="detector")


@pytest.mark.parametrize("index", [torch.zeros(2401, dtype=torch.long), torch.full((9,), 10**9), None])
def test_where_swin_looks_its_distances_up_is_never_taken_from_a_file(index: Tensor | None) -> None:
    network = SimpleNamespace(backbone=backbones.Swin(size="micro"))
    own = network.backbone.state_dict()
    names = [name for name in own if name.endswith("relative_position_index")]
    state = {f"backbone.{name}": x for name, x in numbers(network.backbone).items() if name not in names}
    if index is not None:
        state |= {f"backbone.{name}": index for name in names}
    found = weights.fitted(state, network, part="backbone")
    assert names and all(torch.equal(found[name], own[name]) for name in names)


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


@pytest.mark.parametrize(
    ("detector", "fresh"),
    [
        ("GFL", {"head.cls"}),
        ("GFLv2", {"head.cls"}),
        ("ATSS", {"head.cls"}),
        ("RetinaNet", {"head.classification_head.cls_logits"}),
        ("FCOS", {"head.classification_head.cls_logits"}),
        ("RepPoints", {"head.cls_out"}),
        ("FasterRCNN", {"roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"}),
        (
            "MaskRCNN",
            {f"roi_heads.{part}" for part in ("box_predictor.cls_score", "box_predictor.bbox_pred")}
            | {"roi_heads.mask_predictor.mask_fcn_logits"},
        ),
        ("MimicDet", {"s_head.cls", "t_head.cls"}),
    ],
)
@pytest.mark.parametrize("classes", [5, 3])
def test_all_but_the_classes_is_taken_for_others_even_if_they_are_as_many(
    detector: str, fresh: set[str], classes: int
) -> None:

    def make(num_classes: int) -> Any:
        return getattr(detectors, detector)(backbones.TinyResNet(width=8), num_classes, channels=16)

    published, mine = make(5).state_dict(), make(classes)
    for name in published:
        published[name] = published[name] + 1
    before = mine.state_dict()
    found = weights.fitted(dict(published), mine, part="without_classes")
    own = {name for name in before if name.rpartition(".")[0] in fresh}
    assert {name.rpartition(".")[0] for name in own} == fresh and found.keys() == before.keys()
    assert all(torch.equal(found[name], (before if name in own else published)[name]) for name in found)


@pytest.mark.parametrize("wanted", [("a", "b", "c"), ("a", "b", "c", "d", "e"), ("dog", "cat", "cow", "hen", "pig")])
def test_of_a_file_that_names_its_classes_all_but_these_is_taken_too(wanted: tuple[str, ...], tmp_path: Path) -> None:
    names = ("cat", "dog", "cow", "hen", "pig")

    def make(num_classes: int) -> Any:
        return detectors.GFL(backbones.TinyResNet(width=8), num_classes, channels=16)

    published, mine = make(5), make(len(wanted))
    torch.save({"meta": {"CLASSES": names}, "state_dict": published.state_dict()}, tmp_path / "x.pth")
    before = {name: value.clone() for name, value in mine.state_dict().items()}
    weights.load(tmp_path / "x.pth", mine, part="without_classes", classes=wanted)
    for name, value in mine.state_dict().items():
        expected = before if name.startswith("head.cls.") else published.state_dict()
        assert torch.equal(value, expected[name]), name


def test_a_classifier_has_no_detector_to_leave_its_classes_out_of() -> None:
    state = {"conv1.weight": torch.zeros(1)}
    with pytest.raises(Invalid, match="fit a backbone"):
        weights.fitted(state, detectors.GFL(backbones.TinyResNet(width=8), 2, channels=16), part="without_classes")


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
