"""The student as MLflow serves it: a copy of this file, run beside the weights. Nothing is unpickled."""

from __future__ import annotations

import base64
import binascii
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import torch
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from safetensors.torch import load_file

from trainers import build
from trainers.call import Invalid
from trainers.data.images import read_photo
from trainers.outputs import Detections
from trainers.predict import predict
from trainers.spec import Stage


class Answer(TypedDict):
    """What is found in one image, best first."""

    boxes: list[list[float]]  # x1, y1, x2, y2 in pixels of that image
    scores: list[float]  # 0..1
    labels: list[int]  # 0..K-1
    classes: list[str]  # their names


class Student(PythonModel):
    """Images in, detections out."""

    def load_context(self, context: Any) -> None:
        self.stage = Stage.model_validate_json(Path(context.artifacts["stage"]).read_text(encoding="utf-8"))
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.detector = build.detector(self.stage)
        self.detector.load_state_dict(load_file(context.artifacts["weights"]))
        self.detector.to(self.device)

    def predict(self, context: Any, model_input: list[str], params: dict[str, Any] | None = None) -> list[Answer]:
        """What is found in each image.

        model_input: paths of images, or images in base64. MLflow also makes a list of a table with one column.
        params: `as_stored` for pixels as they are stored; else images are turned as their cameras noted.
        """
        as_stored = bool((params or {}).get("as_stored"))
        with tempfile.TemporaryDirectory() as folder:
            images = [picture(text, Path(folder), as_stored=as_stored) for text in model_input]
        stage = self.stage
        look = partial(predict, self.detector, classes=stage.data.classes, recipe=stage.recipe, device=self.device)
        return [self.answer(look(image)) for image in images]

    def answer(self, found: Detections) -> Answer:
        labels = found.labels.tolist()
        return {
            "boxes": found.boxes.tolist(),
            "scores": found.scores.tolist(),
            "labels": labels,
            "classes": [self.stage.data.classes[label] for label in labels],
        }


def picture(text: str, folder: Path, *, as_stored: bool = False) -> torch.Tensor:
    """The image at a path, or in base64 with or without `data:...;base64,` before it. -> (3, H, W) uint8.

    `as_stored`: not turned as its camera noted.
    """
    file = Path(text)
    if text.startswith("data:") or not os.path.isfile(text):  # Path's own raises where text is too long for a name
        try:
            content = base64.b64decode(text.partition("base64,")[2] or text, validate=True)
        except binascii.Error:
            raise Invalid(f"{text[:80]} is neither the path of an image nor one in base64") from None
        file = folder / "image"
        file.write_bytes(content)
    return read_photo(file, as_stored=as_stored, source=text[:80])


set_model(Student())
