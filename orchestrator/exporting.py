"""`tapath export`: the files of a detector that runs elsewhere, with its card."""

from __future__ import annotations

import shlex
from pathlib import Path as File
from typing import Any, Literal

from orchestrator.meant import Meant
from trainers import export_files
from trainers.outputs import Network

CARD = "README.md"


def export(meant: Meant, out: File, *, kind: Literal["onnx", "torch"]) -> dict[str, Any]:
    """Write the files of a detector; -> what they are, as plain data. Raises `Invalid`."""
    trained = meant.trained
    detector: Network = trained.detector.cpu()
    files = export_files.save(detector, out, classes=trained.classes, resize=trained.recipe.resize, kind=kind)
    if card := meant.card():
        (out / CARD).write_text(card + "\n", encoding="utf-8")
        files.append(out / CARD)
    return {"detector": meant.name, "format": kind, "files": [str(file) for file in files]}


def text(made: dict[str, Any]) -> str:
    """The files, and what to type."""
    runner = shlex.quote(next(file for file in made["files"] if file.endswith(export_files.RUNNER)))
    needs = "numpy and onnxruntime" if made["format"] == "onnx" else "numpy, torch and torchvision"
    said = f"python {runner} IMAGE ...  finds objects, with {needs}, Pillow to read the files, and nothing else"
    lines = [*made["files"], said]
    if not any(File(file).name == CARD for file in made["files"]):
        lines.append(f"no {CARD}, the card: it goes with a study or models:/NAME@best, not with weights alone")
    return "\n".join(lines)
