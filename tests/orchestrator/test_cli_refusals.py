"""What `tapath run` and `tapath plan` refuse, before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path as File
from typing import Any

import pytest

from tests.orchestrator import studies
from tests.orchestrator.commands import DIGITS, folder, refused, run
from tests.orchestrator.studies import changed, without, write
from trainers.data.digits import Digits
from trainers.data.digits import write as write_digits

__all__ = ["folder"]  # a fixture

# What is wrong in the study.

MISTAKES = {
    "an unknown key": ((("recipe: {epochs", "recipe: {epoch"),), ("tiny.yaml:8", "recipe.epoch", "epochs")),
    "an unknown key on top": ((("distill:", "distil:"),), ("tiny.yaml:9", "distil", "did you mean distill?")),
    "an unknown model": ((("{TinyResNet: {width: 12}}", "{TinyResnet: {width: 12}}"),), ("tiny.yaml:5", "TinyResNet?")),
    "an unknown detector": ((("{GFL: {channels: 8,", "{GFLL: {channels: 8,"),), ("tiny.yaml:7", "models.wee", "GFL")),
    "an unknown loss": ((("{LD:", "{LDD:"),), ("tiny.yaml:9", "LDD is not one of", "KD", "did you mean LD?")),
    "an unknown data set": ((("{Digits:", "{Digit:"),), ("tiny.yaml:2", "COCO", "did you mean Digits?")),
    "an unknown argument of a loss": (
        (("temperature: 10", "temp: 10"),),
        ("tiny.yaml:9", "distill.0", "temp is not one of", "temperature", "weight"),
    ),
    "an unknown argument of a backbone": (
        (("{TinyResNet: {width: 4}}", "{TinyResNet: {depth: 4}}"),),
        ("tiny.yaml:7", "models.wee.backbone", "depth", "width"),
    ),
    "a wrong type": ((("epochs: 2", "epochs: two"),), ("tiny.yaml:8", "recipe.epochs", "two")),
    "a wrong type of an argument": ((("width: 12", "width: wide"),), ("tiny.yaml:5", "models.mid.backbone", "wide")),
    "a word for a truth": ((("lr: 0.008", "lr: true"),), ("tiny.yaml:8", "recipe.lr")),
    "a negative rate": ((("lr: 0.008", "lr: -1"),), ("tiny.yaml:8", "recipe.lr", "greater than 0")),
    "a cycle": (
        (("distill:", "edges: [[big, mid], [mid, low], [low, mid], [low, wee]]\ndistill:"),),
        ("tiny.yaml:9", "edges.2", "low", "mid"),
    ),
    "an unreachable student": (
        (("distill:", "edges: [[big, mid], [low, wee]]\ndistill:"),),
        ("tiny.yaml:9", "edges", "no path leads from big to wee"),
    ),
    "an edge to a model that is not there": (
        (("distill:", "edges: [[big, med], [med, wee]]\ndistill:"),),
        ("tiny.yaml:9", "edges.0", "med", "mid"),
    ),
    "an unknown strategy": ((("distill:", "search: exhaust\ndistill:"),), ("tiny.yaml:9", "search", "exhaustive?")),
    "a folder that is not there": (
        ((DIGITS, "{COCO: {root: nowhere}}"),),
        ("tiny.yaml:2", "data.COCO.root", "there is no folder nowhere"),
    ),
    "a batch that workers cannot share": (
        (("distill:", "resources: {workers: 3}\ndistill:"),),
        ("tiny.yaml:8", "batch of 8", "3 workers"),
    ),
}


@pytest.mark.parametrize(("changes", "parts"), MISTAKES.values(), ids=MISTAKES)
def test_a_study_is_refused_with(folder: File, changes: Any, parts: tuple[str, ...]) -> None:
    refused(folder, changed(*changes), *parts)


def test_bins_that_do_not_fit_are_refused_with_the_pair_and_both_figures(folder: File) -> None:
    line = next(line for line in studies.TEXT.splitlines() if line.startswith("  low:"))
    text = changed((line, line.replace("reg_max: 8", "reg_max: 16")))
    refused(folder, text, "tiny.yaml:9", "distill", "big cannot teach low", "bins", "17", "9")


def test_strides_that_do_not_fit_are_refused_with_the_pair_and_both_figures(folder: File) -> None:
    line = next(line for line in studies.TEXT.splitlines() if line.startswith("  wee:"))
    text = changed((line, line.replace("extra: 0", "extra: 1")))
    refused(folder, text, "tiny.yaml:9", "cannot teach wee", "strides", "(4, 8, 16)", "(4, 8, 16, 32)")


def test_a_loss_that_would_begin_after_the_last_epoch_is_refused(folder: File) -> None:
    text = changed(("[{LD: {weight: 0.25, temperature: 10}}]", "[{LD: {}, epochs: [3, null]}]"))
    refused(
        folder,
        text,
        "tiny.yaml:9",
        "distill.0.epochs",
        "mid: LD would begin after 8 steps and end after 8",
        "4 steps in each of 2 epochs",
    )


def test_one_model_alone_is_no_study(folder: File) -> None:
    refused(folder, without("big", "mid", "low"), "tiny.yaml:3", "models", "two models")


def test_several_mistakes_are_named_at_once(folder: File) -> None:
    text = changed(("{LD:", "{LDD:"), ("width: 12", "width: wide"))
    refused(folder, text, "tiny.yaml:5", "tiny.yaml:9", "LDD", "wide")


def test_a_wrong_set_is_refused_and_named(folder: File) -> None:
    refused(folder, studies.TEXT, "recipe.epoch", "epochs", words=("--set", "recipe.epoch=3"))
    refused(folder, studies.TEXT, "recipe.epochs", words=("--set", "recipe.epochs=many"))
    refused(folder, studies.TEXT, "epochs", words=("--set", "epochs"))


def test_a_study_that_is_not_there_is_refused(folder: File) -> None:
    for command in ("run", "plan", "status", "why", "report", "best"):
        ended = run(command, "nothing.yaml")
        assert ended.exit_code == 2 and "nothing.yaml" in ended.stderr, command
    assert not list(folder.iterdir())


def test_a_study_that_is_not_yaml_is_refused_with_its_line(folder: File) -> None:
    refused(folder, changed(("mid: {", "mid: {{")), "tiny.yaml:")
    refused(folder, "", "tiny.yaml", "empty")
    refused(folder, "- a\n- b\n", "tiny.yaml", "mapping")


# What is wrong in the annotations.


def box(coco: dict[str, Any], bbox: list[float]) -> None:
    coco["annotations"][3]["bbox"] = bbox


ANNOTATIONS: dict[str, tuple[Callable[[dict[str, Any]], object], tuple[str, ...]]] = {
    "a box outside the image": (lambda coco: box(coco, [60, 60, 30, 30]), ("annotation 4", "64 x 64", "leaves image")),
    "a box of no area": (lambda coco: box(coco, [5, 5, 0, 9]), ("annotation 4", "no area")),
    "a negative box": (lambda coco: box(coco, [20, 20, -5, 9]), ("annotation 4", "negative")),
    "an unknown category": (
        lambda coco: coco["annotations"][3].update(category_id=9),
        ("annotation 4", "9", "category"),
    ),
    "an unknown image": (lambda coco: coco["annotations"][3].update(image_id=999), ("annotation 4", "999", "image")),
    "no images at all": (lambda coco: coco.update(images=[]), ("0 images",)),
    "no categories": (lambda coco: coco.pop("categories"), ("categories",)),
}


@pytest.mark.parametrize(("spoil", "parts"), ANNOTATIONS.values(), ids=ANNOTATIONS)
@pytest.mark.parametrize("which", ["train", "val"])
def test_annotations_are_refused_with(
    folder: File, which: str, spoil: Callable[[dict[str, Any]], object], parts: tuple[str, ...]
) -> None:
    write_digits(Digits(classes=3, train=8, val=8), folder / "scenes")
    file = folder / "scenes" / "annotations" / f"instances_{which}2017.json"
    coco = json.loads(file.read_text())
    spoil(coco)
    file.write_text(json.dumps(coco))
    refused(folder, changed((DIGITS, "{COCO: {root: scenes}}")), "tiny.yaml:2", file.name, *parts)


def test_an_image_without_its_file_is_refused(folder: File) -> None:
    write_digits(Digits(classes=3, train=8, val=8), folder / "scenes")
    image = sorted((folder / "scenes").rglob("*.png"))[0]
    image.unlink()
    refused(folder, changed((DIGITS, "{COCO: {root: scenes}}")), "tiny.yaml:2", image.name)


def test_a_store_that_cannot_be_written_is_refused(folder: File) -> None:
    (folder / "store").write_text("a file where the folder should be")
    write(folder)
    ended = run("run", "tiny.yaml")
    assert ended.exit_code == 2
    assert "resources.store" in ended.stderr and "cannot be written" in ended.stderr
    assert not (folder / "mlflow.db").exists()
