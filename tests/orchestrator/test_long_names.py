"""A name that is longer than a file system allows is bad input like any other that is not there."""

from __future__ import annotations

import errno
from pathlib import Path as File

import pytest
from click.testing import CliRunner
from PIL import Image

from orchestrator import cli, evaluation, plan
from tests.orchestrator.commands import DIGITS, folder, refused, run
from tests.orchestrator.studies import changed, write

__all__ = ["folder"]  # a fixture

LONG = "x" * 300
DATA = f"{{COCO: {{root: {LONG}}}}}"
MODEL = "{detector: GFL, backbone: ResNet}"
COMMANDS = {
    "an image": ("predict", "store", f"{LONG}.jpg"),
    "an image of a folder that is not there": ("predict", "store", f"{LONG}/x.jpg"),
    "a detector": ("predict", LONG, "x.png"),
    "a folder to draw in": ("predict", "store", "x.png", "--out", LONG),
    "a detector to be taken along": ("export", LONG),
    "weights": ("evaluate", LONG, "--data", DIGITS),
    "published weights": ("evaluate", LONG, "--data", DIGITS, "--model", MODEL),
    "data": ("evaluate", "store", "--data", LONG),
    "a study for its data": ("evaluate", "store", "--data", f"{LONG}.yaml"),
    "data of a study": ("evaluate", "store", "--data", DATA),
    "a file of results": ("evaluate", "store", "--data", DIGITS, "--save", LONG),
    "a file of results in a folder": ("evaluate", "store", "--data", DIGITS, "--save", f"{LONG}/x.json"),
    "a study": ("plan", f"{LONG}.yaml"),
    "a study to begin with": ("init", f"{LONG}.yaml"),
    "data to begin with": ("init", "new.yaml", "--data", LONG),
    "data to be checked": ("data", "check", LONG),
    "images to be checked": ("data", "check", "x.png", "--images", LONG),
    "annotations to be checked": ("data", "check", ".", "--train", LONG),
    "a folder for digits": ("data", "digits", LONG),
    "studies that are needed": ("gc", "--all-studies-in", LONG),
    "studies to compare": ("best", "--compare", LONG, LONG),
    "a study to be trained again": ("reproduce", f"{LONG}.yaml", "big"),
    "MLflow's file": ("best", "tiny.yaml", "--tracking", f"sqlite:///{LONG}"),
    "MLflow's file for a report": ("report", "--experiment", "x", "--tracking", f"sqlite:///{LONG}"),
    "a store": ("status", "tiny.yaml", "--store", LONG),
    "a folder of reports": ("report", "tiny.yaml", "--out", LONG),
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_long_name_is_refused_for(words: tuple[str, ...], folder: File) -> None:
    Image.new("RGB", (8, 9)).save(folder / "x.png")
    write(folder)
    ended = run(*words)
    assert ended.exit_code == 2 and "error" in ended.stderr.lower(), ended.output
    assert "not expected" not in ended.stderr and sorted(file.name for file in folder.iterdir()) == [
        "tiny.yaml",
        "x.png",
    ]


def test_data_of_a_study_too(folder: File) -> None:
    refused(folder, changed((DIGITS, DATA)), LONG)


def test_what_is_neither_a_file_nor_yaml_is_named() -> None:
    with pytest.raises(ValueError, match=r"xxx"):
        evaluation.dataset(LONG, None)


@pytest.mark.parametrize(("number", "code"), [(errno.ENAMETOOLONG, 2), (errno.EIO, 1)])
def test_the_name_is_said_and_no_other_error_of_a_machine_is_taken_for_one(
    number: int, code: int, folder: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder)

    def fail(*args: object, **options: object) -> None:
        raise OSError(number, "of the machine", "/data/a\x1b[2J")

    monkeypatch.setattr(plan, "plan", fail)
    ended = CliRunner().invoke(cli.main, ("plan", "tiny.yaml"))
    assert ended.exit_code == code and r"/data/a\x1b[2J" in ended.stderr
