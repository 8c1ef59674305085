"""What `tapath best` answers, for people or for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from orchestrator import expectations
from orchestrator.asked import Asked
from orchestrator.listing import few_seeds, lines, plain, unlike
from orchestrator.ranking import Found
from trainers.call import Invalid


def ranked(asked: Asked, *, top: int | None, as_json: bool, **filters: Any) -> tuple[str, list[str]]:
    """The best path, that to each of several students, or the first `top`; and what to warn of. Raises `Invalid`."""
    found = asked.paths(**filters)
    warnings = [f"the scores do not compare: {reason}; --data keeps one" for reason in unlike(found)]
    best = found[: top or 1]
    each = asked.each(found) if top is None and filters.get("student") is None else []
    if each:
        first = {one.student: one for one in reversed(found)}
        best = [first[student] for student in each if student in first]
        warnings += [f"no path to {student} is among them" for student in each if student not in first]
    warnings += few_seeds(best, found) if asked.keys is None else []
    rows = [expectations.of(asked.expected or {}, one.path, one.figures) for one in best]
    listed = list(zip(best, rows, strict=True))
    if as_json:
        made = [{**plain(one), "expected": published} for one, published in listed]
        return json.dumps(made if top or each else made[0], indent=1), warnings
    several = bool(each) or top is not None or asked.experiments is None or len(asked.experiments) > 1
    said = []
    for one, published in listed:
        said += [*lines(one, detail=several), *expectations.text(published, asked.source)]
    return "\n".join(said), warnings


def compared(
    names: Sequence[str], sides: Sequence[Asked], *, top: int | None, as_json: bool, **filters: Any
) -> tuple[str, list[str]]:
    """The best paths of two side by side, of each student that both have if one has several. Raises `Invalid`."""
    # Imported here: what it says of stages it has from a file that imports torch.
    from orchestrator import comparison

    if top is not None:
        raise Invalid("--compare compares the best alone; leave --top out", ("--top",))
    found = [side.paths(**filters) for side in sides]
    several = filters.get("student") is None and any(side.each(own) for side, own in zip(sides, found, strict=True))
    made, said = [], []
    for pair in _of_each_student(names, found) if several else [[own[0] for own in found]]:
        here, there = (comparison.Best(name, side.uri, one) for name, side, one in zip(names, sides, pair, strict=True))
        made.append(comparison.compare(here, there))
        said.append(comparison.text(made[-1], here, there))
    return json.dumps(made if several else made[0], indent=1) if as_json else "\n\n".join(said), []


def _of_each_student(names: Sequence[str], found: Sequence[Sequence[Found]]) -> list[list[Found]]:
    """The best paths of both to each student that both have."""
    first = [{one.student: one for one in reversed(own)} for own in found]
    shared = [student for student in dict.fromkeys(one.student for one in found[0]) if student in first[1]]
    if not shared:
        has = " and ".join(f"{name} has {', '.join(own)}" for name, own in zip(names, first, strict=True))
        raise Invalid(f"they have no student in common: {has}", ("--compare",))
    return [[own[student] for own in first] for student in shared]
