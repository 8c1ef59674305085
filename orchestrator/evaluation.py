"""`tapath evaluate`: what was said on the command line, the detector that is meant, and how good it is."""

from __future__ import annotations

import json
import os
from pathlib import Path as File
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from orchestrator.study import Study, load
from orchestrator.words import plain, rows
from orchestrator.yamlfile import parse
from trainers import backbones, detectors
from trainers import data as datasets
from trainers.address import in_bucket
from trainers.appraisal import Trained, appraise, judged, of_file, of_stage
from trainers.call import Call, Invalid, alternatives, explain
from trainers.spec import Model, Recipe

MEASURING = ("batch", "precision", "resize")  # what of a recipe makes a difference


def evaluate(
    weights: str,
    *,
    data: str,
    metric: str | None = None,
    model: str | None = None,
    recipe: str | None = None,
    loader_workers: int = 0,
) -> dict[str, Any]:
    """How good weights are on a data set, as plain data; `results` is what they find, in COCO's format.

    All but the weights are YAML as in a study; `data` may also be a study's file. Raises `Invalid`.
    """
    call = dataset(data, metric)
    trained = detector(weights, model, call)
    study = studied(data)
    if model is not None and study is not None:  # weights of no stage say nothing of how they look at images
        trained = trained._replace(recipe=study.recipe.measuring())
    if recipe is not None:
        trained = trained._replace(recipe=changed(trained.recipe, recipe))
    made = appraise(trained, call, loader_workers=loader_workers)
    return {"weights": weights, "data": str(call), **made._asdict()}


def dataset(text: str, metric: str | None) -> Call:
    """The data set that is meant, judged by another metric if one is named."""
    study = studied(text)
    call = study.data if study else named(text, datasets, "--data")
    if metric is not None:
        judge = named(metric, None, "--metric")
        try:
            call = call.model_copy(update={"args": {**call.args, "metric": judge.model_dump()}}).complete(datasets)
        except Invalid as error:
            raise Invalid(str(error), ("--metric", *error.where[2:])) from None
    try:
        judged(call)
    except Invalid as error:
        raise error.under("--data", call.name) from None
    return call


def studied(text: str) -> Study | None:
    """The study that `--data` is a file of, if it is one."""
    return load(File(text)) if os.path.isfile(text) else None  # where YAML is too long for a name, Path's own raises


def named(text: str, package: ModuleType | None, option: str) -> Call:
    """The call that an option says, complete if it is known what offers it."""
    tree = parse(text, option, numbered=False).tree
    try:
        call = Call.model_validate(tree)
        return call if package is None else call.complete(package)
    except ValidationError as error:
        raise Invalid(explain(error), (option,)) from None
    except Invalid as error:
        raise error.under(option) from None


def detector(weights: str, model: str | None, call: Call | None) -> Trained:
    """The detector that is meant: of a stage, or of a file when it is said what model that is of, for which data."""
    if model is not None:
        assert call is not None, "a file of weights does not say which classes it knows"
        return of_file(weights, modelled(model), call)
    place = weights if in_bucket(weights) else File(weights).expanduser()
    if isinstance(place, File) and not os.path.exists(place):
        raise Invalid(f"there is no file or folder {weights} (from {File.cwd()})")
    trained = of_stage(place)
    if trained is None:
        example = "--model '{detector: GFL, backbone: {ResNet: {depth: 50}}}'"
        raise Invalid(f"{weights} has no result.json, so it is no stage of a store; say what it is of: {example}")
    return trained


def modelled(text: str) -> Model:
    """The model that `--model` says."""
    tree = parse(text, "--model", numbered=False).tree
    parts: dict[str, ModuleType] = {"detector": detectors, "backbone": backbones}
    if not isinstance(tree, dict) or set(tree) != set(parts):
        raise Invalid("write {detector: ..., backbone: ...}, as a study lists a model", ("--model",))
    calls = {}
    for part, package in parts.items():
        try:
            calls[part] = Call.model_validate(tree[part]).complete(package)
        except ValidationError as error:
            raise Invalid(explain(error), ("--model", part)) from None
        except Invalid as error:
            raise error.under("--model", part) from None
    return Model(**calls)


def changed(recipe: Recipe, text: str) -> Recipe:
    """The recipe with what `--recipe` says instead."""
    tree = parse(text, "--recipe", numbered=False).tree
    if not isinstance(tree, dict):
        raise Invalid("write a mapping, as in {batch: 4, resize: [800, 1333]}", ("--recipe",))
    for key in tree:
        if key not in MEASURING:
            raise Invalid(f"nothing is trained here: {alternatives(key, MEASURING)}", ("--recipe",))
    whole = {**json.loads(recipe.model_dump_json()), **tree}
    try:
        return Recipe.model_validate_json(json.dumps(whole), strict=True)
    except ValidationError as error:
        raise Invalid(explain(error), ("--recipe", *error.errors()[0]["loc"][:1])) from None


def text(made: dict[str, Any]) -> str:
    """As a table; figures of classes below."""
    lines = [f"{made['weights']} on {made['data']}, {made['images']} images"]
    lines += rows(
        [[name, f"{value:.4f}", "score" if name == made["score"] else ""] for name, value in made["figures"].items()]
    )
    if made["classes"]:
        heads = list(dict.fromkeys(head for own in made["classes"].values() for head in own))
        figures = {name: [f"{own[h]:.4f}" if h in own else "" for h in heads] for name, own in made["classes"].items()}
        table = [[plain(name), *own] for name, own in figures.items()]
        lines += ["", *rows([["class", *heads], *table])]
    return "\n".join(lines)
