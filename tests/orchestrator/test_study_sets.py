"""`--set` changes a study before it is checked, wherever its key leads, and a wrong one is refused by name."""

import pytest

from orchestrator.study import Study
from tests.orchestrator.study_texts import SMALLEST, TEXT, changed, read, refused
from trainers.spec import Recipe

pytestmark = pytest.mark.usefixtures("in_a_folder")


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


@pytest.mark.parametrize("assignment", ["http://u:secret@h/x", "name=http://u:secret@h/x", "a.http://u:secret@h/x=1"])
def test_a_password_in_what_is_refused_is_not_repeated(assignment: str) -> None:
    assert "secret" not in refused(SMALLEST, assignment)
