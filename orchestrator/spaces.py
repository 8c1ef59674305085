"""Where the value of a knob may lie, in Ray Tune's words: choice, grid, uniform, loguniform, quniform, randint, ..."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import ValidationError, model_serializer, model_validator

from trainers.call import Invalid, Spec, alternatives, explain

Kind = Literal["choice", "uniform", "loguniform", "quniform", "qloguniform", "randint", "lograndint"]
RANGES = ("uniform", "loguniform", "quniform", "qloguniform", "randint", "lograndint")
MANY = 1000  # values that are not listed any more
DIGITS = 4  # of a value that is drawn, or of how far it is along a narrow range: more would only be hard to read


class Space(Spec):
    """Values of a knob: some of which one is chosen, or a range.

    As in Tune, `randint` and `lograndint` leave the upper end out, and `quniform` rounds to multiples of a third
    number, so that both ends can come out.
    """

    kind: Kind
    options: tuple[Any, ...] = ()  # of a choice
    low: float = 0.0
    high: float = 0.0
    step: float = 0.0  # of quniform and qloguniform
    real: bool = False  # whether its whole numbers are 5.0 and not 5, as its ends are written then

    @model_validator(mode="after")
    def _can_be(self) -> Space:
        if self.kind == "choice":
            if not self.options or any(one in self.options[:i] for i, one in enumerate(self.options)):
                raise ValueError("write at least one value, each once")
            return self
        if self.low >= self.high:
            raise ValueError(f"the lower end, {self.low:g}, is not below the upper one, {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range begins above 0, not at {self.low:g}")
        if self.kind.startswith("q") and not 0 < self.step <= self.high - self.low:
            raise ValueError(f"the step, {self.step:g}, is not above 0 and within the range")
        if self.step and any(abs(end / self.step - round(end / self.step)) > 1e-6 for end in (self.low, self.high)):
            raise ValueError(f"both ends are multiples of the step, {self.step:g}, as in Tune")
        if self.whole and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"{self.kind} goes between whole numbers")
        return self

    @model_serializer
    def _write(self) -> dict[str, list[Any]]:
        if self.kind == "choice":
            return {"choice": list(self.options)}
        ends = [int(end) for end in (self.low, self.high)] if self.whole and not self.real else [self.low, self.high]
        return {self.kind: [*ends, self.step] if self.step else list(ends)}

    @property
    def log(self) -> bool:
        return "log" in self.kind

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return self.kind.endswith("randint")

    def at(self, part: float) -> Any:
        """The value so far along, 0 <= part < 1; equal parts are equally likely, of the logarithm where it is one."""
        if self.kind == "choice":
            return self.options[int(part * len(self.options))]
        low, high = (math.log(end) for end in (self.low, self.high)) if self.log else (self.low, self.high)
        value = low + part * (high - low)
        return self.rounded(math.exp(value) if self.log else value)

    def rounded(self, value: float) -> float:
        """The nearest value of a range, with four digits or as its step has it."""
        if self.whole:
            number = int(min(max(math.floor(value), self.low), self.high - 1))
            return float(number) if self.real else number
        # A multiple of .1 is .3 and not .30000000000000004.
        value = float(f"{round(value / self.step) * self.step:.12g}" if self.step else f"{value:.{self._digits}g}")
        return min(max(value, self.low), self.high)

    def holds(self, value: Any) -> bool:
        """Whether this may be its value: one of a choice; between the ends of a range and on its steps, however many
        digits it has."""
        if self.kind == "choice":
            return value in self.options
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.rounded(value) == value if self.whole or self.step else True

    @property
    def _digits(self) -> int:
        """Enough to tell the values of a narrow range, such as 1000 to 1001, apart."""
        return DIGITS + max(0, math.floor(math.log10(max(abs(self.low), abs(self.high)) / (self.high - self.low))))

    def samples(self) -> tuple[Any, ...]:
        """Values that stand for all where knobs are checked: every one of a choice, the ends of a range."""
        return self.options if self.kind == "choice" else (self.rounded(self.low), self.rounded(self.high))

    def every(self) -> tuple[Any, ...]:
        """All its values, rising where it is a range of them; none if they are too many to count."""
        if self.kind == "choice":
            return self.options
        step = 1.0 if self.whole else self.step
        count = round((self.high - self.low) / step) + (not self.whole) if step else math.inf
        return tuple(self.rounded(self.low + i * step) for i in range(int(count))) if count <= MANY else ()


def space(written: Any) -> Space:
    """`[0.1, 0.5]`, `{choice: [...]}`, `{grid: [...]}`, `{loguniform: [1, 20]}`, ... Raises `Invalid`."""
    known = ("choice", "grid", *RANGES)
    if isinstance(written, list | tuple):
        written = {"choice": written}
    if not isinstance(written, dict) or len(written) != 1:
        raise Invalid(f"write a list of values, or one of {', '.join(known)}, as in {{loguniform: [1, 20]}}")
    ((kind, values),) = written.items()
    if kind not in known:
        raise Invalid(alternatives(str(kind), known))
    if not isinstance(values, list | tuple):
        raise Invalid(f"{kind} needs a list")
    if kind in ("choice", "grid"):
        return _made(kind="choice", options=tuple(values))
    names = ("low", "high", "step") if kind.startswith("q") else ("low", "high")
    if len(values) != len(names) or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        raise Invalid(f"{kind} needs the numbers [{', '.join(names)}] (got {list(values)!s:.80})")
    real = kind.endswith("randint") and any(isinstance(value, float) for value in values)
    return _made(kind=kind, real=real, **dict(zip(names, values, strict=True)))


def _made(**fields: Any) -> Space:
    try:
        return Space(**fields)
    except ValidationError as error:
        raise Invalid(explain(error).partition(" (got")[0]) from None
