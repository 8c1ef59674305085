"""What a store has finished, whoever asked for it: what later studies can learn about costs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from trainers.store import FORMAT, Result


def results(root: Path, *, most: int) -> Iterator[Result]:
    """The results under a store's folder, newest first, at most so many; one that cannot be read is passed over."""
    times: dict[Path, float] = {}
    for file in root.glob("*/result.json"):
        try:
            times[file] = file.stat().st_mtime
        except OSError:  # set aside by a worker meanwhile
            continue
    for file in sorted(times, key=lambda file: (-times[file], file))[:most]:
        try:
            result = Result.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            continue
        if result.format <= FORMAT:
            yield result
