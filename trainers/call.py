"""A class by its name with its arguments, as a study writes it; and what is said when it is written wrongly."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from importlib import import_module
from types import ModuleType
from typing import Annotated, Any, Self, get_args, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_serializer,
    model_validator,
)

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(lambda x: x + 0.0)]  # no -0.0
Fraction = Annotated[NonNegative, Field(le=1)]
Part = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Index = Annotated[int, Field(ge=0)]


def _percent(value: float) -> float:
    if 0 < abs(value) <= 1:
        raise ValueError("write per cent, as publications do: 36.5 and not 0.365")
    return value


Percent = Annotated[float, Field(ge=-100, le=100), AfterValidator(_percent)]


class Invalid(ValueError):
    """A user's mistake: what is wrong, and at which key (`where`, from the outside in)."""

    def __init__(self, message: str, where: Iterable[str | int] = ()) -> None:
        super().__init__(message)
        self.where = tuple(where)

    def under(self, *where: str | int) -> Invalid:
        """The same mistake, seen from further out."""
        return Invalid(str(self), (*where, *self.where))


# One for all: `json.dumps` would make another for each of thousands of small values.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def canonical(value: Any) -> str:
    """JSON that is the same for equal values: sorted keys, no spaces, no NaN."""
    return _ENCODER.encode(value)


def alternatives(name: str, known: Iterable[str]) -> str:
    """`LDD is not one of KD, LD; did you mean LD?`"""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{name} is not one of {', '.join(known) or '(nothing)'}{hint}"


class Spec(BaseModel):
    """A frozen value that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Another value: what was worked out from this one, such as its `canonical`, does not hold for it."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied

    @cached_property
    def canonical(self) -> str:
        """Text that is the same for equal values."""
        return canonical(self.model_dump(mode="json"))


def offers(package: ModuleType) -> dict[str, Any]:
    """The classes and functions that a package offers by name: its `__all__`, or what it imported from its files."""
    return {
        name: thing
        for name, thing in vars(package).items()
        if (name in package.__all__ if hasattr(package, "__all__") else not name.startswith("_"))
        and (inspect.isclass(thing) or inspect.isfunction(thing))
        and thing.__module__.split(".")[: package.__name__.count(".") + 1] == package.__name__.split(".")
    }


class Call(Spec):
    """A class by its name, with arguments: `LD`, or `{LD: {temperature: 10}}`."""

    name: str
    args: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Call):
            return {"name": value.name, "args": value.args}
        if isinstance(value, Mapping):
            beside = {key: value[key] for key in cls.beside() if key in value}
            call = {key: one for key, one in value.items() if key not in beside}
            if len(call) == 1 and "name" not in call:
                ((name, args),) = call.items()
                if isinstance(name, str) and (args is None or isinstance(args, Mapping)):
                    return {"name": name, "args": dict(args or {}), **beside}
            if {"name"} <= set(call) <= {"name", "args"}:
                return value
        beside_it = f", and beside it {', '.join(cls.beside())}" if cls.beside() else ""
        raise ValueError(f"write a name, or {{Name: {{argument: value}}}}{beside_it}")

    @model_serializer
    def _write(self) -> dict[str, Any]:
        beside = {key: getattr(self, key) for key in self.beside() if getattr(self, key) != self.beside()[key].default}
        return {self.name: self.args, **beside}

    @classmethod
    @cache
    def beside(cls) -> dict[str, Any]:
        """The fields that are written beside the name."""
        return {key: field for key, field in cls.model_fields.items() if key not in Call.model_fields}

    def knobs(self, package: ModuleType) -> dict[str, inspect.Parameter]:
        """The keyword-only parameters of what this names, or `Invalid` when the package does not offer it."""
        known = offers(package)
        if self.name not in known:
            raise Invalid(alternatives(self.name, known))
        parameters = inspect.signature(known[self.name]).parameters
        return {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}

    def complete(self, package: ModuleType) -> Self:
        """The same call, and the calls among its arguments, with every default and each value of its parameter's type.

        Arguments that a class names as `later` came when it had results: they are written if they are no default, so
        that the keys of those results stay.
        Raises `Invalid` for an unknown name or argument, a missing argument, or a value of the wrong type or range.
        """
        knobs = self.knobs(package)
        thing = offers(package)[self.name]
        hints = get_type_hints(thing.__init__ if inspect.isclass(thing) else thing, include_extras=True)
        for name in (n for n in self.args if n not in knobs):
            raise Invalid(f"{self.name} has no such argument: {alternatives(name, knobs)}", (self.name, name))
        args = {}
        for name, knob in knobs.items():
            value = self.args.get(name, knob.default)
            if value is knob.empty:
                raise Invalid(f"{self.name} needs the argument {name}", (self.name,))
            try:
                args[name] = settled(value, hints.get(name, Any))
                if name in getattr(thing, "later", ()) and args[name] == knob.default:
                    del args[name]
                elif (among := offering(hints.get(name), package)) is not None:
                    args[name] = Call.model_validate(args[name]).complete(among).model_dump()
            except Invalid as error:
                raise error.under(self.name, name) from None
            except (ValueError, TypeError) as error:
                said = explain(error) if isinstance(error, ValidationError) else error
                raise Invalid(f"{name}: {said}", (self.name, name)) from None
        return self.model_copy(update={"args": args})

    def of(self, package: ModuleType, *context: Any) -> Any:
        """Build what this names, from the context and the arguments."""
        return offers(package)[self.name](*context, **self.args)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v}' for k, v in self.args.items())})"


def offering(kind: Any, package: ModuleType) -> ModuleType | None:
    """What a call that is an argument of another is looked up in: the same package, or the one that its type names,
    as `Annotated[Call, "trainers.metrics"]` does. None for what is no call."""
    if kind is Call:
        return package
    if get_origin(kind) is Annotated and get_args(kind)[0] is Call:
        return import_module(get_args(kind)[1])
    return None


def settled(value: Any, kind: Any) -> Any:
    """A value as plain JSON data of a parameter's type. Strict: no word passes for a number, nor `true` for 1.

    6 for a float comes out as 6.0. Raises `ValidationError`, or `ValueError` for what JSON lacks.
    """
    value = value.model_dump() if isinstance(value, Call) else value  # a default
    adapter = TypeAdapter(kind)
    return adapter.dump_python(adapter.validate_json(json.dumps(value, allow_nan=False), strict=True), mode="json")


def explain(error: ValidationError) -> str:
    """One line for what pydantic found, without its web addresses."""
    first = error.errors(include_url=False)[0]
    return f"{first['msg'].removeprefix('Value error, ')} (got {first['input']!r:.80})"


class Auto(Spec):
    """What part of the detection losses' gradient at the student's features a loss's own is to be.

    1, for `alpha: auto`: as much is learnt from the teacher as from the boxes.
    """

    auto: Positive = 1.0


def _alpha(written: Any) -> Any:
    """A number or an `Auto`. The words are ours, since pydantic would speak of each of both."""
    if written == "auto" or isinstance(written, Auto):
        return Auto() if written == "auto" else written
    number = written["auto"] if isinstance(written, Mapping) and set(written) == {"auto"} else written
    if isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number < float("inf"):
        if number is written:
            return float(number) + 0.0  # no -0.0
        if number:
            return Auto(auto=number)
    raise ValueError("write a number from 0, or auto, or {auto: a ratio above 0}")


class Term(Call):
    """A distillation loss, how much and when it counts: `{LD: {}, alpha: 0.5, epochs: [3, 8], ramp: 2000}`."""

    alpha: Annotated[float | Auto, BeforeValidator(_alpha)] = 1.0  # it is multiplied by this, or by what is found

    # The first and the last in which it counts; null: to the end. A list is a tuple here, however strictly one reads.
    epochs: Annotated[tuple[Count, Count | None], BeforeValidator(lambda x: tuple(x) if isinstance(x, list) else x)] = (
        1,
        None,
    )
    after: Index = 0  # optimizer steps of these that pass before it counts
    ramp: Index = 0  # optimizer steps over which its weight then rises linearly
    fade: Fraction = 0.0  # the part of its time, at the end, over which its weight falls linearly to 0

    @model_validator(mode="after")
    def _in_order(self) -> Term:
        first, last = self.epochs
        if last is not None and last < first:
            raise ValueError(f"its last epoch, {last}, comes before its first, {first}")
        return self

    def shortened(self, budget: float, *, epochs: int) -> Self:
        """The same part of a training that is only so long: `budget` of the whole, or these epochs."""
        if budget == 1:
            return self
        first, last = self.epochs
        first = min(int((first - 1) * budget) + 1, epochs)
        last = None if last is None else max(first, round(last * budget))
        steps = {"after": int(self.after * budget), "ramp": round(self.ramp * budget)}
        return self.model_copy(update={"epochs": (first, last), **steps})
