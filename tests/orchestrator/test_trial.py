"""The process that trains stages, as Tune drives it; without a Ray around it."""

from __future__ import annotations

import time
from pathlib import Path as File

import pytest

from orchestrator.resources import Placement
from orchestrator.trial import Trial
from tests.trainers.stages import order, stage


@pytest.fixture
def process(tmp_path: File) -> Trial:
    """One that was given a stage that would take long."""
    made = Trial.__new__(Trial)
    made.stages, made.going, made.ending, made.looked, made.node = 0, False, False, time.monotonic(), ""
    given = order(stage(epochs=1000), tmp_path)
    made._start({"orders": [given.model_dump_json()], "placement": Placement().model_dump_json()})
    return made


def leases(folder: File) -> list[File]:
    return list(folder.glob("*/lease-*"))


def test_a_driver_that_ends_before_it_knows_of_a_process_leaves_no_stage_taken(process: Trial, tmp_path: File) -> None:
    """Nobody would wait for it to give the stage back."""
    assert not process.thread.is_alive() and not leases(tmp_path)
    process.cleanup()
    assert process.thread.ident is None, "it never began"


def test_a_stage_is_taken_with_the_first_step_that_is_asked_for_and_given_back_when_the_process_is_told_to_end(
    process: Trial, tmp_path: File
) -> None:
    while not leases(tmp_path):
        assert "ended" not in process.step()
    process.cleanup()
    assert not process.thread.is_alive() and not leases(tmp_path)
