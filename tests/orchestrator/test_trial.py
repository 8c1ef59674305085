"""The process that trains stages, as Tune drives it; without a Ray around it."""

from __future__ import annotations

import threading
import time
from pathlib import Path as File
from typing import Any

import pytest

from orchestrator.one_thread import OneThread
from orchestrator.resources import Placement
from orchestrator.trial import Trial
from tests.trainers.stages import order, stage
from trainers.stage import StageFailed


@pytest.fixture
def process(tmp_path: File) -> Trial:
    """One that was given a stage that would take long."""
    made = Trial.__new__(Trial)
    made.stages, made.going, made.ending, made.looked, made.node = 0, False, False, time.monotonic(), ""
    made.thread = OneThread()
    made._start(given(tmp_path))
    return made


def given(folder: File) -> dict[str, Any]:
    asked = order(stage(epochs=1000), folder)
    return {"orders": [asked.model_dump_json()], "placement": Placement().model_dump_json()}


def leases(folder: File) -> list[File]:
    return list(folder.glob("*/lease-*"))


def test_a_driver_that_ends_before_it_knows_of_a_process_leaves_no_stage_taken(process: Trial, tmp_path: File) -> None:
    """Nobody would wait for it to give the stage back."""
    before = threading.active_count()
    process.cleanup()
    assert process.over is None and threading.active_count() == before, "it never began"
    assert not leases(tmp_path)


def test_a_stage_is_taken_with_the_first_step_that_is_asked_for_and_given_back_when_the_process_is_told_to_end(
    process: Trial, tmp_path: File
) -> None:
    while not leases(tmp_path):
        assert "ended" not in process.step()
    process.cleanup()
    assert process.over is not None and process.over.is_set() and not leases(tmp_path)


def test_all_stages_of_a_process_are_trained_by_one_thread_whatever_becomes_of_them(
    process: Trial, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What CUDA has recorded can be replayed by the thread alone that recorded it."""
    threads = []

    def trained(*_: Any, **__: Any) -> None:
        threads.append(threading.get_ident())
        raise [SystemExit("a library wants to end the process"), StageFailed("it does not train")][len(threads) % 2]

    monkeypatch.setattr("trainers.stage.train_together", trained)
    failures = []
    for _ in range(3):
        while "ended" not in (said := process.step()):
            pass
        failures.append(said["failed"])
        assert process.reset_config(given(tmp_path))
    assert len(set(threads)) == 1 and threads[0] != threading.get_ident()
    assert failures == ["it does not train", "SystemExit: a library wants to end the process", "it does not train"]
