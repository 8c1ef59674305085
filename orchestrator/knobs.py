"""The knobs of a sweep, each checked against what it turns: a loss, the recipe, or the choice of losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import product
from typing import Any

from pydantic import ValidationError

from orchestrator.settings import LOSSES, RECIPE, Setting, applied, setting
from orchestrator.spaces import Space
from orchestrator.sweep import Sweep
from trainers import distill, optim, schedules
from trainers.augment import misfit
from trainers.call import Invalid, Term, alternatives, explain
from trainers.spec import Recipe


def checked(sweep: Sweep, recipes: Mapping[str, Recipe], losses: tuple[Term, ...]) -> Sweep:
    """The same sweep with every value as its knob has it: 6 becomes 6.0 for a number that need not be whole.

    recipes: of the models that are taught, by name. losses: of the study, complete. Raises `Invalid` at the knob.
    """
    knobs = dict(sweep.knobs)
    if LOSSES in knobs:
        knobs[LOSSES] = _at(LOSSES, knobs[LOSSES], _terms)
    choices = [tuple(map(Term.model_validate, option)) for option in knobs[LOSSES].options] if LOSSES in knobs else []
    for name, space in knobs.items():
        if name.startswith(RECIPE):
            knobs[name] = _at(name, space, partial(_of_recipe, recipes, name))
            if beneath := next((other for other in knobs if other.startswith(f"{name}.")), None):
                raise Invalid(f"{name} is swept as a whole; write the values of this one into its values", (beneath,))
        elif name != LOSSES:
            knobs[name] = _at(name, space, _of_loss(name, choices or [losses]))
    _check_choices(knobs)
    epochs = min((recipe.epochs for recipe in recipes.values()), default=0)
    if sweep.stop and "recipe.epochs" not in knobs and not sweep.stop.rungs(epochs):
        message = f"a training has {epochs} epochs, so none is given up after {sweep.stop.grace}"
        raise Invalid(message, ("stop", sweep.stop.how, "grace"))
    return sweep.model_copy(update={"knobs": knobs})


def variants(sweep: Sweep, losses: Iterable[Term]) -> Iterator[Setting]:
    """Settings that stand for all: each choice of losses with the values of one other knob after the other."""
    losses = tuple(losses)
    choices: tuple[Any, ...] = sweep.knobs[LOSSES].options if LOSSES in sweep.knobs else (None,)
    others = {name: space.samples() for name, space in sweep.knobs.items() if name != LOSSES}
    first = {name: values[0] for name, values in others.items()}
    turned = [first, *({**first, name: value} for name, values in others.items() for value in values[1:])]
    seen = set()
    for chosen, values in product(choices, turned):
        one = setting(values if chosen is None else {LOSSES: chosen, **values}, losses)
        if one not in seen:
            seen.add(one)
            yield one


def _check_choices(knobs: Mapping[str, Space]) -> None:
    """Refuse choices of losses that differ only in what other knobs set: they would be the same stage."""
    if LOSSES not in knobs:
        return
    own = {name: space.samples()[0] for name, space in knobs.items() if not name.startswith((LOSSES, RECIPE))}
    seen: list[tuple[Term, ...]] = []
    for option in knobs[LOSSES].options:
        _, terms = applied(setting({**own, LOSSES: option}, ()), Recipe(), ())
        if terms in seen:
            named = " + ".join(term.name for term in terms)
            message = f"two choices, {named}, differ only in what other knobs of the sweep set; remove one"
            raise Invalid(message, (LOSSES,))
        seen.append(terms)


def _at(name: str, space: Space, settle: Callable[[Any], Any]) -> Space:
    """A knob with its values settled."""
    try:
        if space.kind == "choice":
            options = tuple(settle(option) for option in space.options)
            if any(one in options[:i] for i, one in enumerate(options)):
                raise Invalid("write at least one value, each once")
            return space.model_copy(update={"options": options})
        ends = [settle(value) for value in space.samples()]
        real = space.whole and isinstance(ends[0], float)
        return space.model_copy(update={"real": True}) if real else space
    except Invalid as error:
        raise Invalid(str(error), (name,)) from None


def _terms(option: Any) -> Any:
    try:
        terms = [Term.model_validate(term) for term in option]
    except (ValidationError, TypeError, ValueError) as error:
        said = explain(error) if isinstance(error, ValidationError) else "write lists of losses, as in [[LD], [LD, KD]]"
        raise Invalid(said) from None
    if not terms:
        raise Invalid("name at least one distillation loss in each list, as in [LD]")
    return [term.complete(distill).model_dump(mode="json") for term in terms]


def _of_loss(name: str, choices: list[tuple[Term, ...]]) -> Callable[[Any], Any]:
    """How a value of a loss's knob is settled."""
    loss, _, knob = name.partition(".")
    there = [term for terms in choices for term in terms if term.name == loss]
    if not there:
        names = {term.name for terms in choices for term in terms}
        raise Invalid(f"{alternatives(loss, names)}; write a loss of this study and its knob, or recipe.NAME", (name,))
    if any(sum(term.name == loss for term in terms) > 1 for terms in choices):
        raise Invalid(
            f"{loss} is there more than once, so nobody knows which is meant; sweep `distill` instead", (name,)
        )
    known = [*there[0].knobs(distill), *Term.beside()]
    if knob not in known:
        raise Invalid(f"{loss} has no such argument: {alternatives(knob, known)}", (name,))

    def settle(value: Any) -> Any:
        try:
            _, (turned,) = applied(setting({name: value}, there[:1]), Recipe(), (there[0],))
        except ValidationError as error:
            raise Invalid(explain(error)) from None
        whole = turned.complete(distill)
        return whole.args[knob] if knob in whole.args else whole.model_dump(mode="json").get(knob, value)

    return settle


def _of_recipe(recipes: Mapping[str, Recipe], name: str, value: Any) -> Any:
    """A value of a knob of the recipe, if all models' recipes can have it."""
    settled = value
    for model, recipe in recipes.items():
        try:
            changed, _ = applied(setting({name: value}, ()), recipe, ())
            changed = changed.model_copy(
                update={
                    "optimizer": changed.optimizer.complete(optim),
                    "schedule": changed.schedule.complete(schedules),
                }
            )
        except KeyError as missing:
            raise Invalid(f"the recipe has no {name.removeprefix(RECIPE)}: {missing} is not there") from None
        except TypeError:
            raise Invalid(f"the recipe has no {name.removeprefix(RECIPE)}: what holds it has no parts") from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            if first["type"] == "extra_forbidden":
                raise Invalid(alternatives(name.removeprefix(RECIPE), Recipe.model_fields)) from None
            at = ".".join(map(str, first["loc"]))
            raise Invalid(explain(error) if RECIPE + at == name else f"{at}: {explain(error)}") from None
        if wrong := misfit(changed.resize, changed.crop):
            raise Invalid(f"{model}: {wrong}")
        field, *rest = name.removeprefix(RECIPE).split(".")
        # What came later is left out of what is written where it has its default.
        place = changed.model_dump(mode="json").get(field, getattr(changed, field))
        for key in rest:
            place = place[key]
        settled = place
    return settled
