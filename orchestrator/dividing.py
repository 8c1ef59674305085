"""`tapath data split`: one annotation file becomes one to train on and one to measure on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path as File
from typing import Any

from orchestrator.document import printable
from trainers.atomic import write_new
from trainers.call import Invalid
from trainers.data.annotations import parse, refuse, tables
from trainers.data.division import divided
from trainers.data.inspection import wrong

PARTS = ("train", "val")


def split(file: File, *, share: float, seed: int, out: File | None) -> dict[str, Any]:
    """Write FILE_train.json and FILE_val.json into `out`, or beside the file; -> what they hold, as plain data.

    Raises `Invalid` for annotations in which something is wrong, and for files that are there.
    """
    folder = file.parent if out is None else out
    places = {part: folder / f"{file.stem}_{part}.json" for part in PARTS}
    for place in places.values():
        if os.path.lexists(place):
            raise Invalid(f"{place} is there already and is not written over; name another folder by --out")
    coco = parse(file)
    tables(coco, str(file))
    try:
        refuse((problem.message for problem in wrong(coco)), str(file))
    except Invalid as error:
        raise Invalid(f"{error}; `tapath data check` lists all of it, and may mend it") from None
    try:
        made = divided(coco, share=share, seed=seed)
    except Invalid as error:
        raise Invalid(f"{file}: {error}") from None
    parts = {"train": made.train, "val": made.val}
    write_new({places[part]: partial(_dump, coco) for part, coco in parts.items()})
    files = [{"part": part, "file": str(places[part]), **_counts(coco)} for part, coco in parts.items()]
    return {"files": files, "unmeasured": made.unmeasured}


def text(made: Mapping[str, Any]) -> str:
    """What was written, a file a line, and what to do next."""
    lines = [f"{one['file']}: {one['images']:,} images, {one['annotations']:,} boxes" for one in made["files"]]
    if names := made["unmeasured"]:
        lines.append(f"trained on and not measured, as no image of theirs could be spared: {', '.join(names)}")
    return "\n".join(map(printable, [*lines, "next: tapath init --data with the folder that has these and the images"]))


def _counts(coco: Mapping[str, Any]) -> dict[str, int]:
    return {key: len(coco[key]) for key in ("images", "annotations")}


def _dump(coco: Mapping[str, Any], file: File) -> None:
    with file.open("w", encoding="utf-8") as stream:
        json.dump(coco, stream)
