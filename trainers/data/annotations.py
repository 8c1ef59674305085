"""Annotations in COCO's format, read and checked: mistakes are named by file and id, before training."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from trainers.call import Invalid
from trainers.data import rules
from trainers.data.rules import unsafe as unsafe

SHOWN = 10  # mistakes listed before the rest is only counted


def load(path: Path) -> dict[str, Any]:
    """Read and check one file. Its images come back by rising id; masks, which nobody reads, are let go."""
    coco = parse(path, masks=False)
    check(coco, str(path))
    return {**coco, "images": sorted(coco["images"], key=lambda image: image["id"])}


def parse(path: Path, *, masks: bool = True) -> Any:
    """What a JSON file holds. Raises `Invalid` if it cannot be read, or says two things under one key.

    masks: whether to keep them. Most of a file is masks, so each is let go as soon as it is read.
    """
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_once if masks else _once_without_masks)
    except json.JSONDecodeError as error:
        raise Invalid(f"{path} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{path} is not JSON: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two lists under one key json would silently take the second."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name, times in Counter(names).items() if times > 1)
        raise ValueError(f"the key {rules.shown(twice)} is there twice in one place")
    return row


def _once_without_masks(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = _once(pairs)
    row.pop("segmentation", None)
    return row


def check(coco: object, source: str) -> None:
    """Raise `Invalid` unless this is a set of annotations that can be trained on.

    Missing area and iscrowd are no mistakes, nor are images without boxes and category ids with holes.
    """
    # Annotations refer to the other two, so they are looked at only when those are right.
    rows = lists_of(coco, source)
    refuse((problem.message for problem in rules.wrong_annotations(rows)), source)


def lists_of(coco: object, source: str) -> dict[str, list[dict[str, Any]]]:
    """The three lists of COCO's format, whose categories and images are right. Raises `Invalid`."""
    rows = tables(coco, source)
    wrong = [*rules.wrong_categories(rows["categories"]), *rules.wrong_images(rows["images"])]
    refuse((problem.message for problem in wrong), source)
    return rows


def tables(coco: object, source: str) -> dict[str, list[dict[str, Any]]]:
    """The three lists of COCO's format. Raises `Invalid` if they are not there."""
    if isinstance(coco, list) and coco and isinstance(coco[0], dict) and "score" in coco[0]:
        raise Invalid(f"{source} holds results (a list of detections with scores); give the annotations they belong to")
    if not isinstance(coco, dict):
        raise Invalid(f"{source} is not in COCO's format: a {type(coco).__name__} instead of a dictionary")
    for key in ("images", "annotations", "categories"):
        if key not in coco:
            raise Invalid(f"{source} has no {key!r}; COCO's format needs images, annotations and categories")
        if not isinstance(coco[key], list) or not all(isinstance(row, dict) for row in coco[key]):
            raise Invalid(f"{source}: {key!r} is not a list of dictionaries")
    for key in ("images", "categories"):
        if not coco[key]:
            raise Invalid(f"{source} has 0 {key}")
    return {key: coco[key] for key in ("images", "annotations", "categories")}


def agree(train: dict[str, Any], val: dict[str, Any], name: str = "validation") -> None:
    """Raise `Invalid` unless both splits have the same categories."""
    ours, theirs = ({c["id"]: c["name"] for c in coco["categories"]} for coco in (train, val))
    different = sorted(i for i in ours.keys() | theirs.keys() if ours.get(i) != theirs.get(i))
    shown = [f"id {i}: {ours.get(i, '(none)')} and {theirs.get(i, '(none)')}" for i in different]
    refuse(shown, f"the categories of training and {name} differ")


def refuse(mistakes: Iterable[str], source: str) -> None:
    """Raise `Invalid` with the first few mistakes and their number, if there are any."""
    rest = iter(mistakes)
    shown = list(islice(rest, SHOWN))
    if not shown:
        return
    total = len(shown) + sum(1 for _ in rest)
    more = f"; and {total - len(shown)} more, {total} in all" if total > len(shown) else ""
    raise Invalid(f"{source}: {'; '.join(shown)}{more}")
