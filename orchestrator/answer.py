"""What `tapath best` answers, for people or for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from orchestrator import expectations
from orchestrator.asked import Asked
from orchestrator.listing import lines, plain, unlike
from trainers.call import Invalid


def ranked(asked: Asked, *, top: int | None, as_json: bool, **filters: Any) -> tuple[str, list[str]]:
    """The best path, that to each of several students, or the first `top`; and what to warn of. Raises `Invalid`."""
    found = asked.paths(**filters)
    warnings = [f"the scores do not compare: {reason}; --data keeps one" for reason in unlike(found)]
    best = found[: top or 1]
    each = top is None and len(asked.students) > 1 and filters.get("student") is None
    if each:
        first = {one.student: one for one in reversed(found)}
        best = [first[student] for student in asked.students if student in first]
        missing = [student for student in asked.students if student not in first]
        warnings += [f"no path to {student} is among them" for student in missing]
    rows = [expectations.of(asked.expected or {}, one.path, one.figures) for one in best]
    listed = list(zip(best, rows, strict=True))
    if as_json:
        made = [{**plain(one), "expected": published} for one, published in listed]
        return json.dumps(made if top or each else made[0], indent=1), warnings
    several = each or top is not None or asked.experiments is None or len(asked.experiments) > 1
    said = []
    for one, published in listed:
        said += [*lines(one, detail=several), *expectations.text(published, asked.source)]
    return "\n".join(said), warnings


def compared(
    names: Sequence[str], sides: Sequence[Asked], *, top: int | None, as_json: bool, **filters: Any
) -> tuple[str, list[str]]:
    """The best paths of two side by side. Raises `Invalid`."""
    # Imported here: what it says of stages it has from a file that imports torch.
    from orchestrator import comparison

    if top is not None:
        raise Invalid("--compare compares the best alone; leave --top out", ("--top",))
    here, there = (
        comparison.Best(name, side.uri, side.paths(**filters)[0]) for name, side in zip(names, sides, strict=True)
    )
    made = comparison.compare(here, there)
    return json.dumps(made, indent=1) if as_json else comparison.text(made, here, there), []
