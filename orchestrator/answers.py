"""What the outcomes of paths answer: which way to a student is best, by how much, and what stands beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.statistics import interval

Outcome = dict[str, Any]  # of a path, as `summary.outcomes` has it

# What a score is set against; less is better.
AXES = ("seconds", "parameters", "latency_ms")


def answer(
    known: Mapping[tuple[str, ...], Outcome], longer: Outcome | None, *, root: str, student: str
) -> dict[str, Any]:
    """The ranking of what is known of each path to a student, and what stands beside the best; adds to each outcome its
    gains. `longer`: the student alone with the compute of the best path."""
    baseline, direct = known.get((student,)), known.get((root, student))
    for outcome in (*known.values(), *filter(None, [longer])):
        outcome.update(_gains(outcome, baseline=baseline, direct=direct, same_compute=longer))
    ranking = ranked(outcome for path, outcome in known.items() if len(path) > 1)
    tied = ties(ranked(known.values()))
    return {
        "student": student,
        "best": ranking[0] if ranking else None,
        "baseline": baseline,
        "direct": direct,
        "same_compute": longer,
        "ranking": ranking,
        "tied": [outcome["path"] for outcome in tied],
        "recommended": _cheapest(tied)["path"] if tied else None,
    }


def ways(answers: Iterable[Mapping[str, Any]]) -> list[Outcome]:
    """All that was trained in full for the students: taught, alone, and alone for longer."""
    return [
        outcome
        for one in answers
        for outcome in (*one["ranking"], one["baseline"], one["same_compute"])
        if outcome is not None
    ]


def mark_fronts(answers: Sequence[Mapping[str, Any]]) -> None:
    """Adds to each of `ways` its `front`: the axes by which no other is at least as good in both, and better in one.

    That is Pareto's front of score against this axis, over all the students. What is not known is on none.
    """
    found = ways(answers)
    for outcome in found:
        outcome["front"] = []
    for axis in AXES:
        highest = at_most = -math.inf  # the best score so far, and the least that it was had for
        known = [outcome for outcome in found if outcome[axis] is not None]
        for outcome in sorted(known, key=lambda outcome: (outcome[axis], -outcome["score"])):
            if outcome["score"] > highest:
                highest, at_most = outcome["score"], outcome[axis]
            if (outcome["score"], outcome[axis]) == (highest, at_most):
                outcome["front"].append(axis)


def ranked(found: Iterable[Outcome]) -> list[Outcome]:
    """Best score first; of equal ones the cheaper, then the shorter."""
    return sorted(found, key=lambda o: (-o["score"], _or_inf(o["seconds"]), len(o["path"]), o["path"]))


def ties(best_first: Sequence[Outcome]) -> list[Outcome]:
    """The first, and those that the seeds cannot tell from it: the interval of the paired difference holds 0.

    Also where there are several seeds and still no interval. With one seed nobody can say, and no tie is claimed.
    """
    if not best_first:
        return []
    first, *rest = best_first
    several = len(first["scores"]) > 1
    return [first, *(other for other in rest if several and _tied(gain_interval(first, other)))]


def gain_interval(outcome: Mapping[str, Any], over: Mapping[str, Any] | None) -> list[float] | None:
    """Where the mean of the differences between two outcomes lies, seed by seed; None where it is the same one."""
    if over is None or over is outcome:
        return None
    return _bounds([own - other for own, other in zip(outcome["scores"], over["scores"], strict=True)])


def _gains(outcome: Mapping[str, Any], **others: Mapping[str, Any] | None) -> dict[str, Any]:
    """The interval of a score, and its gains over others with their intervals."""
    found: dict[str, Any] = {"interval": _bounds(outcome["scores"])}
    for name, other in others.items():
        found[f"gain_over_{name}"] = outcome["score"] - other["score"] if other else None
        found[f"interval_over_{name}"] = gain_interval(outcome, other)
    return found


def _bounds(values: Sequence[float]) -> list[float] | None:
    found = interval(values)
    return list(found) if found else None


def _tied(bounds: Sequence[float] | None) -> bool:
    return bounds is None or bounds[0] <= 0 <= bounds[1]


def _cheapest(tied: Sequence[Outcome]) -> Outcome:
    """By seconds, as far as they are known; of equals the better."""
    return min(tied, key=lambda outcome: _or_inf(outcome["seconds"]))


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value
