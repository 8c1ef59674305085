"""The best epoch's weights are kept where a recipe says so, and it is recorded which."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.trainers.stages import stage
from tests.trainers.two_workers import together
from tests.trainers.works import Crash, raising_at, run, untimed
from trainers import teacher, worker
from trainers.result import Result
from trainers.selection import Selection
from trainers.spec import Recipe, Stage
from trainers.store import Store

FOLDER = "TAPATH_TEST_FOLDER"
BEST = {"select": {"best": "AP"}, "schedule": "Constant"}  # by a constant rate two epochs are the first two of four


def selection(scores: list[float], select: Any = "best") -> Selection:
    one = Selection(Recipe(select=select), score="AP")
    layer = nn.Linear(1, 1)
    for epoch, score in enumerate(scores, start=1):
        nn.init.constant_(layer.weight, epoch)
        one.offer(epoch, {"val/AP": score, "val/AP50": -score}, layer)
    return one


@pytest.mark.parametrize(
    ("scores", "epoch"),
    [
        ([0.1, 0.3, 0.2], 2),
        ([0.3, 0.3, 0.3], 1),
        ([0.1, 0.3, 0.3, 0.2], 2),
        ([0.0], 1),
        ([-0.9, -0.8], 2),
        ([float("nan"), -0.9, float("nan")], 2),
        ([float("nan"), float("nan")], 1),
    ],
)
def test_the_first_of_the_best_epochs_is_kept_as_it_was(scores: list[float], epoch: int) -> None:
    one = selection(scores)
    assert one.epoch == epoch and one.weights["weight"] == epoch
    torch.testing.assert_close(one.metrics["val/AP"], scores[epoch - 1], equal_nan=True)


def test_it_may_be_the_best_by_another_figure_than_the_score() -> None:
    assert selection([0.1, 0.3, 0.2], {"best": "AP50"}).epoch == 1


def test_nothing_is_kept_where_the_last_counts() -> None:
    one = selection([0.1, 0.3], "last")
    assert one.epoch is None and not one.weights and not one.metrics


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has the epochs measured one after another score these, and what is read back the highest of them, or that."""

    def script(*scores: float, read: float | None = None) -> None:
        left: Iterator[float] = iter(scores)
        monkeypatch.setattr(worker, "measure", lambda *_, **__: {"AP": next(left), "AP50": 0.5})
        monkeypatch.setattr(teacher, "measure", lambda *_, **__: {"AP": read or max(scores), "AP50": 0.5})

    return script


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_what_is_stored_is_the_best_epoch_with_its_figures(
    tmp_path: Path, scored: Callable[..., None], ema: float
) -> None:
    scored(0.25, 0.75, 0.75, 0.5)
    result = run(stage(epochs=4, ema=ema, **BEST), tmp_path)
    assert result.selected == 2 and result.score == result.metrics["val/AP"] == 0.75
    assert [entry["val/AP"] for entry in result.history] == [0.25, 0.75, 0.75, 0.5]
    scored(0.25, 0.75)
    short = run(stage(epochs=2, ema=ema, schedule="Constant"), tmp_path)
    assert result.sha256 == short.sha256 and short.selected is None
    scored(0.25, 0.75, 0.75, 0.5, read=0.5)
    whole = run(stage(epochs=4, ema=ema, schedule="Constant"), tmp_path)
    assert whole.selected is None and whole.score == 0.5 and whole.sha256 != result.sha256


@pytest.mark.parametrize("left_after", [1, 2, 3])
def test_an_interrupted_training_keeps_what_was_the_best_before(
    tmp_path: Path, scored: Callable[..., None], left_after: int
) -> None:
    one = stage(epochs=4, ema=0.5, **BEST)
    scored(0.25, 0.75, 0.5, 0.5)
    straight = run(one, tmp_path / "straight")
    scored(0.25, 0.75, 0.5, 0.5)
    with pytest.raises(Crash):
        run(one, tmp_path, report=raising_at(left_after, Crash()))
    result = run(one, tmp_path)
    assert result.selected == straight.selected == 2 and result.sha256 == straight.sha256
    assert untimed(result.history) == untimed(straight.history)
    assert not list((tmp_path / one.key).glob("state*"))


def test_how_often_somebody_wants_to_look_does_not_change_what_is_kept(tmp_path: Path) -> None:
    one = stage(epochs=3, **BEST)
    often, seldom = (run(one, tmp_path / str(every), evaluate_every=every) for every in (1, 100))
    assert often.sha256 == seldom.sha256 and often.selected == seldom.selected
    assert all("val/AP" in entry for entry in seldom.history)


def test_what_was_kept_teaches_and_has_its_score_when_it_is_read_back(tmp_path: Path) -> None:
    root = stage(epochs=3, seed=7, **BEST)
    result = run(root, tmp_path)
    scores = [entry["val/AP"] for entry in result.history]
    assert result.selected == scores.index(max(scores)) + 1 and result.score == max(scores)
    assert Store(tmp_path).measured(result)
    assert run(stage("KD", teacher=root, epochs=1), tmp_path).selected is None


def by_two(rank: int) -> Result:
    return run(stage(epochs=2, **BEST), Path(os.environ[FOLDER]), wrap=DistributedDataParallel)


def test_two_workers_select_the_same_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "store"))
    left, right = together(selected_by_two, tmp_path)
    stored = Store(tmp_path / "store").get(stage(epochs=2, **BEST))
    assert stored is not None and left == right == {"selected": stored.selected, "score": stored.score}


def selected_by_two(rank: int) -> dict[str, Any]:
    result = by_two(rank)
    return {"selected": result.selected, "score": result.score}


# What identifies it


def test_what_is_kept_and_by_which_figure_is_part_of_the_key() -> None:
    one = stage()
    keys = [with_recipe(one, select=select).key for select in ("last", "best", {"best": "AP"}, {"best": "AP50"})]
    assert keys[0] == one.key and len(set(keys)) == 4


def with_recipe(one: Stage, **changes: Any) -> Stage:
    return one.model_copy(update={"recipe": Recipe(**{**dict(one.recipe), **changes})})


def test_the_best_is_that_by_the_score_which_is_then_said() -> None:
    assert Recipe(select="best").selecting("AP50").select == Recipe(select={"best": "AP50"}).select
    assert Recipe().selecting("AP50") == Recipe() and Recipe(select="best").selecting("") == Recipe(select="best")


@pytest.mark.parametrize("select", ["first", "Best", None, 3, {}, {"best": 3}, {"best": "AP", "of": 3}, ["best"]])
def test_what_is_neither_the_last_nor_the_best_is_refused(select: Any) -> None:
    with pytest.raises(ValueError, match="write last or best"):
        Recipe(select=select)
