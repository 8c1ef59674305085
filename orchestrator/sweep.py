"""The sweep of a study: which knobs are turned, how settings are chosen, and when one is given up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_serializer

from orchestrator import samplers
from orchestrator.settings import LOSSES, Setting, setting, text
from orchestrator.spaces import Space, space
from trainers.call import Count, Invalid, Spec, Term, alternatives

WORDS = ("sampler", "samples", "scope", "stop", "warm_start")  # of a sweep that name no knob


class Stop(Spec):
    """When siblings are given up: after `grace` epochs, and each time that they have had `factor` times as many, only
    one in `factor` goes on.

    asha: at once, if it is among the best of those that are as far by then. Li et al., "A System for Massively
    Parallel Hyperparameter Tuning", MLSys 2020, https://arxiv.org/abs/1810.05934. halving: once all are as far, so that
    the answer does not depend on the order in which they get there.
    """

    how: Literal["asha", "halving"]
    grace: Count = 1
    factor: Annotated[int, Field(ge=2)] = 3

    @model_serializer
    def _write(self) -> dict[str, dict[str, int]]:
        return {self.how: {"grace": self.grace, "factor": self.factor}}

    def rungs(self, epochs: int) -> list[int]:
        """The epochs after which is chosen, in a training of so many."""
        found, rung = [], self.grace
        while rung < epochs:
            found.append(rung)
            rung *= self.factor
        return found


class Sweep(Spec):
    """Knobs with what they may be.

    scope: `edge`, every edge has its own sweep, and its winner teaches; or `path`, a setting holds along a whole path.
    samples: settings of an edge, or of a path; a grid takes all.
    warm_start: whether those come first that earlier studies found on like edges.
    """

    knobs: dict[str, Space]
    sampler: Literal["grid", "random", "sobol", "tpe"]
    samples: Count | None = None
    scope: Literal["edge", "path"] = "edge"
    stop: Stop | None = None
    warm_start: bool = False

    @model_serializer
    def _write(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in WORDS} | {"warm_start": self.warm_start or None}
        return {
            **{name: knob.model_dump() for name, knob in self.knobs.items()},
            **{
                name: one.model_dump() if isinstance(one, Stop) else one for name, one in own.items() if one is not None
            },
        }

    def listed(self, losses: Iterable[Term]) -> list[str]:
        """The settings of a grid, as they are written for people; none of other samplers."""
        if self.sampler != "grid":
            return []
        losses = tuple(losses)
        return [text(one) for one in samplers.grid(self.knobs, lambda values: setting(values, losses))]

    @property
    def num_warm(self) -> int:
        """How many settings of an edge earlier studies may fill: a quarter, at least one."""
        return max(1, (self.samples or 0) // 4) if self.warm_start else 0

    def more(
        self,
        asked: list[Setting],
        known: samplers.Known,
        losses: Iterable[Term],
        *,
        seed: str,
        first: Sequence[Setting] = (),
    ) -> list[Setting]:
        """All the settings that are wanted by now; those asked for so far come first, at the start the `first`."""

        def make(values: Mapping[str, Any]) -> Setting:
            return setting(values, losses)

        if self.sampler == "grid":
            return asked or samplers.grid(self.knobs, make)
        assert self.samples is not None, "the study has checked it"
        if self.sampler == "tpe":
            return samplers.tpe(self.knobs, make, known, asked, samples=self.samples, seed=seed, first=first)
        if self.sampler == "sobol":
            return asked or samplers.sobol(self.knobs, make, samples=self.samples, first=first)
        return asked or samplers.random(self.knobs, make, samples=self.samples, seed=seed, first=first)


def sweep(written: Any) -> Sweep:
    """What a study's `sweep:` says. Raises `Invalid` at the key."""
    if not isinstance(written, Mapping):
        raise Invalid("write knobs with their values, as in {LD.temperature: [5, 10, 20]}")
    knobs = {}
    for name, values in written.items():
        if name not in WORDS:
            if name != LOSSES and "." not in str(name):
                message = "a knob of a loss is written LD.weight, and one of the recipe recipe.lr"
                raise Invalid(f"{alternatives(str(name), (*WORDS, LOSSES))}; {message}", (str(name),))
            try:
                knobs[str(name)] = space(values)
            except Invalid as error:
                raise error.under(str(name)) from None
    if not knobs:
        raise Invalid("name at least one knob, as in LD.temperature: [5, 10, 20]")
    given = {name: written[name] for name in WORDS if written.get(name) is not None}
    listed = all(knob.kind == "choice" for knob in knobs.values())
    sampler = given.get("sampler", "grid" if listed and "samples" not in given else "tpe")
    if sampler not in ("grid", "random", "sobol", "tpe"):
        raise Invalid("write grid, random, sobol or tpe", ("sampler",))
    if sampler == "grid" and not listed:
        name = next(name for name, knob in knobs.items() if knob.kind != "choice")
        raise Invalid("a grid needs lists of values; list some, or take the sampler random, sobol or tpe", (name,))
    if sampler == "grid" and "samples" in given:
        raise Invalid("a grid takes all its points; remove samples, or take another sampler", ("samples",))
    if sampler != "grid" and "samples" not in given:
        raise Invalid(f"say how many settings {sampler} is to try on each edge, as in samples: 16")
    samples = given.get("samples")
    if samples is not None and (isinstance(samples, bool) or not isinstance(samples, int) or samples < 1):
        raise Invalid(f"samples is a whole number from 1 on (got {samples!r:.40})", ("samples",))
    scope = given.get("scope", "edge")
    if scope not in ("edge", "path"):
        raise Invalid("write edge or path", ("scope",))
    warm_start = given.get("warm_start", False)
    if not isinstance(warm_start, bool):
        raise Invalid(f"write true or false (got {warm_start!r:.40})", ("warm_start",))
    if warm_start and sampler == "grid":
        message = "a grid takes all its points, whatever earlier studies found; remove warm_start, or give samples"
        raise Invalid(message, ("warm_start",))
    stop = _stop(given.get("stop"))
    return Sweep(knobs=knobs, sampler=sampler, samples=samples, scope=scope, stop=stop, warm_start=warm_start)


def _stop(written: Any) -> Stop | None:
    if written is None:
        return None
    call = {written: {}} if isinstance(written, str) else written
    if not isinstance(call, Mapping) or len(call) != 1 or next(iter(call)) not in ("asha", "halving"):
        raise Invalid("write asha or halving, as in {asha: {grace: 2, factor: 3}}", ("stop",))
    ((how, knobs),) = call.items()
    knobs = {} if knobs is None else knobs
    if not isinstance(knobs, Mapping) or not set(knobs) <= {"grace", "factor"}:
        raise Invalid(f"{how} has the knobs grace and factor", ("stop", how))
    for name, least in (("grace", 1), ("factor", 2)):
        value = knobs.get(name, least)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise Invalid(f"{name} is a whole number from {least} on (got {value!r:.40})", ("stop", how, name))
    return Stop(how=how, **knobs)
