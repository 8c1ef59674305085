"""A stage that all its ancestors teach, from the store to its result."""

from pathlib import Path
from typing import Any

import pytest

from tests.trainers.stages import stage
from tests.trainers.works import run
from trainers.spec import Stage
from trainers.store import Store


def chain(folder: Path, **guides: Any) -> tuple[Stage, Stage, Stage]:
    """A root teacher and an assistant, both trained, and a student that both teach."""
    root = stage(seed=1, epochs=1)
    assistant = stage("LD", teacher=root, seed=2, epochs=1)
    student = stage("LD", {"PKD": {"weight": 1}}, teacher=assistant, epochs=2, guides={"who": "all", **guides})
    for one in (root, assistant):
        run(one, folder)
    return root, assistant, student


def test_every_ancestor_teaches_and_each_of_its_losses_is_logged_by_name(tmp_path: Path) -> None:
    _, assistant, student = chain(tmp_path)
    history = run(student, tmp_path).history
    losses = {"loss_ld", "loss_pkd", "loss_ld_of_guide_2", "loss_pkd_of_guide_2"}
    assert {f"train/{name}" for name in losses} <= history[0].keys()
    assert all(history[0][f"train/{name}"] > 0 for name in losses)
    alone = stage("LD", {"PKD": {"weight": 1}}, teacher=assistant, epochs=2)
    assert run(alone, tmp_path).sha256 != Store(tmp_path).get(student).sha256  # type: ignore[union-attr]


def test_a_stage_with_guides_that_are_dropped_at_random_goes_on_to_the_bit(tmp_path: Path) -> None:
    *_, student = chain(tmp_path / "straight", keep=0.5, balance=False)
    straight = run(student, tmp_path / "straight")
    chain(tmp_path / "stopped", keep=0.5, balance=False)

    def stop_after_one(entry: dict[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(student, tmp_path / "stopped", report=stop_after_one)
    assert run(student, tmp_path / "stopped").sha256 == straight.sha256


def test_a_loss_of_one_epoch_is_there_in_that_epoch_alone(tmp_path: Path) -> None:
    root = stage(seed=1, epochs=1)
    run(root, tmp_path)
    one = stage({"LD": {"weight": 2}, "epochs": [2, 2]}, "KD", teacher=root, epochs=3)
    history = run(one, tmp_path).history
    assert [entry["train/loss_ld"] > 0 for entry in history] == [False, True, False]
    assert all(entry["train/loss_kd"] > 0 for entry in history)
