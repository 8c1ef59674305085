"""The command line: what each command prints, as a command of this process and as a program."""

from __future__ import annotations

import json
from pathlib import Path as File

import click
import pytest

from orchestrator.cli import main
from orchestrator.completion import AtHome
from orchestrator.reported import log_of
from orchestrator.study import load
from tests.orchestrator import studies
from tests.orchestrator.boards import the_answer
from tests.orchestrator.commands import DIGITS, folder, run
from tests.orchestrator.studies import changed, tapath, without, write
from trainers.address import at

__all__ = ["folder"]  # a fixture


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


def test_plan_and_status_name_the_store_that_they_look_into(folder: File) -> None:
    """By a relative path it is another one in each folder."""
    write(folder)
    for command in ("plan", "status"):
        said = run(command, "tiny.yaml").stdout.splitlines()
        assert said[1] == f"store: {folder.resolve() / 'store'}, which is not there yet"
        assert json.loads(run(command, "tiny.yaml", "--json").stdout)["store"] == str(folder.resolve() / "store")
    (folder / "store").mkdir()
    assert run("status", "tiny.yaml").stdout.splitlines()[1] == f"store: {folder.resolve() / 'store'}"
    without = run("plan", "tiny.yaml", "--no-data")
    assert without.exit_code == 0 and "store: " not in without.stdout, "it is not looked into"


def test_best_of_a_study_that_never_ran_is_refused_and_makes_no_database(folder: File) -> None:
    write(folder)
    for words in (("tiny.yaml",), ("--experiment", "tiny")):
        ended = run("best", *words)
        assert ended.exit_code == 2 and ended.stderr.startswith("error: ")
        said = f"there is no MLflow database {folder / 'mlflow.db'} yet; it is made by `tapath run`, in the folder"
        assert said in ended.stderr
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
    best = f"{' > '.join(the_answer(made)['best']['path'])}"
    assert "9 done, 0 begun, 0 missing" in run("status", "tiny.yaml").stdout
    assert run("best", "tiny.yaml").stdout.startswith(best)
    assert run("best", "--experiment", "tiny").stdout.startswith(best)
    elsewhere = str(folder / "again")
    said = run("report", "tiny.yaml", "--set", f"resources.runs={elsewhere}")
    assert said.stdout.strip() == str(File(elsewhere, "tiny", "report.html"))
    again = json.loads(File(elsewhere, "tiny", "report.json").read_text())
    for name in ("best", "baseline", "direct", "ranking"):
        assert the_answer(again)[name] == the_answer(made)[name]


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


def test_a_tilde_is_ones_home_wherever_a_place_is_named(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no shell has seen to it, as in --out=~/found and in a study."""
    monkeypatch.setenv("HOME", str(tmp_path))
    study = load(write(tmp_path), ("resources.store=~/st", "resources.runs=~/rs"))
    assert at(study.resources.store).file("one") == tmp_path / "st/one"
    assert log_of(study) == tmp_path / "rs/tiny/run.log"
    assert AtHome(path_type=File).convert("~/found", None, None) == tmp_path / "found"
    commands = [main]
    for command in commands:
        commands += getattr(command, "commands", {}).values()
    types = [one.type for command in commands for one in command.params if isinstance(one.type, click.Path)]
    assert len(types) > 5 and all(isinstance(one, AtHome) for one in types)
