"""What a stage will cost: as such stages did, else as the nearest did by its FLOPs, else only against others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.costs import STEP, Costs, Measured, Prediction, kind, per_image
from trainers.call import Call, Term
from trainers.spec import Data, Guides, Model, Recipe, Stage, Weights

FLOPS = {"big": 100, "mid": 40, "low": 20, "wee": 10}


def model(name: str, **facts: Any) -> Model:
    return Model(detector=Call(name="GFL"), backbone=Call(name=name), **facts)


def stage(
    name: str, teacher: Stage | None = None, *losses: str, seed: int = 0, data: str = "x", **recipe: Any
) -> Stage:
    return Stage(
        model=model(name),
        data=Data(fingerprint=data, classes=()),
        recipe=Recipe(**{"epochs": 10, **recipe}),
        distill=tuple(Term(name=loss) for loss in losses or ("LD",) if teacher),
        seed=seed,
        teacher=teacher,
    )


BIG = stage("big")
MID = stage("mid", BIG)


def forward(one: Model, recipe: Recipe) -> int | None:
    known = FLOPS.get(one.backbone.name)
    return known * (4 if recipe.resize else 1) if known else None


def costs(*measured: tuple[Stage, float]) -> Costs:
    return Costs(per_image(forward), [Measured(*one) for one in measured])


def test_training_on_an_image_is_three_passes_of_the_student_and_one_of_each_guide() -> None:
    flops = per_image(forward)
    assert flops(BIG) == STEP * 100 and flops(MID) == STEP * 40 + 100
    assert flops(stage("wee", MID)) == STEP * 10 + 40
    assert flops(stage("wee", MID, guides=Guides(who="all"))) == STEP * 10 + 40 + 100
    assert flops(stage("foreign")) is None and flops(stage("wee", stage("foreign"))) is None


def test_all_see_the_images_of_who_is_trained_however_large_their_own_were() -> None:
    flops, large = per_image(forward), {"resize": (64, 64)}
    assert flops(stage("wee", stage("big", **large))) == STEP * 10 + 100
    assert flops(stage("wee", BIG, **large)) == 4 * (STEP * 10 + 100)
    assert costs((MID, 50.0)).predict(stage("mid", BIG, **large)) == Prediction(200.0, "scaled")


def test_such_a_stage_costs_as_it_did_with_whatever_seed_weight_and_teachers_teacher() -> None:
    known = costs((stage("wee", MID), 50.0))
    for such in (
        stage("wee", MID, seed=1),
        stage("wee", stage("mid"), seed=2),
        stage("wee", stage("mid", stage("low"))),
        stage("wee", MID, lr=0.5, warmup=3, flip=0.0, schedule=Call(name="Cosine")),
        stage("wee", MID).model_copy(update={"distill": (Term(name="LD", args={"weight": 3}),)}),
    ):
        assert known.predict(such) == Prediction(50.0, "measured")


def test_what_makes_a_step_slower_makes_another_kind() -> None:
    own = stage("wee", MID)
    others = [
        stage("wee", BIG),
        stage("low", MID),
        stage("wee"),
        stage("wee", MID, "LD", "KD"),
        stage("wee", MID, data="y"),
        stage("wee", MID, batch=8),
        stage("wee", MID, precision="bf16"),
        stage("wee", MID, freeze=2),
        stage("wee", MID, guides=Guides(who="all")),
    ]
    assert len({kind(one) for one in (own, *others)}) == 1 + len(others)


def test_epochs_are_what_is_measured_so_a_longer_training_costs_more() -> None:
    known = costs((stage("wee", MID), 50.0))
    assert known.predict(stage("wee", MID, epochs=30)) == Prediction(150.0, "measured")


def test_of_several_such_stages_the_median_counts() -> None:
    known = costs(*((stage("wee", MID, seed=seed), seconds) for seed, seconds in enumerate((50.0, 52.0, 400.0))))
    assert known.predict(stage("wee", MID, seed=7)).seconds == 52


def test_else_the_nearest_in_flops_is_scaled() -> None:
    # Training on an image: big 300, mid alone 120, low alone 60, wee by big 130.
    known = costs((BIG, 300.0), (stage("mid"), 240.0))
    assert known.predict(stage("low")) == Prediction(pytest.approx(240 * 60 / 120), "scaled")
    assert known.predict(stage("wee", BIG)) == Prediction(pytest.approx(240 * 130 / 120), "scaled")
    assert known.predict(stage("mid", BIG)) == Prediction(pytest.approx(300 * 220 / 300), "scaled")
    assert known.predict(stage("low", epochs=5)).seconds == pytest.approx(60)


def test_of_equally_near_ones_that_with_the_same_losses_is_scaled() -> None:
    known = costs((stage("wee", MID, "PKD"), 90.0), (stage("wee", MID, "LD", batch=32), 50.0))
    assert known.predict(stage("wee", MID, "LD")).seconds == 50
    assert known.predict(stage("wee", MID, "PKD", batch=8)).seconds == 90


def test_a_stage_whose_flops_nobody_knows_is_not_scaled_from() -> None:
    known = costs((stage("foreign"), 3.0))
    assert known.predict(BIG) == Prediction(None, "unknown")


def test_where_no_seconds_are_known_flops_and_epochs_are_compared() -> None:
    unknown = costs()
    assert unknown.predict(MID) == Prediction(None, "unknown")
    assert unknown.relative(MID) == 10 * (STEP * 40 + 100)
    assert costs((MID, 7.0)).relative(stage("mid", BIG, seed=3)) == 7


def test_published_weights_cost_nothing_until_they_were_measured_and_scale_nothing() -> None:
    given_ = stage("big", **Recipe().measuring().model_dump()).model_copy(
        update={"model": model("big", weights=Weights(sha256="0" * 64))}
    )
    assert given_.published
    assert costs().predict(given_) == Prediction(0.0, "none") and costs().relative(given_) == 0
    known = costs((given_, 4.0))
    assert known.predict(given_) == Prediction(4.0, "measured")
    assert known.predict(stage("mid")) == Prediction(None, "unknown")


names = st.sampled_from(sorted(FLOPS))


@given(st.lists(st.tuples(names, st.floats(0.1, 1e4)), min_size=1, max_size=4), names, st.integers(1, 50))
def test_twice_the_time_of_all_is_twice_the_prediction(measured, name, epochs):
    asked = stage(name, BIG, epochs=epochs)
    once = costs(*((stage(n), seconds) for n, seconds in measured)).predict(asked)
    twice = costs(*((stage(n), 2 * seconds) for n, seconds in measured)).predict(asked)
    assert once.seconds > 0 and twice.basis == once.basis == "scaled"
    assert twice.seconds == pytest.approx(2 * once.seconds)
