"""The best student in MLflow's model registry, complete: its weights, its description and our code."""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, NamedTuple

import trainers
from orchestrator.board import Row
from orchestrator.connection import LoggedModel, MlflowClient, ModelVersion, connect, talking
from orchestrator.masking import public
from trainers.call import Invalid

SERVED = Path(__file__).with_name("served.py")
NEEDS = ("mlflow", "numpy", "pillow", "pydantic", "pycocotools", "safetensors", "torch", "torchvision")


ADDRESS = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/([0-9]+))")
CATEGORIES = "categories.json"
UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # MLflow's codes for a name, an alias or a version
SHOWN = 20  # names of one kind in a message


class Version(NamedTuple):
    """A registered student, here for a while."""

    name: str
    stage: Path  # as JSON
    weights: Path
    categories: list[dict[str, Any]]  # `id` and `name` in its data, by label; none of older versions
    card: str


def register(
    client: MlflowClient,
    name: str,
    row: Row,
    weights: Path,
    model: LoggedModel,
    *,
    card: str = "",
    categories: Sequence[int] = (),
) -> str:
    """Have this checkpoint under this name with the alias `best`, uploaded if need be; -> its version.

    `card` describes it, in Markdown; `categories` are the ids that its data has for its classes.
    """
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, tags={"made_by": "tapath"})
    versions = client.search_model_versions(f"name = '{name}'")
    mine = [v for v in versions if (v.tags.get("key"), v.tags.get("sha256")) == (row.key, row.sha256)]
    version = mine[0] if mine else _upload(client, name, row, weights, model, categories)
    if card and version.description != public(card):  # what it stands beside may be known since
        client.update_model_version(name, version.version, public(card))
    if "best" not in version.aliases:
        client.set_registered_model_alias(name, "best", version.version)
    return str(version.version)


def version_at(client: MlflowClient, uri: str, address: str) -> ModelVersion:
    """The version at models:/NAME@ALIAS or models:/NAME/VERSION. Raises `Invalid`, with those that there are."""
    parts = ADDRESS.fullmatch(address)
    if parts is None:
        raise Invalid(f"{address} is no address of a registered model; write models:/NAME@best or models:/NAME/1")
    from mlflow.exceptions import MlflowException

    name, alias, number = parts.groups()
    try:
        return client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code not in UNKNOWN:
            raise
        models = {model.name: model for model in client.search_registered_models()}
        if name not in models:
            known = f"registered are {_some(models)}" if models else "none is registered there"
            raise Invalid(f"{address}: MLflow at {public(uri)} has no model {name}; {known}") from None
        numbers = sorted(int(one.version) for one in client.search_model_versions(f"name = '{name}'"))
        known = f"aliases are {_some(models[name].aliases)}; versions are {_some(map(str, numbers))}"
        lacks = f"alias {alias}" if alias else f"version {number}"
        raise Invalid(f"{address}: MLflow at {public(uri)} has {name}, but no {lacks}; {known}") from None


def _some(names: Iterable[str]) -> str:
    """The first of these names, and how many more there are."""
    known = list(names)
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return (", ".join(known[:SHOWN]) or "none") + more


@contextmanager
def fetched(uri: str, address: str) -> Iterator[Version]:
    """The registered student at models:/NAME@ALIAS or models:/NAME/VERSION, while the block lasts. Raises `Invalid`."""
    with tempfile.TemporaryDirectory() as folder:
        with talking(uri):
            client = connect(uri)
            found = version_at(client, uri, address)
            there = client.get_model_version_download_uri(found.name, found.version)
            from mlflow.artifacts import download_artifacts

            artifacts = Path(download_artifacts(there, dst_path=folder, tracking_uri=uri)) / "artifacts"
        stage, weights = artifacts / "stage.json", next(artifacts.glob("*.safetensors"), None)
        if weights is None or not stage.is_file():
            raise Invalid(f"{address} was not registered by tapath: it has no stage.json and no weights")
        categories = artifacts / CATEGORIES
        known = json.loads(categories.read_text(encoding="utf-8")) if categories.is_file() else []
        yield Version(found.name, stage, weights, known, found.description or "")


def described(uri: str, name: str, key: str) -> str:
    """The card of a stage that is registered under this name; empty if there is none."""
    with talking(uri):
        versions = connect(uri).search_model_versions(f"name = '{name}'")
    return next((v.description or "" for v in versions if v.tags.get("key") == key), "")


def versions(version: ModelVersion) -> dict[str, str]:
    """The packages with which a model was trained, as far as its files can be had."""
    from mlflow.artifacts import download_artifacts

    try:
        with tempfile.TemporaryDirectory() as folder:
            file = download_artifacts(artifact_uri=f"{version.source}/requirements.txt", dst_path=folder)
            lines = Path(file).read_text().splitlines()
    except Exception:  # whatever its storage raises; that they are unknown is said
        return {}
    return dict((name, there) for name, _, there in (line.partition("==") for line in lines) if there)


def _upload(
    client: MlflowClient, name: str, row: Row, weights: Path, model: LoggedModel, categories: Sequence[int]
) -> ModelVersion:
    # Imported here: it is slow and warns of itself, and most that track never register.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.pyfunc import save_model

    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder) / "stage.json"
        stage.write_text(row.stage.model_dump_json(indent=1), encoding="utf-8")
        ids = Path(folder) / CATEGORIES
        named = zip(categories, row.stage.data.classes, strict=bool(categories))
        ids.write_text(json.dumps([{"id": id, "name": name} for id, name in named]), encoding="utf-8")
        save_model(
            Path(folder) / "model",
            python_model=str(SERVED),
            artifacts={"weights": str(weights), "stage": str(stage), "categories": str(ids)},
            code_paths=[str(Path(trainers.__file__).parent)],
            # Named here, since MLflow would install and run the model to find out.
            pip_requirements=[f"{package}=={installed(package)}" for package in NEEDS],
        )
        _declare_params(Path(folder) / "model" / "MLmodel")
        client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
    client.set_logged_model_tags(model.model_id, {"mlflow.model.isExternal": "false"})
    return client.create_model_version(
        name,
        model.artifact_location,
        run_id=model.source_run_id,
        model_id=model.model_id,
        tags={
            "key": row.key,
            "path": str(row.path),
            "score": str(row.score),
            "sha256": row.sha256,
            "seed": str(row.seed),
            "uri": public(row.weights),
        },
    )


def _declare_params(file: Path) -> None:
    """Have a saved model's signature name what `served.py` takes beside images: MLflow keeps back what it does not."""
    from mlflow.models import Model
    from mlflow.types import DataType, ParamSchema, ParamSpec

    described = Model.load(str(file))
    assert described.signature is not None, "it follows from the type of what is predicted on"
    described.signature.params = ParamSchema([ParamSpec("as_stored", DataType.boolean, False)])
    described.save(str(file))
