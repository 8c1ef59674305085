"""What is trained is measured once on images on which nothing was selected, where the data has such."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from tests.trainers.stages import CPU, DIGITS, stage
from tests.trainers.two_workers import together
from trainers import build, data, teacher, worker
from trainers.atomic import digest
from trainers.call import Call, Invalid
from trainers.data import COCO, Digits
from trainers.data.digits import write
from trainers.data.split import Split
from trainers.evaluate import find, measure
from trainers.order import Order
from trainers.result import Result
from trainers.selection import kept
from trainers.spec import Stage, Weights
from trainers.store import Store
from trainers.worker import work

TESTED = Call(name="Digits", args={**DIGITS.args, "test": 12}).complete(data)
FOLDER = "TAPATH_TEST_FOLDER"


def one(**changes: Any) -> Stage:
    return stage(**{"epochs": 2, **changes}).model_copy(update={"data": build.contents(TESTED)})


def run(of: Stage, folder: Path, **hooks: Any) -> Result:
    return work(Order(stage=of, data=TESTED, store=str(folder)), device=CPU, **hooks)


class Seen(NamedTuple):
    """What was measured on the test: the split, and the weights that it was measured with."""

    split: Split
    weights: dict[str, torch.Tensor]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    """Has the validation images score 0.25, 0.75, 0.5 and so on after the epochs, and the test always 0.875."""
    noted: list[Seen] = []
    scores = iter([0.25, 0.75, 0.5])

    def look(detector: Any, *_: Any, split: Split | None = None, **__: Any) -> dict[str, float]:
        if split is None:
            return {"AP": next(scores), "AP50": 0.5}
        assert not detector.training and not any(p.requires_grad for p in detector.parameters())
        noted.append(Seen(split, kept(detector)))
        return {"AP": 0.875, "AP50": 0.9375}

    monkeypatch.setattr(worker, "measure", look)
    monkeypatch.setattr(teacher, "check", lambda *_, **__: None)
    return noted


@pytest.mark.parametrize(("select", "score"), [("last", 0.5), ({"best": "AP"}, 0.75)], ids=["last", "best"])
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_what_is_stored_is_measured_on_the_test_once(
    tmp_path: Path, seen: list[Seen], select: Any, score: float, ema: float
) -> None:
    result = run(one(epochs=3, select=select, ema=ema), tmp_path)
    assert result.metrics == {"val/AP": score, "val/AP50": 0.5, "test/AP": 0.875, "test/AP50": 0.9375}
    assert result.score == score, "nothing is ranked by the test"
    assert not any(name.startswith("test/") for entry in result.history for name in entry)
    (there,) = seen
    assert there.split is build.dataset(TESTED).test
    stored = Store(tmp_path).weights(result)
    assert stored.keys() == there.weights.keys()
    assert all(torch.equal(stored[name], there.weights[name]) for name in stored)


def test_a_published_detector_is_measured_there_too(tmp_path: Path) -> None:
    plain = run(one(), tmp_path)
    weights = tmp_path / plain.key / "weights.safetensors"
    Store(tmp_path).keep(weights, digest(weights))
    model = plain.stage.model.model_copy(update={"weights": Weights(sha256=digest(weights))})
    result = run(one().model_copy(update={"model": model}), tmp_path)
    assert result.history == [] and result.metrics == plain.metrics and "test/AP" in result.metrics


def test_it_changes_no_weights_but_is_another_stage(tmp_path: Path) -> None:
    tested = run(one(), tmp_path)
    plain = work(Order(stage=stage(epochs=2), data=DIGITS, store=str(tmp_path)), device=CPU)
    assert plain.sha256 == tested.sha256 and plain.key != tested.key
    assert not any(name.startswith("test/") for name in plain.metrics)


def test_another_split_may_be_measured_than_that_of_validation() -> None:
    found = build.dataset(TESTED)
    metric = build.metric(found)
    detector = build.detector(one())
    assert measure(detector, found, one().recipe, device=CPU, split=found.test).keys() == set(
        metric.figures(found.test)
    )
    every = find(detector, found.test, one().recipe, device=CPU)
    assert every.keys() == set(found.test.ids) and len(every) == 12 != len(found.val)


def test_a_study_that_asks_for_another_test_is_told_that_its_data_changed(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="is not the data of this study any more"):
        work(Order(stage=one(), data=DIGITS, store=str(tmp_path)), device=CPU)


def by_two(rank: int) -> dict[str, float]:
    return run(one(), Path(os.environ[FOLDER]), wrap=DistributedDataParallel).metrics


def test_two_workers_measure_it_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "store"))
    left, right = together(by_two, tmp_path)
    assert left == right
    found, store = build.dataset(TESTED), Store(tmp_path / "store")
    detector = teacher.load(store, one(), device=CPU)
    assert measure(detector, found, one().recipe, device=CPU, split=found.test)["AP"] == left["test/AP"]


def test_the_digits_of_a_test_are_other_scenes_and_can_be_written_and_read(tmp_path: Path) -> None:
    drawn: Digits = build.dataset(TESTED)
    assert drawn.test is not None and len(drawn.test) == 12
    first = [split.read(0) for split in (drawn.train, drawn.val, drawn.test)]
    assert not any(torch.equal(x, y) for x, y in ((first[0], first[1]), (first[1], first[2]), (first[0], first[2])))
    write(drawn, tmp_path / "set")
    coco = COCO(root=str(tmp_path / "set"), test="annotations/instances_test2017.json")
    assert coco.fingerprint == drawn.fingerprint and coco.test is not None
    assert torch.equal(coco.test.read(3), drawn.test.read(3))
    assert COCO(root=str(tmp_path / "set")).fingerprint == build.dataset(DIGITS).fingerprint
