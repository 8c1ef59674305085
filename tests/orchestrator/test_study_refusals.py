"""A mistake in a study file is one refusal that names file, line, key and what would do."""

from pathlib import Path

import pytest

from orchestrator.study import load
from tests.orchestrator.study_texts import SMALLEST, TEXT, changed, read, refused
from trainers.call import Invalid

pytestmark = pytest.mark.usefixtures("in_a_folder")

REFUSED = [
    # unknown keys, at every level
    (
        "edges: any",
        "edgs: any",
        "12: edgs: ",
        "no such key: edgs is not one of controls, data, distill, edges",
        "mean edges?",
    ),
    ("edges: any", "students: [smal]", "12: students.0: ", "smal is not one of big, mid, small", "did you mean small?"),
    ("edges: any", "students: [mid, big]", "12: students.1: ", "big is the teacher of all"),
    ("edges: any", "students: mid", "12: students: ", "list"),
    ("edges: any", "controls: [lone]", "12: controls.0: ", "'alone'", "'alone_same_compute'"),
    ("edges: any", "controls: [alone, alone]", "12: controls.1: ", "alone is there already"),
    (
        "edges: any",
        "edges: [[big, mid], [mid, small]]\ncontrols: [direct]",
        "13: controls.0: ",
        "add the edge [big, small]",
    ),
    ("edges: any", "file: x", "12: file: ", "no such key: file is not one of controls, data"),
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
    ("search: exhaustive", "search: {racing: {level: 1}}", "19: search.racing.level: ", "less than 1"),
    ("search: exhaustive", "search: {promising: {of: greed}}", "19: search.promising.of: ", "did you mean greedy?"),
    ("search: exhaustive", "search: budget", "19: search.budget: ", "either stages or gpu_hours"),
    ("search: exhaustive", "search: {budget: {stages: 1}}", "19: search.budget.stages: ", "is not enough"),
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
