"""Stages drawn at random from few values, so that two of them have much in common."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from trainers.call import Call, Term
from trainers.spec import Data, Model, Recipe, Stage, Weights


def some(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


def calls(*names: str, **knobs: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    return st.builds(Call, name=some(*names), args=st.fixed_dictionaries({}, optional=knobs))


terms = st.builds(
    Term,
    name=some("LD", "KD", "PKD"),
    args=st.fixed_dictionaries({"weight": some(0.5, 1.0)}, optional={"temperature": some(1.0, 10.0)}),
    epochs=some((1, None), (2, 5)),
    ramp=some(0, 100),
)
models = st.builds(
    Model,
    detector=calls("GFL", "ATSS", channels=some(8, 16)),
    backbone=calls("ResNet", depth=some(18, 50)),
    weights=some(None, Weights(sha256="0" * 64, part="backbone"), Weights(sha256="1" * 64, part="backbone")),
)
recipes = st.builds(
    Recipe,
    lr=some(0.01, 0.02),
    optimizer=calls("SGD", "AdamW", weight_decay=some(0.0, 0.05)),
    resize=some(None, (800, 1333), ({"one_of": (480, 512)}, 1333)),
    guides=some("teacher", "all", {"who": "all", "keep": 0.5}),
)
data = st.builds(Data, fingerprint=some("ab", "cd"), classes=some(("a",), ("a", "b")))
seeds = some(0, 1)
stages = st.recursive(
    st.builds(Stage, model=models, data=data, recipe=recipes, seed=seeds),
    lambda above: st.builds(
        Stage,
        model=models,
        data=data,
        recipe=recipes,
        seed=seeds,
        teacher=above,
        distill=st.lists(terms, max_size=3).map(tuple),
    ),
    max_leaves=3,
)
