"""A trained detector as files that others run: its graphs, what their predictions mean, and a runner that finds boxes.

model.onnx, second.onnx   the network from images to raw predictions (.pt2 with torch's own format); a second one of
                          detectors with two stages
detector.json             how an image is prepared, and how predictions become boxes
detect.py                 a copy of `export_runner`, which needs none of our code
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import warnings
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch.export import ExportedProgram

from trainers import atomic, build, export_runner
from trainers.augment import Resize, lengths
from trainers.call import Invalid
from trainers.data.assemble import COLOUR
from trainers.export import graph, parts, second_graph
from trainers.export_decoding import RULES, decoding
from trainers.outputs import Network

Format = Literal["onnx", "torch"]
NEEDS = {"onnx": ("onnx", "onnxruntime", "onnxscript"), "torch": ()}
SUFFIX = {"onnx": "onnx", "torch": "pt2"}
RULE, RUNNER = "detector.json", "detect.py"
EXAMPLE = 3  # multiples of the divisor: a side that no kernel takes for a special case


def possible(kind: Format, detector: Network, folder: Path) -> None:
    """Raise `Invalid` if what is needed is not installed, the detector is not known, or the folder is somebody's."""
    missing = [name for name in NEEDS[kind] if find_spec(name) is None]
    if missing:
        raise Invalid(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed here, which {kind} needs: "
            f"pip install {' '.join(missing)}"
        )
    if type(detector).__name__ not in RULES:
        raise Invalid(
            f"it is not known how a {type(detector).__name__} is decoded elsewhere: one of {', '.join(RULES)}"
        )
    if any(type(module).__name__ == "Swin" for module in detector.backbone.modules()):
        raise Invalid("Swin's windows depend on an image's size, so that there is no graph for images of any size")
    if folder.exists() and not (folder.is_dir() and ((folder / RULE).is_file() or not any(folder.iterdir()))):
        raise Invalid(f"{folder} is there and holds something else; name an empty folder", ("--out",))


def save(
    detector: Network, folder: Path, *, classes: Sequence[str], resize: Resize | None = None, kind: Format = "onnx"
) -> list[Path]:
    """Write the files of a detector on the CPU, for images prepared as its measuring prepared them; -> these files.

    `classes` are the names by label. Raises `Invalid` as `possible` does.
    """
    possible(kind, detector, folder)
    detector = detector.eval().requires_grad_(False)
    divisor = build.divisor(detector)
    side = EXAMPLE * divisor
    programs = [graph(detector, (side, side), multiple=divisor)]
    if hasattr(detector, "second_network"):
        programs.append(second_graph(detector))
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{name}.{SUFFIX[kind]}" for name in ("model", "second")[: len(programs)]]
    for name, program in zip(names, programs, strict=True):
        atomic.write(folder / name, partial(_write, program, kind))
    rule = {
        "graphs": names,
        "outputs": _outputs(detector, side),
        "classes": list(classes),
        "resize": [lengths(resize.largest.short)[1], resize.long] if resize else None,
        "divisor": divisor,
        "padding": list(COLOUR),
        **decoding(detector),
    }
    text = json.dumps(rule, indent=1)
    atomic.write(folder / RULE, lambda file: file.write_text(text, encoding="utf-8"))
    atomic.write(folder / RUNNER, lambda file: shutil.copy(export_runner.__file__, file))
    return [folder / name for name in (*names, RULE, RUNNER)]


@torch.no_grad()
def _outputs(detector: Network, side: int) -> dict[str, list[int]]:
    """The numbers of the graph's outputs by what they are, level by level."""
    found: dict[str, list[int]] = {}
    count = 0
    for name, levels in parts(detector, detector(torch.zeros(1, 3, side, side))).items():
        found[name] = list(range(count, count + len(levels)))
        count += len(levels)
    return found


def _write(program: ExportedProgram, kind: Format, file: Path) -> None:
    if kind == "torch":
        with file.open("wb") as stream:
            torch.export.save(program, stream)
        return
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # it tells of its progress
        warnings.simplefilter("ignore")
        made: Any = torch.onnx.export(program, dynamo=True, verbose=False)
        file.write_bytes(made.model_proto.SerializeToString())
