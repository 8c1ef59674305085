"""Judge weights that are there: those of a stage in a store, or published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError

from trainers import build, teacher, weights
from trainers.address import at, in_bucket
from trainers.call import Call, Invalid
from trainers.data.split import Split
from trainers.evaluate import find
from trainers.metrics.coco import to_coco
from trainers.outputs import Detections, Network
from trainers.published import Source, fetch
from trainers.result import Result
from trainers.spec import Model, Recipe, Stage
from trainers.store import RESULT, WEIGHTS, Damaged, Store


class Trained(NamedTuple):
    """A detector with its weights."""

    detector: Network
    classes: tuple[str, ...]  # that it finds, by label
    recipe: Recipe  # how it is measured


class Appraisal(NamedTuple):
    """How good a detector is on the validation images of a data set."""

    images: int
    score: str  # which of the figures is to be maximised
    figures: dict[str, float]
    classes: dict[str, dict[str, float]]  # figures of each class, by its name
    results: list[dict[str, Any]]  # what it finds, in COCO's format of results


def judged(call: Call) -> tuple[Any, str]:
    """A data set, and the figure to maximise. Raises `Invalid` when it cannot be read, or there is nothing to judge."""
    data = build.dataset(call)
    return data, build.score_name(data)


def appraise(trained: Trained, call: Call, *, loader_workers: int = 0) -> Appraisal:
    """Look for objects in the validation images of a data set, and judge that by its metric.

    Raises `Invalid` when the detector does not know all its classes; what it finds of others does not count.
    """
    data, score = judged(call)
    unknown = [name for name in data.classes if name not in trained.classes]
    if unknown:
        knows = ", ".join(trained.classes[:20]) + (", ..." if len(trained.classes) > 20 else "")
        raise Invalid(f"these weights do not know the classes {', '.join(unknown[:20])}; they know {knows}")
    found = find(
        trained.detector, data.val, trained.recipe, device=device_of(trained.detector), loader_workers=loader_workers
    )
    if trained.classes != data.classes:
        found = {image: of_classes(one, trained.classes, data.classes) for image, one in found.items()}
    figures, classes = split_up(build.metric(data)(data.val, found, per_class=True), data.val)
    return Appraisal(len(data.val), score, figures, classes, to_coco(data.val, found))


def of_stage(place: Path | str) -> Trained | None:
    """The detector of a stage in a store; None when there is none. `place` is its folder, or the file of its weights:
    a path, or an address in a bucket.

    Raises `Invalid` when they are damaged, or the bucket cannot be used.
    """
    folder = _folder(place)
    at(folder).reachable()
    try:
        result = Result.model_validate_json(at(folder).read(RESULT))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise Invalid(f"{folder}/{RESULT} cannot be read as the result of a stage") from None
    root, _, key = at(folder).address.rpartition("/")
    other = Path(place) != Path(folder) and Path(place).name != WEIGHTS
    if other or key != result.key:
        raise Invalid(f"{place} is not where a store has the stage {result.key}; name the folder {result.key}")
    try:
        detector = teacher.restore(Store(root), result, device=here())
    except Damaged as error:
        raise Invalid(str(error)) from None
    return Trained(detector, result.stage.data.classes, result.stage.recipe.measuring())


def of_record(stage: Path, file: Path) -> Trained:
    """The detector of a stage from what it was, as JSON, and the file of its weights: as a registry keeps both.

    Raises `Invalid`.
    """
    try:
        known = Stage.model_validate_json(stage.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        raise Invalid(f"{stage.name} cannot be read as a stage") from None
    detector = build.trained(known, weights.read(file), device=here())
    return Trained(detector, known.data.classes, known.recipe.measuring())


def _folder(place: Path | str) -> Path | str:
    """Of what may be a file in it."""
    if in_bucket(place):
        return str(place).removesuffix(f"/{WEIGHTS}").rstrip("/")
    return Path(place) if Path(place).is_dir() else Path(place).parent


def of_file(source: str, model: Model, call: Call) -> Trained:
    """A model with all its weights from a path or a URL, for the classes of a data set. Raises `Invalid`."""
    classes = build.dataset(call).classes
    file, _ = fetch(Source(file=source))
    if weights.part(weights.read(file)) != "detector":
        raise Invalid(f"{source} has the weights of a classifier; a detector has more")
    build.shape(model, len(classes))
    detector = build.network(model, len(classes))
    weights.load(file, detector, classes=classes)
    return Trained(detector.to(here()).eval().requires_grad_(False), classes, Recipe())


def of_classes(found: Detections, known: tuple[str, ...], wanted: tuple[str, ...]) -> Detections:
    """The detections of these classes, under their labels."""
    table = torch.tensor([wanted.index(name) if name in wanted else -1 for name in known])
    labels = table[found.labels]
    kept = labels >= 0
    return Detections(found.boxes[kept], found.scores[kept], labels[kept])


def split_up(figures: dict[str, float], split: Split) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Figures of all classes, and those of each class by its name."""
    whole = {name: value for name, value in figures.items() if "/" not in name}
    classes: dict[str, dict[str, float]] = {}
    for name in split.classes:
        own = {figure: figures[f"{figure}/{name}"] for figure in whole if f"{figure}/{name}" in figures}
        if own:
            classes[name] = own
    return whole, classes


def here() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_of(detector: Network) -> torch.device:
    device: torch.device = next(detector.parameters()).device
    return device
