"""A study file becomes a whole `Study`, with what it leaves out filled in."""

import json
import time
from pathlib import Path

import pytest
import yaml

from orchestrator.resources import Resources
from orchestrator.study import load
from tests.orchestrator.study_texts import DATA, SMALLEST, TEXT, changed, read
from trainers.call import Call
from trainers.published import Source
from trainers.spec import Guides, Recipe

pytestmark = pytest.mark.usefixtures("in_a_folder")


def test_when_a_loss_counts_and_who_is_heard_is_read():
    text = TEXT.replace("{weight: 0.5}", "{weight: 0.5}\n    epochs: [2, null]\n    fade: 1").replace(
        "  lr:", "  guides: all\n  lr:"
    )
    study = read(text)
    assert (study.distill[0].epochs, study.distill[0].fade) == ((2, None), 1.0)
    assert study.distill[0].args["weight"] == 0.5 and study.distill[1].epochs == (1, None)
    assert study.models["small"].recipe.guides == Guides(who="all")
    assert read(json.dumps(study.resolved())).distill == study.distill
    assert read(text, "recipe.guides={who: all, keep: 0.5}").recipe.guides.keep == 0.5


def test_a_study_is_read_whole():
    study = read(TEXT)
    assert (study.name, study.file, study.text, study.sets) == ("demo", "demo.yaml", TEXT, ())
    assert list(study.models) == ["big", "mid", "small"]
    assert study.seeds == (0, 1) and study.edges == "any" and study.resources == Resources(workers=2)
    assert study.data.args["classes"] == 3 and study.data.args["size"] == 64
    assert study.models["big"].model.detector.args["channels"] == 16
    assert study.models["big"].model.detector.args["reg_max"] == 16
    assert [call.name for call in study.distill] == ["LD", "KD"]
    assert study.distill[0].args["weight"] == 0.5 and "temperature" in study.distill[0].args
    assert study.recipe.lr == 0.001
    assert study.recipe.optimizer.args["momentum"] == 0.9


def test_defaults_are_those_of_the_classes_and_the_name_that_of_the_file():
    Path("a.b-c_1.yaml").write_text(SMALLEST)
    study = load(Path("a.b-c_1.yaml"))
    assert study.name == "a.b-c_1"
    assert study.seeds == (0,) and study.search == Call(name="exhaustive") and study.resources == Resources()
    assert study.recipe.epochs == Recipe().epochs and study.recipe.schedule.args["factor"] == 0.1


def test_a_study_that_searches_has_all_controls_unless_it_names_its_own():
    assert read(TEXT).controls == ("alone", "direct", "alone_same_compute")
    assert read(SMALLEST).controls == ("alone",)
    assert read(changed("search: exhaustive", "controls: []")).controls == ()
    assert read(TEXT, "controls=[direct]").controls == ("direct",)
    assert read(TEXT, "edges=[[big, mid], [mid, small]]").controls == ("alone",)


def test_a_models_recipe_is_the_studys_with_what_differs():
    study = read(TEXT)
    assert study.models["big"].recipe == study.models["mid"].recipe == study.recipe
    assert study.models["small"].recipe == study.recipe.model_copy(update={"epochs": 3})


def test_a_models_recipe_may_go_back_to_a_default():
    study = read(changed("{epochs: 3}", f"{{lr: {Recipe().lr}, optimizer: AdamW}}"))
    recipe = study.models["small"].recipe
    assert recipe.lr == Recipe().lr != study.recipe.lr and recipe.epochs == 2
    assert recipe.optimizer.args["weight_decay"] == 0.05 and study.recipe.optimizer.name == "SGD"


def test_published_weights_are_a_path_a_url_or_more():
    text = TEXT.replace("  mid: {detector: GFL", "  mid: {weights: weights/r50.pth, detector: GFL").replace(
        "  small:\n",
        "  small:\n    weights: {file: 'https://example.org/x.pth', sha256: 0123456789abcdef, part: backbone}\n",
    )
    study = read(text)
    assert study.models["big"].weights is None
    assert study.models["mid"].weights == Source(file="weights/r50.pth")
    assert study.models["small"].weights == Source(
        file="https://example.org/x.pth", sha256="0123456789abcdef", part="backbone"
    )


def test_a_study_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        read(TEXT).name = "other"


def test_the_students_are_the_last_model_or_those_that_are_named_in_the_order_of_the_models():
    assert read(TEXT).students == ("small",)
    both = read(TEXT, "students=[small, mid]")
    assert both.students == ("mid", "small") and both.resolved()["students"] == ["mid", "small"]
    assert read(TEXT, "students=[mid]").lattice(DATA).students == ("mid",)


def test_the_lattice_has_the_models_the_losses_and_the_edges():
    study = read(changed("edges: any", "edges: [[big, mid], [mid, small]]"))
    lattice = study.lattice(DATA)
    assert [str(path) for path in lattice.paths()] == ["big > mid > small"]
    stage = lattice.stage(lattice.paths()[0], 1)
    assert stage.recipe.epochs == 3 and stage.distill == study.distill and stage.data == DATA
    assert stage.teacher.teacher.model == study.models["big"].model
    assert len(read(TEXT).lattice(DATA).paths()) == 2


def test_what_a_study_resolves_to_is_the_same_study():
    study = read(TEXT, "edges=[[big, small]]")
    resolved = study.resolved()
    assert list(resolved["models"]) == ["big", "mid", "small"]
    assert resolved["recipe"]["clip"] is None and resolved["edges"] == [["big", "small"]]
    assert resolved["search"] == {"exhaustive": {}}
    assert not {"file", "text", "sets"} & resolved.keys()
    for text in (json.dumps(resolved), yaml.safe_dump(resolved, sort_keys=False)):
        again = read(text)
        assert again.resolved() == resolved
        assert again.lattice(DATA).stage(again.lattice(DATA).paths()[0], 0).key == (
            study.lattice(DATA).stage(study.lattice(DATA).paths()[0], 0).key
        )


def test_nothing_in_resources_changes_a_key():
    def key(*sets: str) -> str:
        lattice = read(TEXT, *sets).lattice(DATA)
        return lattice.stage(lattice.paths()[0], 0).key

    machines = "resources={workers: 4, cpus: 0.5, gpus: 1, stages_at_once: 3, loader_workers: 2, store: s}"
    assert key(machines) == key() != key("recipe.lr=0.002")
    assert key("resources={micro_batch: 2, sync_batch_norm: true}") == key()
    assert key("resources={teacher_precision: bf16, compile: true, channels_last: false}") == key()
    nodes = "resources={memory: 2GB, accelerator: A100, custom: {seat: 1}, labels: {zone: a}, cohort: 2}"
    assert key(nodes) == key(nodes, "models.small.resources={workers: 2, min_workers: 1}") == key()


def test_numbers_written_in_different_ways_are_the_same_study():
    other = TEXT.replace("1e-3", "0.001").replace("epochs: 2", "epochs: 2.0").replace("channels: 16", "channels: 1.6e1")
    assert read(other).resolved() == read(TEXT).resolved()


def test_loading_takes_less_than_fifty_milliseconds():
    read(TEXT)
    seconds = []
    for _ in range(5):
        start = time.process_time()
        load("demo.yaml")
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.05
