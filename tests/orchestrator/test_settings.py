"""Settings: what values of knobs make of a recipe and of the losses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.settings import applied, setting, text, values
from trainers.call import Call, Term
from trainers.spec import Recipe

LD, KD = Term(name="LD", args={"weight": 0.25, "temperature": 10.0}), Term(name="KD", args={"weight": 1.0})
RECIPE = Recipe(epochs=4, optimizer=Call(name="SGD", args={"momentum": 0.9, "nesterov": False}))


def test_a_setting_has_its_knobs_in_order_whatever_order_they_are_written_in():
    one = setting({"recipe.lr": 0.01, "LD.weight": 0.5}, [LD])
    assert one == setting({"LD.weight": 0.5, "recipe.lr": 0.01}, [LD])
    assert one == (("LD.weight", "0.5"), ("recipe.lr", "0.01"))


def test_the_knob_of_a_loss_that_is_not_chosen_is_left_out():
    given = {"distill": [{"LD": {}}], "LD.weight": 0.5, "KD.weight": 2.0, "recipe.lr": 0.1}
    assert set(values(setting(given, [LD, KD]))) == {"distill", "LD.weight", "recipe.lr"}
    assert setting(given, [LD, KD]) == setting({**given, "KD.weight": 3.0}, [LD, KD])
    del given["distill"]
    assert set(values(setting(given, [KD]))) == {"KD.weight", "recipe.lr"}


def test_values_come_back_as_they_were():
    given = {"recipe.resize": None, "LD.weight": 1.0, "recipe.flip": 0, "LD.epochs": [1, None], "recipe.group": True}
    back = values(setting(given, [LD]))
    assert back == given
    assert isinstance(back["LD.weight"], float) and isinstance(back["recipe.flip"], int)


def test_no_setting_changes_nothing():
    recipe, losses = applied((), RECIPE, (LD, KD))
    assert recipe is RECIPE and losses == (LD, KD)


def test_knobs_of_the_recipe_may_lie_deep_in_it():
    recipe, losses = applied(setting({"recipe.optimizer.SGD.momentum": 0.5, "recipe.epochs": 8}, [LD]), RECIPE, (LD,))
    assert recipe.optimizer == Call(name="SGD", args={"momentum": 0.5, "nesterov": False})
    assert recipe.epochs == 8 and recipe.lr == RECIPE.lr
    assert losses == (LD,)
    assert RECIPE.epochs == 4 and RECIPE.optimizer.args["momentum"] == 0.9, "the study's own stays as it is"


def test_knobs_of_a_loss_turn_its_arguments_and_what_stands_beside_it():
    one = setting({"LD.weight": 0.5, "LD.epochs": [2, 3], "LD.ramp": 10}, [LD, KD])
    _, (ld, kd) = applied(one, RECIPE, (LD, KD))
    assert ld.args == {"weight": 0.5, "temperature": 10.0}
    assert (ld.epochs, ld.ramp) == ((2, 3), 10)
    assert kd == KD and LD.args["weight"] == 0.25


def test_chosen_losses_take_the_place_of_the_studys_and_are_turned_by_their_own_knobs():
    one = setting({"distill": [{"KD": {"weight": 3.0}}], "KD.weight": 5.0, "LD.weight": 0.5}, [LD])
    assert applied(one, RECIPE, (LD,))[1] == (Term(name="KD", args={"weight": 5.0}),)


@pytest.mark.parametrize("name", ["recipe.epochs", "LD.ramp"])
@pytest.mark.parametrize("value", ["3", True, 2.5])
def test_no_word_passes_for_a_number(name, value):
    with pytest.raises(ValueError, match="valid integer"):
        applied(setting({name: value}, [LD]), RECIPE, (LD,))


@given(
    st.dictionaries(
        st.sampled_from(["recipe.lr", "recipe.clip", "LD.weight", "LD.temperature"]),
        st.floats(1e-6, 1e6),
    )
)
def test_a_setting_applied_twice_is_applied_once(given):
    one = setting(given, [LD])
    assert values(one) == given
    recipe, losses = applied(one, RECIPE, (LD, KD))
    assert applied(one, recipe, losses) == (recipe, losses)
    for name, value in given.items():
        kind, _, knob = name.partition(".")
        assert (getattr(recipe, knob) if kind == "recipe" else losses[0].args[knob]) == value


def test_for_people_a_setting_is_one_short_line():
    given = {
        "LD.temperature": 10.0,
        "LD.weight": 0.12345678,
        "recipe.optimizer": {"SGD": {}},
        "recipe.precision": "bf16",
    }
    assert text(setting(given, [LD])) == (
        'LD.temperature 10, LD.weight 0.1235, recipe.optimizer {"SGD": {}}, recipe.precision bf16'
    )
    assert text(setting({"distill": [{"LD": {}}, {"KD": {}}]}, [LD])) == "distill LD + KD"
    assert text(()) == ""
