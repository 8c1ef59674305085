"""Published weights: read without running anything, and made to fit our detectors.

A file is either fitted completely, name by name and shape by shape, or refused with what is wrong. The tables of names
are in `trainers.weight_names`.
"""

from __future__ import annotations

import math
import pickle
import re
import shlex
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from trainers.call import Invalid
from trainers.outputs import Network
from trainers.spec import Part
from trainers.states import swells
from trainers.weight_classes import ELSE, Classes, has_classes, with_classes
from trainers.weight_names import (
    CLASSIFICATION,
    COMPUTED,
    DETECTION,
    FRESH,
    IGNORED,
    MMDETECTION,
    State,
    kind,
    matches,
    ours,
)

# In what a checkpoint keeps its weights; averaged ones are what was measured.
WRAPPINGS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model")
DEPTH = 4  # wrappings in wrappings; a mapping may contain itself
PREFIXES = ("_orig_mod.", "module.", "architecture.", "model.")  # of compiled, of DDP's, and of mmrazor's models
# Everything but the optimizer's part, with texts in place of what is no plain value.
ONLY_TENSORS = (
    'python -c "import sys, torch; plain = lambda x: '
    "{str(k): plain(v) for k, v in x.items() if k != 'optimizer'} if isinstance(x, dict) "
    "else [plain(v) for v in x] if isinstance(x, (list, tuple)) "
    "else x if type(x) in (str, int, float, bool, type(None)) or isinstance(x, torch.Tensor) else str(x); "
    "torch.save(plain(torch.load(sys.argv[1], map_location='cpu', weights_only=False)), sys.argv[2])\" "
)
SHOWN = 10  # names in a message


class Checkpoint(State):
    """The tensors of a file by name, and what else mmdetection's files tell."""

    style: str | None = None  # of the ResNet: caffe or pytorch
    classes: tuple[str, ...] | None = None  # their names in the order of their rows


def read(file: Path) -> State:
    """The tensors of a .safetensors file, or of a checkpoint of torch, by name, on the CPU.

    Of a checkpoint it is its `state_dict` or `model`, averaged if it has both, without the prefixes of wrappers; of
    mmrazor's the student. Raises `Invalid` when the file is no checkpoint, is damaged, holds other than plain tensors,
    or could run code.
    """
    try:
        with open(file, "rb") as handle:
            beginning = handle.read(9)
            size = file.stat().st_size
        content: Any = load_file(file) if beginning[8:] == b"{" else opened(file, beginning)
    except OSError as error:
        raise Invalid(f"{file} cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise Invalid(f"{file} is damaged, or is no checkpoint: {error}") from None
    if not isinstance(content, Mapping):
        raise Invalid(f"{file} holds a {type(content).__name__} and not tensors by name")
    meta = content.get("meta")
    for _ in range(DEPTH):
        content = next((content[key] for key in WRAPPINGS if isinstance(content.get(key), Mapping)), content)
    state = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not state:
        raise Invalid(f"{file} holds no tensors by name")
    for name, value in state.items():
        if not plain(value, size):
            raise Invalid(f"{file} holds no plain numbers for {name}: it is sparse, quantised, or larger than the file")
    found = Checkpoint(unprefixed(state))
    if isinstance(meta, Mapping):
        found.style, found.classes = style_in(meta), classes_in(meta)
    return found


def load(file: Path, network: Network, *, part: Part = "detector", classes: tuple[str, ...] | None = None) -> None:
    """Give a network, or a part of it, the weights of a file; `Invalid` as of `read` and `fitted`."""
    state = read(file)
    target = owner(network.backbone, state) if part == "backbone" else network
    target.load_state_dict(fitted(state, network, part=part, classes=classes))


def part(state: Mapping[str, Tensor]) -> Part:
    """What the weights are of; a classifier's fit nothing but a backbone."""
    return "backbone" if kind(state) == CLASSIFICATION else "detector"


def fitted(state: State, network: Network, *, part: Part, classes: tuple[str, ...] | None = None) -> State:
    """The state of a detector, or of its backbone, all of it and in its shapes, out of published weights.

    classes: the names of the network's classes, which get the rows of those names as in `trainers.weight_classes`.
    `without_classes`: tensors that have rows for classes are the network's own.
    Raises `Invalid` when the weights are of another network.
    """
    published = kind(state)
    if published == CLASSIFICATION and part != "backbone":
        raise Invalid("these are the weights of a classifier, which fit a backbone: write part: backbone")
    backbone = owner(network.backbone, state)
    check_style(state, backbone)
    named = state.classes if isinstance(state, Checkpoint) else None
    state = {name: value for name, value in ours(state, published).items() if not matches(name, (COMPUTED,))}
    if part == "backbone":
        if published != CLASSIFICATION:
            start = "backbone."
            state = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
        return checked(state, backbone.state_dict(), published, type(backbone).__name__)
    check_conventions(network, published)
    own = network.state_dict()
    known = Classes(published, network.num_classes, wanted=classes, named=named)
    fresh = part == "without_classes"
    for name in [name for name in state if name in own and has_classes(name)]:
        state[name] = own[name] if fresh else with_classes(name, state[name], own[name], known)
    return checked(state, own, published, type(network).__name__, f"; {ELSE}")


def owner(backbone: Any, state: Mapping[str, Tensor]) -> Any:
    """What the weights of a backbone are of: the one inside of another, such as `Halved`, unless they are of both."""
    of_both = any(name.startswith("backbone.inner.") for name in state)
    return backbone if of_both else getattr(backbone, "inner", backbone)


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


def checked(state: State, own: State, published: str, network: str, hint: str = "") -> State:
    """The state, with what may be fresh as it is in the network, when nothing is missing, left over or misshapen."""
    missing = [n for n in own if n not in state and not matches(n, FRESH[published])]
    left = [n for n in state if n not in own and not matches(n, IGNORED[published])]
    misshapen = [
        f"{n} {shape(value)} for {shape(own[n])}"
        for n, value in state.items()
        if n in own and value.shape != own[n].shape
    ]
    rounded = [n for n in own if n in state and own[n].is_floating_point() and not state[n].is_floating_point()]
    faults = {
        "missing": missing,
        "not known here": left,
        "of another shape": misshapen,
        "not of floating point": rounded,
    }
    if any(faults.values()):
        found = "; ".join(f"{what}: {listed(names)}" for what, names in faults.items() if names)
        raise Invalid(f"these weights ({published}) are not those of this {network}: {found}{hint}")
    whole = {n: state[n].to(value.dtype) if n in state else value for n, value in own.items()}
    if broken := [n for n, value in whole.items() if not finite(value)]:
        raise Invalid(f"these weights have NaN or infinity in {listed(broken)}{hint}")
    return whole


def listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def shape(value: Tensor) -> str:
    """`64x3x7x7`."""
    return "x".join(map(str, value.shape)) or "()"


def finite(value: Tensor) -> bool:
    """Whether there is neither NaN nor infinity, as far as there are numbers at all."""
    if not value.is_floating_point() or value.is_meta or not value.numel():
        return True
    return bool(torch.stack(value.detach().aminmax()).isfinite().all())  # both are NaN where one number is


# --- files -----------------------------------------------------------------------------------------------------------


def opened(file: Path, beginning: bytes) -> Any:
    """What torch saved in a file, if it is nothing but data."""
    if swells(file):
        raise Invalid(
            f"{file} is packed, so that it may become far larger than it is; torch packs nothing, save it anew"
        )
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
            command = f"{ONLY_TENSORS}{shlex.quote(str(file))} tensors.pth"
            raise Invalid(f"{file} holds more than tensors: it asks for {found[1]}. {danger}: {command}") from None
        if beginning.startswith(b"\x80"):
            raise Invalid(f"{file} is a pickle, and not of tensors alone. {danger}, saved by torch.save") from None
        raise Invalid(f"{file} is damaged, or is no checkpoint of torch") from None
    except Exception as error:  # what only looks like a checkpoint makes torch raise anything
        raise Invalid(f"{file} is damaged, or is no checkpoint of torch: {str(error).split('. ')[0]}") from None


def plain(value: Tensor, size: int) -> bool:
    """Whether a tensor is nothing but numbers that a file of so many bytes can hold: an expanded one has fewer."""
    dense = value.layout == torch.strided and value.device.type == "cpu" and not (value.is_quantized or value.is_nested)
    return dense and math.prod(value.shape) * value.itemsize <= size


def style_in(meta: Mapping[Any, Any]) -> str | None:
    """The style that the configuration names, where it names one."""
    styles = {style for text in meta.values() for style in re.findall(r"style='(caffe|pytorch)'", str(text))}
    return styles.pop() if len(styles) == 1 else None


def classes_in(meta: Mapping[Any, Any]) -> tuple[str, ...] | None:
    """The names of the classes, as mmdetection 2 keeps them, and as mmdetection 3 does."""
    for kept in (meta, meta.get("dataset_meta")):
        for key in ("CLASSES", "classes"):
            names = kept.get(key) if isinstance(kept, Mapping) else None
            if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
                return tuple(names)
    return None


def unprefixed(state: State) -> State:
    """Without the names of wrappers; what is not in the wrapped network goes."""
    for prefix in PREFIXES:
        inner = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        state = inner or state
    return state
