"""Where the Caltech benchmark's files lie: videos or images, and annotations for each video or each image."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from trainers.call import Invalid
from trainers.data import seq, vbb
from trainers.data.images import read_image, size_of
from trainers.data.vbb import Pedestrian

PICTURE, TEXT = r"\.(?:jpg|jpeg|png)", r"(?:\.jpg|\.jpeg|\.png)?\.txt"

Files = tuple[tuple[int, str], ...]  # frame, counted from 0, and its file


class Clip(NamedTuple):
    """A video and what is said about it."""

    set: int
    video: int
    film: Path | None  # .seq, or
    pictures: Files  # frames as files
    notes: Path | None  # .vbb, or
    texts: Files  # a file for each frame

    @property
    def watched(self) -> list[Path]:
        """The files that tell whether it changed."""
        return [path for path in (self.film, self.notes) if path]

    def files(self, step: int) -> list[Path]:
        """Those that are read when every step-th frame is taken."""
        singly = [Path(file) for number, file in (*self.pictures, *self.texts) if number % step == step - 1]
        return [*self.watched, *singly]

    def __str__(self) -> str:
        return f"set{self.set:02d}_V{self.video:03d}"


class Frame(NamedTuple):
    """An image that is taken."""

    number: int  # from 0
    name: str
    read: Callable[[], Tensor]
    there: list[Pedestrian]


def clips(root: Path, number: int, which: str) -> list[Clip]:
    """The videos of a set, in order. Raises `Invalid`, at the argument `which`, if there are none."""
    name, notes = f"set{number:02d}", root / "annotations"
    films = {int(path.stem[1:]): path for base in (root, root / "videos") for path in _films(base / name)}
    pictures = {} if films else _listed(root / "images", number, PICTURE)
    if not films and not pictures:
        said = f"no {name}/V000.seq, no videos/{name}/V000.seq, no images/{name}_V000_I00029.jpg, nor others of these"
        raise Invalid(f"{root} has no {name}: {said}", (which,))
    spoken = {video: notes / name / f"V{video:03d}.vbb" for video in films or pictures}
    texts = {} if all(path.is_file() for path in spoken.values()) else _listed(notes, number, TEXT)
    for video, path in spoken.items():
        if not path.is_file() and video not in texts:
            raise Invalid(f"there is no {path}, nor texts as {notes / name}_V{video:03d}_I00029.txt", (which,))
    return [
        Clip(
            number,
            video,
            films.get(video),
            tuple(sorted(pictures.get(video, {}).items())),
            path if path.is_file() else None,
            () if path.is_file() else tuple(sorted(texts[video].items())),
        )
        for video, path in sorted(spoken.items())
    ]


def frames_of(clip: Clip, step: int) -> tuple[tuple[int, int], list[Frame], list[str]]:
    """Size (width, height) of a clip, every step-th of its frames, and what is wrong with it or them.

    The first is frame step - 1, counted from 0. How many there are is said by the annotations.
    """
    film = seq.index(clip.film) if clip.film else None
    notes = vbb.Video(clip.notes) if clip.notes else None
    pictures, texts = dict(clip.pictures), dict(clip.texts)
    if notes:
        wanted = list(range(step - 1, len(notes), step))
    else:
        known = texts.keys() | (range(len(film.frames)) if film else pictures.keys())
        wanted = sorted(number for number in known if number % step == step - 1)
    mistakes = list(_missing(clip, film, notes, wanted))
    if mistakes or not wanted:
        return (0, 0), [], mistakes
    size = film.size if film else size_of(Path(pictures[wanted[0]]), pictures[wanted[0]])
    frames = []
    for number in wanted:
        try:
            there = notes.pedestrians(number) if notes else vbb.read_text(Path(texts[number]))
        except Invalid as error:
            mistakes.append(f"{clip.notes}, frame {number}: {error}" if notes else f"{texts[number]} {error}")
            continue
        suffix = film.suffix if film else pictures[number].rpartition(".")[2]
        read = (
            partial(seq.read, film.frames[number], size=size)
            if film
            else partial(read_image, Path(pictures[number]), size=size)
        )
        frames.append(Frame(number, f"{clip}_I{number:05d}.{suffix}", read, there))
    return size, frames, mistakes


def _missing(clip: Clip, film: seq.Video | None, notes: vbb.Video | None, wanted: list[int]) -> Iterator[str]:
    """What is said of frames that are not there, or not said of frames that are."""
    pictures, texts = dict(clip.pictures), dict(clip.texts)
    if film and wanted and wanted[-1] >= len(film.frames):
        about = f"{clip.notes} is about {len(notes)}" if notes else f"there is a text about frame {wanted[-1]}"
        yield f"{clip.film} holds {len(film.frames)} whole frames of {film.claimed}, and {about}: {film.end}"
    for number in wanted:
        if not film and number not in pictures:
            yield f"there is no image {clip}_I{number:05d}; name the step with which they were taken out"
        if not notes and number not in texts:
            yield f"there is no text about {clip}_I{number:05d}"


def _films(folder: Path) -> list[Path]:
    """The videos in a folder."""
    return [path for path in folder.glob("V*.seq") if re.fullmatch(r"V\d\d\d", path.stem)]


def _listed(base: Path, number: int, ending: str) -> dict[int, dict[int, str]]:
    """The files of a set by video and frame, all in one folder or in one for each video. Raises `Invalid`."""
    found: dict[int, dict[int, str]] = {}
    own = base / f"set{number:02d}"
    places = [(base, "", rf"{own.name}_V(\d\d\d)_I(\d{{5}}){ending}")]
    places += [
        (own / name, name[1:], rf"()I(\d{{5}}){ending}") for name in _names(own) if re.fullmatch(r"V\d\d\d", name)
    ]
    for folder, video, pattern in places:
        for name in _names(folder):
            if match := re.fullmatch(pattern, name):
                files, frame = found.setdefault(int(match[1] or video), {}), int(match[2])
                if frame in files:
                    raise Invalid(f"{files[frame]} and {folder / name} are the same frame", ("root",))
                files[frame] = str(folder / name)
    return found


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
