"""The sweep of a study: read, written, refused with file, line and key, and planned."""

from __future__ import annotations

import json
from pathlib import Path as File

import pytest
import yaml

from orchestrator import plan as planning
from orchestrator.prepared import prepare
from orchestrator.study import Study, load
from tests.orchestrator.studies import TEXT as TINY
from tests.orchestrator.studies import changed, without, write
from tests.orchestrator.study_texts import TEXT, read, refused
from trainers.call import Invalid

pytestmark = pytest.mark.usefixtures("in_a_folder")

LINE = TEXT.count("\n") + 1  # of `sweep:`
WHOLE = """\
LD.weight: [1, 0.25, 0.5]
LD.temperature: {loguniform: [1, 20]}
recipe.lr: {choice: [0.005, 0.01]}
recipe.optimizer.SGD.momentum: {quniform: [0, 1, 0.25]}
distill: {choice: [[{LD: {}}], [{LD: {}}, {KD: {}}], [{LD: {}}, {PKD: {}}]]}
sampler: tpe
samples: 16
scope: path
stop: {asha: {grace: 1, factor: 2}}
warm_start: true"""


def with_sweep(written: str, text: str = TEXT) -> str:
    return text + "sweep:\n" + "".join(f"  {line}\n" for line in written.split("\n"))


def tiny(folder: File, written: str, *changes: tuple[str, str], text: str = TINY) -> Study:
    """The tiny study with a sweep and a store of its own."""
    file = write(folder, with_sweep(written, text=changed(*changes, text=text)))
    return load(file, (f"resources.store={folder / 'store'}",))


# Read and written


def test_a_sweep_is_read_whole():
    study = read(with_sweep(WHOLE))
    made = study.swept
    assert made is not None
    assert (made.sampler, made.samples, made.scope) == ("tpe", 16, "path")
    assert made.knobs["LD.weight"].options == (1.0, 0.25, 0.5)
    assert [[next(iter(term)) for term in option] for option in made.knobs["distill"].options] == [
        ["LD"],
        ["LD", "KD"],
        ["LD", "PKD"],
    ]
    assert study.distill[0].args["weight"] == 0.5, "the study's own losses stay"


def test_a_study_without_a_sweep_has_none():
    assert read(TEXT).swept is None and read(TEXT).resolved()["sweep"] is None
    assert read(with_sweep(WHOLE), "sweep=null").swept is None


@pytest.mark.parametrize("write_out", [yaml.safe_dump, json.dumps])
@pytest.mark.parametrize("written", [WHOLE, "LD.weight: [1, 2]", "recipe.resize: [null, [32, 64]]\nLD.ramp: [0, 5]"])
def test_a_study_that_is_written_out_and_read_again_is_the_same_study(written, write_out):
    study = read(with_sweep(written))
    again = read(write_out(study.resolved()))
    assert again.resolved() == study.resolved() and again.swept == study.swept


def test_set_changes_a_sweep():
    assert read(with_sweep(WHOLE), "sweep.samples=4").swept.samples == 4
    assert read(with_sweep(WHOLE), "sweep.LD.weight=[3]").swept.knobs["LD.weight"].options == (3.0,)
    assert read(TEXT, "sweep={LD.weight: [1, 2]}").swept.sampler == "grid"
    assert read(with_sweep(WHOLE), "sweep.stop={halving: {}}").swept.stop.how == "halving"


# Mistakes


@pytest.mark.parametrize(
    ("written", "place", "says"),
    [
        ("LD.weight: [1]\nsampels: 3", "2: sweep.sampels: ", "did you mean samples"),
        ("sampler: grid", "0: sweep: ", "name at least one knob"),
        ("LD.weight: {uniform: [0, 1]}", "0: sweep: ", "say how many settings tpe is to try on each edge"),
        ("samples: 4\nLD.weight: {loguniform: [0, 1]}", "2: sweep.LD.weight: ", "begins above 0"),
        ("LD.wieght: [1]", "1: sweep.LD.wieght: ", "did you mean weight"),
        ("LD.weight: [-1]", "1: sweep.LD.weight: ", "greater than or equal to 0"),
        ("LD.weight: [.nan]", "1: sweep.LD.weight.0: ", "not a finite number"),
        ("PKD.weight: [1]", "1: sweep.PKD.weight: ", "PKD is not one of KD, LD"),
        ("LD.ramp: [-1]", "1: sweep.LD.ramp: ", "greater than or equal to 0"),
        ("recipe.epoch: [1]", "1: sweep.recipe.epoch: ", "did you mean epochs"),
        ("recipe.lr: [0]", "1: sweep.recipe.lr: ", "greater than 0"),
        ("recipe.lr.x: [1]", "1: sweep.recipe.lr.x: ", "the recipe has no lr.x"),
        ("recipe.epochs: {uniform: [2, 8]}\nsamples: 2", "1: sweep.recipe.epochs: ", "valid integer"),
        ("distill: [[LDD]]", "1: sweep.distill: ", "did you mean LD"),
        ("LD.weight: [1, 2]\nstop: {asha: {grace: 2}}", "2: sweep.stop.asha.grace: ", "a training has 2 epochs"),
        ("LD.weight: [1, 2]\nstop: median", "2: sweep.stop: ", "write asha or halving"),
        ("LD.weight: [1, 2]\nscope: model", "2: sweep.scope: ", "write edge or path"),
        ("LD.weight: [1, 2]\nsampler: grid\nsamples: 2", "3: sweep.samples: ", "a grid takes all its points"),
        ("LD.weight: [1, 2]\nwarm_start: true", "2: sweep.warm_start: ", "a grid takes all its points"),
        ("LD.weight: [1, 2]\nsamples: 2\nwarm_start: 1", "3: sweep.warm_start: ", "write true or false"),
        ("recipe.optimizer: [SGD]\nrecipe.optimizer.SGD.momentum: [0]", "2: sweep.recipe.optimizer.SGD", "as a whole"),
    ],
)
def test_a_mistake_is_refused_with_file_line_key_and_remedy(written, place, says):
    message = refused(with_sweep(written))
    number, _, key = place.partition(":")
    assert message.startswith(f"demo.yaml:{LINE + int(number)}:{key}"), message
    assert says in message


@pytest.mark.parametrize("value", ["[1, 2]", "5", "grid"])
def test_a_sweep_that_is_no_mapping_is_refused(value):
    assert refused(f"{TEXT}sweep: {value}\n").startswith(f"demo.yaml:{LINE}: sweep: ")


def test_a_mistake_in_a_set_is_refused_with_the_set():
    message = refused(with_sweep(WHOLE), "sweep.samples=0")
    assert message.startswith("--set sweep.samples=0: sweep.samples: ") and "whole number" in message
    assert "samples" in refused(with_sweep(WHOLE), "sweep.sampels=3")


# Checked against the models and the machine, before anything is trained


def test_a_batch_that_the_workers_cannot_share_is_refused_at_plan(tmp_path: File):
    two = "\nresources: {workers: 2}\n"
    study = tiny(tmp_path, "recipe.batch: [8, 9]", text=TINY + two)
    with pytest.raises(Invalid, match=r"(?s)tiny\.yaml:\d+: sweep: with recipe\.batch 9: .*cannot be shared by 2"):
        planning.plan(study)
    study = tiny(tmp_path, "recipe.batch: {randint: [8, 17]}\nsamples: 3", text=TINY + two)
    with pytest.raises(Invalid, match=r"tiny\.yaml:\d+: sweep\.recipe\.batch: not every batch of a range"):
        planning.plan(study)
    assert planning.plan(tiny(tmp_path, "recipe.batch: [8, 16]", text=TINY + two))
    assert planning.plan(tiny(tmp_path, "recipe.batch: {randint: [8, 17]}\nsamples: 3"))


def test_losses_that_a_pair_cannot_do_are_refused_at_plan_with_the_pair_and_the_setting(tmp_path: File):
    fewer = ("{channels: 8, convs: 1, extra: 0, reg_max: 8}", "{channels: 8, convs: 1, extra: 0, reg_max: 4}")
    study = tiny(tmp_path, "distill: [[KD], [LD]]", fewer, ("{LD: {weight: 0.25, temperature: 10}}", "KD"))
    with pytest.raises(Invalid) as caught:
        planning.plan(study)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "tiny.yaml")) and "sweep: with distill LD: " in message
    assert "cannot teach wee" in message


# Played through


def played(study: Study) -> dict[tuple[str, ...], int]:
    """How many stages are wanted of each path that is taught, if all score alike."""
    wanted: dict[tuple[str, ...], set[str]] = {}
    for node in planning.pretend(prepare(study)).wanted():
        wanted.setdefault(node.path.models, set()).add(node.stage.key)
    return {models: len(keys) for models, keys in wanted.items() if len(models) > 1}


@pytest.mark.parametrize("scope", ["edge", "path"])
def test_every_setting_of_every_edge_is_wanted_and_prefixes_are_shared(tmp_path: File, scope: str):
    three = without("low", text=TINY)
    made = played(tiny(tmp_path, f"LD.weight: [1, 2, 3]\nscope: {scope}", text=three))
    assert made == {("big", "mid"): 3, ("big", "wee"): 3, ("big", "mid", "wee"): 3}


def test_what_is_given_up_is_wanted_as_well(tmp_path: File):
    two = without("low", "mid", text=TINY)
    made = played(tiny(tmp_path, "LD.weight: [1, 2, 3, 4]\nstop: {halving: {factor: 2}}", text=two))
    assert made == {("big", "wee"): 4}


@pytest.mark.parametrize("sampler", ["random", "sobol", "tpe"])
@pytest.mark.parametrize("scope", ["edge", "path"])
def test_of_drawn_settings_as_many_are_wanted_as_there_are_samples(tmp_path: File, sampler: str, scope: str):
    two = without("low", "mid", text=TINY)
    written = f"LD.weight: {{uniform: [0.1, 1]}}\nsampler: {sampler}\nsamples: 6\nscope: {scope}"
    assert played(tiny(tmp_path, written, text=two)) == {("big", "wee"): 6}


def test_what_is_wanted_first_does_not_depend_on_when_it_is_asked(tmp_path: File):
    study = tiny(tmp_path, "LD.weight: {uniform: [0.1, 1]}\nsamples: 5\nscope: path")
    one, other = (prepare(study) for _ in range(2))
    keys = [[node.stage.key for node in made.frontier(made.stored).wanted()] for made in (one, other)]
    assert keys[0] == keys[1]
