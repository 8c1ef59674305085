"""A loss that somebody has added, and that raises: its stage fails by name, the traceback is kept, the rest goes on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path as File

import pytest

from tests.orchestrator import studies
from tests.orchestrator.studies import MODULE, changed, tapath, without, write

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = File(__file__).parents[2]
BROKEN = """

def _forward(self, student, teacher, truth):
    raise KeyError("tower")


LD.forward = _forward
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_loss_that_raises_fails_its_stage_with_a_line_on_the_screen_and_its_traceback_in_the_report(
    workers: int, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("orchestrator", "trainers"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "trainers/distill/ld.py").open("a") as source:
        source.write(BROKEN)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    placed = f"wee: {{resources: {{workers: {workers}, cpus: 0.5}}, detector"
    write(tmp_path, changed(("wee: {detector", placed), text=without("mid", "low")))
    ran = tapath(tmp_path, "run", "tiny.yaml", program=MODULE)
    assert ran.code == 3, ran.err
    assert "failed   big > wee: KeyError: 'tower'" in ran.err and "Traceback" not in ran.err + ran.out
    there = studies.stages(tmp_path)
    assert {path: stage["state"] for path, stage in there.items()} == {
        ("big",): "done",
        ("big", "wee"): "failed",
        ("wee",): "done",
    }
    kept = (tmp_path / f"runs/tiny/failed-{there['big', 'wee']['key']}.txt").read_text()
    assert "in _forward" in kept and kept.rstrip().endswith("KeyError: 'tower'")
