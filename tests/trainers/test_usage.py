"""What a stage took is noted: over all workers and interruptions, and for this stage alone."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainers.kept import kept_state
from tests.trainers.stages import CPU, STEPS, stage
from tests.trainers.two_workers import together
from tests.trainers.works import ROOT, TAUGHT, Crash, raising_at, run
from trainers import usage, worker
from trainers.finished import results
from trainers.folder import Folder
from trainers.result import FORMAT, Result
from trainers.store import Store
from trainers.usage import Watch, forget, peak

MEGABYTE = 2**20


def test_a_result_says_what_its_stage_took(undisturbed: tuple[Result, Path]) -> None:
    result, _ = undisturbed
    took = result.usage
    assert took is not None and took.workers == 1 and took.threads == torch.get_num_threads()
    assert 0 < took.measuring < result.seconds
    images = TAUGHT.recipe.epochs * STEPS * TAUGHT.recipe.batch
    assert took.images_per_second == pytest.approx(images / (result.seconds - took.measuring))
    rates = [entry["train/images_per_second"] for entry in result.history]
    assert took.images_per_second <= max(rates)  # storing an epoch counts as well
    assert took.memory is None or took.memory > 50 * MEGABYTE  # a process with torch in it


def test_seconds_of_measuring_are_those_of_validation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = worker.measure

    def slow(*args: Any, **more: Any) -> dict[str, float]:
        time.sleep(0.3)
        return measure(*args, **more)

    monkeypatch.setattr(worker, "measure", slow)
    twice, once = (run(stage(seed=seed), folder, evaluate_every=seed) for seed in (1, 2))
    assert twice.usage is not None and once.usage is not None
    assert twice.usage.measuring >= 0.6 and 0.3 <= once.usage.measuring < twice.usage.measuring


def test_an_interruption_loses_nothing_of_what_was_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(ROOT, tmp_path)
    monkeypatch.setattr(usage, "peak", lambda device: 900 * MEGABYTE)
    with pytest.raises(Crash):
        run(TAUGHT, tmp_path, report=raising_at(2, Crash()))
    kept = kept_state(Store(tmp_path), TAUGHT.key)
    assert kept is not None
    before = kept["usage"]
    monkeypatch.setattr(usage, "peak", lambda device: 100 * MEGABYTE)
    result = run(TAUGHT, tmp_path)
    assert result.usage is not None and result.usage.measuring > before["measuring"] > 0
    if usage.forget(CPU):
        assert result.usage.memory == before["memory"] == 900 * MEGABYTE


def test_a_result_of_before_is_read_all_the_same(tmp_path: Path) -> None:
    result = run(ROOT, tmp_path)
    file = tmp_path / ROOT.key / "result.json"
    older = json.loads(file.read_text()) | {"format": 1}
    del older["usage"]
    file.write_text(json.dumps(older))
    read = Store(tmp_path).get(ROOT)
    assert read == result.model_copy(update={"usage": None, "format": 1})


def test_where_the_kernel_does_not_count_anew_no_memory_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "FORGET", tmp_path / "nowhere" / "clear_refs")
    result = run(ROOT, tmp_path)
    assert result.usage is not None and result.usage.memory is None and result.usage.measuring > 0


def test_the_most_memory_is_that_since_it_was_forgotten() -> None:
    if not forget(CPU):
        return  # nothing is promised there
    large = torch.ones(200 * MEGABYTE, dtype=torch.uint8)
    high = peak(CPU)
    del large
    assert forget(CPU)
    assert peak(CPU) <= high - 100 * MEGABYTE


def largest(rank: int) -> tuple[float, int | None, int]:
    watch = Watch(CPU)
    watch.counts = False
    watch.restore({"measuring": (3.0, 5.0)[rank], "memory": (700.0, 600.0)[rank]})
    watch.note()
    made = watch.usage(images=100, seconds=15.0)
    assert made.images_per_second == 10
    return made.measuring, made.memory, made.workers


def test_of_several_workers_the_most_of_any_counts(tmp_path: Path) -> None:
    assert together(largest, tmp_path) == [(5.0, 700, 2), (5.0, 700, 2)]


# What a store has finished


def test_results_come_newest_first_and_what_is_none_is_passed_over(tmp_path: Path) -> None:
    import os

    seeds = [run(stage(seed=seed, epochs=1), tmp_path) for seed in (3, 4, 5)]
    for age, one in enumerate(seeds):
        os.utime(tmp_path / one.key / "result.json", (1000 - age, 1000 - age))
    for name, content in {"torn": '{"format"', "newer": seeds[0].model_dump_json()}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(content)
    newer = json.loads(seeds[0].model_dump_json()) | {"format": FORMAT + 1}
    (tmp_path / "newer" / "result.json").write_text(json.dumps(newer))
    assert list(results(Folder(tmp_path), most=10)) == seeds
    assert list(results(Folder(tmp_path), most=3)) == seeds[:1]  # the two newest cannot be read
    assert list(results(Folder(tmp_path / "nowhere"), most=3)) == []
    assert (tmp_path / "torn" / "result.json").exists(), "looking changes nothing"
