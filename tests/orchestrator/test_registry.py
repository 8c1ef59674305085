"""The best student is one `mlflow.pyfunc.load_model` away."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as File
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from orchestrator.board import Row
from orchestrator.connection import connect
from orchestrator.lattice import Path
from orchestrator.registry import fetched
from orchestrator.tracking import Tracking
from tests.trainers.data.folders import turned
from trainers import backbones, build, detectors
from trainers.atomic import digest
from trainers.call import Call, Invalid
from trainers.data.split import Split
from trainers.evaluate import find
from trainers.spec import Data, Model, Recipe, Stage

torch.set_num_threads(1)


def student(seed: int = 0) -> Stage:
    return Stage(
        model=Model(
            detector=Call(name="GFL").complete(detectors), backbone=Call(name="TinyResNet").complete(backbones)
        ),
        data=Data(fingerprint="abc", classes=("cat", "dog")),
        recipe=Recipe(epochs=1, resize=(48, 96)),
        seed=seed,
    )


def sees_things(seed: int) -> nn.Module:
    """A detector without training that is sure to find something."""
    torch.manual_seed(seed)
    detector = build.detector(student(seed))
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if "cls" in name and name.endswith("bias"):
                parameter += 4.0
    return detector


def load(uri: str, name: str) -> Any:
    import mlflow  # not before ours, which tells it to be quiet

    mlflow.set_tracking_uri(uri)
    return mlflow.pyfunc.load_model(f"models:/{name}@best")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def tracking(uri: str, request: pytest.FixtureRequest) -> Iterator[Tracking]:
    opened = Tracking(uri, request.node.name)
    opened.start({}, {})
    yield opened
    opened.close("FINISHED")


def trained(folder: File, seed: int = 0) -> tuple[Row, File]:
    weights = folder / f"{seed}.safetensors"
    save_file(sees_things(seed).state_dict(), weights)
    row = Row(student(seed), Path(("r18",)), seed, "alone", "done", 0.5, [{"epoch": 1.0, "val/AP": 0.5}])
    return replace(row, weights="s3://me:secret@bucket/weights", sha256=digest(weights)), weights


def picture(file: File) -> Tensor:
    """A landscape in colours, stored without loss. -> (3, H, W)"""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def test_the_served_student_finds_what_validation_finds_in_any_kind_of_input(
    tracking: Tracking, tmp_path: File
) -> None:
    row, weights = trained(tmp_path)
    tracking.update(row)
    assert tracking.register("demo", row, weights) == "1"

    file = tmp_path / "image.png"
    image = picture(file)
    coco = {"images": [{"id": 7, "height": 50, "width": 70}], "annotations": [], "categories": []}
    split = Split(coco, row.stage.data.classes, lambda index: image)
    expected = find(sees_things(0), split, row.stage.recipe, device=torch.device("cpu"))[7]
    assert len(expected.boxes)

    served = load(tracking.uri, "demo")
    text = base64.b64encode(file.read_bytes()).decode()
    for given in ([str(file)], [text], [f"data:image/png;base64,{text}"], pd.DataFrame({"image": [str(file)]})):
        (found,) = served.predict(given)
        np.testing.assert_allclose(found["boxes"], expected.boxes, atol=1e-3)
        np.testing.assert_allclose(found["scores"], expected.scores, atol=1e-5)
        assert found["labels"] == expected.labels.tolist()
        assert found["classes"] == [("cat", "dog")[label] for label in found["labels"]]
    assert len(served.predict([str(file), text])) == 2
    (tmp_path / "broken.png").write_bytes(file.read_bytes()[:100])
    for wrong in ("no such file.png", str(tmp_path / "broken.png")):
        with pytest.raises(Invalid, match="image"):
            served.predict([wrong])


def test_the_served_student_sees_a_photograph_upright_or_as_it_is_stored(tracking: Tracking, tmp_path: File) -> None:
    row, weights = trained(tmp_path)
    tracking.update(row)
    tracking.register("upright", row, weights)
    stored = picture(tmp_path / "stored.png")
    Image.fromarray(stored.permute(1, 2, 0).numpy()).save(tmp_path / "turned.png", exif=turned(6))
    upright = stored.rot90(-1, (1, 2))
    Image.fromarray(upright.permute(1, 2, 0).numpy()).save(tmp_path / "upright.png")

    served = load(tracking.uri, "upright")
    files = {name: [str(tmp_path / f"{name}.png")] for name in ("stored", "turned", "upright")}
    assert served.predict(files["turned"]) == served.predict(files["upright"]) != served.predict(files["stored"])
    assert served.predict(files["turned"], params={"as_stored": True}) == served.predict(files["stored"])
    assert served.predict(files["upright"], params={"as_stored": False}) == served.predict(files["upright"])


@pytest.mark.parametrize(("kind", "side"), [("png", 1), ("png", 300), ("bmp", 40), ("ppm", 40)])
def test_an_image_whose_base64_is_short_is_taken_for_no_name_of_a_file(kind: str, side: int, tmp_path: File) -> None:
    """Longer than a file's name may be, shorter than a path: flat images and tiny ones."""
    from orchestrator.served import picture as served_picture

    file = tmp_path / f"x.{kind}"
    Image.new("L", (side, side), 70).save(file)
    text = base64.b64encode(file.read_bytes()).decode()
    assert len(text) < 4096 and (kind == "png" or len(text.partition("/")[0]) > 255)
    assert served_picture(text, tmp_path).unique().tolist() == [70]
    with pytest.raises(Invalid, match="neither the path of an image nor one in base64"):
        served_picture("no-such-file" * 30 + ".png", tmp_path)


def versions(tracking: Tracking, name: str) -> list[Any]:
    return list(tracking.client.search_model_versions(f"name = '{name}'"))


def test_only_a_new_best_is_a_new_version_and_the_alias_follows_the_best(tracking: Tracking, tmp_path: File) -> None:
    (first, one), (second, two) = trained(tmp_path), trained(tmp_path, seed=1)
    tracking.update(first)
    tracking.update(second)
    assert [tracking.register("study", first, one) for _ in range(2)] == ["1", "1"]
    assert tracking.register("study", second, two) == "2"
    assert tracking.client.get_model_version_by_alias("study", "best").version == 2
    assert tracking.register("study", first, one) == "1"
    assert tracking.client.get_model_version_by_alias("study", "best").version == 1
    assert len(versions(tracking, "study")) == 2
    again = replace(first, sha256="0" * 64)  # trained anew after the stored weights were damaged
    assert tracking.register("study", again, one) == "3"
    tags = versions(tracking, "study")[0].tags
    assert tags["key"] == first.key and tags["path"] == "r18" and tags["score"] == "0.5"
    assert tags["uri"] == "s3://bucket/weights"


def test_nothing_is_pickled(tracking: Tracking, tmp_path: File) -> None:
    row, weights = trained(tmp_path)
    tracking.update(row)
    tracking.register("plain", row, weights)
    folder = File(url2pathname(urlsplit(versions(tracking, "plain")[0].source).path))
    names = {file.name for file in folder.rglob("*") if file.is_file()}
    assert {"MLmodel", "served.py", "stage.json", "0.safetensors", "requirements.txt"} <= names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".bin"))]
    assert "secret" not in "".join(file.read_text() for file in folder.rglob("*.json"))


def test_a_registry_that_fails_costs_a_warning_and_not_the_study(
    tracking: Tracking, tmp_path: File, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    row, weights = trained(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert tracking.register("late", row, weights, patience=0.1) is None  # MLflow never heard of it
        tracking.update(row)
        monkeypatch.setattr(tracking.client, "search_registered_models", lambda *_: 1 / 0)
        assert tracking.register("late", row, weights) is None
    assert caplog.text.count("late is not registered") == 2


def test_a_name_an_alias_or_a_version_that_is_not_there_is_refused_with_those_that_are(tmp_path: File) -> None:
    uri = f"sqlite:///{tmp_path / 'own.db'}"
    client = connect(uri, create=True)
    client.create_registered_model("demo")
    client.create_model_version("demo", str(tmp_path))
    client.set_registered_model_alias("demo", "best", "1")
    for address, said in {
        "models:/demi@best": "has no model demi; registered are demo",
        "models:/demo@champion": "has demo, but no alias champion; aliases are best; versions are 1",
        "models:/demo/7": "has demo, but no version 7; aliases are best; versions are 1",
    }.items():
        with pytest.raises(Invalid, match=said) as refused, fetched(uri, address):
            pass
        assert "cannot be used" not in str(refused.value)
