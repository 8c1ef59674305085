"""A two-stage teacher with masks on a transformer teaches one-stage students: planned, trained and reported."""

from __future__ import annotations

import shutil
from pathlib import Path as File

import pytest

from tests.orchestrator import studies
from tests.orchestrator.boards import the_answer
from tests.orchestrator.studies import Ran, tapath

STUDY = File(__file__).parents[2] / "search_spaces" / "mixed_families.yaml"
NAMES = ("mask_rcnn_swin", "retinanet_swin", "retinanet_tiny")
EPOCHS = ("recipe.epochs=1", "models.retinanet_tiny.recipe.epochs=1")
SMALL = ("data.Digits.train=32", "data.Digits.val=16", "recipe.batch=8", *EPOCHS)
SMALLER = tuple(word for assignment in SMALL for word in ("--set", assignment))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[File, Ran]:
    folder = tmp_path_factory.mktemp("mixed")
    shutil.copy(STUDY, folder)
    return folder, tapath(folder, "run", STUDY.name, *SMALLER)


def test_the_study_is_planned_at_full_size(tmp_path: File) -> None:
    planned = tapath(tmp_path, "plan", str(STUDY))
    assert planned.code == 0, planned.err
    assert "2 paths" in planned.out and "5 trainings" in planned.out
    assert all(name in planned.out for name in NAMES)


@pytest.mark.ray
@pytest.mark.slow
def test_every_stage_is_trained_and_the_report_ranks_both_paths(ran: tuple[File, Ran]) -> None:
    folder, run = ran
    assert run.code == 0, run.err
    made = studies.report(folder, "mixed_families")
    assert len(made["stages"]) == len(studies.stored(folder)) == 5
    assert {stage["state"] for stage in made["stages"]} == {"done"}
    teacher, assistant, student = NAMES
    assert {tuple(path["path"]) for path in the_answer(made)["ranking"]} == {
        (teacher, student),
        (teacher, assistant, student),
    }
    assert (folder / "runs" / "mixed_families" / "report.html").stat().st_size > 1000


@pytest.mark.ray
@pytest.mark.slow
def test_what_a_student_learns_from_its_teacher_is_recorded_by_name(ran: tuple[File, Ran]) -> None:
    folder, _ = ran
    history = studies.stages(folder, "mixed_families")["mask_rcnn_swin", "retinanet_tiny"]["history"]
    assert history[0]["train/loss_pkd"] > 0
    history = studies.stages(folder, "mixed_families")["mask_rcnn_swin",]["history"]
    assert {"train/loss_rpn_cls", "train/loss_cls", "train/loss_mask"} <= history[0].keys()
