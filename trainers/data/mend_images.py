"""The images of a clean copy: those that can be read, with their true sizes, one row each."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping

from trainers.data import masks
from trainers.data.examine import Seen
from trainers.data.rules import Flaw, Problem, Row, Size, about, four, identity, image_flaws, inside

SLIP = 2  # pixels by which a size may be wrong without anybody's having scaled the image


def mended_images(rows: list[Row], annotations: list[Row], seen: Mapping[int, Seen]) -> tuple[list[Row], list[Problem]]:
    """Images that can be read, with their true sizes, one row each."""
    of = defaultdict[int, list[Row]](list)
    for row in annotations:
        if type(row.get("image_id")) is int:
            of[row["image_id"]].append(row)
    alike = defaultdict[int, list[Row]](list)
    for row in filter(identity, rows):
        alike[row["id"]].append({key: row.get(key) for key in ("file_name", "width", "height")})
    changes, kept = [], dict[int, Row]()
    for place, row in enumerate(rows):
        if not identity(row):
            changes.append(about("image", row, "image id", "has no id that is a whole number: dropped"))
        elif any(other != alike[row["id"]][0] for other in alike[row["id"]]):
            said = "has an id that other images have: dropped, as nobody knows whose the annotations are"
            changes.append(about("image", row, "duplicate image id", said))
        elif row["id"] in kept:
            changes.append(about("image", row, "duplicate image id", "is there again: dropped"))
        else:
            right, flaw = _image(row, of[row["id"]], seen.get(place))
            changes += [about("image", row, flaw[0], flaw[1])] if flaw else []
            if right:
                kept[row["id"]] = right
    for twin, said in list(_twins(kept, of)):
        changes.append(about("image", kept.pop(twin), "duplicate file name", said))
    return list(kept.values()), changes


def _image(row: Row, annotations: list[Row], seen: Seen | None) -> tuple[Row | None, Flaw | None]:
    """One image as it can be kept, or None, and what was done to it, if anything."""
    flaws = dict(image_flaws(row))
    if "file name" in flaws:
        return None, ("file name", f"{flaws['file name']}: dropped")
    if seen is None:
        return None, ("missing image", "was not looked at: dropped")
    wrong = [flaw for flaw in (seen.flaw, *flaws.items()) if flaw]
    if not wrong:
        return row, None
    kind, text = wrong[0]
    said = (row["width"], row["height"]) if not flaws else None
    if kind not in ("other size", "image size") or seen.size is None:
        return None, (kind, f"{text}: dropped")
    if not _fits(annotations, seen.size, said):
        return None, (kind, f"{text}: dropped, as its annotations may be meant for another size")
    if said is None and annotations and any(note == "EXIF rotation" for note, _ in seen.notes):
        return None, (kind, f"{text}: dropped, as its annotations may be meant for it turned, or not")
    width, height = seen.size
    return {**row, "width": width, "height": height}, (kind, f"{text}: set to {width} x {height}")


def _fits(annotations: list[Row], true: Size, said: Size | None) -> bool:
    """Whether annotations agree with an image of this size, although the file said another one.

    They do not if a box or a mask does not fit, nor if the image was scaled or turned since they were made.
    """
    if not annotations:
        return True
    if said is not None and max(abs(a - b) for a, b in zip(true, said, strict=True)) > SLIP:
        scaled = abs(true[0] * said[1] - true[1] * said[0]) <= max(*true, *said)  # but for rounding
        if scaled or true[::-1] == said:
            return False
    for row in annotations:
        if four(row.get("bbox")) and not inside(row["bbox"], true):
            return False
        if isinstance(row.get("segmentation"), dict) and masks.wrong(row["segmentation"], true[::-1]):
            return False
    return True


def _twins(kept: Mapping[int, Row], of: Mapping[int, list[Row]]) -> Iterator[tuple[int, str]]:
    """Which of several images with one file have to go, by id: all, if two of them have other annotations."""
    groups = defaultdict[str, list[int]](list)
    for row in kept.values():
        groups[row["file_name"]].append(row["id"])
    for group in groups.values():
        said = {one: sorted(json.dumps([row.get("category_id"), row.get("bbox")]) for row in of[one]) for one in group}
        speaking = [one for one in group if said[one]]
        if any(said[one] != said[speaking[0]] for one in speaking):
            text = "has the file of another image, with other annotations: dropped, as nobody knows which are whole"
            yield from ((one, text) for one in group)
        else:
            first = (speaking or group)[0]
            yield from ((one, f"has the file of image {first}: dropped") for one in group if one != first)
