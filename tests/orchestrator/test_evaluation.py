"""`tapath evaluate` says of a stage and of a published file what pycocotools says of what it saves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path as File
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors.torch import save_file

from orchestrator.cli import main
from orchestrator.evaluation import text as table
from tests.trainers.kept import weights_file
from tests.trainers.stages import DIGITS, stage
from tests.trainers.works import run as train
from trainers import build, data
from trainers.call import Call
from trainers.data.digits import write
from trainers.store import Store

ONE = stage(epochs=3, lr=0.1)
MODEL = json.dumps(ONE.model.model_dump(mode="json", exclude={"weights"}))
MORE = {**DIGITS.args, "val": 40}
WHERE = json.dumps({"Digits": MORE})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> File:
    """A store with one stage, the same weights in a file elsewhere, and the data as a COCO folder."""
    folder = tmp_path_factory.mktemp("evaluated")
    train(ONE, folder / "store")
    shutil.copy(weights_file(Store(folder / "store"), ONE.key), folder / "published.safetensors")
    write(Call(name="Digits", args=MORE).complete(data).of(data), folder / "digits")
    return folder


def run(*words: object) -> Result:
    ended = CliRunner().invoke(main, ["evaluate", *map(str, words)])
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended


def judged(*words: object) -> dict[str, Any]:
    ended = run(*words, "--json")
    assert ended.exit_code == 0, ended.output
    made: dict[str, Any] = json.loads(ended.stdout)
    return made


def by_hand(truth: File, results: File) -> dict[str, float]:
    """By pycocotools, as its manual says."""
    there = COCO(str(truth))
    evaluation = COCOeval(there, there.loadRes(str(results)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    return {name: value for name, value in zip(names, evaluation.stats, strict=False) if value > -1}


def test_pycocotools_says_the_same_of_what_is_saved(folder: File, tmp_path: File) -> None:
    saved = tmp_path / "detections.json"
    where = json.dumps({"COCO": digits(folder)})
    made = judged(folder / "store" / ONE.key, "--data", where, "--save", saved)
    assert made["figures"]["AP"] > 0.001 and made["score"] == "AP" and made["images"] == 40
    judge = by_hand(folder / "digits" / "annotations" / "instances_val2017.json", saved)
    assert made["figures"] == pytest.approx(judge, abs=1e-9)
    mean = sum(own["AP"] for own in made["classes"].values()) / len(made["classes"])
    assert set(made["classes"]) == {"zero", "one"} and made["figures"]["AP"] == pytest.approx(mean)


def digits(folder: File) -> dict[str, Any]:
    """The digits as `tapath data digits` lays them out."""
    root = folder / "digits"
    assert (root / "annotations" / "instances_val2017.json").is_file(), sorted(root.rglob("*.json"))
    return {"root": str(root)}


def test_a_stage_has_the_figures_of_its_record_by_its_folder_or_its_file(folder: File) -> None:
    result = Store(folder / "store").get(ONE)
    assert result is not None
    place = folder / "store" / ONE.key
    for weights in (place, place / "weights.safetensors"):
        made = judged(weights, "--data", json.dumps(DIGITS.model_dump(mode="json")))
        assert {f"val/{name}": value for name, value in made["figures"].items()} == result.metrics


def test_a_published_file_is_judged_as_the_model_that_is_named(folder: File) -> None:
    stored = judged(folder / "store" / ONE.key, "--data", WHERE, "--recipe", "{batch: 16}")
    made = judged(folder / "published.safetensors", "--data", WHERE, "--model", MODEL)
    assert made["figures"] == stored["figures"]


def test_the_table_has_every_figure_and_every_class(folder: File) -> None:
    ended = run(folder / "store" / ONE.key, "--data", WHERE)
    assert ended.exit_code == 0, ended.output
    lines = ended.stdout.splitlines()
    assert "40 images" in lines[0]
    assert [line.split()[0] for line in lines[1:] if line][:3] == ["AP", "APs", "AP50"] and lines[1].endswith("score")
    assert any(line.split() == ["class", "AP", "AP50"] for line in lines)
    assert {"zero", "one"} <= {line.split()[0] for line in lines if line}


def test_another_metric_may_judge(folder: File) -> None:
    place = folder / "store" / ONE.key
    made = judged(place, "--data", WHERE, "--metric", "{VocAP: {score: AP50}}")
    assert made["score"] == "AP50" and {"AP", "AP50", "AP50_devkit", "AP50_area"} <= made["figures"].keys()
    assert set(made["classes"]["zero"]) == {"AP", "AP50"}
    large = "{Digits: {classes: 2, train: 1, val: 8, size: 64}}"
    assert "-MR_all" in judged(place, "--data", large, "--metric", "{MissRate: {score: -MR_all}}")["figures"]


def test_the_data_may_be_that_of_a_study(folder: File, tmp_path: File) -> None:
    from tests.orchestrator.studies import changed
    from tests.orchestrator.studies import write as write_study

    text = changed(("{Digits: {classes: 3, train: 32, val: 16}}", WHERE))
    made = judged(folder / "store" / ONE.key, "--data", write_study(tmp_path, text))
    assert made == judged(folder / "store" / ONE.key, "--data", WHERE)


def test_weights_of_no_stage_are_judged_as_the_study_looks_at_images(folder: File, tmp_path: File) -> None:
    from tests.orchestrator.studies import changed
    from tests.orchestrator.studies import write as write_study

    text = changed(("{Digits: {classes: 3, train: 32, val: 16}}", WHERE), ("flip: 0", "flip: 0, resize: [48, 64]"))
    words = (folder / "published.safetensors", "--model", MODEL, "--data")
    made = judged(*words, write_study(tmp_path, text))
    assert made["figures"] == judged(*words, WHERE, "--recipe", "{batch: 8, resize: [48, 64]}")["figures"]
    assert made["figures"] != judged(*words, WHERE)["figures"]


def test_classes_of_which_not_all_have_each_figure_are_shown_with_all() -> None:
    figures = {"a": {"MR": 0.5}, "b": {"MR": 0.25, "MR_far": 0.75}}
    made = {"weights": "w", "data": "d", "images": 1, "score": "MR", "figures": {"MR": 0.5}, "classes": figures}
    assert [line.split() for line in table(made).splitlines()[3:]] == [
        ["class", "MR", "MR_far"],
        ["a", "0.5000"],
        ["b", "0.2500", "0.7500"],
    ]


def test_data_may_be_written_at_any_length(folder: File) -> None:
    ended = run(folder / "store" / ONE.key, "--data", "{COCO: {root: nowhere, classes: [" + "zebra, " * 99 + "cat]}}")
    assert ended.exit_code == 2 and "nowhere" in ended.output


def test_classes_are_matched_by_name_and_others_do_not_count(folder: File, tmp_path: File) -> None:
    """The same scenes with the classes in another order, and without one."""
    root = tmp_path / "other"
    shutil.copytree(folder / "digits", root)
    for file in (root / "annotations").iterdir():
        table = json.loads(file.read_text())
        swap = {1: 7, 2: 4}  # so that one comes before zero
        for row in table["annotations"]:
            row["category_id"] = swap[row["category_id"]]
        table["categories"] = [{**row, "id": swap[row["id"]]} for row in table["categories"]]
        file.write_text(json.dumps(table))
    place = folder / "store" / ONE.key
    straight = judged(place, "--data", WHERE)
    swapped = judged(place, "--data", json.dumps({"COCO": {"root": str(root)}}))
    assert swapped["figures"] == pytest.approx(straight["figures"]) and swapped["classes"] == straight["classes"]
    for file in (root / "annotations").iterdir():
        table = json.loads(file.read_text())
        table["annotations"] = [row for row in table["annotations"] if row["category_id"] == 4]
        table["categories"] = [row for row in table["categories"] if row["id"] == 4]
        file.write_text(json.dumps(table))
    alone = judged(place, "--data", json.dumps({"COCO": {"root": str(root)}}))
    assert alone["classes"] == {"one": straight["classes"]["one"]}
    assert alone["figures"]["AP"] == straight["classes"]["one"]["AP"]


MISTAKES: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "no such place": (["nowhere", "--data", WHERE], ("there is no file or folder nowhere",)),
    "no data": (["{stage}"], ("--data",)),
    "unknown data": (["{stage}", "--data", "Digit"], ("error: --data", "did you mean Digits?")),
    "an argument that the data does not have": (
        ["{stage}", "--data", "{{Digits: {{clases: 2}}}}"],
        ("error: --data.Digits.clases", "did you mean classes?"),
    ),
    "data that is not there": (
        ["{stage}", "--data", "{{COCO: {{root: nowhere}}}}"],
        ("error: --data.COCO.root", "there is no folder nowhere"),
    ),
    "no YAML": (["{stage}", "--data", "{{Digits"], ("error: --data", "not YAML")),
    "unknown metric": (["{stage}", "--data", WHERE, "--metric", "VocAPP"], ("error: --metric", "VocAP?")),
    "unknown score": (
        ["{stage}", "--data", WHERE, "--metric", "{{VocAP: {{score: AP51}}}}"],
        ("error: --metric.VocAP.score", "AP50"),
    ),
    "a score of no object": (
        ["{stage}", "--data", "{{Digits: {{classes: 2, size: 32, metric: {{MissRate: {{score: -MR_large}}}}}}}}"],
        ("error: --data.Digits.metric.MissRate", "nothing that -MR_large could be measured on"),
    ),
    "a score of another family": (
        ["{stage}", "--data", WHERE, "--metric", "{{MissRate: {{family: citypersons, score: -MR_far}}}}"],
        ("metric.MissRate.score", "-MR_far is not one of"),
    ),
    "classes that it does not know": (
        ["{stage}", "--data", "{{Digits: {{classes: 3}}}}"],
        ("do not know the classes two; they know zero, one",),
    ),
    "a file without its model": (["{file}", "--data", WHERE], ("no result.json", "--model '{detector: GFL")),
    "half a model": (["{file}", "--data", WHERE, "--model", "{{detector: GFL}}"], ("error: --model", "backbone")),
    "an unknown model": (
        ["{file}", "--data", WHERE, "--model", "{{detector: GFLL, backbone: TinyResNet}}"],
        ("error: --model.detector", "did you mean GFL?"),
    ),
    "another model": (
        ["{file}", "--data", WHERE, "--model", "{{detector: GFL, backbone: TinyResNet}}"],
        ("these weights (tapath) are not those of this GFL: missing",),
    ),
    "an empty model": (["{file}", "--data", WHERE, "--model", "{{detector: [], backbone: 3}}"], ("--model.detector",)),
    "a recipe of training": (
        ["{stage}", "--data", WHERE, "--recipe", "{{lr: 3}}"],
        ("error: --recipe", "lr is not one of"),
    ),
    "a wrong recipe": (["{stage}", "--data", WHERE, "--recipe", "{{batch: 0}}"], ("error: --recipe.batch",)),
    "no recipe": (["{stage}", "--data", WHERE, "--recipe", "7"], ("error: --recipe", "mapping")),
    "nowhere to save": (
        ["{stage}", "--data", WHERE, "--save", "nowhere/it.json"],
        ("error: --save", "no folder nowhere"),
    ),
    "no result": (["{folder}", "--data", WHERE], ("no result.json",)),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_message_and_exit_code_2(case: str, folder: File) -> None:
    words, parts = MISTAKES[case]
    places = {"stage": folder / "store" / ONE.key, "file": folder / "published.safetensors", "folder": folder}
    ended = run(*(word if word == WHERE else word.format(**places) for word in words))
    assert ended.exit_code == 2, ended.output
    assert not ended.stdout and "Traceback" not in ended.stderr
    for part in parts:
        assert part in ended.stderr, f"{part!r} is missing in: {ended.stderr}"


def test_a_stage_that_is_damaged_or_misplaced_is_refused(folder: File, tmp_path: File) -> None:
    shutil.copytree(folder / "store" / ONE.key, tmp_path / "renamed")
    ended = run(tmp_path / "renamed", "--data", WHERE)
    assert ended.exit_code == 2 and f"name the folder {ONE.key}" in ended.stderr
    shutil.copytree(folder / "store", tmp_path / "store")
    file = weights_file(Store(tmp_path / "store"), ONE.key)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    ended = run(file.parent, "--data", WHERE)
    assert ended.exit_code == 2 and "are damaged" in ended.stderr
    (file.parent / "result.json").write_text("{}")
    ended = run(file.parent, "--data", WHERE)
    assert ended.exit_code == 2 and "cannot be read as the result of a stage" in ended.stderr


def test_a_backbones_weights_are_no_detector(folder: File, tmp_path: File) -> None:
    torch.manual_seed(0)
    names = {"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}
    save_file(names, tmp_path / "resnet.safetensors")
    model = "{detector: GFL, backbone: {ResNet: {depth: 18}}}"
    ended = run(tmp_path / "resnet.safetensors", "--data", WHERE, "--model", model)
    assert ended.exit_code == 2 and "resnet.safetensors has the weights of a classifier" in ended.stderr


def test_nothing_found_is_saved_as_nothing(folder: File, tmp_path: File) -> None:
    """Fresh weights are sure of nothing."""
    save_file(build.network(ONE.model, 2).state_dict(), tmp_path / "fresh.safetensors")
    saved = tmp_path / "none.json"
    made = judged(tmp_path / "fresh.safetensors", "--data", WHERE, "--model", MODEL, "--save", saved)
    assert json.loads(saved.read_text()) == [] and set(made["figures"].values()) == {0.0}


def test_fewer_processes_than_none_are_refused() -> None:
    ended = CliRunner().invoke(main, ["evaluate", "weights", "--data", "Digits", "--loader-workers", "-1"])
    assert ended.exit_code == 2 and "Invalid value for '--loader-workers'" in ended.stderr
