"""Probing: an assistant is judged by what a student learns from it, not by its own score."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf

from orchestrator.lattice import Lattice, Path, Scores
from orchestrator.strategies.known import known
from trainers.call import Fraction, Part


def probe(lattice: Lattice, scores: Scores, *, part: Part = 0.25, keep: Fraction = 0.5) -> Iterator[Path]:
    """Let every assistant teach a student for a part of its epochs; train in full what the best assistants make up.

    An assistant's probe is the shortest path through it, so root > assistant > student where the edges allow that; only
    the student pauses, and goes on from there if the path is kept. `part`: of the student's epochs. `keep`: the part of
    the probes that is kept, at least one. In full are trained the shortest path of all, the kept ones, and all whose
    assistants are all on kept ones. Of several students each has its own probes.
    """
    for student in lattice.students:
        yield from _probe(lattice, scores, student, part, keep)


def _probe(lattice: Lattice, scores: Scores, student: str, part: float, keep: float) -> Iterator[Path]:
    first = lattice.shortest(student)
    probes = _probes(lattice, student)
    until = max(1, round(part * lattice.epochs(first)))
    # A student of one epoch cannot pause.
    asked = {path: replace(path, until=until) if until < lattice.epochs(path) else path for path in probes}
    wanted = [first, *(brief for path, brief in asked.items() if brief != first)]
    yield from wanted
    if not known(asked.values(), scores):
        return
    ranked = sorted(probes, key=lambda path: scores[asked[path]], reverse=True)  # stable: of equals the shorter
    kept = [path for path in ranked[: max(1, round(len(ranked) * keep))] if scores[asked[path]] > -inf]
    good = {first.models[0], first.models[-1]}.union(*(path.models for path in kept))
    yield from (path for path in lattice.paths(student) if path not in wanted and good.issuperset(path.models))


def _probes(lattice: Lattice, student: str) -> list[Path]:
    """The shortest path to a student through each of its assistants."""
    found: dict[str, Path] = {}
    for path in lattice.paths(student):  # the short ones come first
        for name in path.models[1:-1]:
            found.setdefault(name, path)
    return list(dict.fromkeys(path for path in lattice.paths(student) if path in found.values()))
