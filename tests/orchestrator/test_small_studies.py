"""Every family of studies, in small and for real: trained from the teacher to the report, as `tapath run` does it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path as File
from typing import Any

import pytest

from orchestrator.study import load
from tests.orchestrator import studies
from trainers import detectors, distill, metrics
from trainers.call import Call, Term, offers

ROOT = File(__file__).parents[2]
SMALL = sorted((ROOT / "search_spaces" / "small").glob("*.yaml"))
NAMES = [file.stem for file in SMALL]

# All studies, one after another, before the first test: minutes on a busy machine.
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]


def said(name: str) -> dict[str, dict[str, int]]:
    """What is expected of a student, so that it must be shown: 50 per cent of whatever is to be maximised."""
    made = load(ROOT / "search_spaces" / "small" / f"{name}.yaml")
    judge = Call.model_validate(made.data.args["metric"]).of(metrics)
    return {list(made.models)[-1]: {judge.score: 50}}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[File, dict[str, Any]]:
    """The folder that all ran in, and what was printed and the exit code of each."""
    folder = tmp_path_factory.mktemp("small")
    few = ["data.Digits.train=32", "data.Digits.val=16"]
    sets = {str(file): [f"expected={json.dumps(said(file.stem))}", *few] for file in SMALL}
    ended = subprocess.run(
        [sys.executable, "-m", "tests.orchestrator.in_turn", json.dumps(sets), *map(str, SMALL)],
        cwd=folder,
        env=studies.environment() | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert ended.returncode == 0, ended.stderr
    print(f"children used {os.times().children_user + os.times().children_system:.0f} CPU seconds")
    return folder, {"out": ended.stdout, "codes": json.loads(ended.stdout.splitlines()[-1])}


@pytest.mark.parametrize("name", NAMES)
def test_every_stage_is_trained_and_scored_and_what_was_expected_is_shown(ran: Any, name: str) -> None:
    folder, ended = ran
    made = studies.report(folder, f"small_{name}")
    ended_well = {"done", "reused", *(["pruned"] if name in ("sweep", "probe", "promising") else [])}
    assert {stage["state"] for stage in made["stages"]} <= ended_well, [s["reason"] for s in made["stages"]]
    assert ended["codes"][str(ROOT / "search_spaces" / "small" / f"{name}.yaml")] == 0
    assert all(math.isfinite(stage["score"]) for stage in made["stages"])
    assert all(answer["best"] is not None and answer["baseline"] is not None for answer in made["answers"])
    (row,) = made["expected"]
    assert row["published"] == 50 and row["measured"] == pytest.approx(100 * made["answers"][-1]["baseline"]["score"])
    assert "Published and measured" in (folder / "runs" / f"small_{name}" / "report.html").read_text()
    assert f"{row['measured']:.2f}" in ended["out"]


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_of_a_study_is_recorded_by_its_name_and_finite(ran: Any, name: str) -> None:
    folder, _ = ran
    study = load(ROOT / "search_spaces" / "small" / f"{name}.yaml")
    for stage in studies.report(folder, f"small_{name}")["stages"]:
        if len(stage["path"]) > 1:
            chosen = stage["setting"].get("distill")
            for term in map(Term.model_validate, chosen) if chosen else study.distill:
                values = [epoch[f"train/loss_{term.name.lower()}"] for epoch in stage["history"]]
                assert values and all(value is not None and math.isfinite(value) for value in values)
                assert any(value > 0 for value in values), f"{term.name} teaches nothing on {stage['path']}"


def test_every_loss_detector_and_metric_is_exercised_by_one_of_them() -> None:
    loaded = [load(file) for file in SMALL]
    losses = {term.name for study in loaded for term in study.distill}
    found = {one.detector.name for study in loaded for one in study.models.values()}
    judges = {Call.model_validate(study.data.args["metric"]).name for study in loaded}
    assert losses == offers(distill).keys()
    assert found == offers(detectors).keys()
    assert judges == offers(metrics).keys()
