"""Which of the paths that MLflow has are asked for: by their data, their student, and what they and it take."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from orchestrator.ranking import Found
from trainers.call import Invalid, alternatives

# What a path costs, teachers included. An hour is one of each worker; on a machine without GPUs it is one of its CPUs.
COSTS: dict[str, Callable[[Found], float]] = {
    "seconds": lambda one: one.seconds,
    "gpu_hours": lambda one: one.worker_seconds / 3600,
    "stages": lambda one: one.stages,
}
# What using the student takes, where it was trained; one image at a time.
TAKES: dict[str, Callable[[Found], float | None]] = {
    "parameters": lambda one: one.parameters,
    "latency_ms": lambda one: one.latency_ms,
}


def choose(
    found: Sequence[Found], *, data: str | None = None, student: str | None = None, under: Iterable[str] = ()
) -> list[Found]:
    """Those paths alone, in the same order, for which all holds that is asked.

    data: the beginning of a fingerprint, or of what a study wrote as its data. student: the name of the last model.
    under: limits as `gpu_hours=20`, which may be reached; what MLflow does not know, or not whole, is under none.
    Raises `Invalid` for data or a student that no path has, a limit that cannot be read, or when nothing is left.
    """
    limits = [limit(text) for text in under]
    left = list(found)
    if data is not None:
        known = {name or one.data for one in left for name in one.names or [""]}
        left = [one for one in left if any(said.startswith(data) for said in (one.data, *one.names))]
        if found and not left:
            raise Invalid(f"no path is of the data {data}; there are {'; '.join(sorted(known))}", ("--data",))
    if student is not None:
        trained = {one.student for one in left}
        left = [one for one in left if one.student == student]
        if found and not left:
            raise Invalid(alternatives(student, trained), ("--student",))
    for name, most in limits:
        costs = [_figure(one, name) for one in left]
        left = [one for one, cost in zip(left, costs, strict=True) if cost <= most]
        if costs and not left:
            known_costs = [cost for cost in costs if math.isfinite(cost)]
            least = f"the least is {min(known_costs):.4g}" if known_costs else "it is not known of any path"
            raise Invalid(f"no path is under {name}={most:g}; {least}", ("--under",))
    return left


def _figure(one: Found, name: str) -> float:
    if name in TAKES:
        takes = TAKES[name](one)
        return math.nan if takes is None else takes
    return COSTS[name](one) if one.whole else math.nan


def limit(text: str) -> tuple[str, float]:
    """`gpu_hours=20` -> its name and number. Raises `Invalid`."""
    name, _, said = text.partition("=")
    if name not in COSTS | TAKES:
        raise Invalid(f"{alternatives(name, COSTS | TAKES)}; write gpu_hours=20", ("--under",))
    try:
        most = float(said)
    except ValueError:
        most = math.nan
    if not 0 <= most < math.inf:
        raise Invalid(f"{name} wants a number that is not negative (got {said or 'nothing'})", ("--under",))
    return name, most
