"""All that is wrong or odd in a data set in COCO's format: its annotation files and every image they name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from trainers.call import Invalid
from trainers.data import masks, rules
from trainers.data.annotations import agree, parse, tables
from trainers.data.coco import FORMATS, missing
from trainers.data.examine import Seen, Task, examine
from trainers.data.processes import Lost, each
from trainers.data.rules import Problem, shown

LISTED = 5  # ids that a note about many rows names
PATIENCE = 60.0  # seconds that one image may take

Watch = Callable[[Iterable[Any], int], Iterable[Any]]  # passes things on, and shows how many of so many have passed


class Source(NamedTuple):
    """An annotation file and the folder of its images."""

    file: Path
    folder: Path


@dataclass(frozen=True, eq=False)
class Findings:
    """What was found in one file and its images."""

    source: Source
    coco: dict[str, Any] | None = None  # as the file has it; None if it is not in COCO's format
    problems: list[Problem] = field(default_factory=list)  # sorted by kind
    notes: list[Problem] = field(default_factory=list)  # sorted by kind; no obstacle to training
    seen: dict[int, Seen] = field(default_factory=dict)  # by place in the list of images


def inspect(sources: list[Source], *, jobs: int, watch: Watch = lambda things, _: things) -> list[Findings]:
    """Read all these files, and with so many processes all images that they name, once."""
    begun = [_read(source) for source in sources]
    seen = [_missing(found) for found in begun]
    tasks = [
        (absent, place, task)
        for found, absent in zip(begun, seen, strict=True)
        for place, task in _tasks(found)
        if place not in absent
    ]
    results = each(examine, [task for *_, task in tasks], processes=jobs, patience=PATIENCE)
    for (images, place, _), result in zip(tasks, watch(results, len(tasks)), strict=True):
        images[place] = _lost(result) if isinstance(result, Lost) else result
    unnamed = _unnamed(begun)
    return [
        _all(found.source, found.coco, images, unnamed[found.source.folder]) if found.coco else found
        for found, images in zip(begun, seen, strict=True)
    ]


def together(train: Findings, val: Findings) -> list[Problem]:
    """What is wrong with two files as training and validation data, if each alone is right."""
    found = []
    if train.coco is None or val.coco is None:
        return []
    if not any(any(rules.wrong_categories(one.coco["categories"])) for one in (train, val) if one.coco):
        try:
            agree(train.coco, val.coco)
        except Invalid as error:
            found.append(Problem("categories differ", None, str(error)))
    if not any(not row.get("iscrowd", 0) and not row.get("ignore", 0) for row in val.coco["annotations"]):
        found.append(Problem("nothing to measure", None, f"{val.source.file} has no object, crowds left aside"))
    return found


def _read(source: Source) -> Findings:
    try:
        coco = parse(source.file)
        tables(coco, str(source.file))
    except Invalid as error:
        return Findings(source, problems=[Problem("annotation file", None, str(error))])
    return Findings(source, coco)


def _tasks(found: Findings) -> Iterator[tuple[int, Task]]:
    """The images with a name that may be opened, by place."""
    for place, row in enumerate(found.coco["images"] if found.coco else ()):
        kinds = {kind for kind, _ in rules.image_flaws(row)}
        if "file name" not in kinds:
            size = None if "image size" in kinds else (row["width"], row["height"])
            yield place, Task(found.source.folder, row["file_name"], size)


def _missing(found: Findings) -> dict[int, Seen]:
    """The images without a file, by place."""
    folder, rows = found.source.folder, [{"place": place, "file_name": task.name} for place, task in _tasks(found)]
    return {
        row["place"]: Seen(("missing image", f"is not in {folder}{said.removeprefix(row['file_name'])}"))
        for row, said in missing(rows, folder)
    }


def _lost(lost: Lost) -> Seen:
    how = f"takes more than {PATIENCE:g} seconds to decode" if lost.how == "hung" else "made its decoder crash"
    return Seen(("crash", how))


def _all(source: Source, coco: dict[str, Any], seen: dict[int, Seen], unnamed: int) -> Findings:
    problems = wrong(coco)
    notes = [] if any(problem.kind == rules.FLAT for problem in problems) else [*rules.flat_boxes(coco)]
    notes += _notes(coco)
    for place, found in sorted(seen.items()):
        row = coco["images"][place]
        name = f"image {shown(row.get('id'))} ({row['file_name']})"
        if found.flaw:
            problems.append(Problem(found.flaw[0], row.get("id"), f"{name} {found.flaw[1]}"))
        notes += [Problem(kind, row.get("id"), f"{name} {text}") for kind, text in found.notes]
    if unnamed:
        notes.append(Problem("unnamed images", None, f"images in {source.folder} that no file names: {unnamed:,}"))
    return Findings(source, coco, sorted(problems, key=_kind), sorted(notes, key=_kind), seen)


def wrong(coco: dict[str, Any]) -> list[Problem]:
    """What is wrong with annotations in COCO's format, their images not looked at."""
    listed = [*rules.wrong_categories(coco["categories"]), *rules.wrong_images(coco["images"])]
    return [*listed, *rules.wrong_annotations(coco), *_masks(coco)]


def _kind(problem: Problem) -> str:
    return problem.kind


def _masks(coco: dict[str, Any]) -> Iterator[Problem]:
    sizes = rules.sizes_of(coco["images"])
    for row in coco["annotations"]:
        size = sizes.get(row["image_id"]) if type(row.get("image_id")) is int else None
        mask = row.get("segmentation")
        flaw = masks.wrong(mask, size[::-1]) if mask and size else ""
        if flaw:
            yield rules.about("annotation", row, "mask", f"segmentation {shown(mask)} {flaw}")


def _notes(coco: dict[str, Any]) -> Iterator[Problem]:
    """What a file leaves to be filled in, or may leave out."""
    named = {row["image_id"] for row in coco["annotations"] if type(row.get("image_id")) is int}
    bare = [row["id"] for row in coco["images"] if rules.identity(row) and row["id"] not in named]
    if bare:
        yield Problem("no boxes", None, f"images without annotations, which are kept: {len(bare):,} ({_ids(bare)})")
    for key, filled in (("area", "width times height"), ("iscrowd", "0")):
        without = [row for row in coco["annotations"] if key not in row]
        if without:
            yield Problem(f"no {key}", None, f"annotations without {key}, taken to be {filled}: {len(without):,}")
    ids = sorted({row["id"] for row in coco["categories"] if rules.identity(row)})
    if ids != list(range(1, len(ids) + 1)):
        yield Problem("category ids", None, f"category ids other than 1 to {len(ids)}, which is no matter: {_ids(ids)}")


def _ids(ids: list[int]) -> str:
    more = f" and {len(ids) - LISTED:,} more" if len(ids) > LISTED else ""
    return ", ".join(str(identity) for identity in ids[:LISTED]) + more


def _unnamed(begun: list[Findings]) -> dict[Path, int]:
    """How many images in each folder no file names."""
    named: dict[Path, set[str]] = {}
    for found in begun:
        names = (os.path.normpath(task.name) for _, task in _tasks(found))
        named.setdefault(found.source.folder, set()).update(names)
    return {folder: sum(name not in names for name in _images(folder)) for folder, names in named.items()}


def _images(folder: Path) -> Iterator[str]:
    suffixes = {suffix for suffix, form in Image.registered_extensions().items() if form in FORMATS}
    for parent, _, names in os.walk(folder):
        for name in names:
            if os.path.splitext(name)[1].lower() in suffixes:
                yield os.path.relpath(os.path.join(parent, name), folder)
