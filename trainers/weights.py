"""Published weights: read without running anything, and made to fit our detectors.

A file is either fitted completely, name by name and shape by shape, or refused with what is wrong. The tables of names
are in `trainers.weight_names`.
"""

from __future__ import annotations

import pickle
import re
import shlex
import warnings
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from trainers.outputs import Network
from trainers.spec import Invalid
from trainers.weight_names import (
    CLASS_ROWS,
    CLASSIFICATION,
    DETECTION,
    FRESH,
    IGNORED,
    MMDETECTION,
    State,
    kind,
    matches,
    ours,
)

Part = Literal["detector", "backbone"]

# In what a checkpoint keeps its weights; averaged ones are what was measured.
WRAPPINGS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model")
PREFIXES = ("_orig_mod.", "module.", "architecture.", "model.")  # of compiled, of DDP's, and of mmrazor's models
ONLY_TENSORS = (
    "python -c \"import sys, torch; x = torch.load(sys.argv[1], map_location='cpu', weights_only=False); "
    "torch.save(x.get('state_dict', x), sys.argv[2])\" {file} tensors.pth"
)
COCO_SLOTS = 91  # torchvision's classes are COCO's ids, of which ten between 1 and 90 are not in use, and a background
COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_IDS = [i for i in range(1, COCO_SLOTS) if i not in COCO_GAPS]
SHOWN = 10  # names in a message
ELSE = "to take only its backbone, write part: backbone"


class Checkpoint(State):
    """The tensors of a file by name, and of which style its ResNet is, where mmdetection's configuration says so."""

    style: str | None = None  # caffe or pytorch


def read(file: Path) -> State:
    """The tensors of a .safetensors file, or of a checkpoint of torch, by name, on the CPU.

    Of a checkpoint it is its `state_dict` or `model`, averaged if it has both, without the prefixes of wrappers; of
    mmrazor's the student. Raises `Invalid` when the file is no checkpoint, is damaged, or could run code.
    """
    try:
        with open(file, "rb") as handle:
            beginning = handle.read(9)
        content: Any = load_file(file) if beginning[8:] == b"{" else opened(file, beginning)
    except OSError as error:
        raise Invalid(f"{file} cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise Invalid(f"{file} is damaged, or is no checkpoint: {error}") from None
    if not isinstance(content, Mapping):
        raise Invalid(f"{file} holds a {type(content).__name__} and not tensors by name")
    meta = content.get("meta")
    while inner := next((content[key] for key in WRAPPINGS if isinstance(content.get(key), Mapping)), None):
        content = inner
    state = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not state:
        raise Invalid(f"{file} holds no tensors by name")
    found = Checkpoint(unprefixed(state))
    said = "".join(str(text) for text in meta.values()) if isinstance(meta, Mapping) else ""
    styles = set(re.findall(r"style='(caffe|pytorch)'", said))
    found.style = styles.pop() if len(styles) == 1 else None
    return found


def load(file: Path, network: Network, *, part: Part = "detector", classes: tuple[str, ...] | None = None) -> None:
    """Give a network, or its backbone, the weights of a file; `Invalid` as of `read` and `fitted`."""
    target = network.backbone if part == "backbone" else network
    target.load_state_dict(fitted(read(file), network, part=part, classes=classes))


def part(state: Mapping[str, Tensor]) -> Part:
    """What the weights are of; a classifier's fit nothing but a backbone."""
    return "backbone" if kind(state) == CLASSIFICATION else "detector"


def fitted(state: State, network: Network, *, part: Part, classes: tuple[str, ...] | None = None) -> State:
    """The state of a detector, or of its backbone, all of it and in its shapes, out of published weights.

    classes: the names of the network's classes. torchvision's detectors know 80 of COCO's and ten that nothing has; a
    network of 80 gets the rows of those names, and without names the real ones in their order.
    Raises `Invalid` when the weights are of another network.
    """
    published = kind(state)
    if published == CLASSIFICATION and part == "detector":
        raise Invalid("these are the weights of a classifier, which fit a backbone: write part: backbone")
    check_style(state, network.backbone)
    state = ours(state, published)
    if part == "backbone":
        if published != CLASSIFICATION:
            start = "backbone."
            state = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
        return checked(state, network.backbone.state_dict(), published, type(network.backbone).__name__)
    check_conventions(network, published)
    own = network.state_dict()
    rows = partial(with_classes, num_classes=network.num_classes, published=published, classes=classes)
    state = {name: rows(name, value, own[name]) if name in own else value for name, value in state.items()}
    return checked(state, own, published, type(network).__name__, f"; {ELSE}")


def check_conventions(network: Network, published: str) -> None:
    """The same names mean something else in torchvision's detectors and in mmdetection's, where ours can be both."""
    mine = getattr(network, "conventions", None)
    theirs = {DETECTION: "torchvision", MMDETECTION: "mmdetection"}.get(published)
    if mine and theirs and (mine == "torchvision") != (theirs == "torchvision"):
        name = type(network).__name__
        raise Invalid(f"these weights are {theirs}'s, and {name} has the conventions of {mine}: they must be the same")


def check_style(state: State, backbone: Any) -> None:
    """No name tells that a ResNet of caffe's style reads other colours, and halves maps in other convolutions."""
    style = state.style if isinstance(state, Checkpoint) else None
    mine = "caffe" if getattr(getattr(backbone, "colours", None), "reverse", False) else "pytorch"
    if style and style != mine:
        name = type(backbone).__name__
        raise Invalid(f"these weights are of a network of {style}'s style, and this {name} is of {mine}'s")


def with_classes(
    name: str, value: Tensor, own: Tensor, *, num_classes: int, published: str, classes: tuple[str, ...] | None
) -> Tensor:
    """A tensor with the rows of the network's classes, whose own tensor of this name is `own`."""
    for pattern, background, numbers in CLASS_ROWS:
        if not re.fullmatch(pattern, name) or value.shape == own.shape or value.shape[1:] != own.shape[1:]:
            continue
        anchors = len(own) // ((num_classes + background) * numbers)
        slots, rest = divmod(len(value), anchors * numbers)
        if rest:  # of another detector
            return value
        if published == DETECTION and slots == COCO_SLOTS and num_classes == len(COCO_IDS):
            chosen = [0] * background + coco_ids(classes)
            return value.unflatten(0, (anchors, slots, numbers))[:, chosen].flatten(0, 2)
        raise Invalid(f"these weights are for {slots - background} classes, and the data has {num_classes}; {ELSE}")
    return value


def coco_ids(classes: tuple[str, ...] | None) -> list[int]:
    """Where torchvision has the classes of these names."""
    if classes is None:
        return COCO_IDS
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights  # seconds to import

    known = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    if strange := [name for name in classes if name not in known]:
        raise Invalid(f"these weights are for the classes of COCO, and {strange[0]} is none; {ELSE}")
    return [known.index(name) for name in classes]


def checked(state: State, own: State, published: str, network: str, hint: str = "") -> State:
    """The state, with what may be fresh as it is in the network, when nothing is missing, left over or misshapen."""
    missing = [n for n in own if n not in state and not matches(n, FRESH[published])]
    left = [n for n in state if n not in own and not matches(n, IGNORED[published])]
    misshapen = [
        f"{n} {shape(value)} for {shape(own[n])}"
        for n, value in state.items()
        if n in own and value.shape != own[n].shape
    ]
    faults = {"missing": missing, "not known here": left, "of another shape": misshapen}
    if any(faults.values()):
        found = "; ".join(f"{what}: {listed(names)}" for what, names in faults.items() if names)
        raise Invalid(f"these weights ({published}) are not those of this {network}: {found}{hint}")
    return {n: state[n].to(value.dtype) if n in state else value for n, value in own.items()}


def listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def shape(value: Tensor) -> str:
    """`64x3x7x7`."""
    return "x".join(map(str, value.shape)) or "()"


# --- files -----------------------------------------------------------------------------------------------------------


def opened(file: Path, beginning: bytes) -> Any:
    """What torch saved in a file, if it is nothing but data."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about files that are refused anyway
            return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        danger = (
            "Opening such a file could run any code, so it was not opened. Where you trust it, keep only its tensors"
        )
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            command = ONLY_TENSORS.format(file=shlex.quote(str(file)))
            raise Invalid(f"{file} holds more than tensors: it asks for {found[1]}. {danger}: {command}") from None
        if beginning.startswith(b"\x80"):
            raise Invalid(f"{file} is a pickle, and not of tensors alone. {danger}, saved by torch.save") from None
        raise Invalid(f"{file} is damaged, or is no checkpoint of torch") from None
    except Exception as error:  # what only looks like a checkpoint makes torch raise anything
        raise Invalid(f"{file} is damaged, or is no checkpoint of torch: {str(error).split('. ')[0]}") from None


def unprefixed(state: State) -> State:
    """Without the names of wrappers; what is not in the wrapped network goes."""
    for prefix in PREFIXES:
        inner = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        state = inner or state
    return state
