"""Which settings a sweep tries: pure functions of its knobs and of what is known, so that there is no state to save.

A sampler is asked afresh after every result, for all the settings that it wants by now, those that are known included.
What it answers depends on no order of completion: `grid`, `random` and `sobol` look at no result, and `tpe` asks in
groups, each once all results of those before it are known.
"""

from __future__ import annotations

import itertools
import random as randoms
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from math import inf, prod
from typing import Any, cast

from orchestrator.settings import Setting, values
from orchestrator.spaces import Space

Knobs = Mapping[str, Space]
Make = Callable[[Mapping[str, Any]], Setting]  # values by knob -> their setting
Known = Mapping[Setting, float]  # their scores, after as many epochs each; -inf: it failed

TOGETHER = 4  # settings that `tpe` asks for at once: more in parallel, and less is learnt from each
ENUMERABLE = 256  # combinations of values that are gone through to see whether there are more settings than samples
TRIES = 100  # draws for each setting wanted, before it is believed that there are no others


def grid(knobs: Knobs, make: Make) -> list[Setting]:
    """All combinations, the last knob turning fastest."""
    options = (space.options for space in knobs.values())
    return _distinct(make(dict(zip(knobs, point, strict=True))) for point in itertools.product(*options))


def random(knobs: Knobs, make: Make, *, samples: int, seed: str, first: Sequence[Setting] = ()) -> list[Setting]:
    """So many settings: the `first`, and others drawn independently."""
    if every := _few(knobs, make, samples, first):
        return every
    draw = randoms.Random(seed)
    points = ([draw.random() for _ in knobs] for _ in range(samples * TRIES))
    return _distinct(chain(first, (_at(knobs, make, point) for point in points)), samples)


def sobol(knobs: Knobs, make: Make, *, samples: int, first: Sequence[Setting] = ()) -> list[Setting]:
    """So many settings: the `first`, and others that fill the space evenly: a scrambled Sobol sequence, the same for
    every edge.

    Sobol, "On the distribution of points in a cube and the approximate evaluation of integrals", 1967,
    https://doi.org/10.1016/0041-5553(67)90144-9; Owen's scrambling as torch has it.
    """
    if every := _few(knobs, make, samples, first):
        return every
    points = (point for count in (samples, samples * TRIES) for point in _evenly(len(knobs), count))
    return _distinct(chain(first, (_at(knobs, make, point) for point in points)), samples)


@lru_cache(maxsize=16)
def _evenly(dimensions: int, count: int) -> list[list[float]]:
    """The first points of a sequence in the unit cube."""
    from torch import quasirandom

    engine = cast(Any, quasirandom).SobolEngine(dimensions, scramble=True, seed=0)
    points: list[list[float]] = engine.draw(count).tolist()
    return points


def tpe(
    knobs: Knobs,
    make: Make,
    known: Known,
    asked: Sequence[Setting] = (),
    *,
    samples: int,
    seed: str,
    first: Sequence[Setting] = (),
) -> list[Setting]:
    """The `first`, and by `sobol` a quarter of the settings, at least four; then by the Tree-structured Parzen
    Estimator, four by four.

    Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011, by optuna's TPESampler, multivariate.
    Where some are given up, all count by their scores before that, so that it makes no difference when each was. What
    failed counts for nothing. `asked`: what this has answered before, to save time: without it the answer is the same.
    """
    if every := _few(knobs, make, samples, first):
        return every
    # Not in the place of the quarter: what was best elsewhere may all lie in one corner.
    begin = min(samples, len(first) + max(TOGETHER, samples // 4))
    asked = list(asked) or sobol(knobs, make, samples=begin, first=first)
    while len(asked) < samples and all(one in known for one in asked):
        more = _estimated(knobs, make, asked, known, count=min(TOGETHER, samples - len(asked)), seed=seed)
        if not more:
            break
        asked += more
    return asked


def _estimated(knobs: Knobs, make: Make, asked: list[Setting], known: Known, *, count: int, seed: str) -> list[Setting]:
    """New settings for these knobs, given the results of all that was asked before."""
    import optuna
    from optuna.trial import create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ranges = {name: distribution(space) for name, space in knobs.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=zlib.crc32(f"{seed} {len(asked)}".encode()),
            n_startup_trials=1,
            multivariate=True,
            group=True,  # a knob of a loss that is not there is not
            constant_liar=True,
        )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for one in asked:
        if known[one] == -inf:
            continue
        given = values(one)
        study.add_trial(
            create_trial(
                params={name: place(knobs[name], value) for name, value in given.items()},
                distributions={name: ranges[name] for name in given},
                value=known[one],
            )
        )
    found: dict[Setting, None] = {}
    for _ in range(TRIES):
        params = study.ask(ranges).params
        one = make({name: _value(knobs[name], params[name]) for name in knobs})
        if one not in asked:
            found[one] = None
        if len(found) == count:
            break
    return list(found)


def distribution(space: Space) -> Any:
    """A knob as optuna knows it; a choice by the numbers of its values, which can be anything."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if space.kind == "choice":
        return CategoricalDistribution(range(len(space.options)))
    if space.whole:
        return IntDistribution(int(space.low), int(space.high) - 1, log=space.log)
    return FloatDistribution(space.low, space.high, log=space.log)


def place(space: Space, value: Any) -> Any:
    return space.options.index(value) if space.kind == "choice" else value


def _value(space: Space, place: Any) -> Any:
    return space.options[place] if space.kind == "choice" else space.rounded(place)


def _at(knobs: Knobs, make: Make, point: list[float]) -> Setting:
    return make({name: space.at(part) for (name, space), part in zip(knobs.items(), point, strict=True)})


def _few(knobs: Knobs, make: Make, samples: int, first: Sequence[Setting]) -> list[Setting]:
    """All settings if there are no more than so many, those to begin with first; and otherwise none."""
    every = [space.every() for space in knobs.values()]
    if prod(map(len, every)) > ENUMERABLE or not all(every):
        return []
    found = grid({name: Space(kind="choice", options=values) for name, values in zip(knobs, every, strict=True)}, make)
    return _distinct(chain(first, found)) if len(found) <= samples else []


def _distinct(points: Iterable[Setting], count: int | None = None) -> list[Setting]:
    """The first so many that differ, or all of them; fewer if there are no more."""
    found: dict[Setting, None] = {}
    for point in points:
        found[point] = None
        if len(found) == count:
            break
    return list(found)
