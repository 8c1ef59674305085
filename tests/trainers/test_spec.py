"""A stage's key says everything that changes its weights, and nothing else."""

import json
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trainers import backbones, detectors, distill, optim, schedules, spec
from trainers.call import Call, Fraction, Invalid, Positive, Term, alternatives, canonical, offers
from trainers.spec import Data, Guides, Model, Recipe, Stage, Weights


class Loss:
    """Stands for a distillation loss."""

    def __init__(
        self,
        student: object,
        teacher: object,
        *,
        weight: Positive = 1.0,
        part: Fraction | None = None,
        size: int = 3,
        at: tuple[float, ...] = (0.5,),
    ) -> None:
        self.made_of = (student, teacher, weight, part, size, at)


class Needy:
    def __init__(self, *, root: str, deep: bool = False) -> None:
        self.root = root


def package(*things: Any, name: str = "fake", offered: list[str] | None = None) -> ModuleType:
    made = ModuleType(name)
    for thing in things:
        thing.__module__ = name
        setattr(made, thing.__name__, thing)
    if offered is not None:
        vars(made)["__all__"] = offered
    return made


class Nested:
    """What names something of its own package."""

    def __init__(self, *, inner: Call, times: int = 2) -> None:
        self.inner = Call.model_validate(inner)


FAKE = package(Loss, Needy, Nested)


def stage(**changes: Any) -> Stage:
    teacher = Stage(model=MODEL, data=DATA, recipe=Recipe(), seed=5)
    facts = {"model": MODEL, "data": DATA, "recipe": Recipe(), "distill": (LOSS,), "seed": 1, "teacher": teacher}
    return Stage(**{**facts, **changes})


NEEDED = {"Halved": {"backbone": "Inception"}}  # the arguments that have no default
MODEL = Model(detector=Call(name="GFL", args={"channels": 8}), backbone=Call(name="TinyResNet", args={"width": 8}))
DATA = Data(fingerprint="f" * 64, classes=("ant", "bee"))
LOSS = Call(name="LD", args={"weight": 0.25, "temperature": 10.0})


# What a study may name


def test_a_call_is_written_as_a_name_or_as_a_name_with_arguments() -> None:
    plain = Call(name="LD")
    assert Call.model_validate("LD") == Call.model_validate({"LD": {}}) == Call.model_validate({"LD": None}) == plain
    assert Call.model_validate({"LD": {"weight": 2}}) == Call(name="LD", args={"weight": 2})
    assert Call.model_validate({"name": "LD", "args": {"weight": 2}}) == Call(name="LD", args={"weight": 2})
    assert str(Call(name="LD", args={"weight": 2})) == "LD(weight=2)"


@pytest.mark.parametrize("written", [7, ["LD"], {}, {"LD": {}, "KD": {}}, {"LD": 3}, {"LD": [1]}, {3: {}}, None])
def test_anything_else_is_no_call(written: Any) -> None:
    with pytest.raises(ValidationError, match=r"write a name, or|Field required"):
        Call.model_validate(written)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(Invalid, match=r"LDD is not one of CWD, .*KD, LD.*did you mean LD\?"):
        Call(name="LDD").complete(distill)


def test_an_unknown_argument_is_refused_with_the_nearest_and_its_place() -> None:
    with pytest.raises(Invalid, match=r"LD .*wieght.*did you mean weight\?") as caught:
        Call(name="LD", args={"wieght": 1}).complete(distill)
    assert caught.value.where == ("LD", "wieght")
    assert caught.value.under("distill", 0).where == ("distill", 0, "LD", "wieght")


def test_what_a_loss_gets_from_us_cannot_be_given_by_a_study() -> None:
    with pytest.raises(Invalid, match="student"):
        Call(name="Loss", args={"student": 1}).complete(FAKE)


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(Invalid, match="Needy needs the argument root"):
        Call(name="Needy").complete(FAKE)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("weight", 0),
        ("weight", -1),
        ("weight", "2"),
        ("weight", True),
        ("weight", None),
        ("weight", float("nan")),
        ("weight", float("inf")),
        ("weight", [1]),
        ("part", 1.5),
        ("size", 2.5),
        ("size", "3"),
        ("size", True),
        ("at", 0.5),
        ("at", ["a"]),
        ("at", [float("nan")]),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_refused_at_its_argument(argument: str, value: Any) -> None:
    with pytest.raises(Invalid, match=f"^{argument}: ") as caught:
        Call(name="Loss", args={argument: value}).complete(FAKE)
    assert caught.value.where == ("Loss", argument)
    assert "pydantic.dev" not in str(caught.value)


def test_a_completed_call_has_every_default_and_completing_it_again_changes_nothing() -> None:
    done = Call(name="Loss", args={"weight": 2}).complete(FAKE)
    assert done.args == {"weight": 2.0, "part": None, "size": 3, "at": [0.5]}
    assert done.complete(FAKE) == done
    assert canonical(done.complete(FAKE).args) == canonical(done.args)


@pytest.mark.parametrize("written", ["Loss", {"Loss": None}, {"Loss": {"size": 3}}, Call(name="Loss").complete(FAKE)])
def test_a_call_within_a_call_has_every_default_too_however_it_is_written(written: Any) -> None:
    plain = written.model_dump() if isinstance(written, Call) else written
    done = Call(name="Nested", args={"inner": {"Nested": {"inner": plain}}}).complete(FAKE)
    loss = {"Loss": {"weight": 1.0, "part": None, "size": 3, "at": [0.5]}}
    assert done.args == {"inner": {"Nested": {"inner": loss, "times": 2}}, "times": 2}
    assert done.complete(FAKE) == done
    assert done.of(FAKE).inner.of(FAKE).inner.of(FAKE, 1, 2).made_of == (1, 2, 1.0, None, 3, [0.5])


@pytest.mark.parametrize(
    ("inner", "message", "where"),
    [
        ({"Loss": {"wieght": 2}}, "no such argument: wieght .*did you mean weight", ("inner", "Loss", "wieght")),
        ({"Loss": {"weight": -2}}, "^weight: ", ("inner", "Loss", "weight")),
        ({"Needy": {}}, "Needy needs the argument root", ("inner", "Needy")),
        ("Los", "Los is not one of .*did you mean Loss", ("inner",)),
        (7, "^inner: write a name", ("inner",)),
    ],
)
def test_a_mistake_within_a_call_within_a_call_is_refused_at_its_place(
    inner: Any, message: str, where: tuple[str, ...]
) -> None:
    with pytest.raises(Invalid, match=message) as caught:
        Call(name="Nested", args={"inner": inner}).complete(FAKE)
    assert caught.value.where == ("Nested", *where)


@pytest.mark.parametrize(
    ("package", "name"),
    [(p, name) for p in (backbones, detectors, distill, optim, schedules) for name in offers(p)],
    ids=lambda value: value if isinstance(value, str) else value.__name__.split(".")[-1],
)
def test_everything_offered_can_be_completed_and_survives_json(package: ModuleType, name: str) -> None:
    done = Call(name=name, args=NEEDED.get(name, {})).complete(package)
    again = Call.model_validate_json(done.model_dump_json())
    assert again == done and again.complete(package) == done


def test_building_passes_what_we_give_and_what_the_study_gave() -> None:
    built = Call(name="Loss", args={"weight": 2}).complete(FAKE).of(FAKE, "student", "teacher")
    assert built.made_of == ("student", "teacher", 2.0, None, 3, [0.5])


def test_a_package_offers_its_own_public_classes_and_functions_only() -> None:
    class Foreign: ...

    class _Private: ...

    own = package(Loss, _Private)
    vars(own)["Foreign"] = Foreign  # imported from elsewhere
    vars(own)["json"] = json
    vars(own)["LIMIT"] = 3
    assert set(offers(own)) == {"Loss"}
    Loss.__module__ = FAKE.__name__


def test_a_package_that_says_what_it_offers_offers_no_more() -> None:
    class Hidden: ...

    assert set(offers(package(Needy, Hidden, offered=["Needy"]))) == {"Needy"}
    assert set(offers(optim)) == {"SGD", "AdamW"}
    assert set(offers(schedules)) == {"Constant", "Step", "Cosine", "OneCycle"}


def test_alternatives_name_all_and_suggest_only_what_is_near() -> None:
    assert alternatives("LDD", ["KD", "LD"]) == "LDD is not one of KD, LD; did you mean LD?"
    assert alternatives("xyz", ["KD", "LD"]) == "xyz is not one of KD, LD"
    assert alternatives("a", []) == "a is not one of (nothing)"


# When a loss counts


WHEN = {"epochs": (2, 8), "after": 5, "ramp": 100, "fade": 0.25}


def test_when_a_loss_counts_is_written_beside_its_name() -> None:
    read = Term.model_validate({"LD": {"weight": 2}, "epochs": [2, 8], "after": 5, "ramp": 100, "fade": 0.25})
    assert (read.name, read.args) == ("LD", {"weight": 2})
    assert {key: getattr(read, key) for key in WHEN} == WHEN
    assert Term.model_validate_json(read.model_dump_json()) == read
    assert read.complete(distill).ramp == 100 and read.complete(distill).args["temperature"] == 10


ALPHAS = (-1, True, "Auto", "1", None, [], {}, {"auto": 0}, {"auto": -1}, {"auto": "x"}, {"auto": 1, "x": 2}, {"x": 1})


@pytest.mark.parametrize(
    ("written", "alpha"),
    [(2, 2.0), (0, 0.0), ("auto", {"auto": 1.0}), ({"auto": 1}, {"auto": 1.0}), ({"auto": 0.5}, {"auto": 0.5})],
)
def test_what_a_loss_is_multiplied_by_has_one_spelling(written: Any, alpha: Any) -> None:
    read = Term.model_validate({"LD": {}, "alpha": written})
    assert read.model_dump(mode="json") == {"LD": {}, "alpha": alpha}
    assert Term.model_validate_json(read.model_dump_json(), strict=True) == read
    assert read.complete(distill).shortened(0.5, epochs=3).alpha == read.alpha
    assert Term.model_validate({"LD": {}, "alpha": 1}).model_dump(mode="json") == {"LD": {}}


def test_a_loss_that_always_counts_is_written_as_any_call() -> None:
    for written in ("LD", {"LD": None}, {"LD": {}}, {"name": "LD"}, Call(name="LD"), {"LD": {}, "epochs": [1, None]}):
        assert Term.model_validate(written).model_dump(mode="json") == {"LD": {}}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"LD": {}, "epoch": [1, 2]}, "beside it alpha, epochs, after, ramp, fade"),
        ({"LD": {}, "KD": {}}, "beside it"),
        ({"epochs": [1, 2]}, "beside it"),
        ({"LD": {}, "epochs": [3, 2]}, "last epoch, 2, comes before its first, 3"),
        ({"LD": {}, "epochs": [0, 2]}, "greater than or equal to 1"),
        ({"LD": {}, "fade": 1.5}, "less than or equal to 1"),
        ({"LD": {}, "ramp": -1}, "greater than or equal to 0"),
        *(({"LD": {}, "alpha": alpha}, "alpha\n.*write a number from 0, or auto, or {auto:") for alpha in ALPHAS),
    ],
)
def test_a_time_that_makes_no_sense_is_refused(written: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Term.model_validate(written)


def test_a_call_knows_no_times() -> None:
    with pytest.raises(ValidationError, match=r"write a name, or \{Name: \{argument: value\}\} \[type"):
        Call.model_validate({"LD": {}, "ramp": 3})


def test_the_guides_of_a_stage_are_its_teacher_or_all_above_it() -> None:
    root = stage(teacher=None, distill=())
    middle = stage(teacher=root)
    assert root.guides == []
    assert stage(teacher=middle).guides == [middle]
    assert stage(teacher=middle, recipe=Recipe(guides="all")).guides == [middle, root]


# The key


def timed(**when: Any) -> Term:
    """The loss at other times."""
    return Term(name=LOSS.name, args=LOSS.args, **when)


def changed() -> list[tuple[str, Stage]]:
    """Every field of a stage, changed once."""
    base = stage()
    assert base.teacher is not None
    gfl, tiny = Call(name="GFL", args={"channels": 9}), Call(name="TinyResNet", args={"width": 9})
    cases = {
        "detector": stage(model=Model(detector=gfl, backbone=MODEL.backbone)),
        "backbone": stage(model=Model(detector=MODEL.detector, backbone=tiny)),
        "weights": stage(model=MODEL.model_copy(update={"weights": Weights(sha256="0" * 64)})),
        "weights' content": stage(model=MODEL.model_copy(update={"weights": Weights(sha256="1" * 64)})),
        "weights' part": stage(model=MODEL.model_copy(update={"weights": Weights(sha256="0" * 64, part="backbone")})),
        "fingerprint": stage(data=DATA.model_copy(update={"fingerprint": "0" * 64})),
        "classes": stage(data=DATA.model_copy(update={"classes": ("bee", "ant")})),
        "masks": stage(data=DATA.model_copy(update={"masks": "1" * 64})),
        "loss": stage(distill=(Call(name="KD", args=LOSS.args),)),
        "loss's argument": stage(distill=(Call(name="LD", args={**LOSS.args, "weight": 0.5}),)),
        "no loss": stage(distill=()),
        "loss twice": stage(distill=(LOSS, LOSS)),
        "loss's epochs": stage(distill=(timed(epochs=(2, None)),)),
        "loss's last epoch": stage(distill=(timed(epochs=(2, 9)),)),
        "loss's start": stage(distill=(timed(after=1),)),
        "loss's ramp": stage(distill=(timed(ramp=1),)),
        "loss's end": stage(distill=(timed(fade=0.5),)),
        "loss's alpha": stage(distill=(timed(alpha=2.0),)),
        "loss's alpha found": stage(distill=(timed(alpha="auto"),)),
        "loss's alpha found of a part": stage(distill=(timed(alpha={"auto": 0.5}),)),
        "seed": stage(seed=2),
        "no teacher": stage(teacher=None, distill=()),
        "teacher's seed": stage(teacher=base.teacher.model_copy(update={"seed": 6})),
        "teacher's teacher": stage(teacher=stage()),
        "teacher's recipe": stage(teacher=Stage(model=MODEL, data=DATA, recipe=Recipe(epochs=3), seed=5)),
    }
    other: dict[str, Any] = {
        "epochs": 13,
        "batch": 17,
        "optimizer": "AdamW",
        "lr": 0.02,
        "schedule": "Cosine",
        "warmup": 501,
        "warmup_from": 0.002,
        "bias_lr": 2.0,
        "bias_decay": 0.0,
        "clip": 1.0,
        "ema": 0.5,
        "precision": "bf16",
        "freeze": 1,
        "fixed_norm": True,
        "resize": (80, 133),
        "crop": {"short": 400, "size": (384, 600)},
        "group": True,
        "flip": 0.4,
        "ignore": False,
        "select": "best",
        "guides": {"who": "all"},
        "on_nonfinite": {"skip": 3},
    }
    assert set(other) == set(Recipe.model_fields), "a new field of the recipe needs a line here"
    resize = Recipe(resize=(800, 1333)).resize  # what is cut has to be resized
    cases |= {name: stage(recipe=Recipe(**{"resize": resize, name: value})) for name, value in other.items()}
    cases["long side"] = stage(recipe=Recipe(resize=(800, 1334)))
    cases["short side"] = stage(recipe=Recipe(resize=((800, 801), 1333)))
    cases["one of two short sides"] = stage(recipe=Recipe(resize=({"one_of": [800, 801]}, 1333)))
    cuts = {"short": 400, "size": (384, 600), "chance": 0.5}
    for key, value in {"short": 500, "size": (383, 600), "chance": 0.4}.items():
        cases[f"{key} of what is cut"] = stage(recipe=Recipe(resize=resize, crop=cuts | {key: value}))
    guides = {"keep": {"who": "all", "keep": 0.5}, "drop": {"who": "all", "drop": 1}}
    guides["balance"] = {"who": "all", "balance": False}
    cases |= {name: stage(recipe=Recipe(guides=value)) for name, value in guides.items()}
    cases |= {f"the best by {name}": stage(recipe=Recipe(select={"best": name})) for name in ("AP", "AP50")}
    cases["optimizer's argument"] = stage(recipe=Recipe(optimizer=Call(name="SGD", args={"momentum": 0.8})))
    return list(cases.items())


def test_every_field_that_changes_the_weights_changes_the_key() -> None:
    keys = {name: one.key for name, one in changed()}
    keys["nothing"] = stage().key
    keys["nothing but the size"] = stage(recipe=Recipe(resize=(800, 1333))).key
    assert len(set(keys.values())) == len(keys)


def test_a_changed_copy_of_what_has_a_key_has_a_key_of_its_own() -> None:
    one = stage(distill=(Term(name="LD", args={"weight": 1.0}),), teacher=stage())
    assert one.key and one.recipe.canonical and one.distill[0].canonical
    term = one.distill[0].model_copy(update={"args": {**one.distill[0].args, "weight": 3.0}})
    longer = one.recipe.model_copy(update={"epochs": one.recipe.epochs + 1})
    for changed_one in (
        one.model_copy(update={"seed": 9}),
        one.model_copy(update={"recipe": longer}),
        one.model_copy(update={"distill": (term,)}),
    ):
        assert changed_one.key == Stage.model_validate_json(changed_one.model_dump_json()).key != one.key


def test_the_stages_fields_are_those_that_the_test_above_changes() -> None:
    assert set(Stage.model_fields) == {"model", "data", "recipe", "distill", "seed", "teacher"}
    assert set(Model.model_fields) == {"detector", "backbone", "weights"}
    assert set(Weights.model_fields) == {"sha256", "part"}
    assert set(Data.model_fields) == {"fingerprint", "classes", "masks"}
    assert set(Term.model_fields) - set(Call.model_fields) == {"alpha", "epochs", "after", "ramp", "fade"}
    assert set(Guides.model_fields) == {"who", "keep", "drop", "balance"}


def test_the_meaning_of_training_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = stage().key
    monkeypatch.setattr(spec, "SEMANTICS", spec.SEMANTICS + 1)
    assert stage().key != before


@given(st.data())
def test_stages_of_equal_values_have_equal_keys_however_they_are_written(draw: st.DataObject) -> None:
    args: dict[str, Any] = {"weight": 6, "part": 1, "size": 4, "at": [1, 0]}
    names = draw.draw(st.permutations(list(args)))
    floats = {name: float(args[name]) for name in ("weight", "part") if draw.draw(st.booleans())}
    written = Call(name="Loss", args={name: floats.get(name, args[name]) for name in names})
    plain = Call(name="Loss", args=args)
    assert stage(distill=(written.complete(FAKE),)).key == stage(distill=(plain.complete(FAKE),)).key


@pytest.mark.parametrize("written", [{}, {"weight": 1}, {"size": 3}, {"at": (0.5,), "part": None}])
def test_a_default_written_out_is_no_other_stage(written: dict[str, Any]) -> None:
    keys = {stage(distill=(Call(name="Loss", args=args).complete(FAKE),)).key for args in (written, {})}
    assert len(keys) == 1


def test_another_default_is_another_stage() -> None:
    class Other:
        def __init__(self, *, weight: Positive = 2.0) -> None: ...

    Other.__name__ = "Loss"
    before = stage(distill=(Call(name="Loss").complete(package(type("Loss", (Needy,), {"__init__": one_weight}))),))
    after = stage(distill=(Call(name="Loss").complete(package(Other)),))
    assert before.distill[0].args == {"weight": 1.0} and before.key != after.key


def one_weight(self: object, *, weight: Positive = 1.0) -> None: ...


def test_numbers_of_a_recipe_have_one_spelling() -> None:
    assert stage(recipe=Recipe(lr=1, epochs=12)).key == stage(recipe=Recipe(lr=1.0, epochs=12.0)).key


calls = st.builds(
    Call,
    name=st.text(min_size=1, max_size=8),
    args=st.dictionaries(
        st.text(max_size=6),
        st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=6)),
        max_size=3,
    ),
)
sides = st.integers(1, 2000)
lengths = (
    sides
    | st.tuples(sides, sides).filter(lambda pair: pair[0] < pair[1])
    | st.builds(lambda one_of: {"one_of": one_of}, st.lists(sides, min_size=1, max_size=3, unique=True))
)
recipes = st.builds(
    Recipe,
    epochs=st.integers(1, 500),
    batch=st.integers(1, 512),
    optimizer=calls,
    lr=st.floats(1e-8, 10),
    clip=st.none() | st.floats(0.01, 100),
    ema=st.floats(0, 0.9999),
    precision=st.sampled_from(["fp32", "bf16", "fp16"]),
    resize=st.none() | st.tuples(lengths, st.integers(2000, 3000)),
    group=st.booleans(),
)
alone = st.builds(
    Stage,
    model=st.builds(Model, detector=calls, backbone=calls),
    data=st.builds(Data, fingerprint=st.text(max_size=8), classes=st.lists(st.text(max_size=5), max_size=3)),
    recipe=recipes,
    distill=st.just(()),
    seed=st.integers(0, 2**40),
    teacher=st.none(),
)
stages = st.recursive(
    alone,
    lambda above: st.builds(
        lambda one, teacher, losses: Stage(
            model=one.model, data=one.data, recipe=one.recipe, seed=one.seed, teacher=teacher, distill=losses
        ),
        alone,
        above,
        st.lists(calls, max_size=2),
    ),
    max_leaves=3,
)


@given(stages)
@settings(max_examples=40)
def test_a_stage_survives_json_with_its_key(one: Stage) -> None:
    again = Stage.model_validate_json(one.model_dump_json())
    assert again == one and again.key == one.key
    shuffled = Stage.model_validate(json.loads(canonical(one.model_dump(mode="json"))))
    assert shuffled.key == one.key
    assert len(one.key) == 16 and int(one.key, 16) >= 0


@given(stages, stages)
@settings(max_examples=40)
def test_unequal_stages_have_unequal_keys(one: Stage, other: Stage) -> None:
    def plain(stage: Stage) -> str:
        return canonical(stage.model_dump(mode="json"))

    assert (one.key == other.key) == (plain(one) == plain(other))


def test_the_key_is_the_same_in_another_process() -> None:
    code = f"from trainers.spec import Stage; print(Stage.model_validate_json({stage().model_dump_json()!r}).key)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == stage().key


def test_the_lineage_goes_from_the_root_to_the_stage() -> None:
    root = Stage(model=MODEL, data=DATA, recipe=Recipe())
    middle = stage(teacher=root)
    last = stage(teacher=middle)
    assert list(last.lineage) == [root, middle, last]
    assert list(root.lineage) == [root]


# Values


def test_a_stage_is_frozen_and_knows_no_other_fields() -> None:
    one: Any = stage()
    with pytest.raises(ValidationError, match="frozen"):
        one.seed = 3
    with pytest.raises(ValidationError, match="Extra inputs"):
        Stage(**{**dict(stage()), "sede": 3})


def test_losses_without_a_teacher_are_refused() -> None:
    with pytest.raises(ValidationError, match="without a teacher has no distillation losses"):
        stage(teacher=None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"epochs": 1.5},
        {"batch": -1},
        {"lr": 0},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"warmup": -1},
        {"warmup_from": 1.1},
        {"bias_lr": 0},
        {"bias_decay": -1},
        {"clip": 0},
        {"ema": 1},
        {"precision": "fp64"},
        {"freeze": -1},
        {"resize": (0, 5)},
        {"resize": (5,)},
        {"resize": (80, 79)},
        {"resize": {"short": 80}},
        {"resize": {"short": (80, 60), "long": 100}},
        {"resize": {"short": (80, 101), "long": 100}},
        {"resize": {"short": {"one_of": []}, "long": 100}},
        {"resize": {"short": {"one_of": [80, 80]}, "long": 100}},
        {"crop": {"short": 400, "size": (600, 384)}},
        {"crop": {"short": 400, "size": (401, 600)}},
        {"crop": {"short": {"one_of": [500, 400]}, "size": (450, 600)}},
        {"crop": {"short": 400, "size": (384, 600), "chance": 0}},
        {"crop": {"short": 400}},
        {"flip": 2},
        {"lrr": 1},
        {"group": 2},
    ],
)
def test_a_recipe_refuses_what_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Recipe(**wrong)


def test_a_resize_is_the_same_value_however_it_is_written() -> None:
    assert Recipe(resize=(800, 1333)) == Recipe(resize={"short": 800, "long": 1333})
    assert Recipe(resize=[[480, 800], 1333]) == Recipe(resize={"short": [480, 800], "long": 1333})


def test_measuring_uses_the_largest_short_side_and_cuts_nothing() -> None:
    crop = {"short": 400, "size": (384, 600)}
    for short in (800, (480, 800), {"one_of": [800, 480]}):
        recipe = Recipe(batch=8, resize=(short, 1333), crop=crop, group=True, flip=1.0)
        assert recipe.measuring() == Recipe(batch=8, resize=(800, 1333))
    assert Recipe(batch=8).measuring() == Recipe(batch=8)


@pytest.mark.parametrize(("resize", "said"), [(None, "write resize: too"), ((300, 399), "400, is longer than")])
def test_what_is_cut_is_resized_and_to_nothing_smaller(resize: tuple[int, int] | None, said: str) -> None:
    recipe = Recipe(resize=resize, crop={"short": 400, "size": (384, 600)})
    with pytest.raises(ValidationError, match=said):
        stage(recipe=recipe)


def test_canonical_json_knows_no_order_and_no_nan() -> None:
    assert canonical({"b": 1, "a": [2, "\u00e9"]}) == '{"a":[2,"\\u00e9"],"b":1}'
    with pytest.raises(ValueError, match="Out of range"):
        canonical({"a": float("nan")})


def test_a_recipe_under_which_nothing_may_be_left_out_is_written_as_before_that_could_be() -> None:
    """So that no key and no stored result of that time is another's now."""
    assert "on_nonfinite" not in Recipe().model_dump() and "on_nonfinite" not in Recipe().canonical
    skipping = Recipe(on_nonfinite={"skip": 2})
    assert skipping.model_dump(mode="json")["on_nonfinite"] == {"skip": 2} and skipping.tolerated == 2
    for one in (Recipe(), skipping):
        assert Recipe.model_validate_json(one.model_dump_json()) == one


def test_a_recipe_whose_biases_learn_as_all_else_is_written_as_before_they_could_do_otherwise() -> None:
    assert not {"bias_lr", "bias_decay"} & Recipe().model_dump().keys()
    assert Recipe(bias_lr=1, bias_decay=1).canonical == Recipe().canonical
    faster, other = Recipe(bias_lr=2), Recipe(bias_lr=2, bias_decay=0)
    assert faster.model_dump()["bias_lr"] == 2 and "bias_decay" not in faster.model_dump()
    for one in (faster, other):
        assert Recipe.model_validate_json(one.model_dump_json()) == one


@pytest.mark.parametrize("written", ["skip", {"skip": 0}, {"skip": 1.5}, {"skip": True}, {"skip": "3"}, 3, None, {}])
def test_what_is_no_way_to_leave_steps_out_is_refused(written: Any) -> None:
    with pytest.raises(ValidationError, match=r"write fail, or \{skip: 3\}"):
        Recipe(on_nonfinite=written)
