"""Paths as MLflow knows them, written for people and for machines."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from orchestrator.document import printable
from orchestrator.ranking import Found

BRIEF = 8  # digits of a fingerprint in the text


def plain(found: Found) -> dict[str, Any]:
    """A path as JSON has it; what is not known of it is null."""
    said = {**asdict(found), "spread": found.spread, "student": found.student}
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in said.items()
    }


def lines(found: Found, *, detail: bool = False) -> list[str]:
    """A path with its score, and the winning setting of each edge; `detail`: its spread and cost too."""
    chosen = f" ({'; '.join(dict.fromkeys(found.selected.values()))})" if found.selected else ""
    said = [f"{found.path}  score {found.score:.4f}{chosen}{_detail(found) if detail else ''}"]
    edges = pairwise(found.path.split(" > "))
    said += [f"  {' > '.join(edge)}: {setting}" for edge, setting in zip(edges, found.settings, strict=False)]
    return [printable(line) for line in said]


def _detail(found: Found) -> str:
    spread = "" if found.spread is None else f" +- {found.spread:.4f}"
    seeds = f" over {len(found.scores)} seed{'s' * (len(found.scores) != 1)}"
    takes = "" if found.latency_ms is None else f", {found.latency_ms:.3g} ms an image"
    return f"{spread}{seeds}, {cost(found)}{takes}, {', '.join(found.experiments)}"


def cost(found: Found) -> str:
    """`90 s`, or `at least 30 s` where MLflow lacks a teacher."""
    if not math.isfinite(found.seconds):
        return "cost unknown"
    return f"{'' if found.whole else 'at least '}{found.seconds:.4g} s"


def few_seeds(best: Sequence[Found], found: Sequence[Found]) -> list[str]:
    """Which of these paths, of experiments, have fewer seeds than others to the same student."""
    most: dict[tuple[str, str], int] = defaultdict(int)
    for one in found:
        most[one.data, one.student] = max(most[one.data, one.student], len(one.scores))
    return [
        f"{one.path} has {len(one.scores)} of {wanted} seeds, so luck counts for more in it; asked by a study's file, "
        "in place of an experiment's name, only paths with all seeds are an answer"
        for one in best
        if one.stages and len(one.scores) < (wanted := most[one.data, one.student])
    ]


def unlike(found: Iterable[Found]) -> list[str]:
    """Why scores of these paths do not compare: other data or another figure. Nothing if they do."""
    said = []
    data = {one.data: one.names for one in found}
    figures = sorted({one.metric for one in found if one.metric})
    if len(data) > 1:
        said.append(f"they are of different data: {'; '.join(named(key, names) for key, names in data.items())}")
    if len(figures) > 1:
        said.append(f"their scores are different figures: {', '.join(figures)}")
    return said


def named(fingerprint: str, names: Sequence[str]) -> str:
    """`Digits: {classes: 3} (0a1b2c3d)`"""
    short = fingerprint[:BRIEF] or "unknown"
    return f"{' or '.join(names)} ({short})" if names else short
