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
    raise KeyError("https://me:hush-password@host/tower?token=hush-token")


LD.forward = _forward
"""

SAID = "https://host/tower?token=***"  # of that, without what is secret


def test_a_loss_that_raises_fails_its_stages_with_a_line_on_the_screen_and_their_tracebacks_in_the_report(
    tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a stage that its own process trains, and of one with two workers."""
    for name in ("orchestrator", "trainers"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "trainers/distill/ld.py").open("a") as source:
        source.write(BROKEN)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    two = ("mid: {detector", "mid: {resources: {workers: 2, cpus: 0.5}, detector")
    write(tmp_path, changed(two, text=without("low")))
    ran = tapath(tmp_path, "run", "tiny.yaml", program=MODULE)
    assert ran.code == 3, ran.err
    assert "Traceback" not in ran.err + ran.out
    there = studies.stages(tmp_path)
    assert {path: stage["state"] for path, stage in there.items()} == {
        ("big",): "done",
        ("big", "mid"): "failed",
        ("big", "wee"): "failed",
        ("big", "mid", "wee"): "lost",
        ("wee",): "done",
    }
    for path in (("big", "mid"), ("big", "wee")):
        assert f"failed   {' > '.join(path)}: KeyError: '{SAID}'" in ran.err
        kept = (tmp_path / f"runs/tiny/failed-{there[path]['key']}.txt").read_text()
        assert "in _forward" in kept and kept.rstrip().endswith(f"KeyError: '{SAID}'"), path
    assert "hush" not in ran.err + ran.out
    for folder in ("runs", "store"):
        assert not [file for file in (tmp_path / folder).rglob("*") if file.is_file() and b"hush" in file.read_bytes()]
    assert b"hush" not in (tmp_path / "mlflow.db").read_bytes()
