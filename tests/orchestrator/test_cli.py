"""The command line: what each command prints, and bad input refused with file, line, key and remedy, nothing begun."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path as File
from typing import Any

import pytest
from click.testing import CliRunner, Result

from orchestrator import session
from orchestrator.cli import main
from tests.orchestrator import studies
from tests.orchestrator.studies import changed, tapath, without, write
from trainers.data.digits import Digits
from trainers.data.digits import write as write_digits

DIGITS = "{Digits: {classes: 3, train: 32, val: 16}}"


@pytest.fixture(autouse=True)
def folder(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> File:
    """The folder in which the commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(session, "_train", never)
    return tmp_path


def never(*args: Any, **options: Any) -> Any:
    raise AssertionError("training was begun")


def run(*words: str) -> Result:
    """A command, in this process: it has torch loaded already."""
    ended = CliRunner().invoke(main, words)
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended


def refused(folder: File, text: str, *parts: str, words: tuple[str, ...] = ()) -> None:
    """`tapath run` ends with 2 and a message with these parts, and has written nothing; `plan` says the same."""
    write(folder, text)
    before = sorted(folder.iterdir())
    ended = run("run", "tiny.yaml", *words)
    assert ended.exit_code == 2, ended.output
    for part in parts:
        assert part in ended.stderr, f"{part!r} is missing in: {ended.stderr}"
    assert "Traceback" not in ended.output
    assert sorted(folder.iterdir()) == before, "nothing is written"
    planned = run("plan", "tiny.yaml", *words)
    assert (planned.exit_code, planned.stderr) == (2, ended.stderr)


# Bad input: what is wrong in the study.

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


# Bad input: what is wrong in the annotations.


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


# The other commands.


def test_plan_prints_the_stages_and_as_json_all_of_them(folder: File) -> None:
    write(folder)
    said, made = run("plan", "tiny.yaml"), run("plan", "tiny.yaml", "--json")
    assert (said.exit_code, made.exit_code) == (0, 0)
    plan = json.loads(made.stdout)
    assert len(plan["stages"]) == 9 and (plan["trainings"]["naive"], plan["trainings"]["needed"]) == (13, 9)
    assert all(stage["key"] in said.stdout for stage in plan["stages"])
    assert [file.name for file in folder.iterdir()] == ["tiny.yaml"], "a plan writes nothing"


def test_plan_without_data_needs_no_folder_of_images(folder: File) -> None:
    write(folder, changed((DIGITS, "{COCO: {root: /nowhere}}")))
    assert run("plan", "tiny.yaml").exit_code == 2
    made = run("plan", "tiny.yaml", "--no-data")
    assert made.exit_code == 0 and "provisional" in made.stdout, made.output
    assert json.loads(run("plan", "tiny.yaml", "--no-data", "--json").stdout)["provisional"]


def test_set_and_store_change_the_study(folder: File) -> None:
    write(folder)
    plain = json.loads(run("plan", "tiny.yaml", "--json").stdout)
    longer = json.loads(run("plan", "tiny.yaml", "--json", "--set", "recipe.epochs=7", "--store", "odd, {name}").stdout)
    assert {stage["epochs"] for stage in longer["stages"]} == {7}
    assert not {s["key"] for s in plain["stages"]} & {s["key"] for s in longer["stages"]}


def test_status_of_a_study_that_never_ran(folder: File) -> None:
    write(folder)
    status = json.loads(run("status", "tiny.yaml", "--json").stdout)
    assert status["counts"] == {"done": 0, "begun": 0, "missing": 9}
    assert "9 missing" in run("status", "tiny.yaml").stdout
    assert [file.name for file in folder.iterdir()] == ["tiny.yaml"]


def test_best_of_a_study_that_never_ran_is_refused_and_makes_no_database(folder: File) -> None:
    write(folder)
    for words in (("tiny.yaml",), ("--experiment", "tiny")):
        ended = run("best", *words)
        assert ended.exit_code == 2 and ended.stderr.startswith("error: ")
    assert [file.name for file in folder.iterdir()] == ["tiny.yaml"]


def test_best_wants_a_study_or_an_experiment_and_not_both(folder: File) -> None:
    write(folder)
    for words in ((), ("tiny.yaml", "--experiment", "tiny")):
        ended = run("best", *words)
        assert ended.exit_code == 2 and "--experiment" in ended.stderr


def test_data_digits_writes_the_demo_set_and_never_into_a_full_folder(folder: File) -> None:
    words = ("data", "digits", "scenes", "--classes", "2", "--train", "5", "--val", "4")
    made = run(*words)
    assert made.exit_code == 0, made.output
    assert "5 training and 4 validation images" in made.stdout
    assert len(list((folder / "scenes").rglob("*.png"))) == 9
    again = run(*words)
    assert again.exit_code == 2 and "not empty" in again.stderr
    assert run("data", "digits", "other", "--classes", "11").exit_code == 2
    assert not (folder / "other").exists()


def test_a_written_folder_has_the_keys_of_the_drawn_set(folder: File) -> None:
    write(folder)
    drawn = json.loads(run("plan", "tiny.yaml", "--json").stdout)
    assert run("data", "digits", "scenes", "--classes", "3", "--train", "32", "--val", "16").exit_code == 0
    write(folder, changed((DIGITS, "{COCO: {root: scenes}}")))
    read = json.loads(run("plan", "tiny.yaml", "--json").stdout)
    assert [stage["key"] for stage in read["stages"]] == [stage["key"] for stage in drawn["stages"]]


def test_a_model_that_learns_masks_depends_on_them_and_needs_whole_ones(
    folder: File,
) -> None:
    assert run("data", "digits", "scenes", "--classes", "3", "--train", "8", "--val", "4").exit_code == 0
    masked = (
        "big: {detector: {GFL: {channels: 16, convs: 1, extra: 0, reg_max: 8}}",
        "big: {detector: {MaskRCNN: {channels: 16, hidden: 16}}",
    )
    write(
        folder,
        changed(
            masked,
            (DIGITS, "{COCO: {root: scenes}}"),
            ("[{LD: {weight: 0.25, temperature: 10}}]", "[PKD]"),
            text=without("mid", "low"),
        ).replace("{channels: 8,", "{channels: 16,"),
    )
    file = folder / "scenes" / "annotations" / "instances_train2017.json"
    whole = json.loads(file.read_text())

    def keys() -> list[str]:
        return [stage["key"] for stage in json.loads(run("plan", "tiny.yaml", "--json").stdout)["stages"]]

    before = keys()
    broken, other = json.loads(file.read_text()), json.loads(file.read_text())
    broken["annotations"][2]["segmentation"] = [[1, 2, 3]]
    file.write_text(json.dumps(broken))
    ended = run("plan", "tiny.yaml")
    assert ended.exit_code == 2 and "annotation 3 of image" in ended.output and "no mask" in ended.output
    other["annotations"][2]["segmentation"] = other["annotations"][1]["segmentation"]
    file.write_text(json.dumps(other))
    # What learns from masks, and what it teaches, are other stages now; the student alone is not.
    assert [a == b for a, b in zip(before, keys(), strict=True)].count(True) == 1
    for row in whole["annotations"][1:]:
        del row["segmentation"]
    file.write_text(json.dumps(whole))
    refused = run("plan", "tiny.yaml")
    assert refused.exit_code == 2
    assert "tiny.yaml:4: models.big.detector: MaskRCNN learns masks" in refused.stderr
    assert "take FasterRCNN" in refused.stderr


@pytest.mark.ray
def test_status_best_and_report_after_a_run(folder: File, finished: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    made = studies.report(finished)
    best = f"{' > '.join(made['best']['path'])}"
    assert "9 done, 0 begun, 0 missing" in run("status", "tiny.yaml").stdout
    assert run("best", "tiny.yaml").stdout.startswith(best)
    assert run("best", "--experiment", "tiny").stdout.startswith(best)
    elsewhere = str(folder / "again")
    said = run("report", "tiny.yaml", "--set", f"resources.runs={elsewhere}")
    assert said.stdout.strip() == str(File(elsewhere, "tiny", "report.html"))
    again = json.loads(File(elsewhere, "tiny", "report.json").read_text())
    for name in ("best", "baseline", "direct", "ranking"):
        assert again[name] == made[name]


@pytest.mark.ray
def test_an_experiment_that_is_not_there_is_refused_with_the_nearest(
    finished: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    ended = run("best", "--experiment", "tinny")
    assert ended.exit_code == 2 and "did you mean tiny?" in ended.stderr


@pytest.mark.ray
def test_a_study_and_its_experiment_have_the_same_best_and_differ_in_nothing(
    finished: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    made = json.loads(run("best", "--compare", "tiny.yaml", "tiny", "--json").stdout)
    file, experiment = made["studies"]
    assert file["keys"] == experiment["keys"] and file["metric"] == experiment["metric"] == "AP"
    assert made["comparable"] and made["gain"] == 0 and made["differences"] == []
    assert made["differences_from"] == "the records of the stores" and "Digits" in experiment["names"][0]


# As a program.


def test_the_program_and_the_module_refuse_alike(folder: File) -> None:
    write(folder, changed(("{LD:", "{LDD:")))
    for program in ((studies.TAPATH,), studies.MODULE):
        ended = tapath(folder, "run", "tiny.yaml", program=program)
        assert ended.code == 2, ended.err
        assert "tiny.yaml:9" in ended.err and "did you mean LD?" in ended.err and "Traceback" not in ended.err
        assert ended.out == ""
    assert [file.name for file in folder.iterdir()] == ["tiny.yaml"]


def test_help_names_every_command_and_a_wrong_word_is_bad_input() -> None:
    said = run("--help").stdout
    for command in ("plan", "run", "status", "why", "best", "report", "data"):
        assert command in said
        assert run(command, "--help").exit_code == 0
    assert run("rum", "tiny.yaml").exit_code == 2
    assert run("run").exit_code == 2
