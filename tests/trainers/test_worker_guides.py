"""A stage that all its ancestors teach, from the store to its result."""

from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from tests.trainers.stages import stage
from tests.trainers.works import run
from trainers.spec import Stage
from trainers.store import Store

ROOT = stage(seed=1, epochs=1)
ASSISTANT = stage("LD", teacher=ROOT, seed=2, epochs=1)


def student(**guides: Any) -> Stage:
    """Whom both teach."""
    return stage("LD", {"PKD": {"weight": 1}}, teacher=ASSISTANT, epochs=2, guides={"who": "all", **guides})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the root teacher and the assistant, for copies."""
    folder = tmp_path_factory.mktemp("trained")
    for one in (ROOT, ASSISTANT):
        run(one, folder)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A store in which the teachers are trained already."""
    return copytree(trained, tmp_path / "store")


def test_every_ancestor_teaches_and_each_of_its_losses_is_logged_by_name(folder: Path) -> None:
    history = run(student(), folder).history
    losses = {"loss_ld", "loss_pkd", "loss_ld_of_guide_2", "loss_pkd_of_guide_2"}
    assert {f"train/{name}" for name in losses} <= history[0].keys()
    assert all(history[0][f"train/{name}"] > 0 for name in losses)
    alone = stage("LD", {"PKD": {"weight": 1}}, teacher=ASSISTANT, epochs=2)
    assert run(alone, folder).sha256 != Store(folder).get(student()).sha256


def test_a_stage_with_guides_that_are_dropped_at_random_goes_on_to_the_bit(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    one = student(keep=0.5, balance=False)
    straight = run(one, folder)
    stopped = copytree(trained, tmp_path / "stopped")

    def stop_after_one(entry: dict[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(one, stopped, report=stop_after_one)
    assert run(one, stopped).sha256 == straight.sha256


def test_a_loss_of_one_epoch_is_there_in_that_epoch_alone(folder: Path) -> None:
    one = stage({"LD": {"weight": 2}, "epochs": [2, 2]}, "KD", teacher=ROOT, epochs=3)
    history = run(one, folder).history
    assert [entry["train/loss_ld"] > 0 for entry in history] == [False, True, False]
    assert all(entry["train/loss_kd"] > 0 for entry in history)
