"""The benchmark of losses runs, knows every loss, and compares what is the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trainers import distill
from trainers.call import offers

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_loss_is_timed_and_its_plain_way_has_its_value_and_gradients() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "losses.py"), "--quick"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr  # it raises where the two ways differ
    assert "Skipped" not in ran.stdout
    first = {line.split(" ")[0].strip(",") for line in ran.stdout.partition("\nlosses (")[2].splitlines() if line}
    assert set(offers(distill)) <= first
