"""What a benchmark wants trained is trained once, teachers first; a failure costs nothing but what it should teach."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.trainings import train_all
from tests.trainers.stages import DIGITS, stage
from trainers.nonfinite import NonFinite
from trainers.result import Result
from trainers.spec import Stage
from trainers.store import Store

TEACHER = stage(seed=1, epochs=1)
TAUGHT = stage({"LD": {"weight": 0.1}}, teacher=TEACHER, epochs=1)
BROKEN = stage(lr=1e30, epochs=1)
ORPHAN = stage({"LD": {"weight": 0.1}}, teacher=BROKEN, epochs=1)


def ended(store: Path, *stages: Stage, jobs: int = 1) -> list[tuple[Stage, Result | Exception]]:
    return list(train_all(stages, DIGITS, Store(store), jobs=jobs))


@pytest.mark.slow
def test_teachers_come_first_and_nothing_is_trained_twice(tmp_path: Path) -> None:
    first = ended(tmp_path, TAUGHT, TEACHER, jobs=2)
    assert [stage for stage, _ in first] == [TEACHER, TAUGHT]
    assert all(isinstance(result, Result) and result.history for _, result in first)
    when = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/result.json")}
    again = ended(tmp_path, TAUGHT, TEACHER)
    assert sorted(result.key for _, result in again if isinstance(result, Result)) == sorted([TEACHER.key, TAUGHT.key])
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/result.json")} == when


@pytest.mark.slow
def test_a_failure_is_told_and_what_it_should_have_taught_is_left_out(tmp_path: Path) -> None:
    (failed, error), (done, result) = ended(tmp_path, BROKEN, ORPHAN, TEACHER)
    assert (failed, done) == (BROKEN, TEACHER)
    assert isinstance(error, NonFinite) and isinstance(result, Result)
