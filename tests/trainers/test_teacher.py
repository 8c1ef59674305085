"""What teaches is what was trained: measured once, and refused when it is not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainers.kept import weights_file
from tests.trainers.stages import CPU, DIGITS, stage
from trainers import build, teacher, visible
from trainers.evaluate import measure
from trainers.result import Result
from trainers.spec import Stage
from trainers.store import Damaged, Store
from trainers.teacher import TOLERANCE, NotTheTeacher, agree, load, verified

STAGE = stage()
DATA = build.dataset(DIGITS)


def stored(store: Store, *, score: float, of: Stage = STAGE) -> Result:
    """A detector of random weights with this score on record."""
    torch.manual_seed(3)
    history = [{"epoch": 1.0, "val/AP": score}]
    weights = build.detector(of).state_dict()
    return store.put(of, weights, score=score, metrics={}, history=history, seconds=1.0, device="cpu")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """How often somebody measured; the figure is .5, as random weights find nothing."""
    done: list[float] = []

    def measured(*_: Any, **__: Any) -> dict[str, float]:
        done.append(0.5)
        return {"AP": 0.5, "AP50": 0.9}

    monkeypatch.setattr(teacher, "measure", measured)
    yield done


def test_a_teacher_has_the_stored_weights_and_does_not_learn(store: Store) -> None:
    result = stored(store, score=0.0)
    torch.manual_seed(11)
    guide = verified(store, STAGE, DATA, device=CPU)
    kept = store.weights(result)
    assert kept.keys() == guide.state_dict().keys()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in guide.state_dict().items())
    assert not any(p.requires_grad for p in guide.parameters())
    assert not any(module.training for module in guide.modules())


def test_weights_are_measured_once(store: Store, measurements: list[float]) -> None:
    stored(store, score=0.5)
    for _ in range(3):
        verified(Store(store.root), STAGE, DATA, device=CPU)
    assert len(measurements) == 1
    load(store, STAGE, device=CPU)
    assert len(measurements) == 1


def test_weights_that_were_stored_anew_are_measured_anew(store: Store, measurements: list[float]) -> None:
    result = stored(store, score=0.5)
    verified(store, STAGE, DATA, device=CPU)
    weights = {name: tensor + 1 for name, tensor in store.weights(result).items()}
    store.put(STAGE, weights, score=0.5, metrics={}, history=[], seconds=1.0, device="cpu")
    verified(store, STAGE, DATA, device=CPU)
    assert len(measurements) == 2


@pytest.mark.parametrize("recorded", [0.5 - 2 * TOLERANCE, 0.5 + 2 * TOLERANCE, 0.0])
def test_another_score_than_the_recorded_is_refused_with_both_figures_every_time(
    store: Store, measurements: list[float], recorded: float
) -> None:
    stored(store, score=recorded)
    for _ in range(2):
        with pytest.raises(NotTheTeacher, match=rf"{STAGE.key} score 0\.5000 but their record says {recorded:.4f}"):
            verified(store, STAGE, DATA, device=CPU)
    assert len(measurements) == 2


def test_a_score_that_was_edited_after_it_was_measured_is_refused(store: Store, measurements: list[float]) -> None:
    stored(store, score=0.5)
    verified(store, STAGE, DATA, device=CPU)
    file = store.root / STAGE.key / "result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "score": 0.7}))
    with pytest.raises(NotTheTeacher, match=r"score 0\.5000 but their record says 0\.7000"):
        verified(store, STAGE, DATA, device=CPU)


def test_the_figure_that_ranks_may_not_be_edited_either(store: Store, measurements: list[float]) -> None:
    stored(store, score=0.5)
    file = store.root / STAGE.key / "result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "metrics": {"val/AP": 0.9, "val/AP50": 0.5}}))
    with pytest.raises(NotTheTeacher, match=r"score 0\.5000 but their record says 0\.9000"):
        verified(store, STAGE, DATA, device=CPU)


@pytest.mark.parametrize("off", [0, 0.5 * TOLERANCE, -0.5 * TOLERANCE])
def test_a_score_of_another_machine_is_accepted_within_the_tolerance(
    store: Store, measurements: list[float], off: float
) -> None:
    result = stored(store, score=0.5 + off)
    verified(store, STAGE, DATA, device=CPU)
    assert store.measured(result)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_figure_that_is_no_number_agrees_with_nothing(store: Store, score: float) -> None:
    with pytest.raises(NotTheTeacher):
        agree(stored(store, score=0.5), score)


def test_real_weights_get_the_score_of_a_real_measurement(store: Store) -> None:
    torch.manual_seed(3)
    real = measure(build.detector(STAGE), DATA, STAGE.recipe, device=CPU)["AP"]
    verified(store, STAGE, DATA, device=CPU) if stored(store, score=real) else None
    stored(store, score=real + 0.1)
    with pytest.raises(NotTheTeacher, match=rf"score {real:.4f} but their record says {real + 0.1:.4f}"):
        verified(store, STAGE, DATA, device=CPU)


def test_it_is_measured_as_its_own_recipe_says(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def measured(detector: Any, data: Any, recipe: Any, **_: Any) -> dict[str, float]:
        seen.append((data, recipe))
        return {"AP": 0.5}

    monkeypatch.setattr(teacher, "measure", measured)
    own = stage(resize=(48, 64))
    stored(store, score=0.5, of=own)
    verified(store, own, DATA, device=CPU)
    assert seen == [(DATA, own.recipe)]


def test_damaged_weights_are_named_before_anything_is_measured(store: Store, measurements: list[float]) -> None:
    stored(store, score=0.5)
    verified(store, STAGE, DATA, device=CPU)
    file = weights_file(store, STAGE.key)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(Damaged, match=f"{STAGE.key} are damaged"):
        verified(store, STAGE, DATA, device=CPU)
    assert len(measurements) == 1


def test_a_teacher_that_is_not_there_is_named_with_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visible, "PATIENCE", 0.0)
    with pytest.raises(NotTheTeacher, match=rf"{STAGE.key} is not in the store {store.root}; run again"):
        verified(store, STAGE, DATA, device=CPU)


def test_loading_draws_as_many_random_numbers_whether_it_was_measured_or_not(store: Store) -> None:
    """Or the weights of a student would depend on whether its teacher had a sibling before."""
    stored(store, score=0.0)
    draws = []
    for _ in range(2):
        torch.manual_seed(0)
        verified(store, STAGE, DATA, device=CPU)
        draws.append(torch.rand(3))
    assert torch.equal(*draws)
