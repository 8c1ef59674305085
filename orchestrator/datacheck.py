"""`tapath data check`: which files are meant, what is found in them, and where a clean copy goes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path as File
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import track

from orchestrator.exit_codes import DONE, NOT_WELL
from orchestrator.found_data import look
from trainers import data as datasets
from trainers.atomic import write_new
from trainers.call import Call, Invalid
from trainers.data.inspection import Findings, Source, inspect, together
from trainers.data.mend import mended
from trainers.data.rules import Problem

NAMES = "--train, --val, --train-images and --val-images"


class Layout(NamedTuple):
    """The files to look at, and what a study calls them."""

    root: File | None  # None for a single file
    sources: dict[str, Source]  # by knob of the data set: train, val; or one without a name


class Report(NamedTuple):
    """What was found, and what was done about it."""

    layout: Layout
    findings: list[Findings]
    between: list[Problem]  # what is wrong with the files as parts of one data set
    places: dict[Source, File] | None  # where clean copies were to go; None if nobody wanted any
    changes: dict[Source, list[Problem]]  # what the clean copies have otherwise; empty if none was written
    left: list[Problem]  # what no copy could do away with

    @property
    def code(self) -> int:
        """0 if what was looked at, or its clean copy where one was wanted, can be trained on as it is."""
        standing = self.problems if self.places is None else self.left
        return NOT_WELL if standing else DONE

    @property
    def problems(self) -> list[tuple[File | None, Problem]]:
        """All problems, each with its file."""
        single = [(found.source.file, problem) for found in self.findings for problem in found.problems]
        return [*single, *((None, problem) for problem in self.between)]


def check(target: File, *, knobs: Mapping[str, str], images: File | None, fix: File | None, jobs: int) -> Report:
    """Look at everything, and write a clean copy to `fix`. Raises `Invalid` if that cannot be begun."""
    layout = _layout(target, knobs, images)
    sources = list(layout.sources.values())
    places = None if fix is None else _places(fix, layout)
    distinct = list(dict.fromkeys(sources))
    seen = dict(zip(distinct, inspect(distinct, jobs=jobs, watch=_watched), strict=True))
    findings = [seen[source] for source in sources]
    between = together(*findings) if len(findings) == 2 else []
    changes, left = ({}, []) if places is None else _mend(findings, places)
    return Report(layout, list(seen.values()), between, places, changes, left)


def _layout(target: File, knobs: Mapping[str, str], images: File | None) -> Layout:
    if not target.is_dir():
        if images is None or knobs:
            raise Invalid(f"{target} is no folder; check one annotation file with  FILE --images FOLDER")
        return Layout(None, {"": _source(target, images, "FILE", "--images")})
    if images is not None:
        raise Invalid("--images goes with one annotation file; a folder has --train-images and --val-images")
    args = _names(target, knobs)
    sources = {
        part: _source(target / args[part], target / args[f"{part}_images"], f"--{part}", f"--{part}-images")
        for part in ("train", "val")
    }
    return Layout(target, sources)


def _names(target: File, knobs: Mapping[str, str]) -> Mapping[str, Any]:
    """What a folder's files are called: as said, else as in COCO or, where no annotations are called so, as found."""
    args = Call(name="COCO", args={"root": str(target), **knobs}).complete(datasets).args
    if knobs or any((target / args[part]).is_file() for part in ("train", "val")):
        return args
    try:
        kind, args = next(iter(look(target, slips=True).written.items()))
    except Invalid as error:
        raise Invalid(f"{error}; or name the files by {NAMES}") from None
    if kind != "COCO":
        raise Invalid(
            f"{target} holds {kind}, and only annotations in COCO's format are checked; `tapath plan` reads it"
        )
    return Call(name=kind, args=args).complete(datasets).args


def _source(file: File, folder: File, named: str, housed: str) -> Source:
    if not file.is_file():
        raise Invalid(f"there is no annotation file {file}; name it by {named}")
    if not folder.is_dir():
        raise Invalid(f"there is no folder of images {folder}; name it by {housed}")
    return Source(file, folder)


def _places(fix: File, layout: Layout) -> dict[Source, File]:
    """Where the clean copy of each file goes, all of them new."""
    places = {}
    for source in layout.sources.values():
        relative = os.path.relpath(source.file, layout.root) if layout.root else ""
        within = source.file.name if relative.startswith(os.pardir) else relative
        places[source] = fix / within if layout.root else fix
    if len(set(places.values())) < len(places):
        raise Invalid(f"both annotation files would be {next(iter(places.values()))}; rename one of them")
    for place in places.values():
        if os.path.lexists(place):
            raise Invalid(f"{place} is there already and is not written over; name another place by --fix")
    return places


def _watched(things: Iterable[Any], total: int) -> Iterable[Any]:
    """The same things, with a line that shows how far it has come where somebody sees it."""
    console = Console(stderr=True)
    return track(things, "images", total=total, console=console, transient=True, disable=not sys.stderr.isatty())


def _mend(findings: list[Findings], places: Mapping[Source, File]) -> tuple[dict[Source, list[Problem]], list[Problem]]:
    """Write the clean copies, all or none. -> changes by file, and what is still wrong."""
    clean: dict[Source, dict[str, Any]] = {}
    changes: dict[Source, list[Problem]] = {}
    left = []
    for found in findings:
        if found.coco is None:
            left += found.problems
            continue
        try:
            clean[found.source], changes[found.source] = mended(found.coco, found.seen)
        except Invalid as error:
            left.append(Problem("no clean copy", None, f"{found.source.file}: {error}"))
    if left:
        return {}, left
    write_new({places[source]: partial(_dump, coco) for source, coco in clean.items()})
    if len(findings) == 2:
        left = together(*(Findings(found.source, clean[found.source]) for found in findings))
    return changes, left


def _dump(coco: dict[str, Any], file: File) -> None:
    try:
        with file.open("w") as stream:
            json.dump(coco, stream)
    except RecursionError:
        raise Invalid("the annotations are nested too deeply to be written") from None
