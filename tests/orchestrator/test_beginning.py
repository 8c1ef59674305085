"""`tapath init`: what it writes can be planned, and it proposes assistants by size."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path as File
from typing import Any

import pytest

from orchestrator import beginning, exporting, proposed, schema, yamlfile
from orchestrator.ladder import LADDER, TORCHVISION, TRAINED, between
from orchestrator.study import load
from tests.orchestrator.commands import folder, run
from tests.orchestrator.data_folders import began, put_coco
from tests.orchestrator.studies import TAPATH
from tests.orchestrator.terminals import Tty
from trainers import pair

__all__ = ["folder"]  # a fixture, for each test here

ROOT = File(__file__).parents[2]


def test_without_a_terminal_nothing_is_asked_and_the_study_can_be_planned() -> None:
    study = began()
    assert study.data.name == "Digits" and len(study.models) > 2
    planned = run("plan", "study.yaml")
    assert planned.exit_code == 0 and "4 paths" in planned.stdout
    assert File(schema.FILE).read_text() == schema.text()
    assert File("study.yaml").read_text().startswith(f"{schema.LINE}{schema.FILE}\n")


def test_between_r101_and_r18_it_proposes_those_of_sizes_in_between_and_says_why() -> None:
    study = began("--teacher", "r101", "--student", "r18", "--gpus", "2")
    assert list(study.models) == ["r101", "r50", "r34", "r18"]
    text = File("study.yaml").read_text()
    assert "# an assistant, as its size lies between r101's and r34's" in text
    assert "# the student: 19.4 M parameters" in text
    given = {name: one.weights for name, one in study.models.items() if one.weights}
    assert given["r101"].part == "detector" and "gfl_r101_fpn" in given["r101"].file
    assert given["r18"].part == "backbone" and study.resources.gpus == 1


@pytest.mark.parametrize(
    "words",
    [
        ("--detector", "RetinaNet", "--teacher", "x101_64x4d", "--student", "r50", "--gpus", "8"),
        ("--detector", "FasterRCNN", "--teacher", "swin_s", "--student", "r18", "--gpus", "0"),
        ("--teacher", "mobilenet_v3_large", "--student", "mobilenet_v3_small", "--teacher-weights", "none"),
        ("--teacher", "r50", "--student", "r18", "--teacher-weights", "weights/mine.pth"),
    ],
    ids=["RetinaNet", "Swin", "MobileNet", "own weights"],
)
def test_whatever_is_wanted_can_be_planned(words: tuple[str, ...]) -> None:
    assert len(began(*words).models) >= 2


@pytest.mark.parametrize("teacher", [(), ("--teacher", "tiny16", "--student", "tiny8")], ids=["digits", "named"])
def test_weights_of_a_teacher_that_takes_none_are_refused(teacher: tuple[str, ...]) -> None:
    for weights in ("weights/mine.pth", "published"):
        ended = run("init", *teacher, "--teacher-weights", weights)
        assert ended.exit_code == 2 and f"error: --teacher-weights: {weights}: tiny" in ended.stderr
        assert "such as r101" in ended.stderr and not File("study.yaml").exists()
    assert began(*teacher, "--teacher-weights", "none").data.name == "Digits"


def test_a_file_that_is_there_is_not_written_over() -> None:
    File("study.yaml").write_text("mine")
    ended = run("init")
    assert ended.exit_code == 2 and "--force" in ended.stderr
    assert File("study.yaml").read_text() == "mine" and not File(schema.FILE).exists()
    assert began("--force").data.name == "Digits"


def test_another_file_is_written_where_it_is_named_and_the_study_is_called_so() -> None:
    assert run("init", "deep/my cats.yaml").exit_code == 0
    assert load("deep/my cats.yaml").name == "my_cats"


def test_what_is_not_told_is_asked() -> None:
    asked = []

    def answer(question: str, default: Any, **_: Any) -> Any:
        asked.append(question)
        return "tiny8" if question.startswith("Student") else default

    said = beginning.write(File("study.yaml"), {"teacher": "tiny24"}, ask=answer, force=False)
    assert [question.split()[0] for question in asked] == ["The", "Student's", "Detector", "GPUs"]
    assert list(load("study.yaml").models) == ["tiny24", "tiny16", "tiny8"] and "wrote study.yaml" in said


def test_on_a_terminal_it_asks_one_thing_after_another_and_once_more_what_cannot_be(folder: File) -> None:
    typed = {
        "The folder of the data": [""],
        "Teacher's backbone [tiny24]": [""],
        "Student's backbone [tiny5]": ["tiny8"],
        "Detector [GFL]": [""],
        "GPUs [": ["two", "0"],
    }
    with Tty(100, 30) as tty:
        command = tty.run(folder, TAPATH, "init")
        for question, answers in typed.items():
            for times, answer in enumerate(answers, start=1):
                tty.until(partial(waits, question, times))
                os.write(tty.master, f"{answer}\n".encode())
        assert command.wait(240) == 0, tty.lines()
        screen = tty.until(lambda lines: "next: tapath plan study.yaml" in lines)
    assert "Error: 'two' is not a valid integer." in screen and "wrote study.yaml" in screen
    study = load("study.yaml")
    assert list(study.models) == ["tiny24", "tiny16", "tiny8"] and study.data.name == "Digits"


def waits(question: str, times: int, lines: list[str]) -> bool:
    """Whether the last line of a screen asks this, and so often it was asked by now."""
    said = [line for line in lines if line]
    return sum(line.startswith(question) for line in said) == times and said[-1].endswith(":")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--teacher", "r10l"), "r10l is not one of"),
        (("--teacher", "r18", "--student", "r50"), "no less than r18's"),
        (("--teacher", "r18", "--student", "r18"), "no less than r18's"),
        (("--detector", "GFM"), "did you mean GFL"),
        (("--data", "nowhere"), "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(folder: File, words: tuple[str, ...], part: str) -> None:
    ended = run("init", *words)
    assert ended.exit_code == 2 and part in ended.stderr
    assert list(folder.iterdir()) == []


def test_of_many_assistants_those_stay_that_leave_the_most_even_steps() -> None:
    names = list(between("x101_64x4d", "r18", "RetinaNet", (128, 128), 3))
    assert names[0] == "x101_64x4d" and names[-1] == "r18" and len(names) == 5


def test_every_published_file_is_one_that_a_study_names() -> None:
    text = "".join(file.read_text() for file in (ROOT / "search_spaces").rglob("*.yaml"))
    files = [*(one.weights for one in LADDER.values() if one.weights), *TRAINED.values()]
    assert [file for file in files if file not in text] == []


def test_what_torchvision_has_trained_lies_where_it_says() -> None:
    from torchvision import models

    known = {one.url for name in models.list_models(module=models) for one in models.get_model_weights(name)}
    ours = {one.weights for one in LADDER.values() if one.weights.startswith(TORCHVISION)}
    assert len(ours) > 10 and ours <= known


def test_every_backbone_but_those_for_small_images_starts_from_imagenet_and_keeps_its_norms() -> None:
    assert [name for name, one in LADDER.items() if not one.weights] == [n for n in LADDER if n.startswith("tiny")]
    study = began("--teacher", "mobilenet_v3_large", "--student", "mobilenet_v3_small")
    assert all(one.weights and one.weights.part == "backbone" for one in study.models.values())
    assert {(one.recipe.freeze, one.recipe.fixed_norm) for one in study.models.values()} == {(1, True)}
    assert "from nothing" not in File("study.yaml").read_text()


def test_of_a_teacher_from_nothing_all_learns_and_the_others_keep_what_imagenet_taught_them() -> None:
    study = began("--teacher", "r50", "--student", "r18", "--teacher-weights", "none")
    assert study.models["r50"].weights is None
    kept = {name: (one.recipe.freeze, one.recipe.fixed_norm) for name, one in study.models.items()}
    assert kept == {"r50": (0, False), "r34": (1, True), "r18": (1, True)}


@pytest.mark.parametrize("weights", ["published", "none"])
def test_a_transformer_learns_at_its_own_rate_and_the_others_at_theirs(weights: str) -> None:
    study = began("--teacher", "swin_t", "--student", "r18", "--teacher-weights", weights)
    rates = {name: (one.recipe.optimizer.name, one.recipe.lr, one.recipe.freeze) for name, one in study.models.items()}
    assert rates.pop("swin_t") == ("AdamW", 0.0001, 0 if weights == "none" else 1)
    assert {*rates.values()} == {("SGD", 0.01, 1)}


def test_of_few_images_the_warm_up_is_a_tenth_of_all_steps() -> None:
    put_coco(File("cats"), ("train.json", "train"), ("val.json", "val"))
    study = began("--data", "cats", "--teacher", "r101", "--student", "r50")
    assert (study.recipe.epochs, study.recipe.warmup) == (12, 1)  # of 12 steps
    assert "of so few images that is 12 steps" in File("study.yaml").read_text()


@pytest.mark.parametrize(("steps", "warmup"), [(0, None), (13, 15), (416, 499), (417, None), (7400, None)])
def test_the_warm_up_is_only_written_where_it_is_shorter_than_usual(steps: int, warmup: int | None) -> None:
    lines = proposed.recipe(wanted(steps=steps))
    assert [line for line in lines if "warmup" in line] == [
        f"  warmup: {warmup} # steps: a tenth of all; unless said it is 500" for _ in range(warmup is not None)
    ]
    assert any("steps, of COCO's" in line for line in lines) is (warmup is not None)


def wanted(*, steps: int = 0, gpus: int = 0) -> proposed.Wanted:
    return proposed.Wanted(beginning.DIGITS, "GFL", "r101", "r18", "published", gpus, steps)


@pytest.mark.parametrize(
    ("here", "cores", "named", "share"),
    [(2, 16, 2, 4), (2, 6, 2, 3), (2, 6, 1, 4), (4, 2, 4, 1), (0, 2, 8, 4)],
    ids=["enough", "shared", "one of them", "few", "of another machine"],
)
def test_stages_on_gpus_share_the_cores_that_there_are(
    monkeypatch: pytest.MonkeyPatch, here: int, cores: int, named: int, share: int
) -> None:
    monkeypatch.setattr(proposed, "gpus", lambda: here)
    monkeypatch.setattr(proposed, "cores", lambda: cores)
    line = f"resources: {{gpus: 1, cpus: {share}, loader_workers: {share}, micro_batch: 4}}"
    assert proposed.rest(wanted(gpus=named))[-1] == line


def test_without_a_gpu_a_large_model_has_all_cores_and_it_is_said_how_long_that_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proposed, "cores", lambda: 6)
    words = ("--teacher", "r50", "--student", "r18")
    ended = run("init", *words, "--gpus", "0")
    assert ended.exit_code == 0 and f"warning: {proposed.SLOW}" in ended.stdout
    assert load("study.yaml").resources.cpus == 6 and proposed.SLOW in File("study.yaml").read_text()
    for others in ((*words, "--gpus", "1"), ("--gpus", "0")):  # the latter are digits
        quick = run("init", "--force", *others)
        assert quick.exit_code == 0 and "very long" not in quick.stdout
    assert load("study.yaml").resources.cpus == 1


def test_gpus_are_counted_as_linux_lists_them_or_as_torch_sees_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pair, "gpus", lambda: 3)
    for listed, known in (0, 3), (2, 2):
        monkeypatch.setattr(proposed, "num_gpus", lambda listed=listed: listed)
        assert proposed.gpus() == known


def test_what_to_type_next_can_be_pasted() -> None:
    ended = run("init", "my st.yaml")
    assert ended.exit_code == 0 and "next: tapath plan 'my st.yaml'" in ended.stdout, ended.output
    made = {"format": "torch", "files": ["ex two/model.pt2", "ex two/detect.py"]}
    assert "python 'ex two/detect.py' IMAGE" in exporting.text(made)


@pytest.mark.parametrize("name", ["a, b: #c", "plain", "two words", "nan", "it's {x}"])
def test_the_line_for_a_study_can_be_pasted_whatever_the_folder_is_called(name: str) -> None:
    ended = run("data", "digits", name, "--train", "2", "--val", "2")
    line = ended.stdout.splitlines()[-1].removeprefix("use it with  ")
    assert yamlfile.parse(line, "line").tree == {"data": {"COCO": {"root": name}}}
    root = yamlfile.parse(run("data", "check", name).stdout.splitlines()[-1].partition(": ")[2], "line").tree
    assert root["data"]["COCO"]["root"] == str(File(name).resolve())
