"""`tapath predict`: images of files and folders, what a detector finds in them, drawn and in COCO's format."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path as File
from typing import Any, NamedTuple

from orchestrator.document import printable
from orchestrator.meant import Meant
from trainers.appraisal import device_of
from trainers.call import Invalid
from trainers.data.images import read_photo, size_of
from trainers.predict import above, draw, predict

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"}
RESULTS = "results.json"
LISTED = 20  # names in a message


class Picture(NamedTuple):
    """An image that is there and says how large it is."""

    file: File
    name: str  # from the folder that was named


def pictures(places: Sequence[str]) -> list[Picture]:
    """The images of files and folders, each once, in their order; of folders all with an image's suffix, those deeper
    down too. Raises `Invalid`, which names all that are none."""
    found: dict[File, tuple[File, str]] = {}  # as it was named, by where it really is
    missing: list[str] = []
    for place in map(File, places):
        if os.path.isdir(place):  # Path's own raises where a name is too long
            inside = sorted(one for one in place.rglob("*") if one.suffix.lower() in SUFFIXES and one.is_file())
            missing += [] if inside else [f"{place}: a folder without images"]
            for one in inside:
                found.setdefault(one.resolve(), (one, str(one.relative_to(place))))
        elif os.path.isfile(place):
            found.setdefault(place.resolve(), (place, place.name))
        else:
            missing.append(f"{place}: there is no such file or folder")
    checked = []
    for file, name in found.values():
        try:
            with file.open("rb") as stream:
                size_of(stream, str(file))
            checked.append(Picture(file, name))
        except (Invalid, OSError) as error:
            missing.append(str(error))
    if missing:
        more = [f"... and {len(missing) - LISTED} more"] if len(missing) > LISTED else []
        raise Invalid("\n".join(["these are no images; nothing was looked at:", *missing[:LISTED], *more]))
    return checked


def drawings(images: Sequence[Picture], out: File) -> list[File]:
    """Where each image is drawn, in a folder. Raises `Invalid` if anything would be written over one of the images."""
    taken: set[File] = set()
    files = [_free((out / image.name).with_suffix(".png"), taken) for image in images]
    own = {image.file.resolve(): image.file for image in images}
    lost = [own[file.resolve()] for file in (*files, out / RESULTS) if file.resolve() in own]
    if lost:
        more = f" and {len(lost) - 1} more" if lost[1:] else ""
        raise Invalid(
            f"{out} would have {lost[0]}{more} written over; nothing was looked at. Name a folder without these images",
            ("--out",),
        )
    return files


def find(
    meant: Meant,
    images: Sequence[Picture],
    drawn: Sequence[File],
    out: File,
    *,
    threshold: float,
    as_stored: bool = False,
) -> dict[str, Any]:
    """Look at every image, draw there what is found with at least this score, and write `results.json` into `out`.

    Images are turned as their cameras noted, and boxes are in these pixels, unless `as_stored`.
    -> as plain data. An image that turns out to be broken is left out, and in `broken`."""
    out.mkdir(parents=True, exist_ok=True)
    trained = meant.trained
    shown, results, broken = [], [], {}
    for number, (image, target) in enumerate(zip(images, drawn, strict=True), start=1):
        try:
            pixels = read_photo(image.file, as_stored=as_stored)
        except Invalid as error:
            broken[str(image.file)] = str(error)
            continue
        found = predict(
            trained.detector,
            pixels,
            classes=trained.classes,
            recipe=trained.recipe,
            device=device_of(trained.detector),
        )
        found = above(found, threshold)
        target.parent.mkdir(parents=True, exist_ok=True)
        draw(pixels, found, target, classes=trained.classes)
        rows = _rows(number, image, found, meant.categories)
        results += rows
        shown.append({"id": number, "file": str(image.file), "drawn": str(target), "found": rows})
    (out / RESULTS).write_text(json.dumps(results, indent=1), encoding="utf-8")
    said = {"detector": meant.name, "categories": meant.categories, "own_ids": meant.own_ids, "images": shown}
    return {**said, "broken": broken, "results": str(out / RESULTS)}


def _free(file: File, taken: set[File]) -> File:
    """The file, or the same with a number where another image of this call has it."""
    number, free = 2, file
    while free in taken:
        free, number = file.with_stem(f"{file.stem}-{number}"), number + 1
    taken.add(free)
    return free


def _rows(number: int, image: Picture, found: Any, categories: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries in COCO's format of results, with the file and the class by name beside."""
    rows = []
    for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True):
        x1, y1, x2, y2 = box
        own = categories[label]
        row = {"image_id": number, "category_id": own["id"], "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        rows.append({**row, "file_name": image.name, "category": own["name"]})
    return rows


def text(made: dict[str, Any]) -> str:
    """What was found, an image a line."""
    lines = []
    for one in made["images"]:
        names = [f"{row['category']} {row['score']:.2f}" for row in one["found"]]
        lines.append(f"{one['file']}: {', '.join(names) or 'nothing'}  -> {one['drawn']}")
    lines.append(f"{made['results']}: all of it in COCO's format of results")
    if not made["own_ids"]:
        lines.append("category ids count from 1, as nothing says which ids the data has; --data would")
    return "\n".join(map(printable, lines))
