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
from PIL import Image
from safetensors.torch import load_file

from trainers import build
from trainers.call import Invalid
from trainers.data.images import FORMATS, read_image
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
        """
        with tempfile.TemporaryDirectory() as folder:
            images = [picture(text, Path(folder)) for text in model_input]
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


def picture(text: str, folder: Path) -> torch.Tensor:
    """The image at a path, or in base64 with or without `data:...;base64,` before it. -> (3, H, W) uint8."""
    file = Path(text)
    if text.startswith("data:") or not os.path.isfile(text):  # Path's own raises where text is too long for a name
        try:
            content = base64.b64decode(text.partition("base64,")[2] or text, validate=True)
        except binascii.Error:
            raise Invalid(f"{text[:80]} is neither the path of an image nor one in base64") from None
        file = folder / "image"
        file.write_bytes(content)
    try:
        with Image.open(file, formats=FORMATS) as image:
            size = image.size
    except (OSError, Image.DecompressionBombError) as error:
        raise Invalid(f"cannot read the image {text[:80]}: {error}") from None
    return read_image(file, size=size)


set_model(Student())
