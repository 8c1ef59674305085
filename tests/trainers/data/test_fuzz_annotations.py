"""Ten thousand spoilt annotation files: refused by name, or right by demands of their own; and mended all the same.

The demands are written out here once more, in other words and without the rules of the sources.
"""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainers.call import Invalid
from trainers.data.annotations import load, parse, tables
from trainers.data.examine import Seen
from trainers.data.inspection import wrong
from trainers.data.mend import mended
from trainers.data.split import Split, classes_of, fingerprint

FILES = 10_000
PARTS = 20

GOOD: dict[str, Any] = {
    "info": {"year": 2024},
    "licenses": [],
    "images": [
        {"id": 1, "file_name": "a/one.jpg", "width": 40, "height": 30},
        {"id": 2, "file_name": "two.png", "width": 20, "height": 50, "license": 1},
        {"id": 7, "file_name": "three.png", "width": 9, "height": 9},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3.5, 4], "area": 14.0, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 9, "bbox": [0, 0, 40, 30], "iscrowd": 1, "ignore": 0},
        {"id": 3, "image_id": 2, "category_id": 3, "bbox": [5, 6, 7, 8], "visible": [5, 6, 2, 2]},
        {"id": 4, "image_id": 2, "category_id": 3, "bbox": [1, 1, 4, 4], "segmentation": [[1, 1, 5, 1, 5, 5]]},
        {
            "id": 5,
            "image_id": 7,
            "category_id": 9,
            "bbox": [0, 0, 9, 9],
            "segmentation": {"size": [9, 9], "counts": [0, 81]},
        },
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog", "supercategory": "animal"}],
}


class Held(type(Path())):
    """A file in memory: most of the time would go into opening real ones."""

    content = b""

    def read_bytes(self) -> bytes:
        return self.content


class Raw(str):
    """JSON that `json.dumps` would not write."""


HOSTILE: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 3, 0.5, -0.0, 1e9, -1e9, 1e308, 2**31, 2**40, 2**63, -(2**63), 10**400, 5e-324),
    *(math.nan, math.inf, -math.inf, Raw("1e400"), Raw("-1e400"), Raw("1" * 5000), Raw("9" * 4300), Raw("1.0")),
    *("", "0", "1", "cat", "dog", "two.png", "../x.png", "a/../../b", "/etc/passwd", "c:\\x.png", "http://a/b.png"),
    *(
        "nul\0.png",
        "bell\x07",
        "\ud800",
        "\u202egnp.png",
        "caf\u00e9.png",
        "x" * 5000,
        "./two.png",
        ".",
        "a//b",
        "e\u0301",
    ),
    *([], {}, [1], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4, 5], ["1", "2", "3", "4"], [[1, 2, 3, 4]], [1, 1, 0, 5]),
    *([30, 20, 30, 30], [-5, -5, 12, 12], [1, 2, -3, 4], [1, 2, math.nan, 4], [1e308, 1e308, 1e308, 1e308], [None] * 4),
    *([1, 2, 3, Raw("1e400")], [39.9, 1, 1, 1], [41, 1, 5, 5], [True, True, True, True], {"id": 1}, [{}], [[[]]]),
    *([[1, 2, 3]], [[1, 2, 3, 4, 5, 6]], {"size": [9, 9], "counts": "zzz"}, {"size": [9, 9], "counts": [-1, 82]}),
    *({"size": [30, 40], "counts": [1200]}, {"counts": 3}, Raw("[" * 400 + "]" * 400), Raw("[" * 985 + "]" * 985)),
    Raw('{"a":' * 300 + "1" + "}" * 300),
]


def places(thing: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something could be put in place of something else, from the outside in."""
    inner = thing.items() if isinstance(thing, dict) else enumerate(thing) if isinstance(thing, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


def at(thing: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        thing = thing[key]
    return thing


def replace(coco: Any, rng: random.Random) -> None:
    *path, key = rng.choice(places(coco)[1:])
    at(coco, tuple(path))[key] = copy.deepcopy(rng.choice(HOSTILE))


def drop(coco: Any, rng: random.Random) -> None:
    *path, key = rng.choice(places(coco)[1:])
    del at(coco, tuple(path))[key]


def swap(coco: Any, rng: random.Random) -> None:
    """The value of one place at another one."""
    here, there = rng.choice(places(coco)[1:]), rng.choice(places(coco)[1:])
    at(coco, here[:-1])[here[-1]] = copy.deepcopy(at(coco, there))


def again(coco: Any, rng: random.Random) -> None:
    """A row once more, as it is or with a little change."""
    rows = coco[rng.choice(["images", "annotations", "categories"])]
    row = copy.deepcopy(rng.choice(rows))
    rows.insert(rng.randrange(len(rows) + 1), row)
    if rng.random() < 0.7:
        row[rng.choice(list(row))] = rng.choice(HOSTILE)


def add(coco: Any, rng: random.Random) -> None:
    """A key that may be there and is not, or one that nobody knows."""
    row = rng.choice(coco[rng.choice(["images", "annotations", "categories"])])
    keys = ["ignore", "visible", "segmentation", "area", "iscrowd", "score", "", "\ud800", "id", "name"]
    row[rng.choice(keys)] = copy.deepcopy(rng.choice(HOSTILE))


def number(coco: Any, rng: random.Random) -> None:
    """A number somewhere else than it was."""
    numbers = [path for path in places(coco) if type(at(coco, path)) in (int, float)]
    *path, key = rng.choice(numbers)
    at(coco, tuple(path))[key] += rng.choice([-100, -2, -1, -0.4, 0.4, 1, 2, 5, 7, 33, 100])


def name(coco: Any, rng: random.Random) -> None:
    """Another text in place of one."""
    texts = [path for path in places(coco) if type(at(coco, path)) is str]
    *path, key = rng.choice(texts)
    at(coco, tuple(path))[key] = rng.choice([value for value in HOSTILE if type(value) is str])


def written(thing: Any) -> str:
    """JSON, with what is raw in it left as it is."""
    raws: list[str] = []

    def marked(value: Any) -> Any:
        if isinstance(value, Raw):
            raws.append(value)
            return f"@raw{len(raws) - 1}@"
        if isinstance(value, dict):
            return {key: marked(inner) for key, inner in value.items()}
        return [marked(inner) for inner in value] if isinstance(value, list) else value

    text = json.dumps(marked(thing))
    for place, raw in enumerate(raws):
        text = text.replace(f'"@raw{place}@"', raw)
    return text


def cut(raw: bytes, rng: random.Random) -> bytes:
    return raw[: rng.randrange(len(raw))]


def flip(raw: bytes, rng: random.Random) -> bytes:
    spoilt = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 5])):
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def repeat(raw: bytes, rng: random.Random) -> bytes:
    """A piece of the file twice, in place or elsewhere."""
    start = rng.randrange(len(raw))
    piece = raw[start : start + rng.choice([1, 2, 8, 40, 200])]
    where = start if rng.random() < 0.5 else rng.randrange(len(raw))
    return raw[:where] + piece + raw[where:]


def strew(raw: bytes, rng: random.Random) -> bytes:
    where = rng.randrange(len(raw))
    return (
        raw[:where]
        + rng.choice([b"\0", b"\xff", b'"', b",", b"}", b"[", b"-", b"e9", b"NaN", b"\xef\xbb\xbf"])
        + raw[where:]
    )


def key_twice(raw: bytes, rng: random.Random) -> bytes:
    """A key that is there already, once more, in the same dictionary."""
    name = rng.choice([b"images", b"annotations", b"categories", b"bbox", b"id", b"image_id", b"width"])
    value = rng.choice([b"[]", b"1", b"null", b"[1, 1, 2, 2]"])
    return raw.replace(b'"%s":' % name, b'"%s": %s, "%s":' % (name, value, name), 1)


STRUCTURED: list[Callable[[Any, random.Random], None]] = [
    replace,
    replace,
    replace,
    drop,
    swap,
    again,
    add,
    number,
    number,
    name,
]
BYTES = [cut, flip, flip, repeat, strew, key_twice]


def spoilt(rng: random.Random) -> bytes:
    """A file with one to four faults, some of them no fault at all."""
    coco = copy.deepcopy(GOOD)
    if rng.random() < 0.25:
        return rng.choice(BYTES)(written(coco).encode(), rng)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        before = copy.deepcopy(coco)
        try:
            rng.choice(STRUCTURED)(coco, rng)
        except (LookupError, TypeError, AttributeError):  # an earlier fault took away what this one wants to spoil
            coco = before
    return written(coco).encode()


def demand_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({key for key, _ in pairs}) == len(pairs), "two values under one key"
    return dict(pairs)


def whole(value: Any) -> bool:
    return type(value) is int and -(2**63) < value < 2**63


def finite(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def demand(coco: Any) -> None:
    """Everything that training relies on; an AssertionError says what is not so."""
    for part in ("images", "annotations", "categories"):
        ids = [row["id"] for row in coco[part]]
        assert all(map(whole, ids)) and len(set(ids)) == len(ids), f"ids of {part}"
    assert coco["images"] and coco["categories"]
    names = [row["name"] for row in coco["categories"]]
    assert all(type(name) is str and name and name.encode() for name in names) and len(set(names)) == len(names)
    files = [row["file_name"] for row in coco["images"]]
    assert len(set(files)) == len(files)
    for file in files:
        steps = file.split("/")
        assert (
            file and steps[0] != "" and ".." not in steps and not {"\\", "\0", "\n"} & set(file) and "://" not in file
        )
        assert file.encode()
    sizes = {}
    for row in coco["images"]:
        assert whole(row["width"]) and whole(row["height"]) and row["width"] > 0 and row["height"] > 0
        assert row["width"] * row["height"] < 90_000_000
        sizes[row["id"]] = row["width"], row["height"]
    for row in coco["annotations"]:
        width, height = sizes[row["image_id"]]
        assert type(row["image_id"]) is int and type(row["category_id"]) is int
        assert row["category_id"] in [category["id"] for category in coco["categories"]]
        assert type(row["bbox"]) is list and len(row["bbox"]) == 4 and all(map(finite, row["bbox"]))
        x, y, w, h = row["bbox"]
        assert w > 0 and h > 0 and x >= -1 and y >= -1 and x + w <= width + 1 and y + h <= height + 1
        assert "area" not in row or (finite(row["area"]) and row["area"] >= 0)
        assert all(row.get(key, 0) == 0 or row[key] == 1 for key in ("iscrowd", "ignore"))
        visible = row.get("visible", [0, 0, 0, 0])
        assert len(visible) == 4 and all(map(finite, visible)) and visible[2] >= 0 and visible[3] >= 0


def demand_use(coco: dict[str, Any]) -> None:
    """A split of it gives boxes in their images, labels that there are, and one fingerprint."""
    split = Split(coco, classes_of(coco), read=lambda index: pytest.fail("no image is read"))
    for index, (height, width) in enumerate(split.sizes):
        boxes, labels = split.boxes(index), split.labels(index)
        assert len(boxes) == len(labels) and bool(((labels >= 0) & (labels < len(split.classes))).all())
        assert bool((boxes[:, :2] < boxes[:, 2:]).all()) and bool((boxes >= 0).all())
        assert bool((boxes[:, 2] <= width).all()) and bool((boxes[:, 3] <= height).all())
    assert len(fingerprint(split, split)) == 64


def readable(coco: dict[str, Any]) -> dict[int, Seen]:
    """What would be seen if every image were 16 x 12 pixels, or as large as the file says where it says so."""
    seen = {}
    for place, row in enumerate(coco["images"]):
        width, height = row.get("width"), row.get("height")
        right = whole(width) and whole(height) and 0 < width < 9000 and 0 < height < 9000
        seen[place] = Seen(None, size=(width, height)) if right else Seen(None, size=(16, 12))
    return seen


def judge(raw: bytes, path: Held) -> tuple[str, str]:
    """What became of one file: accepted or refused, and whether it could be mended."""
    path.content = raw
    try:
        coco = load(path)
    except Invalid as error:
        assert path.name in str(error) and len(str(error)) < 10_000 and str(error).isprintable()
        verdict = "refused"
    else:
        demand(json.loads(raw, object_pairs_hook=demand_once))
        demand_use(coco)
        verdict = "accepted"
    try:
        whole_file = parse(path)
        tables(whole_file, path.name)
    except Invalid:
        assert verdict == "refused"
        return verdict, "hopeless"
    if verdict == "refused":
        assert wrong(whole_file), "what is refused is reported"
    try:
        clean, changes = mended(whole_file, readable(whole_file))
    except Invalid as error:
        assert verdict == "refused"
        assert any(part in str(error) for part in ("is left", "nested too deeply", "nothing is guessed"))
        return verdict, "hopeless"
    path.content = json.dumps(clean).encode()
    demand(json.loads(path.content, object_pairs_hook=demand_once))
    assert wrong(clean) == [] and mended(clean, readable(clean)) == (clean, [])
    demand_use(load(path))
    assert bool(changes) == bool(wrong(whole_file)), "nothing is changed in silence, and nothing but mistakes"
    assert {key: value for key, value in clean.items() if key not in GOOD or key == "info"} == {
        key: value for key, value in whole_file.items() if key not in GOOD or key == "info"
    }
    return verdict, "mended"


@pytest.mark.parametrize("part", range(PARTS))
def test_a_spoilt_file_is_refused_by_name_or_right_and_what_is_mended_is_accepted(part: int) -> None:
    rng, path = random.Random(part), Held("spoilt.json")
    ends: dict[tuple[str, str], int] = {}
    for number_ in range(FILES // PARTS):
        raw = spoilt(rng)
        try:
            end = judge(raw, path)
        except BaseException as error:
            raise AssertionError(f"file {number_} of part {part}: {error!r}: {raw[:3000]!r}") from error
        ends[end] = ends.get(end, 0) + 1
    # All three ends are seen often, or the faults are too gentle or too coarse to say anything.
    assert min(ends[end] for end in (("accepted", "mended"), ("refused", "mended"), ("refused", "hopeless"))) > 20, ends


def test_the_file_that_is_spoilt_is_a_good_one() -> None:
    assert judge(written(GOOD).encode(), Held("good.json")) == ("accepted", "mended")
