"""A `.seq` video is indexed and read frame by frame, and a damaged one says how far it is whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainers.data.seq_files import coded, seq_bytes, seq_header
from trainers.call import Invalid
from trainers.data.processes import ahead
from trainers.data.seq import HEADER, index, read

SIZE = (24, 16)
PICTURES = np.random.default_rng(0).integers(0, 256, (5, 16, 24, 3), dtype=np.uint8)
JPEGS = [coded(picture) for picture in PICTURES]


def saved(tmp_path: Path, raw: bytes) -> Path:
    path = tmp_path / "V000.seq"
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("extra", [8, 16])
def test_frames_are_found_with_eight_or_sixteen_bytes_between_them(tmp_path: Path, extra: int) -> None:
    video = index(saved(tmp_path, seq_bytes(JPEGS, SIZE, extra=extra)))
    assert (video.size, video.suffix, video.claimed, len(video.frames)) == (SIZE, "jpg", 5, 5)
    raw = video.frames[0].path.read_bytes()
    assert [raw[one.offset : one.offset + one.length] for one in video.frames] == JPEGS
    assert [one.number for one in video.frames] == [0, 1, 2, 3, 4] and video.end == "the file ends there"


def test_png_frames_come_out_as_they_went_in(tmp_path: Path) -> None:
    video = index(saved(tmp_path, seq_bytes([coded(one, "PNG") for one in PICTURES], SIZE, kind=2)))
    assert video.suffix == "png"
    for frame, picture in zip(video.frames, PICTURES, strict=True):
        assert torch.equal(read(frame, size=video.size), torch.from_numpy(picture).permute(2, 0, 1))


@pytest.mark.parametrize("kind", [102, 201])
def test_jpeg_frames_are_decoded_alike_in_any_order_and_by_any_process(tmp_path: Path, kind: int) -> None:
    video = index(saved(tmp_path, seq_bytes(JPEGS, SIZE, kind=kind)))
    alone = [read(frame, size=SIZE) for frame in video.frames]
    assert alone[2].shape == (3, 16, 24) and alone[2].dtype == torch.uint8
    order = [4, 0, 3, 1, 2, 2, 0]
    by_others = list(ahead(lambda place: read(video.frames[place], size=SIZE), order, processes=2))
    assert all(torch.equal(one, alone[place]) for one, place in zip(by_others, order, strict=True))


def test_no_file_stays_open(tmp_path: Path) -> None:
    path = saved(tmp_path, seq_bytes(JPEGS, SIZE))
    read(index(path).frames[1], size=SIZE)
    path.write_bytes(b"")
    with pytest.raises(Invalid):
        index(path)
    files = Path("/proc/self/fd")
    assert str(path) not in [os.readlink(one) for one in files.iterdir() if one.is_symlink()]


@pytest.mark.parametrize("claimed", [0, 3, 5, 9, 2**32 - 1])
def test_how_many_frames_there_are_is_said_by_the_file_and_not_by_its_header(tmp_path: Path, claimed: int) -> None:
    video = index(saved(tmp_path, seq_bytes(JPEGS, SIZE, frames=claimed)))
    assert len(video.frames) == 5 and video.claimed == claimed


def test_of_a_truncated_file_the_whole_frames_count(tmp_path: Path) -> None:
    raw = seq_bytes(JPEGS, SIZE)
    for cut, there in (
        (0, 5),
        (8, 5),
        (9, 4),
        (8 + len(JPEGS[4]), 4),
        (8 + len(JPEGS[4]) + 4, 4),
        (len(raw) - HEADER, 0),
    ):
        video = index(saved(tmp_path, raw[: len(raw) - cut]))
        assert len(video.frames) == there
    assert video.end == "the file ends there"
    video = index(saved(tmp_path, raw[:-20]))
    assert video.end == f"frame 4 should have {len(JPEGS[4]) + 4} bytes, and {len(JPEGS[4]) + 4 - 12} are left"


def test_a_length_that_cannot_be_ends_the_video(tmp_path: Path) -> None:
    raw = seq_bytes(JPEGS[:3], SIZE)
    place = HEADER + sum(4 + len(image) + 8 for image in JPEGS[:2])
    for length in (0, 4, 2**32 - 1):
        video = index(saved(tmp_path, raw[:place] + length.to_bytes(4, "little") + raw[place + 4 :]))
        assert len(video.frames) == 2 and f"frame 2 should have {length} bytes" in video.end


HEADERS: list[tuple[bytes, str]] = [
    (b"", "has 0 bytes, fewer than the header"),
    (bytes(HEADER), "does not begin as a .seq video does"),
    (seq_header(SIZE, 1, magic=0xBEEF), "does not begin as a .seq video does"),
    (seq_header(SIZE, 1).replace(b"N\0o\0r", b"n\0o\0r"), "does not begin as a .seq video does"),
    (seq_header(SIZE, 1)[:-1], "has 1023 bytes, fewer than the header"),
    (seq_header(SIZE, 1, header=8192), "has a header of 8192 bytes"),
    (seq_header(SIZE, 1, kind=100), "holds images of format 100 and 8 bits, no JPEG or PNG"),
    (seq_header(SIZE, 1, depth=10), "holds images of format 201 and 10 bits"),
    (seq_header((0, 5), 1), "has frames of 0 x 5 pixels"),
    (seq_header((2**15, 2**15), 1), "has frames of 32768 x 32768 pixels"),
]


@pytest.mark.parametrize(("raw", "said"), HEADERS, ids=[said for _, said in HEADERS])
def test_a_bad_header_is_refused_with_the_files_name(tmp_path: Path, raw: bytes, said: str) -> None:
    with pytest.raises(Invalid, match=rf"V000\.seq {said}"):
        index(saved(tmp_path, raw))


def test_a_file_that_is_missing_or_a_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.seq", tmp_path):
        with pytest.raises(Invalid, match="cannot read"):
            index(path)


def test_a_frame_that_is_broken_or_of_another_size_is_refused_by_number(tmp_path: Path) -> None:
    other = coded(PICTURES[0][:8])
    video = index(saved(tmp_path, seq_bytes([JPEGS[0], JPEGS[1][:-40] + bytes(40), b"no image", other], SIZE)))
    with pytest.raises(Invalid, match=r"cannot read the image .*V000\.seq, frame 2"):
        read(video.frames[2], size=SIZE)
    with pytest.raises(Invalid, match=r"V000\.seq, frame 3 has 24 x 8 pixels, its annotations say 24 x 16"):
        read(video.frames[3], size=SIZE)
    video.frames[0].path.unlink()
    with pytest.raises(Invalid, match=r"cannot read .*V000\.seq"):
        read(video.frames[0], size=SIZE)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_noise_anywhere_ends_in_frames_that_lie_in_the_file_or_in_a_refusal(
    tmp_path_factory: Any, data: st.DataObject
) -> None:
    raw = bytearray(seq_bytes(JPEGS[:3], SIZE))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "noise.seq"
    path.write_bytes(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    try:
        video = index(path)
        for frame in video.frames:
            assert frame.offset > HEADER and frame.offset + frame.length <= path.stat().st_size
            read(frame, size=video.size)
    except Invalid as error:
        assert "noise.seq" in str(error)
