"""docs/faults.md promises a test for each fault: each is there under the name that it has there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "faults.md").read_text()
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith(("| what fails", "| ---"))]
TESTS = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)


def test_every_fault_has_a_test_or_a_benchmark() -> None:
    assert len(ROWS) > 40
    for row in ROWS:
        assert re.search(r"`(tests/[\w/]+\.py::\w+|benchmarks/\w+\.py)` ?", row.rpartition(" | ")[2]), row


def test_every_test_that_is_named_is_there() -> None:
    for file, name in TESTS:
        tree = ast.parse((ROOT / file).read_text())
        assert name in {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}, f"{file}::{name}"


def test_every_file_that_is_named_is_there() -> None:
    for file in re.findall(r"`((?:tests|benchmarks)/[\w/]+\.py)", TEXT):
        assert (ROOT / file).is_file(), file
