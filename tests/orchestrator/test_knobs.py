"""The knobs of a sweep against what they turn."""

from __future__ import annotations

import pytest

from orchestrator.knobs import checked, variants
from orchestrator.settings import applied, values
from orchestrator.sweep import Sweep, sweep
from trainers import distill, optim, schedules
from trainers.call import Call, Invalid, Term
from trainers.spec import Recipe

LD, KD, PKD = (Term(name=name).complete(distill) for name in ("LD", "KD", "PKD"))


def recipe(**changes) -> Recipe:
    made = Recipe.model_validate({"epochs": 4, "batch": 8, **changes})
    optimizer, schedule = made.optimizer.complete(optim), made.schedule.complete(schedules)
    return made.model_copy(update={"optimizer": optimizer, "schedule": schedule})


def check(written: dict, losses=(LD,), **recipes: Recipe) -> Sweep:
    return checked(sweep(written), recipes or {"mid": recipe(), "small": recipe(epochs=6)}, losses)


def refused(written: dict, losses=(LD,), **recipes: Recipe) -> Invalid:
    with pytest.raises(Invalid) as caught:
        check(written, losses, **recipes)
    return caught.value


# What a value becomes


@pytest.mark.parametrize(
    ("knob", "options"),
    [("bias_lr", [1.0, 2.0]), ("bias_decay", [0.0, 1.0]), ("on_nonfinite", ["fail", {"skip": 3}])],
)
def test_what_is_not_written_where_it_has_its_default_may_be_swept(knob: str, options: list):
    assert list(check({f"recipe.{knob}": options}).knobs[f"recipe.{knob}"].options) == options


def test_a_whole_number_for_a_real_one_becomes_one():
    made = check({"LD.weight": [1, 0.5], "recipe.lr": [1], "recipe.optimizer.SGD.momentum": [0, 0.9]})
    options = [option for knob in made.knobs.values() for option in knob.options]
    assert options == [1, 0.5, 1, 0, 0.9] and all(isinstance(option, float) for option in options)


def test_a_range_of_whole_numbers_draws_real_ones_for_a_real_knob_and_whole_ones_for_a_whole_one():
    made = check({"LD.temperature": {"randint": [1, 20]}, "recipe.epochs": {"randint": [2, 9]}, "samples": 4})
    assert isinstance(made.knobs["LD.temperature"].at(0.5), float)
    assert isinstance(made.knobs["recipe.epochs"].at(0.5), int)


def test_a_choice_of_losses_is_written_out():
    made = check({"distill": [["LD"], [{"LD": {"weight": 2}}, "PKD"]]})
    assert made.knobs["distill"].options == (
        [LD.model_dump(mode="json")],
        [Term(name="LD", args={"weight": 2}).complete(distill).model_dump(mode="json"), PKD.model_dump(mode="json")],
    )


def test_a_name_for_a_part_of_the_recipe_is_written_out():
    made = check({"recipe.optimizer": ["SGD", {"AdamW": {"weight_decay": 1}}]})
    sgd, adam = made.knobs["recipe.optimizer"].options
    assert sgd["SGD"]["momentum"] == 0.9 and adam["AdamW"]["weight_decay"] == 1.0


def test_a_sweep_that_was_checked_is_the_same_when_it_is_checked_again():
    written = {
        "distill": [["LD"], ["LD", "KD"]],
        "KD.weight": {"uniform": [1, 2]},
        "LD.ramp": [0, 10],
        "LD.epochs": [[1, 2], [2, None]],
        "recipe.resize": [None, [32, 64]],
        "recipe.guides": ["all", "teacher"],
        "samples": 4,
    }
    made = check(written)
    assert check(made.model_dump(mode="json")) == made


def test_knobs_of_a_loss_that_only_a_choice_has_may_be_swept():
    made = check({"distill": [["LD"], ["PKD"]], "PKD.weight": [1, 2], "LD.weight": [0.5]})
    assert set(made.knobs) == {"distill", "PKD.weight", "LD.weight"}


# Mistakes


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("PKD.weight", [1], "PKD is not one of LD"),
        ("LD.wieght", [1], "did you mean weight"),
        ("LD.weight", ["x"], "valid number"),
        ("LD.weight", ["1"], "valid number"),
        ("LD.weight", [True], "valid number"),
        ("LD.weight", [-1], "greater than or equal to 0"),
        ("LD.weight", [1, 2, 1.0], "each once"),
        ("LD.normaliser", ["reference", "x"], "'x'"),
        ("LD.ramp", [-1], "greater than or equal to 0"),
        ("LD.ramp", ["3"], "valid integer"),
        ("LD.fade", [2], "less than or equal to 1"),
        ("LD.epochs", [[3, 2]], "its last epoch, 2, comes before its first, 3"),
        ("recipe.epoch", [1], "did you mean epochs"),
        ("recipe.epochs", [0], "greater than or equal to 1"),
        ("recipe.epochs", ["3"], "valid integer"),
        ("recipe.flip", [True], "valid number"),
        ("recipe.lr.x", [1], "the recipe has no lr.x"),
        ("recipe.crop.x", [1], "the recipe has no crop.x"),
        ("recipe.optimizer.SGD.momentm", [0.5], "did you mean momentum"),
        ("recipe.optimizer.SGD.momentum", [2], "less than or equal to 1"),
        ("recipe.optimizer.AdamW.weight_decay", [0.1], "the recipe has no optimizer.AdamW.weight_decay"),
        ("recipe.optimizer", ["Sgd"], "Sgd is not one of AdamW, SGD"),
        ("recipe.crop", [{"size": [16, 32]}], "crop.short: Field required"),
        ("distill", ["LD", "KD"], "L is not one of"),
        ("distill", [5], "write lists of losses"),
        ("distill", [[]], "at least one distillation loss in each list"),
        ("distill", [["LDD"]], "did you mean LD"),
        ("distill", [[{"LD": {"wieght": 1}}]], "did you mean weight"),
        ("distill", [["LD"], [{"LD": {}}]], "each once"),
    ],
)
def test_a_value_that_its_knob_cannot_have_is_refused_at_the_knob(name, options, says):
    error = refused({name: options})
    assert error.where == (name,)
    assert says in str(error)


@pytest.mark.parametrize(
    ("name", "range_", "says"),
    [
        ("LD.weight", {"uniform": [-1, 1]}, "greater than or equal to 0"),
        ("recipe.flip", {"uniform": [0, 2]}, "less than or equal to 1"),
        ("recipe.epochs", {"uniform": [2, 8]}, "valid integer"),
        ("recipe.epochs", {"randint": [0, 8]}, "greater than or equal to 1"),
        ("distill", {"uniform": [0, 1]}, "write lists of losses"),
        ("LD.normaliser", {"uniform": [0, 1]}, "normaliser"),
    ],
)
def test_both_ends_of_a_range_are_tried(name, range_, says):
    error = refused({name: range_, "samples": 3})
    assert error.where == (name,) and says in str(error)


def test_a_knob_of_a_loss_that_is_there_twice_is_refused():
    error = refused({"LD.weight": [1, 2]}, losses=(LD, LD))
    assert error.where == ("LD.weight",) and "more than once" in str(error)


def test_a_knob_beneath_another_is_refused():
    error = refused({"recipe.optimizer.SGD.momentum": [0.5], "recipe.optimizer": ["SGD", "AdamW"]})
    assert error.where == ("recipe.optimizer.SGD.momentum",) and "recipe.optimizer is swept as a whole" in str(error)


def test_choices_that_another_knob_makes_equal_are_refused():
    twice = [[{"LD": {"weight": 1}}], [{"LD": {"weight": 2}}]]
    assert check({"distill": twice, "LD.temperature": [1, 2]})
    error = refused({"distill": twice, "LD.weight": [1, 2]})
    assert error.where == ("distill",) and "differ only in what other knobs of the sweep set" in str(error)


def test_a_knob_of_the_recipe_must_suit_every_model_that_is_taught():
    adam = recipe(optimizer="AdamW")
    error = refused({"recipe.optimizer.SGD.momentum": [0.5]}, mid=recipe(), small=adam)
    assert error.where == ("recipe.optimizer.SGD.momentum",)
    error = refused(
        {"recipe.resize": [None]}, mid=recipe(), small=recipe(resize=[32, 64], crop={"short": 32, "size": [16, 32]})
    )
    assert error.where == ("recipe.resize",) and "small" in str(error)


def test_a_grace_as_long_as_the_shortest_training_is_refused_but_where_epochs_are_swept():
    stop = {"asha": {"grace": 4}}
    error = refused({"LD.weight": [1, 2], "stop": stop})
    assert error.where == ("stop", "asha", "grace") and "a training has 4 epochs" in str(error)
    assert check({"LD.weight": [1, 2], "recipe.epochs": [3, 8], "stop": stop})
    assert check({"LD.weight": [1, 2], "stop": {"asha": {"grace": 3}}})


# Variants


def test_variants_turn_one_knob_after_the_other_under_each_choice_of_losses():
    made = check(
        {"distill": [["LD"], ["PKD"]], "LD.weight": [1, 2, 3], "recipe.lr": {"uniform": [0.1, 0.2]}, "samples": 4}
    )
    found = [values(one) for one in variants(made, (LD,))]
    assert all(one["distill"] in made.knobs["distill"].options for one in found)
    brief = [("LD" in one["distill"][0], one.get("LD.weight"), one["recipe.lr"]) for one in found]
    assert brief == [
        (True, 1, 0.1),
        (True, 2, 0.1),
        (True, 3, 0.1),
        (True, 1, 0.2),
        (False, None, 0.1),
        (False, None, 0.2),
    ]


def test_every_variant_can_be_applied():
    made = check({"distill": [["LD"], ["LD", "KD"]], "KD.weight": [1, 2], "recipe.optimizer": ["SGD", "AdamW"]})
    for one in variants(made, (LD,)):
        changed, losses = applied(one, recipe(), (LD,))
        assert losses[0] == LD and changed.optimizer.name in ("SGD", "AdamW")
        assert isinstance(changed.optimizer, Call)
