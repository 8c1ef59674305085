"""The benchmark of a taught step runs, and says what part of the step distillation is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMALL = "--quick --students 18 --teacher 18 --batches 1 --sides 64 64 --methods none LD"


def test_steps_are_timed_part_by_part_beside_torchvisions() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "train_step.py"), *SMALL.split()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    heads, _, *lines = ran.stdout.partition("\ntrain_step (")[2].splitlines()[1:]
    assert "distillation ms" in heads and "busy" in heads
    column = heads.index("of step")
    alone, taught, theirs = (line[column:].split()[0] for line in lines[:3])
    assert float(alone) == 0 < float(taught) < 1 and theirs == "-"
    assert "torchvision's RetinaNet" in lines[2] and "distillation is below 5% of a step" in ran.stdout
