"""The table of methods can be built as it stands: every loss knows its arguments and can teach its pair."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def methods(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "methods.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_table_shows_every_pair_before_anything_is_trained(tmp_path: Path) -> None:
    ran = methods("--table", "--store", str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    lines = [line.split() for line in ran.stdout.splitlines()]
    for pair in ("dense", "equal", "two-stage"):
        assert [pair, "(teacher)", "0", "-", "-", "-", "-", "-", "-", "-"] in lines
        assert [pair, "(alone)", "0", "-", "-", "-", "-", "-", "-", "-"] in lines
    assert ["dense", "LD+KD", "0", "-", "-", "-", "-", "-", "-", "-"] in lines
    assert "Skipped" not in ran.stdout
    assert not list(tmp_path.iterdir())
