"""Which trainings of earlier studies are alike, which setting of a sweep they had, and which of them come first."""

from __future__ import annotations

from collections.abc import Iterable
from math import nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import facts
from orchestrator.alike import Earlier, Reader, Training, alike, earlier
from orchestrator.knobs import checked
from orchestrator.settings import setting, values
from orchestrator.spaces import Space
from orchestrator.sweep import sweep
from trainers import distill
from trainers.call import Call, Term
from trainers.spec import Data, Model, Recipe, Stage, Weights

RECIPE = Recipe()


def model(name: str, depth: int = 18, **facts: Any) -> Model:
    return Model(detector=Call(name=name), backbone=Call(name="ResNet", args={"depth": depth}), **facts)


def losses(*written: Any) -> tuple[Term, ...]:
    """As a study writes them, complete."""
    return tuple(Term.model_validate(one).complete(distill) for one in written)


LD = losses("LD")
BIG, MID, WEE = model("GFL", 101), model("GFL", 34), model("GFL", 18)


def stage(
    terms: Iterable[Term] = LD,
    *,
    student: Model = WEE,
    teacher: Model = MID,
    data: str = "ours",
    seed: int = 0,
    **recipe: Any,
) -> Stage:
    contents = Data(fingerprint=data, classes=("cat",))
    above = Stage(model=teacher, data=contents, recipe=RECIPE, seed=seed)
    own = Recipe(**recipe)
    return Stage(model=student, data=contents, recipe=own, distill=tuple(terms), seed=seed, teacher=above)


def training(one: Stage, score: float = 0.5, *, experiment: str = "past", metric: str = "AP") -> Training:
    """As MLflow would have it."""
    assert one.teacher is not None
    above = facts.parameters(one.teacher)
    return Training(facts.parameters(one), above, facts.setting(one), experiment, metric, score)


def knobs(terms: tuple[Term, ...] = LD, **written: Any) -> dict[str, Space]:
    """Of a sweep, checked as a study's; a dot is written as two underscores."""
    whole = {name.replace("__", "."): value for name, value in written.items()}
    return checked(sweep({"samples": 8, **whole}), {"wee": RECIPE}, terms).knobs


def read(one: Stage, terms: tuple[Term, ...] = LD, **written: Any) -> dict[str, Any] | None:
    """The values that a training had of these knobs."""
    found = Reader(knobs(terms, **written), RECIPE, terms).setting(facts.parameters(one))
    return None if found is None else values(found)


def ranked(found: Iterable[Training], **written: Any) -> list[Earlier]:
    whole = written or {"LD__temperature": {"uniform": [1, 20]}}
    return earlier(found, knobs(**whole), RECIPE, LD, fingerprint="ours", metric="AP")


def at(temperature: float, **more: Any) -> Stage:
    return stage(losses({"LD": {"temperature": temperature}}), **more)


def temperatures(found: Iterable[Earlier]) -> list[float]:
    return [one.values["LD.temperature"] for one in found]


# Alike


def test_edges_are_alike_if_detector_and_backbone_of_both_ends_are() -> None:
    same, others = (
        training(stage()),
        [
            training(stage(student=MID)),
            training(stage(teacher=BIG)),
            training(stage(student=model("ATSS", 18))),
            training(stage(teacher=model("ATSS", 34))),
            training(stage(student=MID, teacher=WEE)),
        ],
    )
    assert alike([same, *others], teachers=[MID], student=WEE) == [same]
    assert alike([same, *others], teachers=[MID, BIG], student=WEE) == [same, others[1]]


def test_weights_recipes_losses_and_data_make_no_edge_another() -> None:
    published = Weights(sha256="a" * 64, part="backbone")
    found = [
        training(stage(student=model("GFL", 18, weights=published))),
        training(stage(teacher=model("GFL", 34, weights=published))),
        training(stage(lr=0.5, epochs=3)),
        training(stage(losses("KD", "PKD"))),
        training(stage(data="theirs")),
    ]
    assert alike(found, teachers=[MID], student=WEE) == found
    assert alike(found, teachers=[MID], student=model("GFL", 18, weights=published)) == found


# Which setting a training had


def test_a_number_is_read_from_the_losses_and_from_the_recipe() -> None:
    one = stage(losses({"LD": {"temperature": 8}}), lr=0.02)
    written = {"LD__temperature": {"loguniform": [1, 20]}, "recipe__lr": {"uniform": [0.001, 0.1]}}
    assert read(one, **written) == {"LD.temperature": 8.0, "recipe.lr": 0.02}


def test_all_the_digits_of_a_number_are_kept_so_that_the_training_itself_may_be_found_again() -> None:
    assert read(at(8.123456789), LD__temperature={"uniform": [1, 20]}) == {"LD.temperature": 8.123456789}


@pytest.mark.parametrize(
    ("temperature", "space", "there"),
    [
        (20.0, {"uniform": [1, 20]}, True),
        (20.5, {"uniform": [1, 20]}, False),
        (1.5, {"loguniform": [2, 20]}, False),
        (7.5, {"quniform": [1, 20, 0.5]}, True),
        (7.4, {"quniform": [1, 20, 0.5]}, False),
        (8.0, [4, 8], True),
        (8.0, {"choice": [4, 8.5]}, False),
    ],
)
def test_what_lies_outside_the_space_is_left_out(temperature: float, space: Any, there: bool) -> None:
    assert read(at(temperature), LD__temperature=space) == ({"LD.temperature": temperature} if there else None)


def test_the_upper_end_of_whole_numbers_is_outside() -> None:
    assert read(stage(epochs=8), recipe__epochs={"randint": [2, 9]}) == {"recipe.epochs": 8}
    assert read(stage(epochs=9), recipe__epochs={"randint": [2, 9]}) is None


def test_a_choice_of_calls_of_sizes_and_of_nothing_is_recognised_by_all_its_parts() -> None:
    sizes = {"recipe__resize": [None, [32, 64], {"short": 16, "long": 32}]}
    assert read(stage(), **sizes) == {"recipe.resize": None}
    resized = Stage.model_validate_json(
        stage().model_copy(update={"recipe": Recipe.model_validate({"resize": [32, 64]})}).model_dump_json()
    )
    found = read(resized, **sizes)
    assert found is not None and found["recipe.resize"] in knobs(**sizes)["recipe.resize"].options[1:2]
    optimizers = {"recipe__optimizer": ["SGD", {"AdamW": {"weight_decay": 0.5}}]}
    (sgd, adam) = knobs(**optimizers)["recipe.optimizer"].options
    assert read(stage(optimizer=sgd), **optimizers) == {"recipe.optimizer": sgd}
    assert read(stage(optimizer=adam), **optimizers) == {"recipe.optimizer": adam}
    assert read(stage(optimizer={"AdamW": {**adam["AdamW"], "weight_decay": 0.1}}), **optimizers) is None


def test_a_training_without_one_of_the_knobs_has_no_setting() -> None:
    temperature = {"LD__temperature": {"uniform": [1, 20]}}
    assert read(stage(losses("KD")), **temperature) is None
    momentum = {"recipe__optimizer.SGD.momentum": {"uniform": [0, 1]}}
    assert read(stage(optimizer="AdamW"), **temperature, **momentum) is None
    assert read(stage(losses("LD", {"LD": {"temperature": 5}})), **temperature) is None, "which of the two?"


def test_other_losses_beside_the_swept_one_are_no_hindrance_unless_losses_are_chosen() -> None:
    one = stage(losses({"LD": {"temperature": 8}}, "KD"))
    assert read(one, LD__temperature=[4, 8]) == {"LD.temperature": 8.0}
    assert read(one, LD__temperature=[4, 8], distill=[["LD"], ["PKD"]]) is None


def test_the_weight_beside_a_loss_is_read_though_it_is_written_only_where_it_is_not_one() -> None:
    written = {"LD__alpha": {"uniform": [0, 2]}}
    assert read(stage(), **written) == {"LD.alpha": 1.0}
    assert read(stage(losses({"LD": {}, "alpha": 0.5})), **written) == {"LD.alpha": 0.5}
    assert read(stage(losses({"LD": {}, "alpha": "auto"})), **written) is None
    assert read(stage(losses({"LD": {}, "alpha": 0.5})), LD__alpha=[1, 0.5, "auto"]) == {"LD.alpha": 0.5}
    assert read(stage(losses({"LD": {}, "alpha": "auto"})), LD__alpha=[1, "auto"]) == {"LD.alpha": {"auto": 1.0}}
    assert read(stage(losses("KD")), **written) is None, "it has no LD whose weight is one"


def test_a_choice_of_losses_takes_only_its_options_with_all_their_arguments() -> None:
    written = {"distill": [["LD"], ["LD", {"KD": {"weight": 3}}]], "LD__temperature": {"uniform": [1, 20]}}
    options = knobs(**written)["distill"].options
    assert read(at(8.0), **written) == {"distill": options[0], "LD.temperature": 8.0}
    both = stage(losses({"KD": {"weight": 3}}, {"LD": {"temperature": 9}}))
    assert read(both, **written) == {"distill": options[1], "LD.temperature": 9.0}, "whatever their order"
    assert read(stage(losses("LD", {"KD": {"weight": 2}})), **written) is None
    assert read(stage(losses({"LD": {"temperature": 8}, "fade": 0.5})), **written) is None
    assert read(stage(losses("PKD")), **written) is None


def test_knobs_of_losses_that_were_not_chosen_are_not_asked_for() -> None:
    written = {"distill": [["LD"], ["KD"]], "LD__temperature": [4, 8], "KD__weight": {"uniform": [0, 9]}}
    assert set(read(stage(losses({"KD": {"weight": 2}})), **written) or ()) == {"distill", "KD.weight"}
    assert set(read(at(8.0), **written) or ()) == {"distill", "LD.temperature"}


@given(
    st.floats(0.01, 10),
    st.floats(1, 30),
    st.sampled_from([("LD",), ("LD", "KD"), ("KD", "LD"), ("PKD",)]),
    st.sampled_from([0.005, 0.01, 0.5]),
)
def test_a_setting_that_was_read_makes_the_losses_and_the_recipe_that_it_was_read_from(
    weight: float, temperature: float, names: tuple[str, ...], lr: float
) -> None:
    """Or it could not be had in this sweep."""
    own = {"LD": {"LD": {"weight": weight, "temperature": temperature}}}
    one = stage(losses(*(own.get(name, name) for name in names)), lr=lr)
    written = {
        "distill": [["LD"], ["LD", "KD"]],
        "LD__weight": {"loguniform": [0.1, 5]},
        "LD__temperature": {"uniform": [2, 20]},
        "recipe__lr": [0.01, 0.5],
    }
    found = read(one, **written)
    can = "LD" in names and 0.1 <= weight <= 5 and 2 <= temperature <= 20 and lr != 0.005
    assert (found is not None) == can
    if found is not None:
        assert setting(found, LD) == Reader(knobs(**written), RECIPE, LD).setting(facts.parameters(one))
        assert (found["LD.weight"], found["LD.temperature"], found["recipe.lr"]) == (weight, temperature, lr)


# Which come first


def test_on_the_same_data_the_best_comes_first_by_its_mean_over_the_seeds() -> None:
    lucky = [training(at(4.0, seed=seed), score) for seed, score in ((0, 0.9), (1, 0.1))]
    steady = [training(at(6.0, seed=seed), score) for seed, score in ((0, 0.6), (1, 0.7))]
    found = ranked([*lucky, *steady, training(at(8.0), 0.55)])
    assert temperatures(found) == [6.0, 8.0, 4.0]
    assert [one.score for one in found] == pytest.approx([0.65, 0.55, 0.5])
    assert found[0].origin == "experiment past, AP 0.65"


def test_the_same_data_come_before_better_scores_on_others() -> None:
    found = ranked([training(at(4.0, data="theirs"), 0.9, experiment="coco"), training(at(6.0), 0.2)])
    assert temperatures(found) == [6.0, 4.0]
    assert [one.other_data for one in found] == [False, True]
    assert found[1].origin == "experiment coco on other data, AP 0.9"


def test_scores_by_other_figures_are_not_compared_and_come_after_ours() -> None:
    others = [training(at(t), score, metric="AP50") for t, score in ((4.0, 0.8), (5.0, 0.9))]
    assert temperatures(ranked([*others, training(at(6.0), 0.2)])) == [6.0, 5.0, 4.0]


def test_several_other_data_sets_take_turns() -> None:
    there = [("a", 4.0, 0.9), ("a", 5.0, 0.8), ("a", 6.0, 0.7), ("b", 7.0, 0.2), ("b", 8.0, 0.1)]
    found = ranked(training(at(t, data=data), score) for data, t, score in there)
    assert temperatures(found) == [4.0, 7.0, 5.0, 8.0, 6.0]


def test_equal_settings_are_there_once_with_their_best_score() -> None:
    found = ranked(
        [
            training(at(4.0, epochs=3), 0.3, experiment="short"),
            training(at(4.0), 0.5, experiment="long"),
            training(at(4.0, data="theirs"), 0.9, experiment="coco"),
            training(at(6.0), 0.4),
        ]
    )
    assert temperatures(found) == [4.0, 6.0]
    assert (found[0].experiment, found[0].score) == ("long", 0.5)


def test_a_setting_that_diverged_with_one_seed_is_left_out() -> None:
    found = [training(at(4.0), 0.9), training(at(4.0, seed=1), nan), training(at(6.0), 0.4)]
    assert temperatures(ranked(found)) == [6.0]


@given(st.permutations([(t, data, s) for t in (3.0, 5.0, 7.0) for data in ("ours", "a", "b") for s in (0, 1)]))
def test_the_order_in_which_mlflow_lists_them_makes_no_difference(listed: list[tuple[float, str, int]]) -> None:
    def score(t: float, data: str) -> float:
        return 0.5 if data == "a" else t % 4 / 10

    found = ranked(training(at(t, data=data, seed=s), score(t, data)) for t, data, s in listed)
    assert found == ranked(training(at(t, data=data, seed=s), score(t, data)) for t, data, s in sorted(listed))
    assert temperatures(found) == [3.0, 7.0, 5.0]


def test_nothing_alike_gives_nothing() -> None:
    assert ranked([]) == []
