"""Folders of data as people have them, and the study that `tapath init` writes for one."""

from __future__ import annotations

import json
from itertools import cycle
from pathlib import Path as File
from typing import Any

from PIL import Image

from orchestrator.study import Study, load
from tests.orchestrator.commands import run

SMALL = ("--teacher", "tiny16", "--student", "tiny8")
SAME = [f"{n:04}.jpg" for n in range(6)]  # names that the images of two parts have


def began(*words: str) -> Study:
    """The study that `tapath init` writes; it could be planned without its data, or there would be none."""
    ended = run("init", *words)
    assert ended.exit_code == 0, ended.output
    return load("study.yaml")


def put_coco(root: File, *places: tuple[str, str], names: tuple[str, ...] = ("cat",)) -> None:
    """Annotation files with a folder of two images for each."""
    for listed, images in places:
        rows: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
        rows["categories"] = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
        for i in (1, 2):
            file = root / images / f"{File(listed).stem}_{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (96, 64)).save(file)
            rows["images"].append({"id": i, "file_name": file.name, "width": 96, "height": 64})
            rows["annotations"].append({"id": i, "image_id": i, "category_id": 1, "bbox": [8, 8, 40, 40]})
        (root / listed).parent.mkdir(parents=True, exist_ok=True)
        (root / listed).write_text(json.dumps(rows))


def put_same(root: File, listed: str, images: str, *, there: int = len(SAME), width: int = 96) -> None:
    """As `put_coco`, with images that have the same names whatever the part, of which so many are there."""
    (root / images).mkdir(parents=True, exist_ok=True)
    (root / listed).parent.mkdir(parents=True, exist_ok=True)
    for name in SAME[:there]:
        Image.new("RGB", (width, 64)).save(root / images / name)
    numbered = list(enumerate(SAME, start=1))
    rows = {
        "images": [{"id": n, "file_name": name, "width": width, "height": 64} for n, name in numbered],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, "bbox": [8, 8, 40, 40]} for n, _ in numbered],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (root / listed).write_text(json.dumps(rows))


def put_voc(root: File, year: str, *lists: str, names: tuple[str, ...] = ("cat",)) -> None:
    """Lists of one image each, the first with an object of the first name, and so on, around."""
    for name, part in zip(cycle(names), lists, strict=False):
        base = root / f"VOC{year}"
        for inside in ("ImageSets/Main", "Annotations", "JPEGImages"):
            (base / inside).mkdir(parents=True, exist_ok=True)
        (base / f"ImageSets/Main/{part}.txt").write_text(f"{part}_1\n")
        (base / f"ImageSets/Main/cat_{part}.txt").write_text(f"{part}_1 1\n")
        Image.new("RGB", (96, 64)).save(base / f"JPEGImages/{part}_1.jpg")
        box = "<bndbox><xmin>9</xmin><ymin>9</ymin><xmax>49</xmax><ymax>49</ymax></bndbox>"
        size = "<size><width>96</width><height>64</height><depth>3</depth></size>"
        found = f"<object><name>{name}</name><difficult>0</difficult>{box}</object>"
        (base / f"Annotations/{part}_1.xml").write_text(f"<annotation>{size}{found}</annotation>")
