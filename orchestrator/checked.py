"""What `tapath data check` says: all of it as JSON, or some of each kind as text, and in the end what to do."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path as File
from typing import Any

from orchestrator.datacheck import Layout, Report
from orchestrator.words import plain
from orchestrator.yamlfile import flow
from trainers.data.inspection import Findings, Source
from trainers.data.rules import Problem

SHOWN = 5  # of each kind in each file, as text; JSON has all


def as_json(report: Report) -> dict[str, Any]:
    """All that was found, for machines."""
    notes = [(found.source.file, note) for found in report.findings for note in found.notes]
    copies = [
        {"file": str(report.places[source]), "changes": [_row(None, change) for change in changes]}
        for source, changes in report.changes.items()
        if report.places is not None
    ]
    return {
        "files": [{"file": str(found.source.file), **_counts(found)} for found in report.findings],
        "problems": [_row(*problem) for problem in report.problems],
        "notes": [_row(*note) for note in notes],
        "copies": copies,
        "left": [_row(None, problem) for problem in report.left],
        "code": report.code,
    }


def _row(file: File | None, problem: Problem) -> dict[str, Any]:
    identity = problem.id if isinstance(problem.id, int | str) else None
    row = {"kind": problem.kind, "id": identity, "message": problem.message}
    return row if file is None else {"file": str(file), **row}


def _counts(found: Findings) -> dict[str, int]:
    return {key: len(found.coco[key]) for key in ("images", "annotations", "categories")} if found.coco else {}


def text(report: Report) -> str:
    """What was found, some of each kind, and in the last line what to do."""
    lines = []
    for found in report.findings:
        counts = ", ".join(f"{n:,} {key}" for key, n in _counts(found).items())
        lines.append(f"{found.source.file}" + (f": {counts}" if counts else ""))
        lines += _grouped("problems", found.problems)
        lines += _grouped("notes, no obstacle", found.notes)
    lines += _grouped("between the files", report.between)
    for source, changes in report.changes.items():
        assert report.places is not None, "or there would be no changes"
        lines.append(
            f"{report.places[source]}: written, " + (f"with {len(changes):,} changes" if changes else "nothing changed")
        )
        lines += _grouped("changes", changes)
    lines += _grouped("still wrong", report.left)
    return "\n".join([*map(_line, lines), _line(_advice(report))])


def _grouped(title: str, problems: list[Problem]) -> Iterator[str]:
    if problems:
        yield f"  {title}"
    for kind, n in sorted(Counter(problem.kind for problem in problems).items()):
        yield f"    {kind} ({n:,})"
        of_kind = [problem.message for problem in problems if problem.kind == kind]
        yield from (f"      {message}" for message in of_kind[:SHOWN])
        if n > SHOWN:
            yield f"      and {n - SHOWN:,} more (--json lists all)"


def _line(line: str) -> str:
    return line[: len(line) - len(line.lstrip())] + plain(line)


def _advice(report: Report) -> str:
    n = len(report.problems)
    if report.left:
        written = "" if report.changes else "; nothing was written"
        return f"{len(report.left):,} problem{'s need' if len(report.left) > 1 else ' needs'} a person{written}"
    if report.places is not None:
        return f"the clean copy has no problems: {_use(report.layout, report.places)}"
    if n:
        return f"{n:,} problem{'s' if n > 1 else ''}; write a clean copy of the annotations with  --fix OUT"
    return f"no problems: {_use(report.layout, {})}"


def _use(layout: Layout, places: Mapping[Source, File]) -> str:
    """How a study names these annotations, or the copies of them."""
    if layout.root is None:
        (source,) = layout.sources.values()
        return f"{places.get(source, source.file)} can be trained on"
    args = {"root": str(layout.root.resolve())}
    for part, source in layout.sources.items():
        args[part] = os.path.relpath(places.get(source, source.file), layout.root)
        args[f"{part}_images"] = os.path.relpath(source.folder, layout.root)
    return f"data: {flow({'COCO': args})}"
