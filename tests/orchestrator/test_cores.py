"""Slots are counted by the cores that a run may use."""

from __future__ import annotations

import os
from pathlib import Path as File

import pytest

from orchestrator import cores


@pytest.fixture(autouse=True)
def sixteen(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of sixteen cores without control groups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr(cores, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(cores, "OLD", (tmp_path / "quota", tmp_path / "period"))


def test_without_a_limit_it_is_all_that_the_process_may_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cores.cores() == 16
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5})
    assert cores.cores() == 2


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("400000 100000", 4),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("9900000 100000", 16),
        ("max 100000", 16),
        ("", 16),
        ("-", 16),
    ],
)
def test_a_container_may_use_what_its_group_is_given(limit: str, expected: int, tmp_path: File) -> None:
    (tmp_path / "cpu.max").write_text(limit)
    assert cores.cores() == expected


@pytest.mark.parametrize(("quota", "expected"), [("300000", 3), ("-1", 16), ("0", 16)])
def test_so_may_one_of_the_older_kind(quota: str, expected: int, tmp_path: File) -> None:
    (tmp_path / "quota").write_text(f"{quota}\n")
    (tmp_path / "period").write_text("100000\n")
    assert cores.cores() == expected


def test_where_a_system_does_not_say_it_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert cores.cores() == 7
