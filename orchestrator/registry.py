"""The best student in MLflow's model registry, complete: its weights, its description and our code."""

from __future__ import annotations

import tempfile
import warnings
from importlib.metadata import version as installed
from pathlib import Path

import trainers
from orchestrator import facts
from orchestrator.board import Row
from orchestrator.connection import LoggedModel, MlflowClient, ModelVersion

SERVED = Path(__file__).with_name("served.py")
NEEDS = ("mlflow", "numpy", "pillow", "pydantic", "pycocotools", "safetensors", "torch", "torchvision")


def register(client: MlflowClient, name: str, row: Row, weights: Path, model: LoggedModel) -> str:
    """Have this checkpoint under this name with the alias `best`, uploaded if need be; -> its version."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, tags={"made_by": "tapath"})
    versions = client.search_model_versions(f"name = '{name}'")
    mine = [v for v in versions if (v.tags.get("key"), v.tags.get("sha256")) == (row.key, row.sha256)]
    version = mine[0] if mine else _upload(client, name, row, weights, model)
    if "best" not in version.aliases:
        client.set_registered_model_alias(name, "best", version.version)
    return str(version.version)


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


def _upload(client: MlflowClient, name: str, row: Row, weights: Path, model: LoggedModel) -> ModelVersion:
    # Imported here: it is slow and warns of itself, and most that track never register.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.pyfunc import save_model

    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder) / "stage.json"
        stage.write_text(row.stage.model_dump_json(indent=1), encoding="utf-8")
        save_model(
            Path(folder) / "model",
            python_model=str(SERVED),
            artifacts={"weights": str(weights), "stage": str(stage)},
            code_paths=[str(Path(trainers.__file__).parent)],
            # Named here, since MLflow would install and run the model to find out.
            pip_requirements=[f"{package}=={installed(package)}" for package in NEEDS],
        )
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
            "uri": facts.public(row.weights),
        },
    )
