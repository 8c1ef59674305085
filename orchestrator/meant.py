"""The trained detector that a command is about: of a study its best student, of MLflow's registry, or of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path as File
from typing import Any, NamedTuple

from orchestrator import evaluation
from orchestrator.asked import of_loaded
from orchestrator.card import REGISTERED
from orchestrator.facts import entity
from orchestrator.ranking import Found
from orchestrator.resources import Resources
from orchestrator.study import Study, load
from orchestrator.yamlfile import YAML
from trainers.appraisal import Trained, judged, of_record, of_stage
from trainers.call import Call, Invalid


class Meant(NamedTuple):
    """A detector, and what is known of it."""

    name: str  # for people, and for folders
    trained: Trained
    categories: list[dict[str, Any]]  # `id` and `name` by label
    own_ids: bool  # whether these ids are those of its data
    card: Callable[[], str]  # Markdown; empty if there is none


def meant(
    text: str,
    *,
    model: str | None = None,
    data: str | None = None,
    student: str | None = None,
    tracking: str | None = None,
    sets: Sequence[str] = (),
) -> Meant:
    """STUDY, WEIGHTS or models:/NAME@best, as people name it; the other words are what they may add.

    sets: what is changed of a study. Raises `Invalid`.
    """
    if sets and File(text).suffix not in YAML:
        raise Invalid("--store and --set change a study, and here none is named")
    if text.startswith(REGISTERED):
        only(("--model", model), ("--student", student))
        return _registered(text, data, tracking or Resources().tracking_uri)
    if File(text).suffix in YAML:
        only(("--model", model), ("--data", data))
        return _best(load(File(text), sets), student, tracking)
    only(("--student", student), ("--tracking", tracking))
    if model is not None and data is None:
        raise Invalid("a published file does not say which classes it knows: name the data", ("--data",))
    call = evaluation.dataset(data, None) if data else None
    trained = evaluation.detector(text, model, call)
    name = File(text).name if File(text).suffix == "" else File(text).parent.name if model is None else File(text).stem
    return Meant(name, trained, *_categories(trained, call), card=lambda: "")


def only(*said: tuple[str, object]) -> None:
    """Refuse options that say nothing of what is named, if they are given. Raises `Invalid`."""
    for option, value in said:
        if value is not None:
            raise Invalid(f"{option} says nothing of what is named here", (option,))


def _best(study: Study, student: str | None, tracking: str | None) -> Meant:
    """The best student of a study, of its seeds the best, as MLflow knows it and the store has it."""
    asked = of_loaded(study, tracking)
    found = asked.paths(student=student)
    several = asked.each(found)
    if several and student is None:
        raise Invalid(f"{study.name} has several students: {', '.join(several)}; name one", ("--student",))
    one = found[0]
    key = one.keys[_seed(one)]
    trained = of_stage(f"{study.resources.store}/{key}")
    if trained is None:
        raise Invalid(
            f"the store {study.resources.store} has no stage {key}, which {one.path} is; name the store of the run "
            f"with --store, or the folder of the stage, or models:/{entity(study.name)}@best"
        )
    name = study.name + (f"-{one.student}" if len(study.students) > 1 else "")
    card = partial(_card, study, key, name, asked.uri)
    return Meant(entity(name), trained, *_categories(trained, study.data), card=card)


def _card(study: Study, key: str, name: str, uri: str) -> str:
    """Of a stage of a study: what MLflow says of it, or what the store does, as only who was taught is registered."""
    from orchestrator import registry, unregistered  # bring MLflow and Ray

    return registry.described(uri, entity(name), key) or unregistered.described(study, key, name=name)


def _seed(found: Found) -> int:
    """The best of a path's."""
    known = {seed: score for seed, score in found.scores.items() if math.isfinite(score)}
    return max(known, key=lambda seed: known[seed])


def _registered(address: str, data: str | None, uri: str) -> Meant:
    from orchestrator.registry import fetched

    with fetched(uri, address) as version:
        trained = of_record(version.stage, version.weights)
    if data is None and len(version.categories) == len(trained.classes):
        return Meant(version.name, trained, version.categories, True, lambda: version.card)
    call = evaluation.dataset(data, None) if data else None
    return Meant(version.name, trained, *_categories(trained, call), card=lambda: version.card)


def _categories(trained: Trained, data: Call | None) -> tuple[list[dict[str, Any]], bool]:
    """The ids that a data set has for the classes of a detector, and others after them for those that it does not have;
    without a data set they count from 1."""
    ids: dict[str, int] = {}
    if data is not None:
        known, _ = judged(data)
        ids = dict(zip(known.classes, known.val.categories, strict=True))
    for name in trained.classes:
        ids.setdefault(name, max(ids.values(), default=0) + 1)
    return [{"id": ids[name], "name": name} for name in trained.classes], data is not None
