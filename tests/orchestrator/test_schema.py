"""The schema by which editors check studies: what the code says, for every study, and against what is mistyped."""

from __future__ import annotations

import json
from pathlib import Path as File
from typing import Any

import pytest
from jsonschema import Draft7Validator

from orchestrator import schema
from orchestrator.study import load
from orchestrator.yamlfile import parse
from tests.orchestrator.studies import TEXT, changed
from tests.orchestrator.study_texts import SMALLEST
from tests.orchestrator.study_texts import TEXT as LONG
from trainers import backbones, data, detectors, distill, metrics
from trainers.call import offers

ROOT = File(__file__).parents[2]
STUDIES = sorted((ROOT / "search_spaces").rglob("*.yaml"))


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return schema.schema()


@pytest.fixture(scope="module")
def check(made: dict[str, Any]) -> Draft7Validator:
    Draft7Validator.check_schema(made)
    return Draft7Validator(made)


def wrong(check: Draft7Validator, text: str) -> list[str]:
    return [error.message for error in check.iter_errors(parse(text, "study").tree)]


def test_the_file_in_the_repository_is_what_the_code_says() -> None:
    file = ROOT / "search_spaces" / schema.FILE
    assert file.read_text() == schema.text(), f"write it anew: tapath schema > {file.relative_to(ROOT)}"


def test_every_study_that_comes_with_it_is_as_the_schema_has_it(check: Draft7Validator) -> None:
    assert len(STUDIES) > 50
    assert {str(file): found for file in STUDIES if (found := wrong(check, file.read_text()))} == {}


def test_a_study_with_every_default_written_out_is_as_the_schema_has_it(check: Draft7Validator) -> None:
    for file in (ROOT / "search_spaces/demo_sweep.yaml", ROOT / "search_spaces/small/dgkd.yaml"):
        assert [error.message for error in check.iter_errors(load(file).resolved())] == []


@pytest.mark.parametrize("text", [LONG, SMALLEST, TEXT], ids=["long", "shortest", "tiny"])
def test_studies_of_the_tests_are_as_the_schema_has_them(check: Draft7Validator, text: str) -> None:
    assert wrong(check, text) == []


@pytest.mark.parametrize(
    "more",
    [
        "resources: {memory: 8 GiB}",
        "resources: {stage_data: true, cohort: auto}",
        "search: {budget: {of: {racing: {level: 0.1}}, stages: 3}}",
        "sweep: {LD.weight: [0.1, 1], LD.alpha: [1, auto], recipe.lr: {loguniform: [1e-3, 1]}, samples: 4}",
        "sweep: {recipe.optimizer.AdamW.weight_decay: [0.1], stop: asha, distill: [[LD], [{LD: {}, ramp: 5}, KD]]}",
        "expected: {big > wee: {AP: 36.5}}",
        "edges: [[big, wee]]",
        "students: [low, wee]",
    ],
)
def test_what_a_study_may_say_is_in_it(check: Draft7Validator, more: str) -> None:
    assert wrong(check, TEXT + more) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("recipe:", "receipt:"),
        ("epochs: 2", "epoch: 2"),
        ("epochs: 2", "epochs: two"),
        ("epochs: 2", "epochs: 0"),
        ("lr: 0.008", "lr: 0"),
        ("flip: 0", "flip: 1.5"),
        ("OneCycle", "TwoCycle"),
        ("[{LD: {weight: 0.25, temperature: 10}}]", "[LDD]"),
        ("[{LD: {weight: 0.25, temperature: 10}}]", "[]"),
        ("temperature: 10", "temperatur: 10"),
        ("temperature: 10", "temperature: hot"),
        ("{LD: {weight: 0.25, temperature: 10}}", "{LD: {weight: 0.25, temperature: 10}, KD: {}}"),
        ("{LD: {weight: 0.25, temperature: 10}}", "{LD: {weight: 0.25, temperature: 10}, epochs: 3}"),
        ("{Digits: {classes: 3, train: 32, val: 16}}", "{COCO: {}}"),
        ("{Digits: {classes: 3, train: 32, val: 16}}", "COCO"),
        ("classes: 3", "classes: 11"),
        ("[alone]", "[lonely]"),
        ("data:", "date:"),
    ],
)
def test_a_mistake_is_found(check: Draft7Validator, old: str, new: str) -> None:
    assert wrong(check, changed((old, new)))


@pytest.mark.parametrize(
    "more",
    [
        "sweep: {LDD.weight: [1]}",
        "sweep: {LD.wait: [1]}",
        "sweep: {LD.weight: {loguni: [1, 2]}}",
        "sweep: {LD.weight: [1], stop: sometimes}",
        "search: exhausting",
        "search: {racing: {levels: 1}}",
        "resources: {cpu: 1}",
        "resources: {memory: 8 gigs}",
        "seeds: [0, 0]",
        "seeds: 3",
        "edges: all",
        "file: elsewhere.yaml",
    ],
)
def test_a_mistake_in_what_is_added_is_found(check: Draft7Validator, more: str) -> None:
    assert wrong(check, TEXT + more)


def test_an_editor_is_told_of_everything_that_a_study_may_name(made: dict[str, Any]) -> None:
    for package in (backbones, data, detectors, distill, metrics):
        whole = made["$defs"][package.__name__]["anyOf"][-1]["properties"]
        for name, thing in offers(package).items():
            assert whole[name]["description"] and thing.__doc__, name


def test_defaults_types_and_words_are_those_of_the_code(made: dict[str, Any]) -> None:
    loss = made["$defs"]["trainers.distill"]["anyOf"][-1]["properties"]["PKD"]["properties"]
    assert loss["weight"]["default"] == 10 and loss["weight"]["type"] == "number" and loss["weight"]["minimum"] == 0
    assert loss["resize"]["enum"] == ["student", "teacher"]
    recipe = made["$defs"]["Recipe"]["properties"]
    assert recipe["clip"]["description"] == "largest norm of the gradient"
    assert recipe["optimizer"]["default"] == "SGD" and recipe["epochs"]["default"] == 12


def test_what_is_a_comment_over_two_lines_is_told_whole(made: dict[str, Any]) -> None:
    told = made["$defs"]["Resources"]["properties"]["cohort"]["description"]
    assert told.startswith("Stages that one process trains together") and told.endswith("no room of their own.")


def test_the_command_prints_it(made: dict[str, Any]) -> None:
    from click.testing import CliRunner

    from orchestrator.cli import main

    assert json.loads(CliRunner().invoke(main, ["schema"]).stdout) == made
