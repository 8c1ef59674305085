"""What lies at the address of a store, behind its back: the same words for a folder and for a bucket."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from pathlib import Path


class Files(MutableMapping[str, bytes]):
    """The content of all files, by name."""

    def __init__(self, address: Path | str) -> None:
        self.address = address

    def __getitem__(self, name: str) -> bytes:
        if isinstance(self.address, Path):
            try:
                return (self.address / name).read_bytes()
            except FileNotFoundError:
                raise KeyError(name) from None
        from tests import buckets  # loading moto takes a second

        return buckets.read(f"{self.address}/{name}")

    def __setitem__(self, name: str, content: bytes) -> None:
        if isinstance(self.address, Path):
            (self.address / name).parent.mkdir(parents=True, exist_ok=True)
            (self.address / name).write_bytes(content)
        else:
            from tests import buckets

            buckets.put(f"{self.address}/{name}", content)

    def __delitem__(self, name: str) -> None:
        if isinstance(self.address, Path):
            (self.address / name).unlink()
        else:
            from tests import buckets

            buckets.remove(f"{self.address}/{name}")

    def __iter__(self) -> Iterator[str]:
        if isinstance(self.address, Path):
            found = [file for file in self.address.rglob("*") if file.is_file()]
            return iter(sorted(file.relative_to(self.address).as_posix() for file in found))
        from tests import buckets

        return iter(buckets.names(self.address))

    def __len__(self) -> int:
        return len(list(iter(self)))
