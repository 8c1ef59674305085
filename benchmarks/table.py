"""Print a benchmark's figures as a table, and keep them as JSON beside the machine's name."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """What the figures were measured on."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"


def show(name: str, rows: Sequence[Mapping[str, Any]], *notes: str) -> None:
    """Print rows under their common keys, write results/<name>.json."""
    lay_out(name, rows, *notes)
    keep(name, rows, *notes)


def lay_out(name: str, rows: Sequence[Mapping[str, Any]], *notes: str, heads: Sequence[str] = ()) -> None:
    """Print rows under their common keys, or under these of them."""
    heads = list(heads or rows[0])
    cells = [[text(row[head]) for head in heads] for row in rows]
    widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(heads))]
    print(f"\n{name} ({machine()})")
    for line in [heads, ["-" * width for width in widths], *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for note in notes:
        print(note)


def keep(name: str, rows: Sequence[Mapping[str, Any]], *notes: str) -> None:
    """Write results/<name>.json; whoever reads it meanwhile reads it whole."""
    RESULTS.mkdir(exist_ok=True)
    kept = {"name": name, "machine": machine(), "rows": [dict(row) for row in rows], "notes": list(notes)}
    aside = RESULTS / f".{name}.json"
    aside.write_text(json.dumps(kept, indent=1) + "\n")
    aside.replace(RESULTS / f"{name}.json")


def text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
