"""What a study starts from: its data set and its published weights, read; or what stands for them unread."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any

from orchestrator.study import Study
from trainers import build, weights
from trainers.call import Invalid
from trainers.outputs import Network
from trainers.published import Source, fetch
from trainers.spec import Data, Weights
from trainers.store import Store


@dataclass(frozen=True)
class Inputs:
    """`dataset` and `contents`, and the published weights of the models that have some, by name.

    `provisional`: nothing was read, so what `contents` and `weights` identify is not what will be trained.
    """

    dataset: Any
    contents: Data
    score: str  # the figure to maximise
    weights: Mapping[str, Weights]
    masks: Mapping[str, str] = field(default_factory=dict)  # their digest, for the models that learn from them
    provisional: bool = False
    files: Mapping[str, File] = field(default_factory=dict)  # of the weights, by their SHA-256
    places: Mapping[str, str] = field(default_factory=dict)  # where the study has them from, and their SHA-256

    def fit(self, given: Weights, shape: Network) -> None:
        """Raise `Invalid` when published weights do not fit a model; nobody knows of those that are not read."""
        if not self.provisional:
            state = weights.read(self.files[given.sha256])
            weights.fitted(state, shape, part=given.part, classes=self.contents.classes)

    def keep(self, store: Store) -> None:
        """Put the published weights into the store, where the workers find them. Raises `Invalid` if it is full."""
        for place, sha256 in self.places.items():
            try:
                store.keep(self.files[sha256], sha256, place)
            except OSError as error:
                size = self.files[sha256].stat().st_size / 2**20
                message = f"{size:.0f} MB of published weights do not go into the store {store.root}"
                raise Invalid(f"{message}: {error.strerror}", ("resources", "store")) from None


def read(study: Study, store: Store) -> Inputs:
    """All of it, downloaded if need be. Raises `Invalid` at ("data", name) or ("models", name, "weights")."""
    try:
        contents, dataset = build.contents(study.data), build.dataset(study.data)
        score = build.score_name(dataset)
    except Invalid as error:
        raise error.under("data", study.data.name) from None
    found, files, places = {}, {}, {}
    for name, source in _sources(study).items():
        try:
            file, sha256 = fetch(source, store)
            found[name] = Weights(sha256=sha256, part=source.part or weights.part(weights.read(file)))
        except Invalid as error:
            raise error.under("models", name, "weights") from None
        files[sha256] = file
        places[source.place] = sha256
    return Inputs(dataset, contents, score, found, _masks(study, dataset, found), files=files, places=places)


def unread(study: Study) -> Inputs:
    """What is known without any file: the classes of a published data set, and which part of a model weights are.

    Raises `Invalid` at ("data", name) or ("models", name, "weights").
    """
    try:
        dataset = build.unread(study.data)
        score = build.metric(dataset).score
    except Invalid as error:
        raise error.under("data", study.data.name) from None
    found = {}
    for name, source in _sources(study).items():
        if source.part is None:
            message = f"unread, {source} may be any part of a model; write part: detector, without_classes or backbone"
            raise Invalid(message, ("models", name, "weights"))
        stand_in = hashlib.sha256(source.file.encode()).hexdigest()
        found[name] = Weights(sha256=stand_in, part=source.part)
    contents = Data(fingerprint=dataset.fingerprint, classes=dataset.classes)
    return Inputs(dataset, contents, score, found, provisional=True)


def _masks(study: Study, dataset: Any, found: Mapping[str, Weights]) -> dict[str, str]:
    """What the models that learn from masks learn from. Raises `Invalid` at ("data", name) for broken masks."""
    root = next(iter(study.models))
    learning = [name for name, one in study.models.items() if build.learns_masks(one.detector)]
    if root in found and found[root].part == "detector":  # it is measured only
        learning = [name for name in learning if name != root]
    try:
        return {name: build.masks(dataset) for name in learning}
    except Invalid as error:
        raise error.under("data", study.data.name) from None


def _sources(study: Study) -> dict[str, Source]:
    return {name: one.weights for name, one in study.models.items() if one.weights is not None}
