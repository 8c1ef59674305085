"""A study file becomes a whole `Study`, or one refusal that names file, line, key and what would do."""

import json
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.study import Resources, Study, load
from trainers.call import Call, Invalid
from trainers.published import Source
from trainers.spec import Data, Guides, Recipe

TEXT = """\
name: demo
data: {Digits: {classes: 3}}
models:
  big:
    detector: {GFL: {channels: 16, convs: 1}}
    backbone: {TinyResNet: {width: 16}}
  mid: {detector: GFL, backbone: TinyResNet}
  small:
    detector: GFL
    backbone: TinyResNet
    recipe: {epochs: 3}
edges: any
recipe:
  epochs: 2
  lr: 1e-3
distill:
  - LD: {weight: 0.5}
  - KD
search: exhaustive
seeds: [0, 1]
resources: {workers: 2}
"""
SMALLEST = """\
data: Digits
models: {a: {detector: GFL, backbone: TinyResNet}, b: {detector: GFL, backbone: TinyResNet}}
distill: [LD]
"""
DATA = Data(fingerprint="f", classes=("a",))


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(text: str, *sets: str) -> Study:
    Path("demo.yaml").write_text(text, encoding="utf-8")
    return load("demo.yaml", sets)


def refused(text: str, *sets: str) -> str:
    with pytest.raises(Invalid) as caught:
        read(text, *sets)
    assert caught.value.where == ()  # the message names the key already
    return str(caught.value)


def changed(old: str, new: str) -> str:
    assert TEXT.count(old) == 1
    return TEXT.replace(old, new)


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


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ("{fil: x.pth}", "9: models.small.weights.fil: there is no such key: fil is not one of file, part, sha256"),
        ("{file: x.pth, sha256: xyz}", "9: models.small.weights.sha256: "),
        ("{file: x.pth, part: neck}", "9: models.small.weights.part: "),
        ("{sha256: '01234567'}", "models.small.weights.file: this key is missing"),
    ],
)
def test_a_mistake_in_published_weights_is_named(weights, says):
    assert says in refused(TEXT.replace("  small:\n", f"  small:\n    weights: {weights}\n"))


def test_a_study_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        read(TEXT).name = "other"


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


def test_numbers_written_in_different_ways_are_the_same_study():
    other = TEXT.replace("1e-3", "0.001").replace("epochs: 2", "epochs: 2.0").replace("channels: 16", "channels: 1.6e1")
    assert read(other).resolved() == read(TEXT).resolved()


REFUSED = [
    # unknown keys, at every level
    (
        "edges: any",
        "edgs: any",
        "12: edgs: ",
        "no such key: edgs is not one of data, distill, edges",
        "mean edges?",
    ),
    ("edges: any", "file: x", "12: file: ", "no such key: file is not one of data"),
    ("edges: any", "text: x", "12: text: ", "no such key"),
    ("edges: any", "sets: []", "12: sets: ", "no such key"),
    ("  epochs: 2", "  epoch: 2", "14: recipe.epoch: ", "did you mean epochs?"),
    ("recipe: {epochs: 3}", "recipe: {epoch: 3}", "11: models.small.recipe.epoch: ", "did you mean epochs?"),
    ("recipe: {epochs: 3}", "recipes: {}", "11: models.small.recipes: ", "did you mean recipe?"),
    ("{workers: 2}", "{worker: 2}", "21: resources.worker: ", "did you mean workers?"),
    (
        "    detector: GFL",
        "    detectr: GFL",
        "8: models.small.detector: ",
        "missing",
        "9: models.small.detectr: ",
    ),
    # missing keys
    ("data: {Digits: {classes: 3}}\n", "", "1: data: ", "this key is missing"),
    ("distill:\n  - LD: {weight: 0.5}\n  - KD\n", "", "1: distill: ", "this key is missing"),
    ("    backbone: TinyResNet\n", "", "8: models.small.backbone: ", "this key is missing"),
    # wrong types
    ("name: demo", "name: 5", "1: name: ", "valid string; put it in quotes (got 5)"),
    ("name: demo", "name: [demo]", "1: name: ", 'valid string (got ["demo"])'),
    ("{Digits: {classes: 3}}", "3", "2: data: ", "write a name, or {Name: {argument: value}}"),
    ("{Digits: {classes: 3}}", "[Digits]", "2: data: ", "write a name, or {Name: {argument: value}}"),
    ("{Digits: {classes: 3}}", "{Digits: 3}", "2: data: ", "write a name, or {Name: {argument: value}}"),
    (
        "{Digits: {classes: 3}}",
        "{Digits: , COCO: }",
        "2: data: ",
        "write a name, or {Name: {argument: value}}",
    ),
    ("{Digits: {classes: 3}}", "{name: 3}", "2: data.name: ", "valid string"),
    ("  mid: {detector: GFL, backbone: TinyResNet}", "  mid: GFL", "7: models.mid: ", "write a mapping"),
    (
        "  mid: {detector: GFL, backbone: TinyResNet}",
        "  mid:",
        "7: models.mid: ",
        "write a mapping",
        "(got null)",
    ),
    ("recipe: {epochs: 3}", "recipe: 3", "11: models.small.recipe: ", "write a mapping"),
    ("    detector: GFL", "    detector: 3", "9: models.small.detector: ", "write a name"),
    ("edges: any", "edges: all", "12: edges: ", "write any, or a list of [teacher, student]", '(got "all")'),
    ("edges: any", "edges: {big: small}", "12: edges: ", "write any, or a list of [teacher, student]"),
    (
        "edges: any",
        "edges: [[big, mid, small]]",
        "12: edges: ",
        '["big", "mid", "small"] is not [teacher, student]',
    ),
    ("edges: any", "edges: [[big, 18]]", "12: edges: ", '["big", 18] is not [teacher, student]'),
    ("  epochs: 2", "  epochs: two", "14: recipe.epochs: ", 'valid integer (got "two")'),
    ("  epochs: 2", '  epochs: "2"', "14: recipe.epochs: ", 'valid integer (got "2")'),
    ("  epochs: 2", "  epochs: true", "14: recipe.epochs: ", "valid integer (got true)"),
    ("  epochs: 2", "  epochs: 2.5", "14: recipe.epochs: ", "valid integer (got 2.5)"),
    ("  epochs: 2", "  epochs:", "14: recipe.epochs: ", "valid integer (got null)"),
    ("  epochs: 2", "  epochs: [2]", "14: recipe.epochs: ", "valid integer (got [2])"),
    ("1e-3", "abc", "15: recipe.lr: ", 'valid number (got "abc")'),
    ("1e-3", "1e-3\n  fixed_norm: 1", "16: recipe.fixed_norm: ", "write true or false (got 1)"),
    ("1e-3", "1e-3\n  resize: [1, 2, 3]", "16: recipe.resize: ", "2 items"),
    ("1e-3", "1e-3\n  resize: [1, x]", "16: recipe.resize.1: ", "valid integer"),
    ("1e-3", "1e-3\n  resize: 800", "16: recipe.resize: ", "write [short, long] as in [800, 1333]"),
    ("1e-3", "1e-3\n  resize: [1333, 800]", "16: recipe.resize: ", "write the short side first"),
    ("1e-3", "1e-3\n  resize: {short: 800}", "16: recipe.resize.long: ", "this key is missing"),
    ("1e-3", "1e-3\n  resize: {shrt: 8, long: 9}", "16: recipe.resize.short: ", "this key is missing"),
    ("1e-3", "1e-3\n  resize: {short: 8, long: 9, lng: 9}", "16: recipe.resize.lng: ", "did you mean long?"),
    ("1e-3", "1e-3\n  resize: {short: x, long: 9}", "16: recipe.resize.short: ", "a range as in [480, 800], or {one"),
    ("1e-3", "1e-3\n  resize: {short: [9, 8], long: 9}", "16: recipe.resize.short: ", "the smaller length first"),
    ("1e-3", "1e-3\n  resize: {short: [8, 10], long: 9}", "16: recipe.resize: ", "10, would be longer than"),
    ("1e-3", "1e-3\n  resize: {short: {one_of: []}, long: 9}", "16: recipe.resize.short.one_of: ", "at least one"),
    ("1e-3", "1e-3\n  resize: {short: {oneof: [8]}, long: 9}", "16: recipe.resize.short.one_of: ", "mean one_of?"),
    ("1e-3", "1e-3\n  crop: {short: 400}", "16: recipe.crop.size: ", "this key is missing"),
    ("1e-3", "1e-3\n  crop: {short: 400, size: [401, 600]}", "16: recipe.crop: ", "401, is larger than the short side"),
    ("1e-3", "1e-3\n  crop: {short: 400, size: [384, 600]}", "16: recipe.crop: ", "write resize: too"),
    (
        "recipe: {epochs: 3}",
        "recipe: {crop: {short: 400, size: [384, 600]}, resize: [300, 399]}",
        "11: models.small.recipe.crop: ",
        "400, is longer than resize lets the long one be, 399",
    ),
    ("1e-3", "1e-3\n  precision: fp64", "16: recipe.precision: ", "'fp32', 'bf16' or 'fp16'"),
    ("  - LD: {weight: 0.5}\n  - KD\n", "  LD: {weight: 0.5}\n", "16: distill: ", "write a list"),
    ("  - KD", "  - 5", "18: distill.1: ", "write a name"),
    ("search: exhaustive", "search: [exhaustive]", "19: search: ", "write a name"),
    ("seeds: [0, 1]", "seeds: 3", "20: seeds: ", "write a list"),
    ("seeds: [0, 1]", "seeds: [0, x]", "20: seeds.1: ", "valid integer"),
    ("{workers: 2}", "[]", "21: resources: ", "write a mapping"),
    ("{workers: 2}", "{store: 5}", "21: resources.store: ", "put it in quotes"),
    ("{workers: 2}", "{gpus: many}", "21: resources.gpus: ", "valid number"),
    # out of range
    ("  epochs: 2", "  epochs: -1", "14: recipe.epochs: ", "greater than or equal to 1 (got -1)"),
    ("  epochs: 2", "  batch: 0", "14: recipe.batch: ", "greater than or equal to 1 (got 0)"),
    (
        "recipe: {epochs: 3}",
        "recipe: {epochs: 0}",
        "11: models.small.recipe.epochs: ",
        "greater than or equal to 1",
    ),
    ("1e-3", "0", "15: recipe.lr: ", "greater than 0"),
    ("1e-3", ".nan", "15: recipe.lr: ", "not a finite number"),
    ("1e-3", "-.inf", "15: recipe.lr: ", "not a finite number"),
    ("1e-3", "1e999", "15: recipe.lr: ", "finite"),
    ("seeds: [0, 1]", "seeds: []", "20: seeds: ", "at least one seed, each once"),
    ("seeds: [0, 1]", "seeds: [1, 2, 1]", "20: seeds: ", "each once, as in [0, 1, 2]"),
    ("seeds: [0, 1]", "seeds: [0, -1]", "20: seeds.1: ", "greater than or equal to 0"),
    ("{workers: 2}", "{workers: 0}", "21: resources.workers: ", "greater than or equal to 1"),
    ("{workers: 2}", "{cpus: 0}", "21: resources.cpus: ", "greater than 0"),
    ("{workers: 2}", "{gpus: -1}", "21: resources.gpus: ", "greater than or equal to 0"),
    ("{workers: 2}", "{stages_at_once: 0}", "21: resources.stages_at_once: ", "greater than or equal to 1"),
    ("{workers: 2}", "{evaluate_every: 0}", "21: resources.evaluate_every: ", "greater than or equal to 1"),
    ("{workers: 2}", "{loader_workers: -1}", "21: resources.loader_workers: ", "greater than or equal to 0"),
    ("{workers: 2}", '{store: ""}', "21: resources.store: ", "at least 1 character"),
    # names of what does not exist
    ("{Digits: {classes: 3}}", "Digit", "2: data: ", "Digit is not one of ", "did you mean Digits?"),
    ("    detector: GFL", "    detector: GLF", "9: models.small.detector: ", "did you mean GFL?"),
    (
        "    backbone: TinyResNet",
        "    backbone: TinyResnet",
        "10: models.small.backbone: ",
        "mean TinyResNet?",
    ),
    ("  - KD", "  - KDD", "18: distill.1: ", "did you mean KD?"),
    ("search: exhaustive", "search: exhausting", "19: search: ", "did you mean exhaustive?"),
    ("1e-3", "1e-3\n  optimizer: Adam", "16: recipe.optimizer: ", "did you mean AdamW?"),
    ("1e-3", "1e-3\n  schedule: Cosin", "16: recipe.schedule: ", "did you mean Cosine?"),
    ("{epochs: 3}", "{schedule: Cosin}", "11: models.small.recipe.schedule: ", "did you mean Cosine?"),
    # their arguments
    (
        "{classes: 3}",
        "{class: 3}",
        "2: data.Digits.class: ",
        "no such argument: class is not one of",
        "mean classes?",
    ),
    ("{Digits: {classes: 3}}", "COCO", "2: data.COCO: ", "COCO needs the argument root"),
    ("{channels: 16,", "{chanels: 16,", "5: models.big.detector.GFL.chanels: ", "did you mean channels?"),
    ("{width: 16}", "{width: wide}", "6: models.big.backbone.TinyResNet.width: ", "valid integer", "'wide'"),
    ("{width: 16}", "{width: 0}", "6: models.big.backbone.TinyResNet.width: ", "greater than or equal to 1"),
    ("{weight: 0.5}", "{weigth: 0.5}", "17: distill.0.LD.weigth: ", "did you mean weight?"),
    ("{weight: 0.5}", "{weight: -1}", "17: distill.0.LD.weight: ", "greater than or equal to 0"),
    ("{weight: 0.5}", "{temperature: 0}", "17: distill.0.LD.temperature: ", "greater than"),
    # when they count, and who is heard
    ("{weight: 0.5}", "{weight: 0.5}\n    epoch: [1, 2]", "17: distill.0: ", "beside it alpha, epochs, after, ramp"),
    ("{weight: 0.5}", "{weight: 0.5}\n    epochs: [2, 1]", "17: distill.0: ", "comes before its first"),
    ("{weight: 0.5}", "{weight: 0.5}\n    epochs: [1, 2.5]", "18: distill.0.epochs", "valid integer"),
    ("{weight: 0.5}", "{weight: 0.5}\n    epochs: [1]", "18: distill.0.epochs.1: ", "missing"),
    ("{weight: 0.5}", "{weight: 0.5}\n    ramp: -1", "18: distill.0.ramp: ", "greater than or equal to 0"),
    ("1e-3", "1e-3\n  guides: some", "16: recipe.guides", "'teacher' or 'all'"),
    ("1e-3", "1e-3\n  guides: {who: all, kep: 0.5}", "16: recipe.guides.kep: ", "did you mean keep?"),
    ("{epochs: 3}", "{guides: {keep: 0}}", "11: models.small.recipe.guides.keep: ", "greater than 0"),
    ("search: exhaustive", "search: {exhaustive: {n: 1}}", "19: search.exhaustive.n: ", "has no such argument: n"),
    (
        "search: exhaustive",
        "search: {successive_halving: {keep: 2}}",
        "19: search.successive_halving.keep: ",
        "less than or equal to 1",
    ),
    (
        "search: exhaustive",
        "search: {successive_halving: {budgets: [1, 0.5]}}",
        "19: search.successive_halving.budgets: ",
        "must rise",
    ),
    (
        "1e-3",
        "1e-3\n  optimizer: {SGD: {momentum: 2}}",
        "16: recipe.optimizer.SGD.momentum: ",
        "less than or equal",
    ),
    # names
    ("name: demo", "name: a/b", "1: name: ", "at most 100 letters, digits", '(got "a/b")'),
    ("name: demo", "name: a..b", "1: name: ", "without .."),
    ("name: demo", "name: ..", "1: name: ", "without .."),
    ("name: demo", 'name: ""', "1: name: ", "letters, digits"),
    ("name: demo", f"name: {'x' * 101}", "1: name: ", "at most 100"),
    ("name: demo", "name: d\u00e9mo", "1: name: ", "letters, digits"),
    ("name: demo", "name: on", "1: name: ", "on is a boolean to some"),
    ("  mid:", "  a>b:", "7: models.a>b: ", "1 to 100 visible characters, none of them > or /"),
    ("  mid:", "  a/b:", "7: models.a/b: ", "1 to 100 visible characters, none of them > or /"),
    ("  mid:", '  "":', "7: models.: ", "1 to 100 visible characters"),
    ("  mid:", '  " mid":', "7: models. mid: ", "1 to 100 visible characters"),
    ("  mid:", f"  {'m' * 101}:", "7: models.mmm", "1 to 100 visible characters"),
    ("  mid:", '  "a\\e[1m":', "7: models: ", "U+001B has no place here"),
    ("  mid:", '  "a\\u202eb":', "7: models.a\\u202eb: ", "1 to 100 visible characters"),
    ("  mid:", "  18:", "7: models: ", 'the key 18 is a number, not a word; quote it: "18"'),
    ("  mid:", "  no:", "7: models: ", 'quote it: "no"'),
    ("  mid:", "  big:", "7: models.big: ", "this key is here twice, first at demo.yaml:4"),
    # who teaches whom
    ("edges: any", "edges:\n- [big, small]\n- [bgi, mid]", "14: edges.1: ", "did you mean big?"),
    ("edges: any", "edges:\n- [big, small]\n- [mid, mid]", "14: edges.1: ", "mid cannot teach itself"),
    ("edges: any", "edges: [[big, mid],\n[small, mid]]", "13: edges.1: ", "write [mid, small]"),
    ("edges: any", "edges: [[big, small], [big, small]]", "12: edges.1: ", "there already"),
    ("edges: any", "edges: [[big, mid]]", "12: edges: ", "no path leads from big to small"),
    ("edges: any", "edges: []", "12: edges: ", "no path leads from big to small"),
]


@pytest.mark.parametrize(("old", "new", "place", "says"), [(a, b, c, d) for a, b, c, *d in REFUSED])
def test_a_mistake_is_refused_with_file_line_key_and_remedy(old, new, place, says):
    message = refused(changed(old, new))
    assert message.startswith(f"demo.yaml:{place}")
    for part in says:
        assert part in message
    assert all(line.isprintable() for line in message.split("\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "demo.yaml: this is empty; a study has at least data, models and distill"),
        ("- a", "demo.yaml:1: this is not a mapping; a study has at least data, models and distill"),
        ("just words", "demo.yaml:1: this is not a mapping; a study has at least data, models and distill"),
        ("{}", "demo.yaml:1: data: this key is missing; add it"),
        (
            SMALLEST.replace("[LD]", "[]"),
            "demo.yaml:3: distill: name at least one distillation loss, as in [LD]",
        ),
        (
            TEXT[: TEXT.index("  mid:")] + "distill: [LD]",
            "demo.yaml:3: models: a study needs at least two models",
        ),
        ("models: {}\ndata: Digits\ndistill: [KD]", "demo.yaml:1: models: a study needs at least two models"),
        ("models: []\ndata: Digits\ndistill: [KD]", "demo.yaml:1: models: write a mapping"),
        (
            "a: 1\nb: !!python/object/apply:os.abort []",
            "demo.yaml:2: the tag tag:yaml.org,2002:python/object",
        ),
        ("a: 1\n\tb: 2", "demo.yaml:2: not YAML at column 1"),
    ],
)
def test_a_file_that_is_no_study_is_refused(text, message):
    assert refused(text).startswith(message)


def test_a_missing_study_is_refused():
    with pytest.raises(Invalid, match=r"^demo\.yml: there is no such file"):
        load("demo.yml")


def test_a_file_name_that_is_no_name_of_a_study_is_refused():
    Path("my study.yaml").write_text(SMALLEST)
    with pytest.raises(Invalid, match=r"^my study\.yaml:1: name: write at most 100 letters"):
        load("my study.yaml")


def test_several_mistakes_are_reported_together():
    text = changed("epochs: 2", "epochs: x").replace("seeds: [0, 1]", "seeds: 1").replace("workers", "wrkers")
    lines = refused(text).split("\n")
    assert [line.split(": ")[0] for line in lines] == ["demo.yaml:14", "demo.yaml:20", "demo.yaml:21"]
    text = changed("- KD", "- KDD").replace("detector: GFL", "detector: GFLL")
    assert len(refused(text).split("\n")) == 3


def test_at_most_ten_mistakes_are_listed():
    keys = "".join(f"k{i}: 1\n" for i in range(25))
    lines = refused(TEXT + keys).split("\n")
    assert len(lines) == 11 and lines[-1] == "... and 15 more"


def test_a_wrong_recipe_is_reported_once_and_not_again_for_every_model():
    assert refused(changed("1e-3", "1e-3\n  schedule: Cosin")).count("\n") == 0
    assert refused(changed("1e-3", "0")).count("\n") == 0


def test_a_mistake_that_is_found_later_gets_its_line():
    study = read(TEXT, "models.big.detector.GFL.convs=2")
    assert str(study.refusal(Invalid("does not fit", ("models", "mid")))) == "demo.yaml:7: models.mid: does not fit"
    found = str(study.refusal(Invalid("too many", ("models", "big", "detector", "GFL", "convs"))))
    assert found == "--set models.big.detector.GFL.convs=2: models.big.detector.GFL.convs: too many"


def test_a_hostile_study_runs_nothing(monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    message = refused(changed("{classes: 3}", "!!python/object/apply:pathlib.Path.touch [trace]"))
    assert message.startswith("demo.yaml:2: the tag ") and not Path("trace").exists()
    for name in ("os", "__import__", "__init__", "torch", "Digits.__class__", "Call", "Invalid", "${SECRET}"):
        message = refused(changed("{Digits: {classes: 3}}", f'"{name}"'))
        assert message.startswith("demo.yaml:2: data: ") and "is not one of" in message
        assert "hunter2" not in message


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        (
            "recipe.epochs=7",
            lambda study: study.recipe.epochs == 7 and study.models["small"].recipe.epochs == 3,
        ),
        ("recipe.lr=1e-2", lambda study: study.recipe.lr == 0.01),
        ("recipe.clip=null", lambda study: study.recipe.clip is None),
        ("recipe={}", lambda study: study.recipe.epochs == Recipe().epochs),
        ("name=other", lambda study: study.name == "other"),
        ("seeds=[3]", lambda study: study.seeds == (3,)),
        ("seeds.0=5", lambda study: study.seeds == (5, 1)),
        ("distill=[{LD: {temperature: 5}}]", lambda study: study.distill[0].args["temperature"] == 5),
        ("distill.0.LD.weight=1", lambda study: study.distill[0].args["weight"] == 1),
        ("distill.1.KD.weight=2", lambda study: study.distill[1].args["weight"] == 2),
        ("data.Digits.classes=5", lambda study: study.data.args["classes"] == 5),
        (
            "data.Digits.size=96",
            lambda study: study.data.args["size"] == 96 and study.data.args["classes"] == 3,
        ),
        ("models.big.backbone.TinyResNet.width=32", lambda study: width(study, "big") == 32),
        ("models.mid.backbone.TinyResNet.width=8", lambda study: width(study, "mid") == 8),
        ("models.mid.recipe.epochs=9", lambda study: study.models["mid"].recipe.epochs == 9),
        (
            "recipe.optimizer.AdamW.weight_decay=0",
            lambda study: study.recipe.optimizer.args["weight_decay"] == 0,
        ),
        ("search={successive_halving: {keep: 1}}", lambda study: study.search.args["keep"] == 1),
        ("resources.store='a=b'", lambda study: study.resources.store == "a=b"),
        ('resources.store="\\ud83d\\ude00"', lambda study: study.resources.store == "\U0001f600"),
        ("models.x={detector: GFL, backbone: TinyResNet}", lambda study: list(study.models)[-1] == "x"),
    ],
)
def test_a_set_changes_the_study_before_it_is_checked(assignment, value):
    study = read(TEXT, assignment)
    assert value(study)
    assert study.sets == (assignment,) and study.text == TEXT


def width(study: Study, name: str) -> int:
    return study.models[name].model.backbone.args["width"]


def test_a_set_may_start_what_the_study_leaves_to_defaults():
    study = read(SMALLEST, "recipe.epochs=1", "resources.gpus=1", "search.successive_halving.keep=0.25")
    assert study.recipe.epochs == 1 and study.resources.gpus == 1 and study.search.args["keep"] == 0.25
    assert read(SMALLEST, "models.a.recipe.schedule.Step.factor=0.5").models["a"].recipe.schedule.args["factor"] == 0.5


def test_sets_reach_into_how_images_are_resized():
    text = TEXT.replace("  lr:", "  resize: {short: 640, long: 1333}\n  lr:")
    assert read(text, "recipe.resize.short=[480, 800]").recipe.resize.short == (480, 800)
    assert read(text, "recipe.resize.long=1000").recipe.resize.long == 1000
    fresh = read(TEXT, "recipe.resize.short=640", "recipe.resize.long=1000").recipe.resize
    assert (fresh.short, fresh.long) == (640, 1000)
    several = read(TEXT, "recipe.resize.short.one_of=[480, 640]", "recipe.resize.long=1000").recipe.resize
    assert several.short.one_of == (480, 640)
    crop = read(text, "recipe.crop.short=400", "recipe.crop.size=[300, 400]", "models.small.recipe.flip=0").models
    assert all(one.recipe.crop.size == (300, 400) and one.recipe.resize.short == 640 for one in crop.values())
    listed = TEXT.replace("  lr:", "  resize: [640, 1333]\n  lr:")
    assert read(listed, "recipe.resize.0=480").recipe.resize.short == 480


def test_sets_are_applied_in_order():
    study = read(TEXT, "recipe.epochs=4", "recipe.epochs=5", "recipe.batch=2")
    assert (study.recipe.epochs, study.recipe.batch) == (5, 2)


def test_a_set_finds_a_model_whose_name_has_dots():
    assert width(read(changed("  mid:", "  mid.v1.5:"), "models.mid.v1.5.backbone.TinyResNet.width=3"), "mid.v1.5") == 3


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("recipe.epochs=two", 'recipe.epochs: Input should be a valid integer (got "two")'),
        ("recipe.epochs=0", "recipe.epochs: Input should be greater than or equal to 1"),
        ("recipe.epoch=2", "recipe.epoch: there is no such key: epoch is not one of"),
        ("recip.epochs=2", "recip is not one of data, distill, edges, models, name, recipe"),
        ("models.bgi.detector=GFL", "models: bgi is not one of big, mid, small; did you mean big?"),
        (
            "models.mid.backbone.ResNet.depth=50",
            "models.mid.backbone: this is TinyResNet, which has no ResNet",
        ),
        (
            "models.big.backbone.TinyResNet.widht=1",
            "models.big.backbone.TinyResNet.widht: TinyResNet has no such argument",
        ),
        ("data.COCO.root=x", "data: COCO is not one of Digits"),
        ("distill.2.LD.weight=1", "distill: 2 is no position in this list of 2; the first is 0"),
        ("distill.-1=KD", "distill: -1 is no position"),
        ("distill.LD.weight=1", "distill: LD is no position"),
        ("distill.1=KDD", "distill.1: KDD is not one of"),
        ("recipe.epochs.x=1", "recipe.epochs: this is 2, which has no x"),
        ("name.x.y=1", "name: this is demo, which has no x; set it as a whole"),
        ("edges.1=[mid, small]", "edges: this is any, which has no 1; set it as a whole"),
        (
            "search.successive_halving={keep: 1}",
            "search: this is exhaustive, which has no successive_halving",
        ),
        ("recipe.epochs", "write key.key=value, as in recipe.epochs=2"),
        ("=2", "write key.key=value"),
        ("", "write key.key=value"),
        ("recipe..epochs=2", "write key.key=value"),
        (".=2", "write key.key=value"),
        ("recipe.epochs=", "there is no value; write null for none"),
        ("recipe.epochs=[1", "not YAML"),
        (
            "recipe.epochs=!!python/name:os.system ",
            "the tag tag:yaml.org,2002:python/name:os.system is not obeyed",
        ),
        ("recipe.lr=.nan", "not a finite number"),
        ("recipe.fixed_norm=yes", "yes is a boolean to some readers of YAML; write true"),
        ("recipe={epochs: 1, epochs: 2}", "epochs: this key is here twice"),
        ("models={big: {detector: GFL}}", "models.big.backbone: this key is missing"),
        ("file=x", "file: there is no such key"),
        ("edges=[[big, bgi]]", "edges.0: bgi is not one of"),
        ("\x1b[31m=1", "the character U+001B has no place here"),
        ("\udcff=1", "the character U+DCFF has no place here"),
    ],
)
def test_a_wrong_set_is_refused_by_name(assignment, says):
    message = refused(TEXT, assignment)
    assert message.startswith("--set ") and says in message
    assert assignment.partition("=")[0] in message or not assignment.isprintable()
    assert message.isprintable()


def test_a_set_that_adds_a_key_too_many_is_named_with_the_line_it_was_added_to():
    message = refused(TEXT, "data.COCO={root: x}")
    assert message.startswith("demo.yaml:2, with --set 'data.COCO={root: x}': data: write a name, or {Name:")


def test_loading_takes_less_than_fifty_milliseconds():
    read(TEXT)
    seconds = []
    for _ in range(5):
        start = time.process_time()
        load("demo.yaml")
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.05


PIECES = [
    *"abc:-,[]{}&*!>|'\"#%@~?0159.",
    "\n",
    "\n  ",
    "  ",
    ": ",
    "- ",
    "\t",
    "\x00",
    "\x85",
    "\ud7ff",
    "1e-3",
    "null",
]
WORDS = [
    "GFL",
    "LD",
    "big",
    "recipe",
    "models",
    "epochs",
    "-1",
    "1e400",
    "no",
    "<<",
    "&a ",
    "*a",
    "!!set ",
    "{}",
    "[]",
]
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def study_or_refusal(text: str, *sets: str) -> None:
    try:
        study = read(text, *sets)
    except Invalid as mistake:
        assert str(mistake).startswith(("demo.yaml", "--set"))
        assert all(line.isprintable() for line in str(mistake).split("\n"))
    else:
        lattice = study.lattice(DATA)
        assert lattice.stage(lattice.shortest(), study.seeds[0]).key
        assert json.loads(json.dumps(study.resolved(), allow_nan=False)) == study.resolved()


@FUZZ
@given(st.lists(st.sampled_from(PIECES + WORDS), max_size=60).map("".join))
def test_any_text_is_a_study_or_refused(text):
    study_or_refusal(text)


@st.composite
def mutants(draw: st.DrawFn) -> str:
    text = TEXT
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 12))
        text = text[:start] + "".join(draw(st.lists(st.sampled_from(PIECES + WORDS), max_size=3))) + text[end:]
    return text


@FUZZ
@given(mutants())
def test_any_change_to_a_study_is_a_study_or_refused(text):
    study_or_refusal(text)


def places(tree, where=()):
    yield where
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from places(value, (*where, key))


EVERY_PLACE = [".".join(map(str, where)) for where in places(yaml.safe_load(TEXT)) if where]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@FUZZ
@given(st.sampled_from(EVERY_PLACE), VALUES.map(json.dumps) | st.sampled_from(WORDS))
def test_any_value_at_any_place_is_a_study_or_refused(place, value):
    study_or_refusal(TEXT, f"{place}={value}")


@FUZZ
@given(
    st.lists(st.sampled_from([*".=0123[]{}", "recipe", "models", "big", "distill", "LD", "x"]), max_size=8).map("".join)
)
def test_any_set_is_applied_or_refused(assignment):
    study_or_refusal(TEXT, assignment)
