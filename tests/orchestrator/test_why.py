"""`why` says of every stage what it is reused from, or what keeps the nearest finished stage from being it."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime
from pathlib import Path as File
from typing import Any

import pytest
from click.testing import CliRunner
from safetensors.torch import save_file

from orchestrator import why as reasons
from orchestrator.cli import main
from orchestrator.differences import ABSENT, Difference
from orchestrator.experience import NEWEST
from orchestrator.prepared import prepare
from orchestrator.study import Study, load
from orchestrator.why import sentence
from tests.orchestrator.stored import stage_of, store
from tests.orchestrator.studies import STAGES, TEXT, changed, without, write
from tests.trainers.kept import weights_file
from trainers import build, spec
from trainers.call import Invalid
from trainers.spec import Stage
from trainers.store import Store

TWO = without("mid", "low")
LOSSES = "[{LD: {weight: 0.25, temperature: 10}}]"


@pytest.fixture(autouse=True)
def folder(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> File:
    """Where the commands run, and where `store` is."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def study(*sets: str, text: str = TWO) -> Study:
    return load(write(File(), text), sets)


def said(of: Study, *path: str) -> list[str]:
    """What people are told of one stage, without its name."""
    return [line.strip() for line in reasons.text(reasons.why(of, " > ".join(path))).splitlines()[3:]]


def differing(of: Study, *path: str) -> list[str]:
    """What differs from the nearest, for people."""
    (stage,) = reasons.why(of, " > ".join(path))["stages"]
    lines: list[str] = stage["nearest"]["lines"]
    assert stage["state"] == "will train" and f"differs in {len(stage['nearest']['differences'])} " in stage["reason"]
    return lines


# What is reused, what is begun, and what was spoilt.


def test_of_an_empty_store_there_is_nothing_to_compare_with() -> None:
    made = reasons.why(study())
    assert made["counts"] == {"reused": 0, "begun": 0, "will train": 3}
    assert {stage["reason"] for stage in made["stages"]} == {"nothing is stored yet"}
    assert said(study(), "wee") == ["will train: nothing is stored yet"]
    assert [file.name for file in File().iterdir()] == ["tiny.yaml"], "nothing is written"


def test_what_is_reused_is_named_with_its_score_its_time_and_its_file() -> None:
    store(study(), ("big",), score=0.25)
    key = stage_of(study(), "big").key
    file = File("store", key, "result.json")
    noon = datetime(2024, 2, 29, 12, 30).timestamp()
    os.utime(file, (noon, noon))
    assert said(study(), "big") == [
        f"reused: its result is in the store: score 0.2500, of 2024-02-29 12:30, store/{key}/result.json"
    ]
    (stage,) = reasons.why(study(), "big")["stages"]
    assert (stage["state"], stage["score"], stage["file"]) == ("reused", 0.25, str(file))
    assert datetime.fromisoformat(stage["stored"]).timestamp() == noon


def test_a_stage_that_was_begun_says_from_where_it_goes_on() -> None:
    Store("store").save_state(stage_of(study(), "wee").key, 1, {"epoch": 1})
    assert said(study(), "wee") == ["begun: it goes on after epoch 1 of 2"]
    (stage,) = reasons.why(study(), "wee")["stages"]
    assert (stage["state"], stage["epoch"], stage["epochs"]) == ("begun", 1, 2)


def spoil(of: Stage, how: str) -> None:
    record, weights = Store("store").result_file(of.key), weights_file(Store("store"), of.key)
    content = weights.read_bytes()
    match how:
        case "a flipped bit":
            weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "cut":
            weights.write_bytes(content[:-1])
        case "gone":
            weights.unlink()
        case "no record":
            record.write_text("{")


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("a flipped bit", "its result is damaged: store/{}/weights.safetensors.corrupt"),
        ("cut", "its result is damaged: store/{}/weights.safetensors"),
        ("gone", "its result has lost its weights: store/{}/weights.safetensors"),
        ("no record", "its result is damaged: store/{}/result.json.corrupt"),
    ],
)
def test_a_damaged_result_is_the_reason_however_often_one_asks(how: str, told: str) -> None:
    store(study(), ("big",), ("wee",))
    big = stage_of(study(), "big")
    spoil(big, how)
    for _ in range(2):
        assert said(study(), "big") == [f"will train: {told.format(big.key)}"]
    Store("store").save_state(big.key, 1, {"epoch": 1})
    assert said(study(), "big") == [f"begun: it goes on after epoch 1 of 2; {told.format(big.key)}"]
    store(study(), ("big",))
    assert said(study(), "big")[0].startswith("reused: ")


# What differs.


@pytest.mark.parametrize(
    ("before", "told"),
    [
        ("recipe.lr=0.01", "recipe.lr: 0.008 here, 0.01 there"),
        ("recipe.epochs=3", "recipe.epochs: 2 here, 3 there"),
        ("recipe.optimizer=SGD", "recipe.optimizer: AdamW here, SGD there"),
        (
            "recipe.optimizer={AdamW: {weight_decay: 0.1}}",
            "recipe.optimizer.AdamW.weight_decay: 0.05 here, 0.1 there",
        ),
        ("recipe.resize=[64, 128]", 'recipe.resize: null here, {"short": 64, "long": 128} there'),
        ("seeds=[7]", "seed: 0 here, 7 there"),
        ("data.Digits.seed=1", "data.fingerprint: other annotations or images, or another metric"),
        ("data.Digits.metric=VocAP", "data.fingerprint: other annotations or images, or another metric"),
        ("models.wee.backbone.TinyResNet.width=8", "model.backbone.TinyResNet.width: 4 here, 8 there"),
        ("models.wee.detector.GFL.channels=16", "model.detector.GFL.channels: 8 here, 16 there"),
    ],
)
def test_one_changed_field_is_named_with_both_values(before: str, told: str) -> None:
    store(study(before), ("wee",))
    assert differing(study(), "wee") == [told]
    assert said(study(), "wee")[0].endswith("differs in 1 field:")


@pytest.mark.parametrize(
    ("before", "told"),
    [
        ("[{LD: {weight: 0.25, temperature: 5}}]", ["distill.LD.temperature: 10.0 here, 5.0 there"]),
        ("[{LD: {weight: 0.25, temperature: 10}, ramp: 3}]", ["distill.LD.ramp: not set here, 3 there"]),
        ("[{LD: {weight: 0.25, temperature: 10}}, {KD: {}}]", ["distill.KD: only there"]),
        (
            "[{KD: {}}, {LD: {weight: 0.25, temperature: 10}}]",
            ["distill.KD: only there", "distill: [LD] here, [KD, LD] there"],
        ),
        ("[{KD: {}}]", ["distill: [LD] here, [KD] there"]),
        (f"[{LOSSES[1:-1]}, {{LD: {{weight: 0.5}}}}]", ["distill.1: not set here, LD there"]),
    ],
)
def test_other_losses_are_named_one_by_one(before: str, told: list[str]) -> None:
    store(study(f"distill={before}"), ("big", "wee"))
    assert differing(study(), "big", "wee") == told


def test_another_teacher_is_told_by_what_differs_in_it_and_in_its_own() -> None:
    store(study("models.big.recipe={lr: 0.01}", text=without("low")), ("big", "mid", "wee"))
    text = reasons.text(reasons.why(study(text=without("low")), "big > mid > wee"))
    assert text.splitlines()[-4:] == [
        f"    will train: the nearest finished stage, {next(File('store').iterdir()).name}, differs in 1 field:",
        "      its teacher is another:",
        "        its teacher is another:",
        "          recipe.lr: 0.008 here, 0.01 there",
    ]


def test_a_stage_that_nobody_teaches_differs_from_a_taught_one_by_its_teacher_and_losses() -> None:
    store(study(), ("big", "wee"))
    assert differing(study(), "wee") == ["distill.LD: only there", "teacher: nobody here, GFL on TinyResNet there"]


def test_training_that_has_changed_itself_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    now = spec.SEMANTICS
    with monkeypatch.context() as before:
        before.setattr(spec, "SEMANTICS", now - 1)
        store(study(), ("big", "wee"))
    told = f"semantics: {now} here, {now - 1} there: training itself has changed since"
    assert differing(study(), "big", "wee") == [told]


def test_published_weights_are_measured_and_differ_by_their_content(folder: File) -> None:
    shape = build.network(study().models["big"].model, 3).state_dict()
    for name in ("a", "b"):
        save_file({key: value + (name == "b") for key, value in shape.items()}, folder / f"{name}.safetensors")
    store(study("models.big.weights=a.safetensors"), ("big",))
    text = reasons.text(reasons.why(study("models.big.weights=b.safetensors"), "big"))
    assert text.splitlines()[0] == "tiny: 0 reused, 0 begun, 0 will train, 1 will be measured"
    assert text.splitlines()[-1] == "      model.weights.sha256: other published weights"


def test_values_are_short_and_never_look_alike() -> None:
    def told(here: Any, there: Any, *where: str) -> str:
        return sentence(Difference(where, here, there))

    assert told({"GFL": {"reg_max": 8}}, {"ATSS": {}}, "model", "detector") == "model.detector: GFL here, ATSS there"
    assert told("", "ab", "data", "masks") == "data.masks: other masks"
    assert told("", ABSENT, "data", "masks") == 'data.masks: "" here, not set there'
    assert told(["a"], ["a", "b"], "data", "classes") == "data.classes: [a] here, [a, b] there"
    many = [f"class {i}" for i in range(80)]
    assert told(many, [*many, "another"], "data", "classes") == "data.classes: another value"
    long = told(many, ["a"], "data", "classes")
    assert long.endswith("... here, [a] there") and len(long) < 120
    crop = {"short": {"one_of": [4, 5]}, "size": [3, 6]}
    assert told(None, crop, "recipe", "crop") == f"recipe.crop: null here, {json.dumps(crop)} there"
    assert told(3, None, "semantics").startswith("semantics: 3 here, unknown there: ")


def test_what_a_record_says_cannot_play_tricks_on_a_terminal() -> None:
    store(study("recipe.lr=0.01"), ("wee",))
    (file,) = File("store").glob("*/result.json")
    record = json.loads(file.read_text())
    record["stage"]["recipe"]["precision"] = "\x1b[2J\nfp32"
    file.write_text(json.dumps(record))
    assert "recipe.precision: fp32 here, \\x1b[2J\\nfp32 there" in reasons.text(reasons.why(study(), "wee"))


def test_records_of_other_versions_are_compared_and_never_stop_it() -> None:
    store(study("recipe.lr=0.01"), ("wee",))
    (file,) = File("store").glob("*/result.json")
    record = json.loads(file.read_text())
    del record["stage"]["recipe"]["crop"]
    record["stage"]["recipe"]["momentum"] = 0.9
    file.write_text(json.dumps({**record, "energy": 3, "format": 99}))
    assert differing(study(), "wee") == [
        f"semantics: {spec.SEMANTICS} here, unknown there: its key is not that of what its record says",
        "recipe.lr: 0.008 here, 0.01 there",
        "recipe.crop: null here, not set there",
        "recipe.momentum: not set here, 0.9 there",
    ]
    for stage in ([], {}, {"model": 3, "teacher": "x", "distill": {"LD": 1}}, {"recipe": None, "seed": [1]}):
        file.write_text(json.dumps({**record, "stage": stage}))
        assert len(reasons.text(reasons.why(study())).splitlines()) > 6


# Which is the nearest.


def test_a_stage_of_the_same_model_is_nearer_than_one_of_another_that_differs_less() -> None:
    two = study(text=without("big", "mid"))
    store(two, ("low",))  # differs from wee in two fields of its model
    assert len(differing(two, "wee")) == 2
    store(study("recipe.lr=0.01", "recipe.epochs=3", "seeds=[1]"), ("wee",))
    told = ["recipe.epochs: 2 here, 3 there", "recipe.lr: 0.008 here, 0.01 there", "seed: 0 here, 1 there"]
    assert differing(two, "wee") == told


def test_the_nearest_may_be_the_studys_own_and_is_then_named() -> None:
    all_four = study(text=TEXT)
    store(all_four, ("big", "mid"))
    assert f"{stage_of(all_four, 'big', 'mid').key} (big > mid), differs in 1" in said(all_four, "big", "low")[0]


# Which stages.


def names(made: dict[str, Any]) -> list[tuple[str, int]]:
    return [(stage["name"], stage["seed"]) for stage in made["stages"]]


def test_without_a_name_all_wanted_stages_come_in_the_order_of_a_plan() -> None:
    from orchestrator import plan as planning

    made, plan = reasons.why(study(text=TEXT)), planning.plan(study(text=TEXT))
    assert {tuple(stage["path"]) for stage in made["stages"]} == STAGES
    assert [stage["key"] for stage in made["stages"]] == [stage["key"] for stage in plan["stages"]]


def test_a_stage_is_named_by_its_path_as_it_is_printed_or_by_the_beginning_of_its_key() -> None:
    of = study("seeds=[0, 1]", "search={successive_halving: {budgets: [0.5, 1]}}", text=TEXT)
    assert names(reasons.why(of, "big > wee @0.5")) == [("big > wee @0.5", 0), ("big > wee @0.5", 1)]
    assert names(reasons.why(of, "big>mid  >wee @0.5")) == [("big > mid > wee @0.5", 0), ("big > mid > wee @0.5", 1)]
    for stage in reasons.why(of)["stages"]:
        assert [one["key"] for one in reasons.why(of, stage["key"][:8])["stages"]] == [stage["key"]]


def test_a_stage_answers_to_every_path_that_wants_it() -> None:
    twins = changed(("TinyResNet: {width: 8}", "TinyResNet: {width: 12}"))  # low is mid again
    for name in ("big > mid", "big > low"):
        assert names(reasons.why(study(text=twins), name)) == [("big > mid", 0)]


@pytest.mark.parametrize("name", ["big > med", "ffffffffffffffff0", "wee > big", "big > wee @0.5"])
def test_a_name_of_no_stage_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(Invalid, match=r"nor the beginning of a key: .* is not one of big, big > wee, wee"):
        reasons.why(study(), name)


def test_of_many_stages_only_some_are_printed_and_a_wrong_name_does_not_list_them() -> None:
    models = "".join(
        f"  m{i}: {{detector: {{GFL: {{channels: 8, convs: 1, extra: 0, reg_max: 8}}}}, "
        f"backbone: {{TinyResNet: {{width: {8 + 4 * i}}}}}}}\n"
        for i in range(5)
    )
    many = study(text=changed(("models:\n", f"models:\n{models}"), text=TWO))
    store(study(), ("wee",))
    made = reasons.why(many)
    text = reasons.text(made)
    assert len(made["stages"]) == 65 and text.endswith("... and 1 more; name one, or --json has them all")
    with pytest.raises(Invalid, match="`tapath plan` lists"):
        reasons.why(many, "nobody")


# As a command.


def run(*words: str) -> Any:
    return CliRunner().invoke(main, ["why", *words])


def test_the_command_prints_sentences_and_as_json_everything() -> None:
    store(study(), ("big",))
    store(study("recipe.lr=0.01"), ("big", "wee"))
    ended = run("tiny.yaml")
    key = stage_of(study("recipe.lr=0.01"), "big", "wee").key
    assert ended.exit_code == 0, ended.output
    lines = ended.stdout.splitlines()
    assert lines[0] == "tiny: 1 reused, 0 begun, 2 will train"
    at = lines.index(f"  big > wee (seed 0, student)  {stage_of(study(), 'big', 'wee').key}")
    assert lines[at + 1 : at + 5] == [
        f"    will train: the nearest finished stage, {key}, differs in 2 fields:",
        "      recipe.lr: 0.008 here, 0.01 there",
        "      its teacher is another:",
        "        recipe.lr: 0.008 here, 0.01 there",
    ]
    made = json.loads(run("tiny.yaml", "--json").stdout)
    assert made == reasons.why(study()) and made["counts"] == {"reused": 1, "begun": 0, "will train": 2}
    (stage,) = (stage for stage in made["stages"] if stage["path"] == ["big", "wee"])
    assert stage["nearest"]["key"] == key and stage["nearest"]["score"] == 0.5
    assert stage["nearest"]["differences"] == [
        {"key": "recipe.lr", "here": 0.008, "there": 0.01},
        {"key": "teacher.recipe.lr", "here": 0.008, "there": 0.01},
    ]


def test_the_command_takes_a_stage_a_store_and_sets() -> None:
    store(study("recipe.lr=0.01"), ("big", "wee"))
    ended = run("tiny.yaml", "big > wee", "--set", "recipe.lr=0.01")
    assert ended.exit_code == 0 and ended.stdout.startswith("tiny: 1 reused, 0 begun, 0 will train\n")
    assert "nothing is stored yet" in run("tiny.yaml", "big > wee", "--store", "other").stdout
    ended = run("tiny.yaml", "big > we")
    assert ended.exit_code == 2 and "did you mean big > wee?" in ended.stderr and "Traceback" not in ended.output


def test_five_thousand_results_are_read_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 5000
    base = json.loads(stage_of(study(), "big", "wee").model_dump_json())
    history = [{"epoch": float(i), **{f"val/{name}": 0.123 for name in "abcdefgh"}} for i in range(12)]
    for i in range(count):
        base["recipe"]["lr"] = base["teacher"]["recipe"]["lr"] = 0.01 + i * 1e-6
        base["distill"][0]["LD"]["temperature"] = 10.0 + i % 7
        result = {"stage": base, "score": 0.5, "history": history, "size": 1}
        place = File("store", f"{i:016x}")
        place.mkdir(parents=True)
        (place / "result.json").write_text(json.dumps(result))
        (place / "weights.safetensors").write_bytes(b"x")
    reads: list[File] = []
    read_bytes = File.read_bytes

    def counted(file: File) -> bytes:
        reads.append(file)
        return read_bytes(file)

    monkeypatch.setattr(File, "read_bytes", counted)
    since = time.perf_counter()
    made = reasons.why(study())
    print(f"why with {count} results took {time.perf_counter() - since:.1f} s")
    own = {prepare(study()).store.result_file(stage["key"]) for stage in made["stages"]}
    others = [file for file in reads if file.name == "result.json" and file not in own]
    # The newest are read once more, for what they took.
    assert len(set(others)) == count and len(others) == count + NEWEST
    assert {stage["nearest"]["key"] for stage in made["stages"]} == {f"{0:016x}"}
