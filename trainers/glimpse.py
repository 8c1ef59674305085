"""A bucket as it was at one moment, for whoever asks for a thousand files one by one: a listing answers for all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

from trainers.place import Found, Place, matches

AHEAD = 2000  # small files of one kind that are read once the first of them is asked for


class Glimpse:
    """See `Place`. What is not in it, or is written, is asked of the place itself."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.pause = place.pause
        self._contents: dict[str, bytes] = {}

    @cached_property
    def _found(self) -> dict[str, dict[str, Found]]:
        """All files by folder."""
        found: dict[str, dict[str, Found]] = defaultdict(dict)
        for name, one in self.place.find("*/*").items():
            found[name.split("/")[0]][name] = one
        return found

    @property
    def root(self) -> Path | str:
        return self.place.root

    @property
    def address(self) -> str:
        return self.place.address

    def file(self, name: str) -> Path | str:
        return self.place.file(name)

    def find(self, pattern: str) -> Mapping[str, Found]:
        folder = pattern.split("/")[0]
        folders = [self._found[folder]] if folder in self._found else self._found.values()
        return {name: one for found in folders for name, one in found.items() if matches(name, pattern)}

    def look(self, name: str) -> Found | None:
        return self._found[name.split("/")[0]].get(name)

    def read(self, name: str) -> bytes:
        if self.look(name) is None:
            raise FileNotFoundError(f"there is no {self.file(name)}")
        if name not in self._contents:
            alike = self.find(f"*/{name.split('/')[1]}")
            newest = sorted(alike.keys() - self._contents.keys(), key=lambda one: -alike[one].changed)
            self._contents.update(self.place.read_all(newest[:AHEAD]))
        return self._contents[name] if name in self._contents else self.place.read(name)

    def read_all(self, names: Iterable[str]) -> Iterable[tuple[str, bytes]]:
        wanted = list(names)
        self._contents.update(self.place.read_all(name for name in wanted if name not in self._contents))
        return [(name, self._contents[name]) for name in wanted if name in self._contents]

    def copy(self, name: str) -> AbstractContextManager[Path]:
        return self.place.copy(name)

    def lasting_copy(self, name: str) -> Path:
        return self.place.lasting_copy(name)

    def draft(self, name: str) -> AbstractContextManager[Path]:
        return self.place.draft(name)

    def settle(self, draft: Path, name: str, *, guard: Callable[[], object] = bool) -> None:
        self.place.settle(draft, name, guard=guard)
        self._changed(name)

    def create(self, name: str, text: str) -> bool:
        return self._changed(name, self.place.create(name, text))

    def swap(self, name: str, old: bytes, text: str) -> bool:
        return self._changed(name, self.place.swap(name, old, text))

    def remove(self, name: str) -> None:
        if self.look(name) is not None:
            self.place.remove(name)
            self._changed(name)

    def tidy(self, folder: str) -> None:
        self.place.tidy(folder)

    def set_aside(self, name: str) -> Path | str:
        aside = self.place.set_aside(name)
        self._changed(name)
        self._changed(f"{name}.corrupt")
        return aside

    def confine(self, name: str) -> None:
        self.place.confine(name)

    def reachable(self) -> None:
        self.place.reachable()

    def writable(self) -> None:
        self.place.writable()

    def glimpse(self) -> Place:
        return self

    def _changed(self, name: str, answer: Any = None) -> Any:
        """Know anew what is there of this name; -> the answer as it is."""
        self._contents.pop(name, None)
        self._found[name.split("/")[0]].pop(name, None)
        if (one := self.place.look(name)) is not None:
            self._found[name.split("/")[0]][name] = one
        return answer
