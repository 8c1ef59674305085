"""MAT files written by scipy are read as scipy reads them, and no other bytes do harm."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from trainers.call import Invalid
from trainers.data.matlab import load, value


def saved(path: Path, compress: bool = False, **variables: Any) -> Path:
    with path.open("wb") as file:
        savemat(file, variables, do_compression=compress)
    return path


def cells(*values: Any) -> np.ndarray:
    row = np.empty((1, len(values)), dtype=object)
    row[0, :] = values
    return row


kinds = st.sampled_from([np.float64, np.float32, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64])


@settings(deadline=None)
@given(kinds, st.integers(0, 4), st.integers(0, 4), st.booleans(), st.integers(0, 2**31))
def test_numbers_of_any_kind_and_shape_come_back(
    tmp_path_factory: Any, kind: Any, height: int, width: int, compress: bool, seed: int
) -> None:
    numbers = np.random.default_rng(seed).integers(-100, 100, (height, width)).astype(kind)
    path = saved(tmp_path_factory.getbasetemp() / "x.mat", compress, x=numbers)
    read = value(load(path)["x"])
    assert isinstance(read, np.ndarray) and read.shape == numbers.shape and np.array_equal(read, numbers)


@pytest.mark.parametrize("compress", [False, True])
def test_texts_cells_and_structs_come_back(tmp_path: Path, compress: bool) -> None:
    row = np.zeros((1, 2), dtype=[("id", object), ("a_longer_name", object)])
    row[0, 0], row[0, 1] = (1.0, np.array([[1.5, 2.5]])), (2.0, "person?")
    path = saved(tmp_path / "x.mat", compress, text="caf\xe9", empty="", cell=cells("a", np.zeros((0, 0)), row), n=2.0)
    read = load(path)
    assert list(read) == ["text", "empty", "cell", "n"]
    assert value(read["text"]) == "caf\xe9" and len(value(read["empty"])) == 0
    first, second, third = (value(one) for one in value(read["cell"]))
    assert first == "a" and second.size == 0
    assert [list(one) for one in third] == [["id", "a_longer_name"]] * 2
    assert value(third[0]["a_longer_name"]).tolist() == [[1.5, 2.5]] and value(third[1]["a_longer_name"]) == "person?"


def test_matrices_are_read_column_by_column(tmp_path: Path) -> None:
    numbers = np.arange(6.0).reshape(2, 3)
    assert value(load(saved(tmp_path / "x.mat", x=numbers))["x"]).tolist() == numbers.tolist()


def test_an_empty_matrix_of_no_bytes_is_an_empty_array() -> None:
    assert value(memoryview(b"")).size == 0


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    with pytest.raises(Invalid, match=r"cannot read .*x\.mat"):
        load(path)
    newer = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF"
    for raw in (b"", b"short", newer, bytes(500), b"\x89PNG" + bytes(500)):
        path.write_bytes(raw)
        with pytest.raises(Invalid, match=r"x\.mat is not a MAT file of version 5"):
            load(path)


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(kind: int, shape: tuple[int, ...], rest: bytes, name: bytes = b"A") -> bytes:
    sides = element(5, struct.pack(f"<{len(shape)}i", *shape))
    return element(14, element(6, bytes([kind]) + bytes(7)) + sides + element(1, name) + rest)


def file_of(path: Path, raw: bytes) -> Path:
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + raw)
    return path


HOSTILE = [
    (matrix(1, (1, 2**31 - 1), b""), "cut off"),  # two thousand million cells, none of them there
    (matrix(2, (2**31 - 1, 2**31 - 1), element(5, b"\4\0\0\0") + element(1, b"abc\0")), "cut off"),
    (matrix(2, (1, 1), element(5, b"\0\0\0\0") + element(1, b"")), "struct without names"),
    (matrix(6, (2**31 - 1, 2**31 - 1), element(9, bytes(8))), "holds 1 numbers where 4611686014132420609 should be"),
    (matrix(6, (-1, 3), element(9, bytes(8))), "negative side"),
    (matrix(6, (), b""), "without kind or shape"),
    (matrix(3, (1, 1), b""), "something else than numbers"),  # an object
    (matrix(16, (1, 1), b""), "something else than numbers"),  # a function
    (matrix(17, (1, 1), b""), "something else than numbers"),  # of a type that only MATLAB knows
    (matrix(1, (1, 1), element(9, bytes(8))), "a cell that is no matrix"),
    (struct.pack("<II", 14, 10**6), "cut off"),
    (b"\x0e\0\0", "cut off"),
    (element(15, b"no zlib"), "cannot be unpacked"),
    (struct.pack("<HH", 14, 100) + bytes(4), "small element of more than four bytes"),
]


@pytest.mark.parametrize(("raw", "said"), HOSTILE, ids=[f"{n} {said}" for n, (_, said) in enumerate(HOSTILE)])
def test_sizes_that_lie_and_kinds_that_are_not_needed_are_refused(tmp_path: Path, raw: bytes, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        value(load(file_of(tmp_path / "x.mat", raw))["A"])


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "x.mat", True, x=np.zeros((1000, 100)))
    assert value(load(path)["x"]).shape == (1000, 100)
    monkeypatch.setattr("trainers.data.matlab.LARGEST", 100_000)
    with pytest.raises(Invalid, match=r"x\.mat unpacks to more than 100,000 bytes"):
        load(path)
    with pytest.raises(Invalid, match=r"x\.mat has more than 100,000 bytes"):
        load(saved(path, x=np.zeros((1000, 100))))


def test_cells_in_cells_to_any_depth_are_opened_one_by_one(tmp_path: Path) -> None:
    raw = matrix(6, (1, 1), element(9, bytes(8)))
    for _ in range(3000):
        raw = matrix(1, (1, 1), raw)
    inner = load(file_of(tmp_path / "x.mat", raw))["A"]
    for _ in range(3000):
        (inner,) = value(inner)
    assert value(inner).tolist() == [[0]]


def everything(matrix: memoryview) -> None:
    read = value(matrix)
    if isinstance(read, list):
        for one in read:
            for inner in one.values() if isinstance(one, dict) else [one]:
                everything(inner)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), min_size=1, max_size=5), st.integers(0, 1000))
def test_noise_ends_in_values_or_a_refusal(tmp_path_factory: Any, noise: list[tuple[int, int]], cut: int) -> None:
    file = io.BytesIO()
    savemat(file, {"A": {"n": 3.0, "cells": cells("person", np.eye(2), "x")}})
    raw = bytearray(file.getvalue())
    for place, byte in noise:
        raw[128 + place % (len(raw) - 128)] = byte
    path = tmp_path_factory.getbasetemp() / "noise.mat"
    path.write_bytes(raw[: len(raw) - (cut if cut < 100 else 0)])
    try:
        for one in load(path).values():
            everything(one)
    except Invalid:
        return
