"""A setting: values of the knobs that a sweep turns, and what they make of a recipe and of the losses."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from trainers.call import Term, canonical
from trainers.spec import Recipe

LOSSES = "distill"  # the knob that chooses the losses; LD.weight is one of a loss, recipe.lr one of the recipe
RECIPE = "recipe."

Setting = tuple[tuple[str, str], ...]  # names of knobs, rising, each with its value as JSON


def setting(values: Mapping[str, Any], losses: Iterable[Term]) -> Setting:
    """The setting of these values, less those of losses that are not there: then they make no difference."""
    there = {term.name for term in _losses(values.get(LOSSES), losses)}
    return tuple(
        (name, canonical(value))
        for name, value in sorted(values.items())
        if name == LOSSES or name.startswith(RECIPE) or name.partition(".")[0] in there
    )


def values(one: Setting) -> dict[str, Any]:
    """The values of a setting by knob."""
    return {name: json.loads(text) for name, text in one}


def applied(one: Setting, recipe: Recipe, losses: tuple[Term, ...]) -> tuple[Recipe, tuple[Term, ...]]:
    """A recipe and losses with the values of a setting in the place of their own."""
    if not one:
        return recipe, losses
    given = values(one)
    losses = _losses(given.pop(LOSSES, None), losses)
    changed = {name.removeprefix(RECIPE): value for name, value in given.items() if name.startswith(RECIPE)}
    own: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        if not name.startswith(RECIPE):
            loss, _, knob = name.partition(".")
            own.setdefault(loss, {})[knob] = value
    if changed:
        recipe = Recipe.model_validate_json(canonical(_changed(recipe.model_dump(mode="json"), changed)), strict=True)
    return recipe, tuple(_turned(term, own.get(term.name, {})) for term in losses)


def text(one: Setting) -> str:
    """For people: `LD.temperature 10, LD.weight 0.25`."""
    return ", ".join(f"{name} {shown(value)}" for name, value in values(one).items())


def shown(value: Any) -> str:
    """A value of a knob, for people: losses by their names."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):  # losses
        return " + ".join(Term.model_validate(one).name for one in value)
    return value if isinstance(value, str) else json.dumps(value)


def _losses(chosen: Any, losses: Iterable[Term]) -> tuple[Term, ...]:
    return tuple(losses) if chosen is None else tuple(Term.model_validate(term) for term in chosen)


def _turned(term: Term, own: Mapping[str, Any]) -> Term:
    beside = {name: value for name, value in own.items() if name in Term.beside()}
    args = {name: value for name, value in own.items() if name not in beside}
    whole = term.model_copy(update={"args": {**term.args, **args}})
    if not beside:
        return whole
    return Term.model_validate_json(canonical({**whole.model_dump(mode="json"), **beside}), strict=True)


def _changed(tree: dict[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with other values at dotted keys."""
    for dotted, value in changed.items():
        *above, last = dotted.split(".")
        place = tree
        for key in above:
            place = place[key]
        place[last] = value
    return tree
