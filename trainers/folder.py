"""A folder as the place of a store: local, or on a file system that several machines share."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from trainers import atomic
from trainers.call import Invalid
from trainers.place import Found, Place


class Folder:
    """See `Place`. In its name ~ is the home of whoever this process is of."""

    pause = 0.5

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()

    @property
    def address(self) -> str:
        return str(self.root.resolve())

    def file(self, name: str) -> Path:
        return self.root / name

    def find(self, pattern: str) -> Mapping[str, Found]:
        found = {}
        for file in sorted(self.root.glob(pattern)):
            name = file.relative_to(self.root).as_posix()
            if (one := self.look(name)) is not None:
                found[name] = one
        return found

    def look(self, name: str) -> Found | None:
        try:
            known = (self.root / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Found(known.st_size, known.st_mtime, "")

    def read(self, name: str) -> bytes:
        with _missing():
            return (self.root / name).read_bytes()

    def read_all(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        for name in names:
            with suppress(OSError):
                yield name, self.read(name)

    @contextmanager
    def copy(self, name: str) -> Iterator[Path]:
        yield self.lasting_copy(name)

    def lasting_copy(self, name: str) -> Path:
        if self.look(name) is None:
            raise FileNotFoundError(f"there is no file {self.root / name}")
        return self.root / name

    def draft(self, name: str) -> AbstractContextManager[Path]:
        return atomic.beside(self.root / name)

    def settle(self, draft: Path, name: str, *, guard: Callable[[], object] = bool) -> None:
        atomic.flush(draft)
        guard()
        draft.rename(self.root / name)

    def create(self, name: str, text: str) -> bool:
        return atomic.create(self.root / name, text)

    def swap(self, name: str, old: bytes, text: str) -> bool:
        """What another does between the look and the rename is written over; nobody who is alive and in time does."""
        try:
            if self.read(name) != old:
                return False
        except FileNotFoundError:
            return False
        atomic.write(self.root / name, lambda draft: draft.write_text(text))
        return True

    def remove(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    def tidy(self, folder: str) -> None:
        for file in atomic.left_behind(self.root / folder):
            with suppress(OSError):  # what cannot be removed is in nobody's way
                file.unlink()

    def set_aside(self, name: str) -> Path:
        with _missing():
            return atomic.set_aside(self.root / name)

    def confine(self, name: str) -> None:
        for one in (self.root / name, (self.root / name).parent):
            if one.is_symlink() and not one.resolve().is_relative_to(self.root.resolve()):
                raise Invalid(f"{one} is a symbolic link out of the store; put what it points to in its place")

    def reachable(self) -> None:
        """Whoever can ask at all is here."""

    def writable(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise Invalid(
                f"the store {self.root} cannot be written: {error.strerror}", ("resources", "store")
            ) from None

    def glimpse(self) -> Place:
        return self


@contextmanager
def _missing() -> Iterator[None]:
    """A file where a folder should be has no files in it."""
    try:
        yield
    except NotADirectoryError as error:
        raise FileNotFoundError(*error.args) from None
